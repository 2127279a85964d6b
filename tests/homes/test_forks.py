"""Forked children, copies, pickles and forgotten handles: a cluster ends with whoever started it, and only then."""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.client.clusters import open_home, open_project
from shoal.client.spark_handle import SparkCluster
from shoal.errors import ForkedError
from shoal.model.cluster import Reason, State


@pytest.fixture(scope="module")
def cluster(shared_project: Path) -> Iterator[shoal.DaskCluster]:
    with shoal.dask("small", workers=1, name="owned", project=shared_project, quiet=True) as cluster:
        yield cluster


def test_a_forked_child_never_ends_its_parents_cluster(shared_project: Path) -> None:
    """A pool, an executor, a plain os.fork, a child that raises: the parent goes on computing."""
    script = Path(__file__).with_name("forks.py")
    command = [sys.executable, str(script), str(shared_project)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    ways = {line["way"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, done.stderr
    assert len(ways) == 11
    for way, line in ways.items():
        assert (line["state"], line["answers"]) == ("Ready", 3), way
        assert line["code"] == (1 << 8 if way == "raises" else 0), way  # 14: it hung until its alarm
    assert "attached: closing this leaves it running" in json.loads(ways["shows"]["said"])[0]
    assert json.loads(ways["computes"]["said"]) == 3, "a connection of the child's own"
    its, *where, afterwards = json.loads(ways["computes_by_default"]["said"])
    assert where == [its, its], "in the cluster, by a connection of the child's own"
    assert afterwards == "here"
    assert "dropped without close" not in done.stderr
    assert "at exit" in done.stderr


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]
)
def test_a_copy_of_a_handle_is_attached_and_says_so(
    cluster: shoal.DaskCluster, duplicate: Callable[[Any], Any]
) -> None:
    other = duplicate(cluster)
    assert isinstance(other, shoal.DaskCluster)
    assert (other.id, other.owns, cluster.owns) == (cluster.id, False, True)
    assert "attached: closing this leaves it running" in repr(other)
    assert "attached" not in repr(cluster)
    other.close()
    del other
    gc.collect()
    assert cluster.record.state is State.READY
    assert cluster.owns


def test_a_handle_in_a_task_is_attached_there(cluster: shoal.DaskCluster) -> None:
    """A function that uses the notebook's global `cluster` takes the handle along to the worker."""

    def look(handle: Any) -> tuple[bool, str]:
        return handle.owns, str(handle.record.state)

    assert cluster.client.submit(look, cluster).result(60) == (False, "Ready")
    assert cluster.record.state is State.READY


def test_a_pickle_holds_no_secret(cluster: shoal.DaskCluster) -> None:
    stored = pickle.dumps(cluster)
    endpoint = cluster._home.endpoint(cluster.id)
    for secret in (endpoint.token, *endpoint.security.values()):
        assert secret.encode() not in stored


def test_spark_in_a_forked_child_says_what_to_do(cluster: shoal.DaskCluster) -> None:
    """gRPC hangs after a fork, so nobody is left to wait for it."""
    handle = SparkCluster(cluster._home, cluster.record, owns=False, quiet=True)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _ = handle.session
        except ForkedError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    assert "spawn" in said
    assert "shoal.connect('owned')" in said


@pytest.mark.parametrize("also", ["", "; a = shoal.connect(c.name, project=here)"], ids=["one", "two"])
def test_a_script_without_with_reads_that_its_cluster_was_ended(shared_project: Path, also: str) -> None:
    """Python hides a ResourceWarning: without the line nobody knows where the cluster went.

    And no handle inherits from another where Python ends: they would do so for ever.
    """
    code = (
        f"import shoal; here = {str(shared_project)!r}; "
        f"c = shoal.dask('small', workers=1, project=here, quiet=True); print(c.id){also}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert "its handle was dropped without close(). Use `with shoal.dask(...) as cluster:`" in done.stderr
    assert "detach=True" in done.stderr
    assert "Traceback" not in done.stderr
    ended = open_home(open_project(shared_project)).get(done.stdout.strip())
    assert (ended.reason, ended.message) == (Reason.CLIENT_GONE, "its handle was dropped")
