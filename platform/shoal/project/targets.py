"""Targets: where clusters live, and what is there (``targets:`` in ``shoal.yaml``).

Why it exists: the same code runs on a laptop and on Kubernetes; a target is what differs between the two.

What it must not do: read files or look at the machine (``project``), or settle numbers (``sizing``).
"""

from __future__ import annotations

import re
from decimal import Decimal
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from shoal.errors import ContradictionError
from shoal.model.homes import HomeKind
from shoal.model.workload import Group, Size, Via
from shoal.project.network import Network
from shoal.project.patch import PodPatch
from shoal.project.settings import Checked, Natural, ObjectName, Share, SizeOf, Text
from shoal.units import Bytes, Money, Seconds

GIB = 1024**3


class Machine(Checked):
    """What the place holds for clusters. None: to be looked up on this machine."""

    cores: Annotated[float, Field(gt=0)] | None = None
    memory: Bytes | None = None
    gpus: Natural = 0


class Prices(Checked):
    """What an hour costs: per core, per GiB of memory, per GPU.

    ``spot`` is what a spot machine costs as a share of the full price.
    """

    core: Money
    gib: Money
    gpu: Money | None = None
    spot: Share = 1.0

    @model_validator(mode="after")
    def _one_currency(self) -> Prices:
        currencies = {money.currency for money in (self.core, self.gib, self.gpu) if money}
        if len(currencies) > 1:
            raise ContradictionError(
                f"prices are in {' and '.join(sorted(currencies))}", hint="write all of them in one currency"
            )
        return self

    @property
    def currency(self) -> str:
        return self.core.currency

    def hour(self, size: Size, gpus: int = 0) -> Money:
        """One hour of one process or pod of ``size``, at the full price."""
        amount = Decimal(str(size.cores)) * self.core.amount
        amount += Decimal(int(size.memory)) / GIB * self.gib.amount
        amount += gpus * (self.gpu.amount if self.gpu else Decimal(0))
        return Money(amount, self.currency)

    def worker_hour(self, group: Group) -> Money:
        """One hour of a worker of ``group``, its spot share counted in."""
        share = Decimal(str(group.spot))
        full = self.hour(group.there, group.gpus).amount
        return Money(full * (1 - share + share * Decimal(str(self.spot))), self.currency)


class Catalog(Checked):
    """The Iceberg catalog: its URI, where its files lie, further properties. May hold secrets: no repr.

    ``credentials``: a file with S3's keys, in the form of AWS's own, which is read again when it changes.
    ``timeout``: for how long a catalog or a storage that is down, or asks to slow down, is tried.
    """

    uri: str | None = Field(default=None, repr=False)
    warehouse: str | None = None
    properties: dict[str, Text] = Field(default_factory=dict, repr=False)
    credentials: str | None = None
    timeout: Seconds = Seconds(30)


class Mount(Checked):
    """A shared folder: where head and workers see it, and on Kubernetes the claim (PersistentVolumeClaim of the user's
    namespace) behind it.
    """

    path: str
    claim: ObjectName | None = None
    read_only: bool = True


def _literal(value: str) -> str:
    if "${" in value:
        raise ContradictionError(
            f"{value!r} is not read from the environment: only `catalog:` and `store:` of a target are",
            hint="write it out, or choose between two targets",
        )
    return value


Literally = Annotated[str, AfterValidator(_literal)]


class Image(Checked):
    """A container image by name (``images/images.yaml``): its reference, and the folder it is built from."""

    reference: Literally
    build: str | None = None


def installed_homes() -> dict[str, EntryPoint]:
    """The homes that installed packages bring, by name. It reads the metadata of all of them."""
    return {found.name: found for found in entry_points(group="shoal.homes")}


def _known_home(name: str) -> str:
    if name not in (own := list(map(str, HomeKind))) and name not in (others := installed_homes()):
        *most, last = (repr(known) for known in (*own, *sorted(others)))
        raise ContradictionError(f"{name!r} is not one of them", hint=f"write {', '.join(most)} or {last}")
    return name


def _auto(value: Any) -> Any:
    if isinstance(value, str) and value != "auto":
        raise ContradictionError(
            f"{value!r} is not a machine",
            hint=f"write auto, or a mapping with the keys {', '.join(Machine.model_fields)}",
        )
    return {} if value == "auto" else value


class Toleration(Checked):
    """A taint that a pod stands, in Kubernetes' own words."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: Text | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Nodes(Checked):
    """On which nodes pods go: labels that these have, and taints that the pods tolerate."""

    selector: dict[str, Text] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


class Beside(Checked):
    """What pods of no cluster may take in each user's namespace (``beside:`` of a target's ``kubernetes:``):
    a notebook's, a flow's; and what the place adds to clusters' pods.
    """

    pods: Annotated[int, Field(ge=0)] = 0
    cores: Annotated[float, Field(ge=0)] = 0.0
    memory: Bytes = Bytes(0)
    scratch: Bytes = Bytes(0)


class GovernorPod(Checked):
    """The governor as it runs on Kubernetes (``governor:`` of a target's ``kubernetes:``).

    ``deployed``: whether `shoal apply` and `shoal render` bring it (else somebody runs it otherwise). ``image``: by
    name. ``cores``, ``memory``: what it gets. ``port``: where it answers /healthz and /readyz.
    """

    deployed: bool = True
    image: str = "shoal-dask"
    cores: Annotated[float, Field(gt=0)] = 0.5
    memory: Bytes = Bytes(512_000_000)
    port: Annotated[int, Field(ge=1024, le=65535)] = 8080


class Cloud(Checked):
    """Where on Kubernetes (``kubernetes:`` of a target whose home it is).

    ``context``: of the kubeconfig (None: its current one, or the pod's own account). ``namespace``: that is asked in
    (None: the context's). ``system``: where accounts and the governor are. ``namespaces``: those that the governor
    looks after (empty: all). ``spot``, ``gpu``: on which nodes workers go that take a spot machine (None: there are
    none) or have GPUs. ``secrets``: Secrets of the user's namespace whose entries every head and worker has in its
    environment. ``pod``: what is added to the pods of heads and workers. ``project``: what this project is called there
    (None: as its folder). ``governor``: how the program that governs there is run. ``beside``: what other pods may take
    in a user's namespace (None: nothing). ``via``: who makes the pods of Dask clusters: the governor (``pods``), or
    dask-kubernetes' operator (``operator``), which has to be installed there. ``network``: whom pods may reach, and who
    may reach them, beside what follows from the project (None: nothing else).
    """

    context: Literally | None = None
    namespace: Literally | None = None
    system: Literally = "shoal-system"
    namespaces: tuple[Literally, ...] = ()
    spot: Nodes | None = None
    gpu: Nodes | None = None
    secrets: tuple[ObjectName, ...] = ()
    pod: PodPatch | None = None
    project: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    governor: GovernorPod = GovernorPod()
    beside: Beside | None = None
    via: Via = Via.PODS
    network: Network | None = None


class Target(Checked):
    """One of ``targets:``.

    ``home``: where clusters live: ``local``, ``kubernetes``, or one that an installed package brings
    (entry points of the group ``shoal.homes``).
    ``worker`` and ``head``: how big one really is there, at most (None: as asked for). ``machine``: what the
    place holds (None: not known here, as on Kubernetes). ``store``: the ledger's SQLAlchemy URL (None: SQLite
    in the user's data folder). ``kubernetes``: where on Kubernetes. ``prices``: None where nobody said what an hour
    costs. ``images``: references that differ here, by image name.
    """

    not_in_file: ClassVar[tuple[str, ...]] = ("name",)

    name: str = ""
    home: Annotated[str, AfterValidator(_known_home)]
    worker: SizeOf | None = None
    head: SizeOf | None = None
    machine: Annotated[Machine | None, BeforeValidator(_auto)] = None
    store: str | None = Field(default=None, repr=False)
    catalog: Catalog | None = None
    prices: Prices | None = None
    kubernetes: Cloud | None = None
    images: dict[str, Literally] = Field(default_factory=dict)

    @property
    def in_pods(self) -> bool:
        """Whether heads and workers are pods, which run in images and see no file of one machine."""
        return self.home == HomeKind.KUBERNETES

    @property
    def in_processes(self) -> bool:
        """Whether heads and workers are processes beside the user's own."""
        return self.home == HomeKind.LOCAL

    @property
    def place(self) -> str:
        """A short word for where clusters live: targets of one ledger or namespace share it, in all projects.

        Empty for the ledger in the user's data folder. It does not change with a store's password.
        """
        if self.in_processes and self.store is None:
            return ""
        cloud = self.kubernetes or Cloud()
        where = (
            self.home,
            *(("",) if self.in_processes or self.in_pods else (self.name,)),
            re.sub(r"(://[^:/@]*):.*@", r"\1@", self.store or ""),
            *(cloud.context or "", cloud.namespace or "", cloud.system),
        )
        return sha256("\n".join(where).encode()).hexdigest()[:12]

    @property
    def has_spot(self) -> bool:
        """Whether workers may be on spot machines here, as far as the project's files say."""
        if self.in_processes or self.via is Via.OPERATOR:  # whose workers of one group are all alike
            return False
        return self.kubernetes is None or self.kubernetes.spot is not None

    @property
    def via(self) -> Via:
        """Who makes the pods of Dask clusters here, where there are any."""
        return Via.PODS if self.kubernetes is None else self.kubernetes.via

    def there(self, asked: Size, limit: SizeOf | None) -> Size:
        """How big something asked for as ``asked`` really is here, where ``limit`` is the most."""
        if limit is None:
            return asked
        return Size(min(asked.cores, limit.cores), min(asked.memory, limit.memory))
