"""What the local home proves of itself for ``shoal doctor``: its ledger, and that nothing of ended clusters is left.

Why it exists: only this home knows that it has a ledger, and what a process of a cluster looks like.

What it must not do: change anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.machine.processes import all_marked
from shoal.model.checks import Check, Failed
from shoal.words import count

if TYPE_CHECKING:
    from shoal.homes.local.home import LocalHome


def proofs(home: LocalHome) -> list[Check]:
    """Its checks, in order."""
    return [("ledger", lambda: _ledger(home)), ("leftovers", lambda: _leftovers(home))]


def _ledger(home: LocalHome) -> str:
    with home.ledger.write() as tx:  # takes the lock that every decision takes
        live = len(tx.live())
    return f"{home.ledger} can be written; {count(live, 'live cluster')}"


def _leftovers(home: LocalHome) -> str:
    ended = {cluster.id: cluster.name for cluster in home.clusters(ended=True) if cluster.state.ended}
    left = {pid: ended[its] for pid, its in all_marked(home.ledger.url).items() if its in ended}
    if left:
        names, pids = ", ".join(sorted(set(left.values()))), " ".join(map(str, left))
        raise Failed(f"processes of ended clusters are alive: {names}", f"kill {pids}")
    return "no process of an ended cluster is alive"
