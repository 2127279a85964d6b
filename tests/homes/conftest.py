"""A project with a small machine, for clusters that start quickly."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def project(empty_home: Path, tmp_path: Path, marked: Callable[[], dict[int, str]]) -> Iterator[Path]:
    """A project folder; afterwards no process of any cluster that lives in this home is there."""
    folder = tmp_path / "project"
    for name in ("clusters", "policies", "images", "flows"):
        (folder / name).mkdir(parents=True)
    write = {
        "shoal.yaml": """
            default_target: local
            targets:
              local:
                home: local
                worker: {cores: 1, memory: 500 MB}
                head: {cores: 1, memory: 500 MB}
                machine: {cores: 64, memory: 64 GB}
            """,
        "clusters/small.yaml": """
            description: Two small workers
            engines:
              dask: {image: shoal-dask}
              spark: {image: shoal-spark}
            workers: {min: 1, max: 3, cores: 1, memory: 1 GB}
            head: {cores: 1, memory: 1 GB}
            timeouts: {idle: 5 min, no_client: 1 min, max: 1 h}
            """,
        "images/images.yaml": """
            shoal-dask: {reference: shoal-dask}
            shoal-spark: {reference: shoal-spark}
            """,
        "policies/tiers.yaml": """
            standard:
              {concurrent_clusters: 2, workers_per_cluster: 3, memory: 6 GB, max_duration: 4 h, head: 2 GB,
               max_priority: 2}
            """,
        "policies/users.yaml": """
            default: {tier: standard}
            """,
    }
    for name, text in write.items():
        (folder / name).write_text(textwrap.dedent(text).lstrip())
    yield folder
    deadline = time.monotonic() + 10
    while left := marked():
        assert time.monotonic() < deadline, f"left running: {left}"
        time.sleep(0.1)
