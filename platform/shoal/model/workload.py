"""What a person asks for (:class:`Workload`) and what it was settled to (:class:`Plan`).

Why it exists: these two values travel everywhere: through sizing and admission, into the store, to the
head and back to the person. They are plain data; ``model.codec`` makes JSON of them and reads it back.

What it must not do: decide anything (that is ``sizing`` and ``admission``) or do I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from shoal.errors import UsageError
from shoal.units import Bytes, Money, Seconds


class Engine(StrEnum):
    """The engines a cluster can run."""

    DASK = "dask"
    SPARK = "spark"


class Via(StrEnum):
    """Who makes a Dask cluster's pods on Kubernetes: the governor itself, or dask-kubernetes' operator for it."""

    PODS = "pods"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Workload:
    """What is asked for. None means: not said, the template decides.

    ``data`` is the size of the input on disk; ``workers`` either a number or ``(min, max)``; ``memory`` and
    ``cores`` are per worker; ``spot`` is a share from 0 to 1; ``max_duration`` how long at most;
    ``packages`` are pip requirements that the workers get; ``queue`` whether to wait for quota; ``priority``
    orders what waits within a team, higher first.
    """

    template: str
    engine: Engine | None = None
    data: Bytes | None = None
    workers: int | tuple[int, int] | None = None
    cores: int | None = None
    memory: Bytes | None = None
    gpu: int | None = None
    spot: float | None = None
    max_duration: Seconds | None = None
    idle: Seconds | None = None
    no_client: Seconds | None = None
    packages: tuple[str, ...] = ()
    queue: bool = False
    priority: int = 0


@dataclass(frozen=True)
class ScriptRun:
    """A script that its home runs beside the cluster, which ends with it.

    ``script``: its file, as whoever submitted it calls it; ``function``: what is called in it ("": it is run as it
    is). ``code``: the digest of the archive in which it travels, with what it imports and its project's files.
    """

    script: str
    function: str = ""
    arguments: tuple[str, ...] = ()
    code: str = ""


@dataclass(frozen=True)
class Size:
    """Cores and memory of one process or pod."""

    cores: float
    memory: Bytes


@dataclass(frozen=True)
class Group:
    """One kind of worker.

    ``minimum <= count <= maximum``: count is what the cluster starts with. ``size`` is what a worker was
    asked for and what quota counts; ``there`` is how big it really is at the target (a laptop's are
    smaller). ``gpus`` and ``scratch`` are per worker; ``spot`` is the share of spot machines, 0 to 1.
    """

    name: str
    minimum: int
    count: int
    maximum: int
    size: Size
    there: Size
    gpus: int = 0
    spot: float = 0.0
    scratch: Bytes = Bytes(0)


@dataclass(frozen=True)
class Timeouts:
    """When a cluster ends on its own: nothing computed, no client connected, whole life."""

    idle: Seconds
    no_client: Seconds
    max: Seconds

    def lasting(self, longest: Seconds) -> Timeouts:
        """The same with another maximum lifetime. Without a no-client limit of its own, it stays without one."""
        unlimited = self.no_client >= self.max
        return replace(self, max=longest, no_client=longest if unlimited else self.no_client)

    def longest(self, said: str | Seconds) -> Seconds:
        """A maximum lifetime as people say it: ``"6 h"`` in all, or ``"+1 h"`` more than now. UnitError."""
        if not isinstance(said, str) or not said.startswith("+"):
            return Seconds.parse(said)
        return Seconds(self.max + Seconds.parse(said[1:]))


class Why(str):
    """Why a number of a plan is as it is: a sentence. Stored as that alone.

    ``lowered`` are the parts of it that say what a limit made smaller, by which limit, and what that costs; empty in
    what was read from a store.
    """

    lowered: tuple[str, ...]

    def __new__(cls, text: str, lowered: tuple[str, ...] = ()) -> Why:
        made = super().__new__(cls, text)
        made.lowered = lowered
        return made

    def __reduce__(self) -> tuple[type[Why], tuple[str, tuple[str, ...]]]:
        return Why, (str(self), self.lowered)


@dataclass(frozen=True)
class Plan:
    """Every number of a cluster, settled, and why each. Made by ``sizing``, stored with the cluster.

    ``head`` is what quota counts for the head, ``reasons`` one sentence (:class:`Why`) per number, by its name
    (``"workers"``, ``"memory"``, ``"cores"``, ``"head"``, ``"timeouts"``, ``"price"``, …).
    ``head_there`` is how big the head really is at the target (None: as ``head``).
    ``price_per_hour`` is for all workers at ``count`` and the head, ``worker_price`` for one worker more of the
    first group; None where no prices are known. ``worker_prices`` are those of every group, where there are several;
    ``fallbacks`` says, by group, how long a worker waits for a spot machine before it gets another one.
    ``mounts`` are names of shared folders of the project, ``secrets`` those of Kubernetes Secrets for the environment.
    ``may_last`` is the maximum lifetime that the policy gave when it was planned (None: no limit, or not known).
    ``runner``: its home runs a script beside it, with as much memory and as many cores as the head has, which count as
    the head's do. ``via``: who makes its pods, where it has any.
    """

    template: str
    engine: Engine
    target: str
    head: Size
    groups: tuple[Group, ...]
    timeouts: Timeouts
    image: str = ""
    conf: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    price_per_hour: Money | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    head_there: Size | None = None
    mounts: tuple[str, ...] = ()
    worker_price: Money | None = None
    may_last: Seconds | None = None
    runner: bool = False
    worker_prices: Mapping[str, Money] = field(default_factory=dict)
    fallbacks: Mapping[str, Seconds] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    via: Via = Via.PODS

    def group(self, name: str = "") -> Group:
        """The group of that name; the first one without a name. UsageError where there is none of that name."""
        for group in self.groups:
            if name in ("", group.name):
                return group
        from shoal.words import did_you_mean

        known = [group.name for group in self.groups]
        raise UsageError(
            f"{self.template} has no group of workers {name!r}",
            hint=f"{did_you_mean(name, known)}.",
            group=name,
        )

    def price_of(self, group: str) -> Money | None:
        """An hour of one worker of a group; None where that is not known."""
        return self.worker_price if group == self.groups[0].name else self.worker_prices.get(group)

    @property
    def workers(self) -> int:
        """Workers at the start, over all groups."""
        return sum(group.count for group in self.groups)

    @property
    def by_group(self) -> str:
        """How many of each group: ``"3 cpu, 1 gpu"``."""
        return ", ".join(f"{group.count} {group.name}" for group in self.groups)
