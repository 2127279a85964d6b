"""What the governor makes and takes away beside records, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from shoal.errors import StaleRecordError
from shoal.homes.kubernetes.applied import Applied
from shoal.homes.kubernetes.errors import ObjectRefusedError
from shoal.homes.kubernetes.in_force import InForce
from shoal.homes.kubernetes.location import Location
from shoal.homes.kubernetes.names import ACCESS, ADMITTED, CLUSTER, QUOTA, SECRET, Object
from shoal.homes.kubernetes.objects import report_object
from shoal.homes.kubernetes.parts import ClusterParts
from shoal.homes.kubernetes.passes import take_stale_passes
from shoal.homes.kubernetes.quotas import Quotas, quota_object
from shoal.homes.kubernetes.refusals import Refusals
from shoal.homes.kubernetes.store import ObjectStore
from shoal.homes.kubernetes.view import View
from shoal.homes.kubernetes.watched import Watched
from shoal.model.cluster import Cluster, State
from shoal.project.loading import load
from shoal.quota.account import Account

from .test_view import PLAN, Server, cluster
from .test_view import watched as watched

SYSTEM = "shoal-system"


@dataclass
class Writing(Server):
    """Which notes what is written. ``when`` is called before anything is made, with its name."""

    sent: list[str] = field(default_factory=list)
    bodies: dict[str, Any] = field(default_factory=dict)
    when: Callable[[str], object] = print

    def create(self, path: str, body: Object) -> Object:
        name = body["metadata"]["name"]
        self.when(name)
        self.sent.append(f"+ {name}")
        metadata = body["metadata"] | {"uid": name, "resourceVersion": "9"}
        return body | {"metadata": metadata}

    def patch(self, path: str, body: Any, kind: str = "merge", **params: str) -> Object:
        self.sent.append(f"~ {path.rpartition('/')[2]}")
        self.bodies[path] = body
        return {}

    def delete(self, path: str, uid: str | None = None, grace: int | None = None) -> None:
        self.sent.append(f"- {path.rpartition('/')[2]}")


@pytest.fixture
def server() -> Writing:
    return Writing()


@pytest.fixture
def view(server: Writing, watched: Watched) -> View:
    return View(cast(Any, server), Location(), watched, Refusals())


@pytest.fixture
def parts(server: Writing, watched: Watched, view: View) -> ClusterParts:
    quotas = Quotas(cast(Any, server), SYSTEM, list, print)
    return ClusterParts(cast(Any, server), watched, view, quotas, Refusals())


@pytest.fixture
def in_force(tmp_path: Path, small_project: Callable[[Path], Path]) -> InForce:
    return InForce(SYSTEM, {"small": Applied.of(load(small_project(tmp_path)))})


def seen(server: Writing, watched: Watched, view: View, in_force: InForce, *these: Object) -> None:
    for each in these:
        server.objects[CLUSTER.path("alice", each["metadata"]["name"])] = each
        watched.clusters.put(each)
    view.look(in_force, 0.0)


def test_no_worker_is_made_of_one_whose_end_was_written_while_its_head_was_made(
    server: Writing, watched: Watched, view: View, parts: ClusterParts, in_force: InForce
) -> None:
    seen(
        server, watched, view, in_force, cluster("one", 1, State.ADMITTED), cluster("two", 2, State.ADMITTED)
    )
    parts.start_head("two")
    assert server.sent[-2:] == ["+ two-head", "+ two-w-0"]

    def ends(name: str) -> None:
        if name == "one-head":
            server.objects[CLUSTER.path("alice", "one")] = cluster("one", 3, State.STOPPED)

    server.when = ends
    with pytest.raises(StaleRecordError):
        parts.start_head("one")
    assert server.sent[-1] == "+ one-head"


def test_many_workers_of_one_cluster_wait_for_those_before_them(
    server: Writing, watched: Watched, view: View, parts: ClusterParts, in_force: InForce
) -> None:
    """Others come in between; and what is refused of some is not asked for again for all the rest."""
    many = replace(PLAN, groups=(replace(PLAN.groups[0], count=100, maximum=100),))
    seen(server, watched, view, in_force, *(cluster(name, 1, State.ADMITTED) for name in ("one", "two")))
    view.records = {uid: replace(its, plan=many) for uid, its in view.records.items()}
    parts.start_head("two")
    assert {f"+ two-w-{slot}" for slot in range(100)} <= {*server.sent}

    def refused(name: str) -> None:
        if name == "one-w-3":
            raise ObjectRefusedError("no")

    server.when = refused
    with pytest.raises(ObjectRefusedError):
        parts.start_head("one")
    assert 1 < len([name for name in server.sent if "one-w-" in name]) < 20


def test_what_a_late_start_made_goes_with_its_end(
    server: Writing, watched: Watched, view: View, parts: ClusterParts, in_force: InForce
) -> None:
    """The name and the pass once more with each report, and no oftener."""
    one = cluster("one", 1, State.STOPPED)

    def ended(version: int) -> Cluster:
        report = report_object(one)
        report["metadata"] |= {"namespace": "alice", "uid": f"r-{version}", "resourceVersion": str(version)}
        watched.reports.put(report)
        view.look(in_force, 0.0)
        return view.records["one"]

    seen(server, watched, view, in_force, one)
    parts.end_remains("one")
    taken = ["- one-head", f"~ {ACCESS}"]
    assert server.sent == taken
    parts.clear(one, ended(2))
    assert server.sent == [*taken, *taken, "- one"]
    parts.clear(one, ended(2))
    assert server.sent == [*taken, *taken, "- one", "- one"]
    parts.clear(one, ended(3))
    assert [each for each in server.sent if each in taken] == taken * 3


def test_a_defect_of_one_cluster_keeps_no_other_untidy(
    server: Writing, watched: Watched, in_force: InForce, caplog: pytest.LogCaptureFixture
) -> None:
    store = ObjectStore(cast(Any, server), Location(), watched)
    seen(server, watched, store._view, in_force, *(cluster(f"c{n}", n + 1) for n in range(20)))
    tended = list[str]()

    def tend(found: Object, its: Cluster) -> None:
        if its.name == "c7":
            raise KeyError("slot")
        tended.append(its.name)

    store._parts.tend = tend  # type: ignore[method-assign]
    store.tidy()
    assert len(tended) == 19
    assert "c7 of alice is looked at again in the next round" in caplog.text


def test_all_entries_of_a_pass_go_also_those_of_another_release(server: Writing) -> None:
    path = SECRET.path("alice", ACCESS)
    data = dict.fromkeys(("gone.token", "gone.crt", "gone.key", "gone.later", "old.later", "here.token"), "x")
    server.objects[path] = {"metadata": {"name": ACCESS}, "data": data}
    taken = dict[str, None]()
    patch = server.patch

    def patched(path: str, body: Any, kind: str = "merge", **params: str) -> Object:
        taken.update(body["data"])
        return patch(path, body, kind, **params)

    server.patch = patched  # type: ignore[method-assign]
    take_stale_passes(cast(Any, server), ["alice"], {"here"}, print, print)
    assert taken.keys() == data.keys() - {"here.token"}


def test_a_start_waits_a_moment_for_a_quota_that_a_neighbour_wrote(server: Writing) -> None:
    path = QUOTA.path("alice", ADMITTED)
    written = quota_object("alice", Account(), 1)
    written["metadata"] |= {"uid": "q", "resourceVersion": "1"}
    in_time, asked = [3], list[str]()

    def get(path: str) -> Object:
        asked.append(path)
        hard = written["spec"]["hard"] if len(asked) >= in_time[0] else {}
        metadata = written["metadata"] | {"resourceVersion": str(len(asked) + 1)}
        return written | {"metadata": metadata, "status": {"hard": hard}}

    server.get = get  # type: ignore[method-assign]
    quotas = Quotas(cast(Any, server), SYSTEM, lambda: [written], print)
    quotas.look()
    quotas.wait_for("alice")
    assert asked == [path] * 3
    quotas.wait_for("alice")
    assert (len(asked), quotas.pending) == (3, False), "it is known to be in force"
    quotas.look()
    in_time[0] = 10**6
    with pytest.raises(StaleRecordError, match="not in force yet"):
        quotas.wait_for("alice")
    assert quotas.pending
