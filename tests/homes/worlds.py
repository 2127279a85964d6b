"""A home as the tests of its behaviour see it: a project to ask in, and a way to let time go by."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.client.clusters import prepare
from shoal.homes.base import Home, Request
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import ScriptRun


@dataclass
class World:
    """A home, a project to ask in, and a way to let time go by there."""

    home: Home
    project: Path
    pass_time: Callable[[], None]
    script_ends: Callable[[Cluster, int], None] | None = None  # None: it runs no scripts itself
    apply: Callable[[], None] = lambda: None  # the project's files as they are now, where they have to be put
    patience: float = 30  # s

    def ask(
        self,
        name: str,
        workers: int | tuple[int, int] = 1,
        *,
        id: str | None = None,
        queue: bool = False,
        template: str = "small",
        run: ScriptRun | None = None,
        **more: Any,
    ) -> Cluster:
        options = {"engine": "dask", "workers": workers, "queue": queue, "project": self.project, **more}
        settled = prepare(template, **options)
        asked = Request(name, self.home.user(), settled.workload, settled.plan, id=id, run=run)
        return self.home.request(asked)

    def until(self, what: Callable[[], bool], say: str) -> None:
        deadline = time.monotonic() + self.patience
        while not what():
            assert time.monotonic() < deadline, f"not within {self.patience} s: {say}"
            self.pass_time()

    def ready(self, cluster: Cluster) -> Cluster:
        self.until(lambda: self.home.get(cluster.id).state is State.READY, f"{cluster.name} is Ready")
        return self.home.get(cluster.id)

    def end(self, cluster: Cluster) -> Cluster:
        self.home.stop(cluster.id, Reason.STOPPED_BY_USER, "no longer needed")
        self.until(lambda: self.home.get(cluster.id).state.ended, f"{cluster.name} ended")
        self.until(lambda: not self.home.remains(cluster.id), f"nothing is left of {cluster.name}")
        return self.home.get(cluster.id)
