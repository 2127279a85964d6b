"""What an administrator adds to the pods of a Kubernetes target (``kubernetes: pod:`` in ``shoal.yaml``).

Why it exists: places differ in what their pods need (pull secrets, a cloud's identity, proxies, tolerations), and none
of it is Shoal's business. What Shoal answers for (names, sizes, who the pod is, how long it lives, what runs in it) can
not be changed here, and whoever tries is told so with file, line and field.

What it must not do: know what Shoal's pods look like, or merge.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from shoal.errors import ContradictionError
from shoal.project.settings import Checked, Text


def _refuse(hint: str) -> BeforeValidator:
    def refuse(_: Any) -> Any:
        raise ContradictionError("is set by Shoal alone", hint=hint)

    return BeforeValidator(refuse)


_Owned = Annotated[Any, _refuse("leave it out")]
_Size = Annotated[Any, _refuse("leave it out: sizes are the template's (cores, memory, gpus, scratch)")]
_Life = Annotated[Any, _refuse("leave it out: how long a pod lives follows from the tier's max_duration")]
_Program = Annotated[
    Any, _refuse("leave it out: images are in images:, and Shoal runs its own program in them")
]
_Beside = Annotated[Any, _refuse("leave it out: what runs beside a worker would count in nobody's quota")]
_Named = Annotated[Any, _refuse("name the Secret under kubernetes: secrets: instead")]

_OUR_LABELS = ("shoal.dev/", "app.kubernetes.io/managed-by", "app.kubernetes.io/instance")
_OUR_VARIABLES = ("SHOAL_", "DASK_", "PYTHON", "LD_", "HOME", "TMPDIR", "PATH")


def _not_ours(key: str) -> str:
    if key.startswith(_OUR_LABELS):
        raise ContradictionError("is set by Shoal alone", hint="choose a key of your own")
    return key


def _not_our_variable(name: str) -> str:
    if name.startswith(_OUR_VARIABLES):
        raise ContradictionError(f"{name} is set by Shoal alone", hint="choose another name")
    return name


def _not_our_volume(name: str) -> str:
    if name in ("scratch", "access") or name.startswith("mount-"):
        raise ContradictionError(f"{name!r} is a volume of Shoal's own", hint="choose another name")
    return name


_Key = Annotated[str, AfterValidator(_not_ours)]
_Open = dict[str, Any]


class PatchMetadata(Checked):
    """Labels and annotations beside Shoal's own, for example a cloud's identity."""

    labels: dict[_Key, Text] = Field(default_factory=dict)
    annotations: dict[_Key, Text] = Field(default_factory=dict)
    name: _Owned = None
    generateName: _Owned = None
    namespace: _Owned = None
    ownerReferences: _Owned = None
    finalizers: _Owned = None


class Variable(Checked):
    """A variable of the environment, in Kubernetes' own words."""

    name: Annotated[str, AfterValidator(_not_our_variable)]
    value: Text | None = None
    valueFrom: _Open | None = None


class Volume(Checked, extra="allow"):
    """A volume beside Shoal's own; what it is of is Kubernetes' to check."""

    name: Annotated[str, AfterValidator(_not_our_volume)]


class PatchContainer(Checked):
    """What is added to the one container of a pod."""

    env: tuple[Variable, ...] = ()
    volumeMounts: tuple[_Open, ...] = ()
    name: _Owned = None
    image: _Program = None
    imagePullPolicy: _Program = None
    command: _Program = None
    args: _Program = None
    workingDir: _Program = None
    lifecycle: _Program = None
    envFrom: _Named = None
    ports: _Owned = None
    resources: _Size = None
    securityContext: _Owned = None
    livenessProbe: _Owned = None
    readinessProbe: _Owned = None
    startupProbe: _Owned = None


class PatchSpec(Checked):
    """What is added to a pod's ``spec``: where it goes, with whose pull secrets, what it sees."""

    affinity: _Open | None = None
    containers: Annotated[tuple[PatchContainer, ...], Field(max_length=1)] = ()
    dnsConfig: _Open | None = None
    dnsPolicy: str | None = None
    hostAliases: tuple[_Open, ...] = ()
    imagePullSecrets: tuple[_Open, ...] = ()
    nodeSelector: dict[str, Text] = Field(default_factory=dict)
    runtimeClassName: str | None = None
    schedulerName: str | None = None
    tolerations: tuple[_Open, ...] = ()
    topologySpreadConstraints: tuple[_Open, ...] = ()
    volumes: tuple[Volume, ...] = ()
    activeDeadlineSeconds: _Life = None
    terminationGracePeriodSeconds: _Life = None
    restartPolicy: _Life = None
    resources: _Size = None
    initContainers: _Beside = None
    ephemeralContainers: _Beside = None
    securityContext: _Owned = None
    serviceAccount: _Owned = None
    serviceAccountName: _Owned = None
    automountServiceAccountToken: _Owned = None
    enableServiceLinks: _Owned = None
    priorityClassName: _Owned = None
    priority: _Owned = None
    nodeName: _Owned = None
    schedulingGates: _Owned = None
    hostNetwork: _Owned = None
    hostPID: _Owned = None
    hostIPC: _Owned = None
    hostUsers: _Owned = None
    hostname: _Owned = None
    subdomain: _Owned = None


class PodPatch(Checked):
    """What is added to every pod of a target, last of all."""

    as_it_stands: ClassVar[bool] = True  # where it is stored: the words are Kubernetes' own

    metadata: PatchMetadata = PatchMetadata()
    spec: PatchSpec = PatchSpec()
    status: _Owned = None
    apiVersion: _Owned = None
    kind: _Owned = None
