"""The record of one cluster: what was asked, what was settled, where it stands and why.

Why it exists: the store, the governor, the head, the handle and the CLI all speak of the same record, in
the same words.

What it must not do: decide or do I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from shoal.errors import InfrastructureError
from shoal.model.report import QueueStatus, Usage
from shoal.model.workload import Plan, ScriptRun, Workload

T = TypeVar("T")


E = TypeVar("E", bound=StrEnum)


def _as_it_stands(kind: type[E], value: object) -> E | None:
    if not isinstance(value, str):
        return None
    unknown = str.__new__(kind, value)
    unknown._name_, unknown._value_ = value, value
    return unknown


class State(StrEnum):
    """Where a cluster stands: Queued -> Admitted -> Starting -> Ready -> Stopping -> Stopped.

    Refused: a limit said no, nothing was started. Failed: infrastructure broke (user code failing is not
    a state of a cluster).
    """

    QUEUED = "Queued"
    ADMITTED = "Admitted"
    STARTING = "Starting"
    READY = "Ready"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    REFUSED = "Refused"
    FAILED = "Failed"

    @property
    def ended(self) -> bool:
        """Nothing of it runs and nothing of it counts any more."""
        return self in (State.STOPPED, State.REFUSED, State.FAILED)

    @property
    def admitted(self) -> bool:
        """It counts in its account."""
        return self in (State.ADMITTED, State.STARTING, State.READY, State.STOPPING)

    @classmethod
    def _missing_(cls, value: object) -> State | None:
        """A state that a newer Shoal knows can be told as it stands; no record here may be in one."""
        return _as_it_stands(cls, value)


class Reason(StrEnum):
    """Why a cluster is in its state: for programs; the record's ``message`` is the sentence for people."""

    REQUESTED = "Requested"
    WAITING_FOR_QUOTA = "WaitingForQuota"
    WAITING_FOR_CAPACITY = "WaitingForCapacity"
    GOVERNOR_AWAY = "GovernorAway"
    OVER_LIMIT = "OverLimit"
    PLACE_REFUSED = "PlaceRefused"
    ADMITTED = "Admitted"
    HEAD_STARTING = "HeadStarting"
    WORKERS_STARTING = "WorkersStarting"
    SERVING = "Serving"
    WORKER_RESTARTED = "WorkerRestarted"
    STOPPED_BY_USER = "StoppedByUser"
    CLIENT_GONE = "ClientGone"
    IDLE = "Idle"
    DEADLINE_REACHED = "DeadlineReached"
    BUDGET_SPENT = "BudgetSpent"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    PACKAGES_FAILED = "PackagesFailed"
    START_FAILED = "StartFailed"
    HEAD_CRASHED = "HeadCrashed"
    HEAD_LOST = "HeadLost"

    @classmethod
    def _missing_(cls, value: object) -> Reason | None:
        """A reason that a newer Shoal knows is read as it stands; it is none of :data:`FAILURES` here."""
        return _as_it_stands(cls, value)


BY_DOWN = "ended by `shoal down`"  # the message of an end that somebody asked for, whatever runs there
EXIT_CODE = "exit_code"  # what of a report somebody else than the head wrote


def script_end(code: int, why: str = "") -> str:
    """``"its script failed: exit code 7"``; ``why``: what ended it, where it did not end by itself."""
    said = f"its script failed: exit code {code}" if code else "its script succeeded"
    return f"{said} ({why})" if why and code else said


# Reasons that mean that infrastructure broke, not that the cluster came to its end.
FAILURES = frozenset(
    {
        Reason.HEAD_CRASHED,
        Reason.HEAD_LOST,
        Reason.START_FAILED,
        Reason.IMAGE_PULL_FAILED,
        Reason.PACKAGES_FAILED,
    }
)


@dataclass(frozen=True)
class EndNotice:
    """That a running cluster is about to end for something outside of it: ``at`` (None: it is not), told ``since``."""

    at: float | None = None
    since: float = 0.0
    reason: Reason | None = None
    message: str = ""


@dataclass(frozen=True)
class Cluster:
    """One cluster's record. Times are seconds since the epoch, by the store's clock.

    ``head`` says where the head is, once it is known: ``host``, ``boot`` (the machine's boot id), ``pid``,
    ``pid_start`` and ``pid_ticks`` (the process's start, in seconds since the epoch and in ticks since the
    boot, to tell it from a later one of the same pid) and ``status_url``.
    ``report`` is what ``turn`` and then ``usage`` are read from.
    ``project`` is the folder whose policy admits it. ``run``: the script that its home runs beside it. Secrets
    (tokens) are never in it. ``accrued`` is what it took of budgets before its plan was as it is now: ``until`` when,
    and by month and unit (``quota.budgets``); empty where its plan is as it was admitted. ``notice``: that it is about
    to end.
    """

    id: str
    name: str
    owner: str
    team: str | None
    workload: Workload
    plan: Plan
    state: State
    reason: Reason
    message: str
    since: float
    created: float
    head: dict[str, Any] = field(default_factory=dict)
    admitted_at: float | None = None
    ready_at: float | None = None
    ended_at: float | None = None
    renewed_at: float | None = None
    workers: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    project: str = ""
    run: ScriptRun | None = None
    accrued: dict[str, Any] = field(default_factory=dict)
    notice: EndNotice = EndNotice()

    def __post_init__(self) -> None:
        if self.state.name not in State.__members__:
            raise InfrastructureError(
                f"{self.name} is in a state that this Shoal does not know: {self.state}",
                hint="A newer Shoal wrote it: upgrade Shoal here.",
            )

    @property
    def turn(self) -> QueueStatus:
        """Where it stands in the queue; all None where it does not wait."""
        return _part(QueueStatus, self.report) if self.state is State.QUEUED else QueueStatus()

    @property
    def usage(self) -> Usage:
        """What it used, as far as its head has told."""
        return _part(Usage, self.report) if self.state is not State.QUEUED else Usage()

    @property
    def exit_code(self) -> int | None:
        """How the script ended that ran on it by ``shoal submit``; None where none did, or has not ended."""
        code = self.report.get(EXIT_CODE)
        return None if code is None else int(code)

    @property
    def result(self) -> str | None:
        """What came of it: ``"succeeded"`` or ``"failed"`` (its script), ``"failed"`` (infrastructure), ``"refused"``,
        ``"ended"`` where it ran no script; None while it lives.
        """
        if not self.state.ended:
            return None
        if self.state is not State.STOPPED:
            return self.state.value.lower()
        if self.exit_code is None:
            return "ended"
        return "failed" if self.exit_code else "succeeded"


class EndedRun(NamedTuple):
    """What of the record of an ended cluster counts for budgets, named as in :class:`Cluster`."""

    id: str
    owner: str
    team: str | None
    plan: Plan
    admitted_at: float | None
    ended_at: float | None
    accrued: dict[str, Any]


def _part(kind: type[T], report: dict[str, Any]) -> T:
    """What cannot be read is not known: a damaged report hides no record."""
    from shoal.model.codec import read  # not before it is asked for: a waiting head has this module

    try:
        return read(kind, report)
    except InfrastructureError:
        return kind()
