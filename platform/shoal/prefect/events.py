"""What happens to a flow run's clusters and tables, as events of Prefect: automations and deployments can act on them.

Why it exists: "page the team when a cluster waits for an hour", "run the report when the table has new rows" are
automations in Prefect, which knows nothing of clusters unless it is told.

What it must not do: disturb the work it tells of, tell the same thing twice, or keep a process alive.
"""

from __future__ import annotations

import contextvars
import datetime as dt
import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from shoal.homes.base import Home
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.status import Event
from shoal.prefect.runs import FLOW_RUN, Run

_log = logging.getLogger("shoal.prefect")
IDS = uuid.UUID("6f1f64c1-8c37-4d6e-9c0e-2f3c9b6f5a11")  # of this module; what is told has always the same id
SOON, SELDOM = 1.0, 15.0  # s between two looks, until it is Ready and from then on
_WORDS = {
    State.QUEUED: "queued",
    State.ADMITTED: "admitted",
    State.READY: "ready",
    **dict.fromkeys((State.STOPPED, State.FAILED, State.REFUSED), "ended"),
}


@dataclass(frozen=True)
class Notice:
    """One event: ``name`` says what happened at ``at`` (seconds since the epoch) to ``resource``."""

    id: uuid.UUID
    name: str
    at: float
    resource: dict[str, str]
    payload: dict[str, Any] = field(default_factory=dict)
    related: tuple[dict[str, str], ...] = ()


def of_cluster(cluster: Cluster, history: Sequence[Event]) -> list[Notice]:
    """What there is to tell of a cluster, oldest first; the ids are the same each time."""
    told: list[Notice] = []
    last = ""
    for entry in history:
        restarted = entry.reason is Reason.WORKER_RESTARTED
        word = "worker-restarted" if restarted else _WORDS.get(entry.state, last)
        if word == last and not restarted:  # the same, with another sentence
            continue
        last = word
        resource = {
            "prefect.resource.id": f"shoal.cluster.{cluster.id}",
            "prefect.resource.name": cluster.name,
            "shoal.template": cluster.plan.template,
            "shoal.engine": cluster.plan.engine.value,
            "shoal.target": cluster.plan.target,
            "shoal.owner": cluster.owner,
            "shoal.state": entry.state.value,
            "shoal.reason": entry.reason.value,
        }
        payload = {"message": entry.message, "workers": cluster.workers}
        its_id = uuid.uuid5(IDS, f"{cluster.id} {len(told)} {word}")
        told.append(Notice(its_id, f"shoal.cluster.{word}", entry.at, resource, payload))
    return told


def send(notice: Notice) -> None:
    """Give it to Prefect, which sends it from a thread of its own. Nothing where there is no server to send it to."""
    from prefect.events import emit_event

    emit_event(
        notice.name,
        notice.resource,
        occurred=dt.datetime.fromtimestamp(notice.at, dt.UTC),
        related=list(notice.related),
        payload=notice.payload,
        id=notice.id,
    )


class Telling:
    """Tells what happens to the cluster of this name of a run, until :meth:`end`.

    What is known when it begins an earlier attempt has told.
    """

    def __init__(
        self, home: Home, name: str, owner: str, run: Run, tell: Callable[[Notice], None] = send
    ) -> None:
        self._home, self._name, self._owner, self._run, self._tell = home, name, owner, run, tell
        self._told: set[uuid.UUID] = set()
        self._told.update(notice.id for notice in self._found())
        self._over = threading.Event()
        self._lock = threading.Lock()
        here = contextvars.copy_context()  # by which Prefect relates an event to its run
        threading.Thread(target=here.run, args=(self._follow,), name="shoal-events", daemon=True).start()

    def end(self) -> None:
        """Tell the rest, and nothing more."""
        self._over.set()
        self._look()

    def _follow(self) -> None:
        pause = SOON
        while not self._over.wait(pause):
            pause = SELDOM if self._look() else SOON

    def _look(self) -> bool:
        """Whether it was Ready by now."""
        with self._lock:
            found = self._found()
            for notice in found:
                if notice.id not in self._told:
                    self._told.add(notice.id)
                    self._tell(notice)
        return any(notice.name.endswith(".ready") for notice in found)

    def _found(self) -> list[Notice]:
        try:
            cluster = self._home.find(self._name, self._owner)
            if cluster is None or cluster.tags.get(FLOW_RUN) != self._run.flow_run_id:
                return []
            return of_cluster(cluster, self._home.history(cluster.id))
        except Exception as error:  # what cannot be told now is told at the next look, or not at all
            _log.debug("events of %s: %s", self._name, error)
            return []
