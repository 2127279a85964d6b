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


_Ours = Annotated[Any, _refuse("leave it out")]
_SizeOfOurs = Annotated[Any, _refuse("leave it out: sizes are the template's (cores, memory, gpus, scratch)")]
_LifeOfOurs = Annotated[
    Any, _refuse("leave it out: how long a pod lives follows from the tier's max_duration")
]
_ProgramOfOurs = Annotated[
    Any, _refuse("leave it out: images are in images:, and Shoal runs its own program in them")
]
_NothingBeside = Annotated[
    Any, _refuse("leave it out: what runs beside a worker would count in nobody's quota")
]
_SecretByName = Annotated[Any, _refuse("name the Secret under kubernetes: secrets: instead")]

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


_OwnKey = Annotated[str, AfterValidator(_not_ours)]
_AnyMapping = dict[str, Any]


class PatchMetadata(Checked):
    """Labels and annotations beside Shoal's own, for example a cloud's identity."""

    labels: dict[_OwnKey, Text] = Field(default_factory=dict)
    annotations: dict[_OwnKey, Text] = Field(default_factory=dict)
    name: _Ours = None
    generateName: _Ours = None
    namespace: _Ours = None
    ownerReferences: _Ours = None
    finalizers: _Ours = None


class Variable(Checked):
    """A variable of the environment, in Kubernetes' own words."""

    name: Annotated[str, AfterValidator(_not_our_variable)]
    value: Text | None = None
    valueFrom: _AnyMapping | None = None


class Volume(Checked, extra="allow"):
    """A volume beside Shoal's own; what it is of is Kubernetes' to check."""

    name: Annotated[str, AfterValidator(_not_our_volume)]


class PatchContainer(Checked):
    """What is added to the one container of a pod."""

    env: tuple[Variable, ...] = ()
    volumeMounts: tuple[_AnyMapping, ...] = ()
    name: _Ours = None
    image: _ProgramOfOurs = None
    imagePullPolicy: _ProgramOfOurs = None
    command: _ProgramOfOurs = None
    args: _ProgramOfOurs = None
    workingDir: _ProgramOfOurs = None
    lifecycle: _ProgramOfOurs = None
    envFrom: _SecretByName = None
    ports: _Ours = None
    resources: _SizeOfOurs = None
    securityContext: _Ours = None
    livenessProbe: _Ours = None
    readinessProbe: _Ours = None
    startupProbe: _Ours = None


class PatchSpec(Checked):
    """What is added to a pod's ``spec``: where it goes, with whose pull secrets, what it sees."""

    affinity: _AnyMapping | None = None
    containers: Annotated[tuple[PatchContainer, ...], Field(max_length=1)] = ()
    dnsConfig: _AnyMapping | None = None
    dnsPolicy: str | None = None
    hostAliases: tuple[_AnyMapping, ...] = ()
    imagePullSecrets: tuple[_AnyMapping, ...] = ()
    nodeSelector: dict[str, Text] = Field(default_factory=dict)
    runtimeClassName: str | None = None
    schedulerName: str | None = None
    tolerations: tuple[_AnyMapping, ...] = ()
    topologySpreadConstraints: tuple[_AnyMapping, ...] = ()
    volumes: tuple[Volume, ...] = ()
    activeDeadlineSeconds: _LifeOfOurs = None
    terminationGracePeriodSeconds: _LifeOfOurs = None
    restartPolicy: _LifeOfOurs = None
    resources: _SizeOfOurs = None
    initContainers: _NothingBeside = None
    ephemeralContainers: _NothingBeside = None
    securityContext: _Ours = None
    serviceAccount: _Ours = None
    serviceAccountName: _Ours = None
    automountServiceAccountToken: _Ours = None
    enableServiceLinks: _Ours = None
    priorityClassName: _Ours = None
    priority: _Ours = None
    nodeName: _Ours = None
    schedulingGates: _Ours = None
    hostNetwork: _Ours = None
    hostPID: _Ours = None
    hostIPC: _Ours = None
    hostUsers: _Ours = None
    hostname: _Ours = None
    subdomain: _Ours = None


class PodPatch(Checked):
    """What is added to every pod of a target, last of all."""

    as_it_stands: ClassVar[bool] = True  # where it is stored: the words are Kubernetes' own

    metadata: PatchMetadata = PatchMetadata()
    spec: PatchSpec = PatchSpec()
    status: _Ours = None
    apiVersion: _Ours = None
    kind: _Ours = None
