"""In whose blocks this code runs: those clusters end only after whatever is inside.

Why it exists: a request that waits for their room waits for its own end.

What it must not do: know what a cluster computes.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from shoal.errors import WaitsForItselfError
from shoal.model.cluster import State
from shoal.project.loading import look_up
from shoal.quota.admission import Claim, beside
from shoal.quota.queueing import least

if TYPE_CHECKING:
    from shoal.homes.base import Home
    from shoal.model.workload import Plan
    from shoal.project.policy import Limits
    from shoal.project.targets import Machine

_around: ContextVar[tuple[str, ...]] = ContextVar("shoal_around", default=())


def enter(cluster: str) -> None:
    """From here on this context runs in the block of the cluster of this id."""
    _around.set((*_around.get(), cluster))


def leave(cluster: str) -> None:
    """It no longer does. Harmless in another context, or again."""
    _around.set(tuple(each for each in _around.get() if each != cluster))


def refuse_to_wait_for_oneself(
    plan: Plan, priority: int, limits: Limits, machine: Machine | None, home: Home, name: str
) -> None:
    """WaitsForItselfError where it cannot start before a block ends that ends only after this one."""
    if not _around.get():
        return
    around = [home.get(each) for each in _around.get()]
    around = [
        cluster for cluster in around if not cluster.state.ended and cluster.state is not State.STOPPING
    ]
    own = {cluster.id: cluster.plan for cluster in around if cluster.name != name}
    ask = Claim("", name, least(plan), priority)
    if not own or not (
        shortages := beside(ask, limits, own, look_up(machine) if machine is not None else None)
    ):
        return
    names = {cluster.id: cluster.name for cluster in around}
    held = ", ".join(names[each] for each in own)
    why = "\n".join(shortage.sentence(name, names) for shortage in shortages)
    raise WaitsForItselfError(
        f"{why}\nThis code runs inside the block of {held}, so it would wait for its own end",
        hint="Let the first block end before this one begins, or ask for less in one of them.",
        shortages=shortages,
        own=tuple(names[each] for each in own),
    )
