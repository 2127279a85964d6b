"""Workers come from a server of forks, and where they cannot, the head's log says why they take longer to start."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

import shoal

_SAID = "no fork server here"
_INSIDE_IS_KNOWN = sys.platform == "linux" and sys.version_info < (3, 14)


def forked(cluster: shoal.DaskCluster) -> bool:
    """Whether the workers run on as their head: a spawned one has a command line of its own."""
    commands = cluster.client.run(lambda: psutil.Process().cmdline()).values()
    return all("shoal.head" in " ".join(command) for command in commands)


def test_workers_are_forked_where_the_inside_of_multiprocessing_is_known(project: Path) -> None:
    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        assert cluster.client.submit(sum, range(10)).result() == 45
        assert forked(cluster) == _INSIDE_IS_KNOWN
        assert (_SAID in cluster.logs()) == (not _INSIDE_IS_KNOWN)


def test_where_workers_are_not_forked_the_log_says_why(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dask sets more before a spawn than this head was started with: a fork would not have it.
    monkeypatch.setenv("DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON", '{"SHOAL_TEST_UNSET": "1"}')
    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        assert cluster.client.submit(sum, range(10)).result() == 45
        assert not forked(cluster)
        told = [line for line in cluster.logs().splitlines() if _SAID in line]
        assert len(told) == 1
        assert not _INSIDE_IS_KNOWN or "pre-spawn-environ" in told[0]
