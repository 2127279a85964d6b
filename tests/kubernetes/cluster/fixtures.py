"""Pytest fixtures over test clusters: `kube_node`, `kube_fleet`, and a fresh namespace on each.

A machine that cannot run a shape skips, with the reason; with CI=true it fails instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from . import archives, binaries, clusters, images, needs, paths
from .clusters import Cluster
from .errors import Unavailable
from .namespaces import Namespace

TOOLS_IMAGE = "shoal.test/tools:1"
_APPLETS = (
    "sh",
    "cat",
    "echo",
    "ls",
    "sleep",
    "wget",
    "nslookup",
    "httpd",
    "dd",
    "tail",
    "id",
    "env",
    "kill",
    "true",
)


def unavailable(reason: str) -> None:
    """Skips with the reason, or fails with it where nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI skips nothing: {reason}", pytrace=False)
    pytest.skip(reason)


def _start(shape: str, nodes: int = 20) -> Cluster:
    try:
        needs.check(shape)
    except Unavailable as reason:
        unavailable(str(reason))
    if binaries.missing(shape) and os.environ.get("CI") != "true":
        unavailable(
            f"the programs of the {shape} shape are not compiled yet: `make kube-build`, once, ten minutes"
        )
    return clusters.start(shape, owner=os.getpid(), nodes=nodes)


SHARED = ("kube_node", "kube_fleet")
_NOW = pytest.StashKey[dict[str, Cluster]]()  # those of SHARED that run
_LAST = pytest.StashKey[dict[str, str]]()  # the last test that uses each


def _shared(request: pytest.FixtureRequest, shape: str) -> Cluster:
    """A cluster that many tests use. It ends with the last of them: the others of this lane go on for long."""
    cluster = _start(shape)
    request.config.stash.setdefault(_NOW, {})[str(request.fixturename)] = cluster
    return cluster


def _end(config: pytest.Config, fixture: str) -> None:
    if cluster := config.stash.get(_NOW, {}).pop(fixture, None):
        clusters.stop(cluster.name)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that need a kubelet come after those that need none, so that one of the two is there at a time."""
    kubelets = {item.path for item in items if "kube_node" in getattr(item, "fixturenames", ())}
    at = [index for index, item in enumerate(items) if item.get_closest_marker("kubernetes")]
    ordered = sorted((items[index] for index in at), key=lambda item: item.path in kubelets)
    for index, item in zip(at, ordered, strict=True):
        items[index] = item


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[_LAST] = {
        name: item.nodeid
        for item in session.items
        for name in SHARED
        if name in getattr(item, "fixturenames", ())
    }


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    for name, last in item.config.stash.get(_LAST, {}).items():
        if last == item.nodeid:
            _end(item.config, name)


@pytest.fixture(scope="session")
def kube_node(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster with one real kubelet; the one of SHOAL_TEST_KUBECONFIG where that is set."""
    existing = os.environ.get("SHOAL_TEST_KUBECONFIG")
    if existing:
        yield existing_cluster(Path(existing))
        return
    cluster = _shared(request, "node")
    clusters.load(cluster, tools_archive())
    yield cluster
    _end(request.config, "kube_node")


@pytest.fixture(scope="session")
def kube_fleet(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of 20 simulated nodes, 1,000 pods each; the one of SHOAL_TEST_FLEET_KUBECONFIG where that is set."""
    existing = os.environ.get("SHOAL_TEST_FLEET_KUBECONFIG")
    if existing:
        yield existing_cluster(Path(existing))
        return
    yield _shared(request, "fleet")
    _end(request.config, "kube_fleet")


@pytest.fixture
def kube_fleet_alone() -> Iterator[Cluster]:
    """Two simulated nodes with an API server of their own, for who restarts it under whatever runs there."""
    cluster = _start("fleet", nodes=2)
    yield cluster
    clusters.stop(cluster.name)


def existing_cluster(file: Path) -> Cluster:
    """The cluster of a kubeconfig: one of ours by its folder, else somebody else's."""
    folder = file.resolve().parent.parent
    if folder.parent == paths.runs():
        cluster = clusters.find(folder.name)
        if cluster.shape == "node":
            clusters.load(cluster, tools_archive())
        return cluster
    return Cluster("existing", "node", file)


def tools_archive() -> Path:
    """An image of ten megabytes with a shell, httpd, nslookup, fetch: enough for most tests."""
    program = needs.where("busybox")
    if program is None:
        raise Unavailable("busybox is not installed: sudo apt-get install busybox-static")
    links = tuple(f"bin/{name}" for name in _APPLETS)
    files = {"bin/busybox": Path(program), "bin/fetch": binaries.ensure(["fetch"])["fetch"]}
    return archives.single(TOOLS_IMAGE, files, ["sleep", "3600"], paths.images() / "tools.tar", links)


@pytest.fixture(scope="session")
def kube_image(kube_node: Cluster) -> Callable[[str], str]:
    """Gives the reference of one of the project's images, built if it changed and loaded at its first use."""
    loaded: dict[str, str] = {}

    def give(name: str) -> str:
        if name not in loaded:
            if kube_node.folder is not None:
                try:
                    archive = images.ensure((name,))[name]
                except Unavailable as reason:
                    unavailable(str(reason))
                clusters.load(kube_node, archive)
            loaded[name] = images.REFERENCE.format(name)
        return loaded[name]

    return give


def _namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    admin = cluster.admin
    namespace = Namespace(cluster, admin, {}, request.node.name)
    yield namespace
    try:
        namespace.end()
    finally:
        admin.close()


@pytest.fixture
def node_namespace(kube_node: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A fresh namespace on the node shape; the test fails if it leaves anything in it."""
    yield from _namespace(kube_node, request)


@pytest.fixture
def fleet_namespace(kube_fleet: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A fresh namespace on the fleet shape; the test fails if it leaves anything in it."""
    yield from _namespace(kube_fleet, request)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what happened in a failed test's namespaces to its report."""
    report = yield
    if report.when == "call" and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Namespace):
                report.sections.append((f"namespace {value.name}", value.diagnosis()))
    return report
