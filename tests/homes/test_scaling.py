"""More and fewer workers of a Dask cluster of home ``local``: by number, by group, by the work there is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import pytest

import shoal
from shoal.display import card
from shoal.errors import UnitError, UsageError, WorkloadError
from shoal.model.cluster import State

Eventually = Callable[..., Any]


def test_a_number_of_workers_that_is_none_is_refused_as_at_the_start(project: Path) -> None:
    import numpy as np

    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        for wrong in (1.5, "two", None, True, float("nan"), "1-2", (1, 2), [1, 2], np.float64(1.5)):
            with pytest.raises(WorkloadError, match=r"is not a number of workers|is a range"):
                cluster.scale(wrong)  # type: ignore[arg-type]
        for wrong in (5, 3600.5, None, True):
            with pytest.raises(UnitError, match=r"has no unit|is not a duration"):
                cluster.extend(wrong)  # type: ignore[arg-type]
        assert (cluster.record.workers, cluster.record.state) == (1, State.READY)
        cluster.scale(np.int64(2))
        assert cluster.record.workers == 2
        cluster.scale("1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="5 cannot be a cluster's name"):
        shoal.dask("small", workers=1, name=5, project=project, quiet=True)


def test_work_is_sent_to_a_group_by_its_name(project: Path) -> None:
    (project / "clusters" / "mixed.yaml").write_text(
        """
        workers:
          - {name: cpu, min: 1, max: 2, cores: 1, memory: 400 MB}
          - {name: large, min: 0, max: 2, cores: 1, memory: 500 MB}
        head: {cores: 1, memory: 500 MB}
        """
    )

    def limit(_: object = None) -> int:
        from distributed import get_worker

        return int(get_worker().memory_manager.memory_limit)

    with shoal.dask("mixed", project=project, quiet=True) as cluster:
        client = cluster.client
        waits = client.submit(limit, resources={"large": 1}, pure=False)
        cluster.scale(1, group="large")
        assert waits.result(timeout=60) == 500e6, "it waited for a worker of that group"
        with dask.annotate(resources={"cpu": 1}):
            cpu = [dask.delayed(limit)(number) for number in range(4)]
        with dask.annotate(resources={"large": 1}):
            large = [dask.delayed(limit)(number) for number in range(4)]
        assert client.gather(client.compute([*cpu, *large])) == [400e6] * 4 + [500e6] * 4
        assert dict(cluster._home.status(cluster.id).groups) == {"cpu": 1, "large": 1}  # type: ignore[union-attr]
        home = cluster._home
        said = dict(
            card.facts(cluster.record, home.history(cluster.id), home.status(cluster.id), time.time())
        )
        assert said["workers"] == "2 of 2, cpu 1 of 1 of 400 MB; large 1 of 1 of 500 MB"
        cluster.scale(0, group="large")
        assert [worker["memory_limit"] for worker in client.scheduler_info()["workers"].values()] == [400e6]


def test_scaling_goes_through_admission(project: Path, eventually: Eventually) -> None:
    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        begin = time.monotonic()
        cluster.scale(3)
        assert cluster.record.message == "3 workers ready"
        assert len(cluster.client.scheduler_info()["workers"]) == 3
        with pytest.raises(shoal.ShoalError, match="3"):
            cluster.scale(4)
        assert cluster.record.workers == 3
        known = cluster.record.usage.worker_seconds
        eventually(lambda: cluster.record.usage.worker_seconds > known + 3, 60, "they are counted")
        cluster.scale(1)
        more = time.monotonic() - begin
        eventually(lambda: cluster.record.message == "1 worker ready", 10, "it says so")
        assert len(cluster.client.scheduler_info(n_workers=-1)["workers"]) == 1
    report = cluster.report()
    assert report.workers == 1
    alone, extra = float(report.lived), report.worker_hours * 3600 - float(report.lived)
    assert 1 < extra < 2 * more + 1, f"two workers more for 1 to {more:.1f} s, of {alone:.1f} s"


def test_a_range_of_workers_grows_with_the_work_as_far_as_quota_goes(
    project: Path, eventually: Eventually
) -> None:
    def work(number: int) -> int:
        import time

        time.sleep(1)
        return number

    with shoal.dask("small", workers=(1, 3), project=project, quiet=True) as cluster:
        begin = cluster.record.plan.workers
        futures = cluster.client.map(work, range(60), pure=False)
        eventually(lambda: cluster.record.workers == 3, 30, "it grew to three workers")
        assert begin < 3
        assert cluster.record.plan.workers == 3, "and they count"
        cluster.client.cancel(futures)
