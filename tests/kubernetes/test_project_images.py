"""The project's images as a pod sees them: without root, with this environment's versions, built once."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata

import pytest
from cluster import images
from cluster.clusters import Cluster
from cluster.namespaces import Namespace

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(900)]
_LOOK = """
import importlib.metadata, importlib.util, json, os
names = {names!r}
print(json.dumps({{
    "user": os.getuid(),
    "versions": {{name: importlib.metadata.version(name) for name in names}},
    "pytest": importlib.util.find_spec("pytest") is not None,
    "writable": os.access("/opt/shoal", os.W_OK),
    "first": open("/proc/1/cmdline").read().split(chr(0))[1],
    "shoal": __import__("shoal").__file__,
}}))
"""


@pytest.mark.parametrize(
    ("image", "more"),
    [
        ("shoal-dask", ()),
        pytest.param("shoal-spark", ("pyspark",), marks=[pytest.mark.spark, pytest.mark.soak]),
    ],
)
def test_an_image_runs_without_root_and_with_our_versions(
    image: str, more: tuple[str, ...], node_namespace: Namespace, kube_image: Callable[[str], str]
) -> None:
    names = ("shoal", "dask", "distributed", "pandas", "pyarrow", "pyiceberg", *more)
    words = ["python3", "-c", _LOOK.format(names=names)]
    strict = {"securityContext": {"runAsNonRoot": True, "allowPrivilegeEscalation": False}}
    node_namespace.pod("look", kube_image(image), container={"args": words, **strict})
    node_namespace.wait_pod("look", "Succeeded", seconds=120)
    seen = json.loads(node_namespace.logs("look").strip().splitlines()[-1])
    assert seen["versions"] == {name: metadata.version(name) for name in names}
    assert (seen["user"], seen["pytest"], seen["writable"]) == (1000, False, False)
    assert seen["first"] == "/opt/shoal/entry.py"
    assert seen["shoal"].startswith("/opt/shoal/site/shoal/")


def test_a_pod_ends_at_once_when_asked_to(
    node_namespace: Namespace, kube_image: Callable[[str], str]
) -> None:
    """The first process hands SIGTERM on; one that did not would be killed after its grace period."""
    words = ["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"]
    spec = {"terminationGracePeriodSeconds": 60, "activeDeadlineSeconds": 5}
    node_namespace.pod("stays", kube_image("shoal-dask"), container={"args": words}, spec=spec)
    pod = node_namespace.wait_pod("stays", "Failed", seconds=50)
    assert pod["status"]["reason"] == "DeadlineExceeded"
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 9


def test_images_are_built_only_when_their_inputs_changed(
    kube_node: Cluster, kube_image: Callable[[str], str]
) -> None:
    if kube_node.folder is None:
        pytest.skip("somebody else's cluster: its images are not built here")
    kube_image("shoal-dask")
    before = images.ensure(("shoal-dask",))["shoal-dask"]
    written = before.stat().st_mtime_ns
    assert images.ensure(("shoal-dask",)) == {"shoal-dask": before}
    assert before.stat().st_mtime_ns == written
