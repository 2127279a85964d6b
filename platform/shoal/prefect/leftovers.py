"""What to do about a cluster that an earlier attempt of the same flow run left. Pure, but for ``clear``.

Why it exists: a crashed attempt's cluster keeps running until its no-client time. The retry takes it over when it
is what it would start itself, and ends it otherwise, so that the run never holds two.

What it must not do: touch clusters of any other name.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from shoal.client.ending import STOP_WAIT, until_ended
from shoal.display.progress import doing
from shoal.errors import DeadlineError, UsageError
from shoal.homes.base import Home
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import Plan
from shoal.prefect.runs import FLOW_RUN, Run


class Takeover(StrEnum):
    """Nothing is there; take it over; end it first; it is ending already; it is not this run's."""

    START = "start"
    ADOPT = "adopt"
    REPLACE = "replace"
    AWAIT = "await"
    FOREIGN = "foreign"


def judge(found: Cluster | None, plan: Plan, clients: int, flow_run_id: str) -> Takeover:
    """What to do before ``plan`` is started under the name under which ``found`` was found.

    ``clients``: how many are connected to it. An attempt that is still connected is superseded, and will
    close its cluster when it notices: that one cannot be shared.
    """
    if found is None or found.state.ended:
        return Takeover.START
    if found.tags.get(FLOW_RUN) != flow_run_id:
        return Takeover.FOREIGN
    if found.state is State.STOPPING:
        return Takeover.AWAIT
    if clients == 0 and _essence(found.plan) == _essence(plan):
        return Takeover.ADOPT
    return Takeover.REPLACE


def clear(
    home: Home, name: str, owner: str, plan: Plan, run: Run, *, quiet: bool = False
) -> tuple[Takeover, str | None]:
    """Do it: afterwards a request for ``plan`` under ``name`` adopts (the cluster of the id returned) or starts.

    UsageError when the name is that of a live cluster which this run did not start, DeadlineError when a
    leftover does not end.
    """
    found = home.find(name, owner)
    clients = 0
    if found is not None and found.state is State.READY:
        clients = status.clients if (status := home.status(found.id)) is not None else 0
    verdict = judge(found, plan, clients, run.flow_run_id)
    if found is None or verdict in (Takeover.START, Takeover.ADOPT):
        return verdict, found.id if found is not None and verdict is Takeover.ADOPT else None
    if verdict is Takeover.FOREIGN:
        raise UsageError(
            f"you have a live cluster named {name!r} that this flow run did not start",
            hint=f"Leave out name=: it follows from the flow run. Or end that one: shoal down {name}",
            name=name,
        )
    if verdict is Takeover.REPLACE:
        why = f"replaced by attempt {run.attempt} of flow run {run.flow_run_name or run.flow_run_id}"
        home.stop(found.id, Reason.STOPPED_BY_USER, why)

    def late(_: Cluster) -> DeadlineError:
        return DeadlineError(
            f"waited {STOP_WAIT:.0f} s for {name} of an earlier attempt of this flow run to end",
            hint=f"`shoal logs {name}` shows what it does; `shoal down {name}` ends it.",
        )

    with doing(f"waiting until {name} of an earlier attempt has ended", quiet=quiet):
        until_ended(home, found.id, late)
    return verdict, None


def _essence(plan: Plan) -> Plan:
    """A plan without what is said about it, and without how many workers it happens to have just now."""
    groups = tuple(replace(group, count=0) for group in plan.groups)
    return replace(plan, groups=groups, reasons={}, price_per_hour=None)
