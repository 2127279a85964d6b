"""What is seen of a cluster, and what may have to be done about it: the words in which its life is told.

Why it exists: ``lifecycle`` reads the one and answers in the other; homes bring the one and do the other.

What it must not do: decide, or import what decides on quota (every head has this from its start).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from shoal.governor.ends import End, Exit, Pulse
from shoal.model.cluster import EndNotice, Reason, State
from shoal.quota.account import Amounts, Fair

if TYPE_CHECKING:
    from shoal.quota.admission import Decision
    from shoal.quota.queueing import TurnResult
    from shoal.quota.used_up import UsedUp


class Scope(StrEnum):
    """Whose account. In this order they are charged, in the reverse they are freed.

    QUOTA: that of a place which itself lets nothing run that is not counted there; nothing is decided by it.
    """

    PLACE = "place"
    TEAM = "team"
    USER = "user"
    QUOTA = "quota"


class Seen(StrEnum):
    """What is seen of a head.

    NONE: none is there, and none has to be (a request that waits without a process). NEVER: none was ever there.
    GONE: it was, and is not. UNKNOWN: cannot tell. FOREIGN: it lives, and belongs to another ledger.
    """

    NONE = "none"
    NEVER = "never"
    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Observation:
    """What is seen of one cluster besides its record.

    Of its processes: ``head``; ``owner``: the ledger that a FOREIGN head belongs to; ``remains``: whether anything of
    it still runs besides the head (None: cannot tell); ``silent``: seconds since the last heartbeat of its head;
    ``lived``: seconds since it was admitted, by a clock that does not jump (None: cannot tell); ``pulse``: what its
    head tells of it; ``last``: why a head that is GONE was ending. ``script``: what is seen of the script that its home
    runs beside it (None: it runs none); ``exit``: how that ended. ``refused``: why its place does not let what is left
    of it be ended.

    Of people: ``stop``: that somebody asked for its end; ``target``: the number of workers wanted now in ``group``
    (empty: the first one).

    Of the accounts: ``charged``: what each holds for it; ``by_plan``: what its plan takes of each; ``wants``: the
    same with ``target`` workers; ``outcome``: the queue's answer, for one that waits or wants to grow; ``decision``:
    that answer explained, for one that does not want to wait; ``used_up``: when a budget of it that ends what runs is
    used up (None: nobody looked).
    """

    head: Seen = Seen.NEVER
    charged: Mapping[Scope, Amounts] = field(default_factory=dict)
    wants: Mapping[Scope, Amounts] = field(default_factory=dict)
    by_plan: Mapping[Scope, Amounts] = field(default_factory=dict)
    remains: bool | None = False
    silent: float = 0.0
    lived: float | None = None
    pulse: Pulse | None = None
    last: End | None = None
    script: Seen | None = None
    exit: Exit | None = None
    owner: str = ""
    stop: End | None = None
    outcome: TurnResult | None = None
    decision: Decision | None = None
    target: int | None = None
    group: str = ""
    refused: str = ""
    used_up: UsedUp | None = None


@dataclass(frozen=True)
class Charge:
    """Write into an account what it holds for the cluster, even where it holds that already.

    The write is what makes another governor's decision on the same account fail.
    """

    scope: Scope
    amounts: Amounts
    fair: Fair | None = None


@dataclass(frozen=True)
class Free:
    """Take the cluster out of an account."""

    scope: Scope


@dataclass(frozen=True)
class Move:
    """Write the record: a state with its reason (it may be the one that it has).

    ``workers``: of its plan from now on, in ``group`` (empty: the first one). ``report``: what it tells of its
    waiting, see ``waiting.waits``. ``exit_code``: of its script, which has ended. ``notice``: that it is about to end,
    or is not any more.
    """

    state: State
    reason: Reason
    message: str
    workers: int | None = None
    report: Mapping[str, float | None] | None = None
    exit_code: int | None = None
    group: str = ""
    notice: EndNotice | None = None


@dataclass(frozen=True)
class StartHead:
    """Start its head; nothing happens where one is or ever was."""


@dataclass(frozen=True)
class StartScript:
    """Start the script that is to run beside it; nothing happens where it runs or ever ran."""


@dataclass(frozen=True)
class StopHead:
    """Tell its head to end in good order, and its script."""


@dataclass(frozen=True)
class KillHead:
    """End its head at once."""


@dataclass(frozen=True)
class EndRemains:
    """End every process that carries its mark."""


Action = Charge | Free | Move | StartHead | StartScript | StopHead | KillHead | EndRemains
