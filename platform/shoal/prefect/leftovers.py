"""What to do about a cluster that an earlier attempt of the same flow run left. Pure, but for ``clear``.

Why it exists: a crashed attempt's cluster lives on until its no-client time. The retry takes it over when it
is what it would start itself, and ends it otherwise, so that the run never holds two.

What it must not do: touch clusters of any other name.
"""

from __future__ import annotations

import time
from dataclasses import replace
from enum import StrEnum

from shoal.errors import DeadlineError
from shoal.homes.local.home import LocalHome
from shoal.progress import doing
from shoal.records import Cluster, Reason, State
from shoal.workload import Plan

_END_WAIT = 45.0  # s for a cluster that was told to end
_POLL = 0.1


class Verdict(StrEnum):
    """Nothing is there; take it over; end it first; it is ending already."""

    START = "start"
    ADOPT = "adopt"
    REPLACE = "replace"
    AWAIT = "await"


def judge(found: Cluster | None, plan: Plan, clients: int) -> Verdict:
    """What to do before ``plan`` is started under the name under which ``found`` was found.

    ``clients``: how many are connected to it. An attempt that is still connected is superseded, and will
    close its cluster when it notices: that one cannot be shared.
    """
    if found is None or found.state.ended:
        return Verdict.START
    if found.state is State.STOPPING:
        return Verdict.AWAIT
    if clients == 0 and _essence(found.plan) == _essence(plan):
        return Verdict.ADOPT
    return Verdict.REPLACE


def clear(home: LocalHome, name: str, owner: str, plan: Plan, why: str, *, quiet: bool = False) -> Verdict:
    """Do it: afterwards a request for ``plan`` under ``name`` adopts or starts. DeadlineError."""
    found = home.find(name, owner)
    clients = 0
    if found is not None and found.state is State.READY:
        clients = int((home.status(found.id) or {}).get("clients", 0))
    verdict = judge(found, plan, clients)
    if found is None or verdict in (Verdict.START, Verdict.ADOPT):
        return verdict
    if verdict is Verdict.REPLACE:
        home.stop(found.id, Reason.STOPPED_BY_USER, why)
    begin = time.monotonic()
    with doing(f"waiting until {name} of an earlier attempt has ended", quiet=quiet):
        while not home.get(found.id).state.ended:
            if time.monotonic() - begin > _END_WAIT:
                raise DeadlineError(
                    f"waited {_END_WAIT:.0f} s for {name} of an earlier attempt of this flow run to end",
                    hint=f"`shoal logs {name}` shows what it does; `shoal down {name}` ends it.",
                )
            time.sleep(_POLL)
    return verdict


def _essence(plan: Plan) -> Plan:
    """A plan without what is said about it."""
    return replace(plan, reasons={}, price_per_hour=None)
