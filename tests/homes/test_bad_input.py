"""What nobody plans for: clocks that jump, policies that change or disagree, names that nobody expects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from shoal.cli import views
from shoal.client.clusters import open_home, open_project, prepare
from shoal.display.forecast import latest_start
from shoal.errors import QuotaExceededError
from shoal.homes.base import Request
from shoal.homes.fake import FakeHome
from shoal.homes.local.home import LocalHome
from shoal.machine.processes import identity, is_alive
from shoal.model.cluster import Cluster, Reason, State

Eventually = Callable[..., Any]
_TIERS = "standard: {{concurrent_clusters: {clusters}, workers_per_cluster: 3, memory: {memory}, "
_TIERS += "max_duration: 4 h, head: 2 GB}}\n"


def tiers(project: Path, clusters: int = 2, memory: str = "6 GB") -> None:
    (project / "policies" / "tiers.yaml").write_text(_TIERS.format(clusters=clusters, memory=memory))


def ask(home: LocalHome | FakeHome, project: Path, name: str, workers: int = 1, **more: Any) -> Cluster:
    settled = prepare("small", engine="dask", workers=workers, project=project, **more)
    return home.request(Request(name, home.user(), settled.workload, settled.plan))


@pytest.fixture
def home(project: Path, eventually: Eventually) -> Iterator[LocalHome]:
    opened = open_home(open_project(project))
    yield opened
    for cluster in opened.clusters():
        opened.stop(cluster.id, Reason.STOPPED_BY_USER, "the test is over")
    eventually(lambda: not opened.clusters(), 60, "all clusters ended")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Make the machine's clock jump, as this process sees it: also the boot's time moves, as it does then."""
    real, booted = time.time, psutil.boot_time()

    def jump(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + seconds)
        monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: booted + seconds)
        monkeypatch.setattr(psutil._psplatform, "BOOT_TIME", booted + seconds, raising=False)

    return jump


@pytest.mark.parametrize("hours", [3, -3])
def test_a_clock_that_jumps_ends_nothing_and_admits_nothing_too_much(
    home: LocalHome, project: Path, clock: Callable[[float], None], eventually: Eventually, hours: float
) -> None:
    first, _ = ask(home, project, "one"), ask(home, project, "two")
    eventually(lambda: home.get(first.id).state is State.READY, 60, "it is Ready")
    third = ask(home, project, "three", queue=True)
    clock(hours * 3600)
    home.settle()
    assert {cluster.name for cluster in home.clusters()} == {"one", "two", "three"}
    assert home.get(first.id).state is State.READY
    assert home.get(third.id).state is State.QUEUED
    with pytest.raises(QuotaExceededError):
        ask(home, project, "four")
    home.stop(first.id, Reason.STOPPED_BY_USER, "room for the next")
    eventually(lambda: home.get(third.id).state.admitted, 60, "the queue moves")
    assert all(entry.message for entry in home.history(third.id))


def test_a_process_is_known_by_ticks_since_the_boot_which_no_clock_moves(
    clock: Callable[[float], None],
) -> None:
    me = identity()
    clock(7200)
    assert is_alive(me) is True
    assert is_alive(me | {"pid_ticks": me["pid_ticks"] + 1}) is False, "a later process of the same pid"


def test_a_request_whose_client_died_is_noted_also_after_the_clock_went_back(
    home: LocalHome, project: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "_launch", lambda cluster, *_: cluster)  # it dies before it starts a head
    lost = ask(home, project, "lost")
    assert home.get(lost.id).state is State.ADMITTED
    clock(-7200)
    assert (home.get(lost.id).state, home.get(lost.id).reason) == (State.FAILED, Reason.START_FAILED)


def test_a_policy_that_takes_away_leaves_what_runs_and_quota_says_that_it_is_over(
    home: LocalHome, project: Path, eventually: Eventually
) -> None:
    running = ask(home, project, "one", workers=3)
    eventually(lambda: home.get(running.id).state is State.READY, 60, "it is Ready")
    tiers(project, clusters=2, memory="2 GB")
    strict = open_home(open_project(project))
    strict.settle()
    kept = strict.get(running.id)
    assert (kept.state, kept.plan.workers) == (State.READY, 3)
    with pytest.raises(QuotaExceededError, match="you hold 3 GB of 2 GB"):
        ask(strict, project, "two")
    row = views.limit_rows(open_project(project).policy.limits_of("alice").totals, strict.held("alice").held)
    memory = next(each for each in row if each["what"] == "memory")
    assert (memory["held"], memory["limit"], memory["free"]) == (3 * 10**9, 2 * 10**9, 0)
    strict.scale(running.id, 1)
    eventually(lambda: strict.get(running.id).plan.workers == 1, 60, "giving back works")


def test_of_two_projects_on_one_ledger_each_asks_by_its_own_policy_and_all_that_is_held_counts(
    home: LocalHome, project: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """What docs/how-to/quotas.md says of it."""
    strict = tmp_path / "strict"
    for folder in ("clusters", "images", "policies"):
        (strict / folder).mkdir(parents=True)
        for file in (project / folder).iterdir():
            (strict / folder / file.name).write_text(file.read_text())
    (strict / "shoal.yaml").write_text((project / "shoal.yaml").read_text())
    tiers(strict, clusters=1)
    theirs = open_home(open_project(strict))
    ask(home, project, "one")
    with pytest.raises(QuotaExceededError, match=r"you hold 1 of 1 \(one\)"):
        ask(theirs, strict, "two")
    waits = ask(theirs, strict, "two", queue=True)
    assert ask(home, project, "three").state.admitted, "the other project's policy gives two"
    # What waits in one project is judged by that project's policy, whoever looks.
    home.settle()
    assert home.get(waits.id).state is State.QUEUED
    for cluster in home.clusters():
        if cluster.id != waits.id:
            home.stop(cluster.id, Reason.STOPPED_BY_USER, "room")
    eventually(lambda: home.get(waits.id).state.admitted, 60, "its own waiter sees to it")


@pytest.mark.parametrize(
    "user", ["Jane van Dijk", "a/../b", "zoë@example.org", "'; drop table shoal_clusters; --", "n" * 300]
)
def test_odd_user_names_have_accounts_like_all_others(
    project: Path, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    monkeypatch.setenv("SHOAL_USER", user)
    local = open_home(open_project(project))
    monkeypatch.setattr(local, "_launch", lambda cluster, *_: cluster)
    fake = FakeHome(open_project(project).policy, who=user)
    for home in (local, fake):
        first, _ = ask(home, project, "one"), ask(home, project, "two")
        assert first.owner == user
        with pytest.raises(QuotaExceededError, match="you hold 2 of 2"):
            ask(home, project, "three")
        waits = ask(home, project, "three", queue=True)
        if isinstance(home, FakeHome):
            home.govern()
        assert latest_start(home.get(waits.id)) is not None
        assert [cluster.owner for cluster in home.clusters(owner=user)] == [user] * 3
        assert views.cluster_view(home.get(first.id))["owner"] == user
        assert home.find("one", user) == replace(home.get(first.id))


@pytest.mark.parametrize("user", ["a\nb", " ", "a\tb", "\u202e evil"])
def test_names_that_are_none_are_refused_before_anything_is_written(
    project: Path, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    home = open_home(open_project(project))
    monkeypatch.setenv("SHOAL_USER", user)
    with pytest.raises(Exception, match="is not a user name"):
        ask(home, project, "one")
    assert home.clusters(ended=True) == []
