"""The ports of a home: what everything above it may ask of the place where clusters live.

Why it exists: handles, CLI and heads work alike on a laptop and on Kubernetes because they speak to these, and to
nothing below them: ``Home`` for whoever uses clusters, ``Desk`` for the head of one.

What it must not do: know any home, or decide (decisions come from the pure core, as values).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from shoal.errors import ShoalError, UsageError
from shoal.machine.pages import by_proxy
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.endpoint import Endpoint
from shoal.model.status import Event, HeadStatus
from shoal.model.workload import Plan, ScriptRun, Workload
from shoal.units import Seconds

if TYPE_CHECKING:
    from shoal.governor.periods import Periods
    from shoal.model.checks import Check
    from shoal.model.report import Usage
    from shoal.model.stand import Stand
    from shoal.quota.account import Account
    from shoal.quota.admission import Decision
    from shoal.quota.budgets import BudgetStatus


@dataclass(frozen=True)
class Request:
    """One request for a cluster: who asks for what, and what it was settled to.

    ``name`` is unique among the owner's live clusters; asking again under the name of a live one gives that
    cluster, if it is what is asked for (``homes.same``). ``id`` is what a new cluster is to be known by
    (default: the home chooses): whoever gives one knows by it whether the cluster is new. ``run``: the script that
    is to run beside it, at a home that does so (:class:`RunsScripts`).
    """

    name: str
    owner: str
    workload: Workload
    plan: Plan
    tags: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None
    run: ScriptRun | None = None


class Wrote(StrEnum):
    """Whose lines of a cluster's log: everybody's, its head's, its workers'."""

    ANYBODY = "anybody"
    HEAD = "head"
    WORKERS = "workers"


class Home(Protocol):
    """A place where clusters live. All methods may be called again with the same arguments.

    Made from a project (``homes.choose``), which is cheap: what it connects to is connected to at the first use.
    It can be pickled and copied, for a handle can.
    """

    @property
    def name(self) -> str: ...

    def user(self) -> str:
        """Who is asking."""
        ...

    def request(self, request: Request) -> Cluster:
        """One decision: an admitted (or queued) record with its head started, or QuotaExceeded."""
        ...

    def would(self, request: Request) -> Decision:
        """What :meth:`request` would decide now; changes nothing."""
        ...

    def held(self, owner: str, *, team: bool = False) -> Account:
        """What the owner's live clusters hold, in the amounts that limits count. Where that may not be seen, an error.

        ``team``: ``owner`` is a team, for what all of its members hold together.
        """
        ...

    def get(self, cluster_id: str) -> Cluster:
        """The record by id; NotFoundError."""
        ...

    def find(self, name: str, owner: str) -> Cluster | None:
        """The owner's live cluster of that name, else the last ended one, else None."""
        ...

    def clusters(self, *, owner: str | None = None, ended: bool = False) -> list[Cluster]:
        """Records, newest first; live ones only unless ``ended``."""
        ...

    def attend(self, cluster_id: str) -> None:
        """This process waits for a cluster that is in the queue, as whoever requested it does.

        Once all who said so are gone, for the cluster's no-client time, the request ends, where a home can see that.
        """
        ...

    def stop(self, cluster_id: str, reason: Reason, message: str) -> Cluster:
        """Ask a cluster to end. Returns at once; :meth:`get` tells when it has."""
        ...

    def remains(self, cluster_id: str) -> bool:
        """Whether anything of it still runs: an ended cluster's last process or pod takes a moment."""
        ...

    def scale(self, cluster_id: str, workers: int, group: str = "") -> Cluster:
        """Set how many workers are wanted in a group (empty: the first one).

        It goes through admission when it grows (QuotaExceeded); UsageError where there is no such group.
        """
        ...

    def extend(self, cluster_id: str, longest: Seconds) -> Cluster:
        """Let a cluster live ``longest`` in all, from its admission.

        NeverFitsError where the policy gives less, UsageError where it has lived that long already.
        """
        ...

    def note_exit(self, cluster_id: str, code: int) -> None:
        """Note how the script ended that runs on the cluster: ``Cluster.exit_code`` tells it from then on."""
        ...

    def endpoint(self, cluster_id: str) -> Endpoint:
        """Where to connect; InfrastructureError while it is not Ready."""
        ...

    def dashboard(self, cluster_id: str, *, lasting: bool = False) -> str:
        """The link to its engine's own pages, which lets in whoever has it; "" where it has none.

        InfrastructureError while it is not Ready. Where the way there leads through this process, it ends with it;
        ``lasting``: "" then.
        """
        ...

    def status(self, cluster_id: str, timeout: float = 2.0) -> HeadStatus | None:
        """What its head tells now; None when it does not answer within ``timeout`` seconds."""
        ...

    def history(self, cluster_id: str) -> list[Event]:
        """Every state the cluster was in, oldest first."""
        ...

    def unresponsive(self, cluster: Cluster) -> str:
        """What is wrong with its head, in a sentence, as far as it can be seen from here; empty: nothing."""
        ...

    def logs(self, cluster_id: str, lines: int = 200, wrote: Wrote = Wrote.ANYBODY) -> str:
        """The last lines that the head and its children wrote.

        ``wrote`` leaves out what the place keeps apart by who wrote it; what it keeps together comes whole.
        """
        ...

    def proofs(self) -> Iterable[Check]:
        """What it can prove of itself, for ``shoal doctor``. Nothing is connected to before a check is called."""
        ...


@runtime_checkable
class RunsScripts(Protocol):
    """What a home is besides that runs submitted scripts itself, beside their clusters: it takes ``Request.run``.

    The script starts once its cluster is Ready and its code is there, at most once; the cluster ends with it, and
    ``Cluster.exit_code`` tells how it did.
    """

    def output(self, cluster_id: str, *, follow: bool = False) -> Iterator[str]:
        """What its script wrote, by line; ``follow``: and what it writes from now on, until its cluster has ended.

        Of one that has ended these are its last lines, as far as the home keeps them.
        """
        ...


@runtime_checkable
class KeepsBudgets(Protocol):
    """What a home is besides that holds budgets of a month, and knows what was spent."""

    def budgets(self, owner: str) -> tuple[BudgetStatus, ...]:
        """How the budgets stand this month that the owner is held against: the own one, the team's, those of templates,
        and everybody's."""
        ...


@dataclass(frozen=True)
class Wishes:
    """What a head is asked to do: a number of workers that a person chose, within what its plan has by now (in its
    first group; ``groups``: in others, by name); an end with its reason; another maximum lifetime (seconds, from its
    admission). None: nothing."""

    workers: int | None = None
    stop: Reason | None = None
    message: str = ""
    longest: float | None = None
    groups: Mapping[str, int] = field(default_factory=dict)


class Desk(Protocol):
    """Where a head reports to, and asks. It records nothing and decides nothing but its own end.

    User code runs in a head, so what governs is written by the home, which reads reports as it reads any other
    input. Nothing here waits long: a home that is away leaves a head to its own limits.
    """

    id: str
    cluster: Cluster
    """As it was last read; from :meth:`born` on."""

    @property
    def periods(self) -> Periods:
        """The times by which a cluster's life goes at this home."""
        ...

    @property
    def folder(self) -> Path:
        """A folder of this head alone, on its machine, private to its user; it is made at the first use."""
        ...

    @property
    def token(self) -> str:
        """The secret of this cluster, which its home gives to its user alone; the head's servers ask for it."""
        ...

    @property
    def stand(self) -> Stand:
        """Where the head's servers are to listen, and who starts its workers."""
        ...

    def wait(self) -> bool:
        """Until the cluster is admitted (True), or has ended while it waited (False). Light: many may wait."""
        ...

    def prepare(self) -> None:
        """Import what is needed from now on. Nothing is opened and no thread started: this process forks."""
        ...

    def born(self, status_url: str) -> Cluster:
        """The head lives, and tells of itself at this address. Returns the record; one that ended is not to be run.

        InfrastructureError where the home could not be told: it must not go on then.
        """
        ...

    def let_in(self) -> None:
        """From now on the cluster's user may have the token."""
        ...

    def say(self, reason: Reason, message: str, state: State = State.STARTING) -> None:
        """Report a phase, or news of one that serves. DeadlineError where the record has ended meanwhile."""
        ...

    def serves(self, endpoint: Endpoint) -> None:
        """Clients can connect there; the home gives it to the cluster's user alone."""
        ...

    def ready(self, workers: int) -> Wishes:
        """Report that it is Ready with this many workers. With a wish to stop it is not."""
        ...

    def report(self, workers: int, usage: Usage) -> Wishes:
        """Report what there is and what it used, as often as the home wants it: called twice a second.

        Returns what the head is asked to do. ``HEAD_LOST`` as the reason to stop: it cannot be heard of any more.
        """
        ...

    def wishes(self) -> Wishes:
        """What the head is asked to do, as far as that can be read now."""
        ...

    def look(self) -> Cluster:
        """Read the record again; InfrastructureError where it cannot be read now."""
        ...

    def resize(self, workers: int, group: str = "") -> None:
        """Ask for a plan of this many workers in a group (empty: the first one): for more, or (once the others are
        gone) for as many as are left.

        What is granted shows in ``cluster.plan``, at once or later, and may be less. May be asked again.
        """
        ...

    def retired(self, names: frozenset[str]) -> None:
        """Report that these workers are retired: exactly they may be ended.

        Called with all of them whenever they are others than before, only where the home starts the workers.
        """
        ...

    def ending(self, reason: Reason, message: str) -> None:
        """Report that it ends now, and why: by one of its own limits, by a wish, or since it cannot go on."""
        ...

    def ended(self, reason: Reason, message: str, usage: Usage) -> bool:
        """Report that nothing of it is left but this process, and what it used in all; its secrets are forgotten.

        False where that could not be told: whoever finds the head gone looks for it elsewhere.
        """
        ...


def pages_of(home: Home, cluster_id: str) -> str:
    """The link to the engine's own pages while this process has the cluster open, as browsers come here.

    Raises:
        ShoalError, OSError: there are none, or none any more.
    """
    return by_proxy(home.dashboard(cluster_id))


def dashboard_of(home: Home, cluster: Cluster, *, lasting: bool = False) -> str:
    """The link to the engine's own pages; "" where there are none, or where they are not one's own to see.

    ``lasting``: or where it ends with this process.
    """
    if cluster.state is State.READY and cluster.owner == home.user():
        with contextlib.suppress(ShoalError, OSError):
            return home.dashboard(cluster.id, lasting=True) if lasting else pages_of(home, cluster.id)
    return ""


def requested(request: Request, cluster_id: str, team: str | None, now: float, project: str = "") -> Cluster:
    """The record of a request that nobody has decided on yet; ``now`` by the store's clock."""
    return Cluster(
        id=cluster_id,
        name=request.name,
        owner=request.owner,
        team=team,
        workload=request.workload,
        plan=request.plan,
        state=State.QUEUED,
        reason=Reason.REQUESTED,
        message="asked for",
        since=now,
        created=now,
        tags=dict(request.tags),
        project=project,
        run=request.run,
    )


def at_least_one(workers: int, plan: Plan | None = None, group: str = "") -> None:
    """UsageError for a number of workers that no cluster can have, and for a group that ``plan`` does not have.

    Only a further group may have none.
    """
    if plan is not None and plan.group(group) is not plan.groups[0] and workers >= 0:
        return
    if workers < 1:
        raise UsageError(
            f"{workers} workers",
            hint="A cluster has 1 worker or more; `shoal down` ends it.",
            workers=workers,
        )
