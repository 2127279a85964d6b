"""One suite that every home passes: what handles, flows and the command line rely on.

A home that lacks something has it listed in ``gaps.py`` with the reason, and fails here when it no longer does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoal.client.clusters import open_home, open_project, prepare
from shoal.display.forecast import latest_start
from shoal.errors import InfrastructureError, NeverFitsError, NotFoundError, QuotaExceededError, UsageError
from shoal.homes.base import Request, RunsScripts, Wrote
from shoal.homes.fake import FakeClock, FakeHome
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import ScriptRun
from shoal.quota.admission import Decision, Verdict
from shoal.units import Seconds

from ..governing.played import InFile, InMemory, Mortal, PlayedHeads, PlayedHome
from .gaps import GAPS
from .worlds import World


# ``played``: home local's own decisions and ledger, with the processes and the clock of its random-step tests.
# ``guest``: a home that a package brings, written against the ports alone (``test_guest_home.py``).
@pytest.fixture(params=["fake", "local", "guest", "played in memory", "played in a file"])
def world(request: pytest.FixtureRequest, project: Path) -> Iterator[World]:
    if reason := GAPS.get((request.param, request.node.originalname)):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    if request.param == "guest":
        request.getfixturevalue("guest")
    opened = open_project(project)
    if request.param == "fake":
        fake = FakeHome(opened.policy, who="alice")

        def pass_time() -> None:
            fake.govern()
            fake.advance(1)

        yield World(fake, project, pass_time, lambda cluster, code: fake.script_ends(cluster.id, code))
        return
    if request.param.startswith("played"):
        clock, mortal = FakeClock(), Mortal()
        in_memory = request.param == "played in memory"
        ledger = InMemory(clock, mortal) if in_memory else InFile(project / "ledger.db", clock, mortal)
        played = PlayedHome(opened, ledger, PlayedHeads(clock, mortal), "alice")
        yield World(played, project, lambda: played.advance(1))
        return
    world = World(open_home(opened), project, lambda: time.sleep(0.05))
    assert world.home.name == request.param
    yield world
    for cluster in world.home.clusters():
        world.end(cluster)


def test_a_request_within_every_limit_becomes_ready_and_ends_when_told(world: World) -> None:
    asked = world.ask("one", workers=2)
    assert asked.state.admitted
    ready = world.ready(asked)
    assert ready.workers == 2
    assert world.home.endpoint(asked.id).address
    ended = world.end(ready)
    assert (ended.state, ended.reason, ended.message) == (
        State.STOPPED,
        Reason.STOPPED_BY_USER,
        "no longer needed",
    )
    assert ended.workers == 0
    with pytest.raises(InfrastructureError, match="Stopped"):
        world.home.endpoint(asked.id)


def test_its_history_tells_every_state_with_reason_sentence_and_time(world: World) -> None:
    ended = world.end(world.ready(world.ask("one")))
    history = world.home.history(ended.id)
    states = [entry.state for entry in history]
    assert states[-1] == "Stopped"
    assert states.index("Ready") < states.index("Stopping")
    assert all(entry.reason and entry.message for entry in history)
    assert [entry.at for entry in history] == sorted(entry.at for entry in history)


def test_asking_again_under_a_live_name_gives_the_same_cluster_and_no_other(world: World) -> None:
    first = world.ask("one")
    assert world.ask("one").id == first.id
    (world.project / "clusters" / "other.yaml").write_text(
        (world.project / "clusters/small.yaml").read_text()
    )
    with pytest.raises(UsageError, match="one"):
        world.ask("one", template="other")
    world.end(first)
    assert world.ask("one").id != first.id, "an ended cluster's name is free"


def test_whoever_asks_knows_by_the_id_whether_the_cluster_is_new(world: World) -> None:
    """Of two who ask at once under one name exactly one owns the cluster; the other has found it."""
    first = world.ask("one", id="chosen-by-the-first")
    second = world.ask("one", id="chosen-by-the-second")
    assert (first.id, second.id) == ("chosen-by-the-first", "chosen-by-the-first")
    world.end(first)
    assert world.ask("one", id="chosen-by-the-third").id == "chosen-by-the-third"


@pytest.mark.parametrize(
    ("asked", "what", "requested", "existing"),
    [
        ({"workers": 2}, "workers", "2", "1"),
        ({"workers": (2, 3)}, "workers", "2-3", "1"),
        ({"memory": "2 GB"}, "memory per worker", "2 GB", "1 GB"),
        ({"packages": ["tide"]}, "packages", "tide", "none"),
        ({"idle": "9 min"}, "idle", "9 min", "5 min"),
        ({"max_duration": "9 min"}, "max_duration", "9 min", "1 h"),
    ],
)
def test_another_plan_under_a_live_name_is_refused_with_both_side_by_side(
    world: World, asked: dict[str, Any], what: str, requested: str, existing: str
) -> None:
    """Nobody computes on another size than was was asked for unnoticed."""
    world.ask("one")
    with pytest.raises(UsageError, match=f"{what} +{requested} +{existing}") as refusal:
        world.ask("one", **asked)
    assert refusal.value.values["differences"] == {what: {"requested": requested, "existing": existing}}
    assert 'shoal.connect("one")' in refusal.value.hint
    assert "shoal down one" in refusal.value.hint
    assert ("shoal scale one 2" in refusal.value.hint) == (what == "workers")
    assert len(world.home.clusters()) == 1


def test_what_changed_in_a_clusters_life_does_not_make_it_another(world: World) -> None:
    """It was extended, or scaled into the range that is asked for: whoever asks as before gets it."""
    first = world.ready(world.ask("one"))
    world.home.extend(first.id, Seconds.parse("2 h"))
    assert world.ask("one", workers=(1, 3)).id == first.id
    world.home.scale(first.id, 2)
    assert world.ask("one", workers=2).id == first.id
    with pytest.raises(UsageError, match=r"workers +1 +2"):
        world.ask("one", workers=1)


def test_over_the_quota_is_refused_with_the_holders_and_the_ways_on(world: World) -> None:
    world.ask("one"), world.ask("two")
    with pytest.raises(QuotaExceededError) as refusal:
        world.ask("three")
    assert all(word in str(refusal.value) for word in ("one", "two", "shoal down", "queue=True"))
    assert {cluster.name for cluster in world.home.clusters()} == {"one", "two"}


def test_what_a_request_would_be_told_changes_nothing_and_comes_true(world: World) -> None:
    """`shoal plan` says beforehand what `shoal up` would; what is held is counted as limits count it."""

    def would(name: str) -> Decision:
        settled = prepare("small", engine="dask", workers=1, project=world.project)
        return world.home.would(Request(name, world.home.user(), settled.workload, settled.plan))

    assert would("one").verdict is Verdict.ADMIT
    assert world.home.clusters() == []
    first, _ = world.ask("one"), world.ask("two")
    told = would("three")
    assert told.verdict is Verdict.WAIT
    assert "one" in told.error().message
    assert "two" in told.error().message
    assert len(world.home.clusters()) == 2
    user = world.home.user()
    assert set(world.home.held(user).admitted) == {each.id for each in world.home.clusters()}
    assert world.home.held("somebody-else").admitted == {}
    assert world.home.held("no-team", team=True).admitted == {}
    world.end(first)
    assert would("three").verdict is Verdict.ADMIT


def test_a_home_proves_itself_and_has_nothing_to_say_against_a_head_that_lives(world: World) -> None:
    cluster = world.ready(world.ask("one"))
    assert world.home.unresponsive(cluster) == ""
    for name, prove in world.home.proofs():
        assert prove(), name
    assert isinstance(world.home.logs(cluster.id, wrote=Wrote.HEAD), str)


def test_what_can_never_fit_is_refused_also_when_it_may_wait(world: World) -> None:
    with pytest.raises(NeverFitsError):
        world.ask("huge", workers=50, queue=True)
    assert world.home.clusters() == []


def test_a_queued_request_says_what_it_waits_for_and_starts_when_that_is_freed(world: World) -> None:
    first, _ = world.ready(world.ask("one")), world.ask("two")
    third = world.ask("three", queue=True)
    world.until(
        lambda: world.home.get(third.id).reason is Reason.WAITING_FOR_QUOTA, "it says what it waits for"
    )
    assert world.home.get(third.id).state is State.QUEUED
    assert "position 1" in world.home.get(third.id).message
    world.end(first)
    assert world.ready(third).workers == 1


def test_the_first_in_the_queue_is_told_when_it_starts_at_the_latest(world: World) -> None:
    first = world.ask("one", max_duration="1 h")
    world.ask("two", max_duration="2 h")
    third, fourth = world.ask("three", queue=True), world.ask("four", queue=True)
    world.until(lambda: "position 2" in world.home.get(fourth.id).message, "it says its place")
    told, behind = world.home.get(third.id), world.home.get(fourth.id)
    ends = (world.home.get(first.id).admitted_at or 0) + 3600
    assert latest_start(told) == pytest.approx(ends, abs=30)
    assert latest_start(behind) is None, "what comes between is not known"
    world.end(first)
    assert latest_start(world.ready(third)) is None


def test_a_range_starts_with_as_many_as_fit_and_says_so(world: World) -> None:
    world.ready(world.ask("one", workers=3))
    # Its data would take three workers and more; beside the first there is room for two.
    ranged = world.ask("two", workers=(2, 3), memory="1.5 GB", data="60 GB")
    assert (ranged.state.admitted, ranged.plan.workers, ranged.plan.groups[0].maximum) == (True, 2, 3)
    admitted = next(e for e in world.home.history(ranged.id) if e.state == "Admitted")
    assert "starting with 2 of 3 workers" in admitted.message
    assert world.ready(ranged).workers == 2


def test_a_priority_above_the_tiers_is_refused_with_where_it_is_written(world: World) -> None:
    with pytest.raises(NeverFitsError, match=r"priority 3; the limit is priority 2: tier standard \(.*:"):
        world.ask("urgent", priority=3)
    asked = prepare("small", engine="dask", workers=1, priority=2, project=world.project)
    rushed = replace(asked.workload, priority=3)
    with pytest.raises(NeverFitsError, match="the limit is priority 2"):  # whatever the client settled
        world.home.request(Request("urgent", world.home.user(), rushed, asked.plan))
    assert world.ask("in-time", priority=2).state.admitted


def test_a_running_cluster_tells_its_status_and_an_ended_one_does_not(world: World) -> None:
    cluster = world.ready(world.ask("one"))
    world.until(
        lambda: (s := world.home.status(cluster.id)) is not None and s.ends_in is not None, "it knows its end"
    )
    status = world.home.status(cluster.id)
    assert status is not None
    assert status.ends_in is not None
    assert status.clients == 0
    assert 0 < status.ends_in.seconds <= 3600
    world.end(cluster)
    assert world.home.status(cluster.id) is None


def test_a_queued_request_can_be_taken_back(world: World) -> None:
    world.ask("one"), world.ask("two")
    third = world.ask("three", queue=True)
    ended = world.end(third)
    assert (ended.state, ended.reason) == (State.STOPPED, Reason.STOPPED_BY_USER)


def test_a_cluster_ends_with_the_script_beside_it_whose_exit_code_it_tells(world: World) -> None:
    if world.script_ends is None:
        assert not isinstance(world.home, RunsScripts), "it runs where its user is, see tests/cli"
        return
    assert isinstance(world.home, RunsScripts)
    cluster = world.ready(world.ask("one", run=ScriptRun("nightly.py", arguments=("--month", "3"))))
    assert (cluster.run, cluster.exit_code) == (ScriptRun("nightly.py", arguments=("--month", "3")), None)
    with pytest.raises(UsageError, match=r"script +other\.py +nightly\.py"):
        world.ask("one", run=ScriptRun("other.py"))
    world.until(lambda: _script_ended(world, cluster, 7), "its script runs, and ends")
    world.until(lambda: world.home.get(cluster.id).state.ended, "it ended with its script")
    world.until(lambda: not world.home.remains(cluster.id), "nothing is left of it")
    ended = world.home.get(cluster.id)
    assert (ended.state, ended.message) == (State.STOPPED, "its script failed: exit code 7")
    assert (ended.exit_code, ended.result) == (7, "failed")


def _script_ended(world: World, cluster: Cluster, code: int) -> bool:
    assert world.script_ends is not None
    try:
        world.script_ends(cluster, code)
    except (KeyError, NotFoundError):  # it has not started yet
        return False
    return True


def test_a_script_that_is_told_to_end_with_its_cluster_neither_failed_nor_succeeded(world: World) -> None:
    if world.script_ends is None:
        return
    cluster = world.ready(world.ask("one", run=ScriptRun("nightly.py")))
    ended = world.end(cluster)
    assert (ended.message, ended.exit_code, ended.result) == ("no longer needed", None, "ended")


def test_stopping_twice_is_stopping_once_and_the_first_reason_stays(world: World) -> None:
    cluster = world.ready(world.ask("one"))
    world.home.stop(cluster.id, Reason.STOPPED_BY_USER, "first")
    world.home.stop(cluster.id, Reason.CLIENT_GONE, "second")
    world.until(lambda: world.home.get(cluster.id).state.ended, "ended")
    assert world.home.stop(cluster.id, Reason.CLIENT_GONE, "third").message == "first"


def test_names_and_ids_that_nobody_knows(world: World) -> None:
    assert world.home.find("nobody", world.home.user()) is None
    for act in (world.home.get, world.home.endpoint):
        with pytest.raises(NotFoundError):
            act("no-such-id")


def test_live_clusters_are_listed_newest_first_and_ended_ones_on_request(world: World) -> None:
    first, second = world.ask("one"), world.ask("two")
    assert [cluster.name for cluster in world.home.clusters()] == ["two", "one"]
    world.end(first)
    assert [cluster.name for cluster in world.home.clusters()] == ["two"]
    assert {cluster.name for cluster in world.home.clusters(ended=True)} == {"one", "two"}
    assert world.home.clusters(owner="somebody-else") == []
    assert world.home.find("one", world.home.user()) is not None, "the last of that name, though it ended"
    world.end(second)


def test_a_longer_life_goes_as_far_as_the_tier_and_ends_there(world: World) -> None:
    cluster = world.ready(world.ask("one", max_duration="20 min"))
    assert world.home.extend(cluster.id, Seconds.parse("2 h")).plan.timeouts.max == 7200
    with pytest.raises(NeverFitsError, match="4 h"):
        world.home.extend(cluster.id, Seconds.parse("5 h"))
    assert world.home.get(cluster.id).plan.timeouts.max == 7200
    world.end(cluster)
    with pytest.raises(InfrastructureError, match="has ended"):
        world.home.extend(cluster.id, Seconds.parse("3 h"))


def test_a_lifetime_that_is_over_already_is_refused_and_one_still_ahead_is_given(world: World) -> None:
    """`shoal extend nightly '1 h'` after 90 minutes is meant as one hour more: it must not end the work."""
    cluster = world.ready(world.ask("nightly", max_duration="20 min"))

    def lived() -> float:
        with pytest.raises(UsageError) as refused:
            world.home.extend(cluster.id, Seconds(0.001))
        assert "shoal extend nightly +1ms" in refused.value.hint
        return float(refused.value.values["lived"])

    world.until(lambda: lived() > 1, "it has lived for a second")
    with pytest.raises(UsageError, match=r"nightly has lived .* s already, and may live 20 min") as refused:
        world.home.extend(cluster.id, Seconds(1))
    assert "shoal extend nightly +1s" in refused.value.hint
    assert world.home.get(cluster.id).plan.timeouts.max == 1200
    assert world.home.extend(cluster.id, Seconds.parse("15 min")).plan.timeouts.max == 900
    world.pass_time()
    assert world.home.get(cluster.id).state is State.READY


def test_a_further_group_grows_and_shrinks_by_its_name(world: World) -> None:
    (world.project / "clusters" / "mixed.yaml").write_text(
        """
        workers:
          - {name: cpu, min: 1, max: 2, cores: 1, memory: 400 MB}
          - {name: large, min: 0, max: 2, cores: 1, memory: 500 MB}
        head: {cores: 1, memory: 500 MB}
        """
    )
    world.apply()
    cluster = world.ready(world.ask("one", template="mixed"))
    assert cluster.plan.by_group == "1 cpu, 0 large"
    world.home.scale(cluster.id, 1, "large")
    world.until(lambda: world.home.get(cluster.id).workers == 2, "two workers")
    with pytest.raises(QuotaExceededError):
        world.home.scale(cluster.id, 3, "large")
    with pytest.raises(UsageError, match="no group of workers 'larger'"):
        world.home.scale(cluster.id, 1, "larger")
    assert world.home.get(cluster.id).plan.by_group == "1 cpu, 1 large"
    world.home.scale(cluster.id, 0, "large")
    world.until(lambda: world.home.get(cluster.id).workers == 1, "one worker")
    world.until(lambda: world.home.get(cluster.id).plan.by_group == "1 cpu, 0 large", "and no more counts")


def test_growing_goes_through_admission_and_shrinking_gives_back(world: World) -> None:
    cluster = world.ready(world.ask("one", workers=1))
    world.home.scale(cluster.id, 3)
    world.until(lambda: world.home.get(cluster.id).workers == 3, "three workers")
    with pytest.raises(QuotaExceededError):
        world.home.scale(cluster.id, 4)
    assert world.home.get(cluster.id).plan.workers == 3
    with pytest.raises(UsageError):
        world.home.scale(cluster.id, 0)
    world.home.scale(cluster.id, 1)
    world.until(lambda: world.home.get(cluster.id).workers == 1, "one worker")
    world.until(lambda: world.home.get(cluster.id).plan.workers == 1, "and no more counts")
