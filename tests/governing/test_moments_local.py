"""Home ``local``, moment by moment: what must count, and until when, whoever dies meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shoal.errors import QuotaExceededError
from shoal.homes.base import Request
from shoal.homes.fake import FakeClock
from shoal.homes.local.periods import LOCAL
from shoal.homes.local.sight import look
from shoal.machine.processes import identity
from shoal.model.cluster import Cluster, Reason, State
from shoal.project.loading import Project
from shoal.project.policy import Policy
from shoal.project.targets import Target
from shoal.quota.admission import Verdict

from .played import InMemory, Mortal, PlayedHeads, PlayedHome
from .world import PLACE, Died

Asking = Callable[..., Request]
STOPPED = (State.STOPPED, Reason.STOPPED_BY_USER)


@pytest.fixture
def home(policy: Policy, empty_home: Path) -> PlayedHome:
    clock, mortal = FakeClock(), Mortal()
    target = Target(home="local", machine=PLACE)
    project = Project(Path("/p"), target, {"t": target}, {}, policy)
    return PlayedHome(project, InMemory(clock, mortal), PlayedHeads(clock, mortal))


def ready(home: PlayedHome, ask: Request) -> Cluster:
    cluster = home.request(ask)
    for _ in range(2):
        home.advance(4)
    assert home.get(cluster.id).state is State.READY
    return home.get(cluster.id)


def dies(home: PlayedHome, moment: str, what: Callable[[], object]) -> None:
    home.played.mortal.moment = moment
    with pytest.raises(Died):
        what()
    home.played.mortal.dead = False


def told(home: PlayedHome, cluster: Cluster) -> tuple[State, Reason]:
    known = home.get(cluster.id)
    return known.state, known.reason


def test_a_killed_head_counts_until_its_workers_are_ended(home: PlayedHome, asking: Asking) -> None:
    """Whoever looked first died before it ended them: nobody is admitted onto the memory that they have."""
    first = ready(home, asking("first", "ann", 4))
    waiting = home.request(asking("second", "ann", 4))
    home.played.kill(first.id)
    dies(home, "before what follows", home.settle)
    assert home.played.heads[first.id].workers == 4
    with home.ledger.read() as tx:
        assert tx.get(first.id).state is State.STOPPING
        assert tx.get(waiting.id).state is State.QUEUED
    assert told(home, first) == (State.FAILED, Reason.HEAD_CRASHED)
    assert home.played.heads[first.id].workers == 0
    assert told(home, waiting)[0] is State.ADMITTED


def test_nothing_grows_onto_what_a_killed_head_left(home: PlayedHome, asking: Asking) -> None:
    """`shoal scale` in the moment in which another cluster's head was killed: its workers still have the memory."""
    first, second = ready(home, asking("first", "ann", 1)), ready(home, asking("second", "ann", 4))
    home.played.kill(second.id)
    with home.ledger.write() as tx:
        home._governing.settle(tx)
        assert tx.get(second.id).state is State.STOPPING
        assert home._governing.resize(tx, tx.get(first.id), 4).verdict is Verdict.WAIT
        assert home._governing.request(tx, asking("third", "ann", 4, queue=False))[0].state is State.REFUSED
    assert home.played.heads[second.id].workers == 4
    assert home.scale(first.id, 4).plan.workers == 4, "whoever asks has it ended first"
    assert home.played.heads[second.id].workers == 0


def test_fewer_workers_are_free_for_others_once_they_are_gone(home: PlayedHome, asking: Asking) -> None:
    first = ready(home, asking("first", "ann", 4))
    home.scale(first.id, 1)
    home.advance(1)
    with pytest.raises(QuotaExceededError):
        home.request(asking("second", "ann", 4, queue=False))
    for _ in range(3):
        home.advance(6)
    assert home.get(first.id).plan.workers == 1
    assert home.request(asking("second", "ann", 4, queue=False)).state is State.ADMITTED


@pytest.mark.parametrize("moment", ["before the launch", "after the launch"])
def test_a_client_that_dies_leaves_a_head_or_an_end(home: PlayedHome, asking: Asking, moment: str) -> None:
    dies(home, moment, lambda: home.request(asking("a", "ann", 1)))
    (cluster,) = home.clusters()
    assert cluster.state is State.ADMITTED
    if moment == "after the launch":  # the head itself notes where it is
        for _ in range(2):
            home.advance(4)
        assert home.get(cluster.id).state is State.READY
        return
    home.advance(LOCAL.headless + 1)
    assert told(home, cluster) == (State.FAILED, Reason.START_FAILED)
    assert home.get(cluster.id).message == "no head appeared within 30 s"
    assert not home.held("ann").admitted


def test_a_head_that_hangs_before_it_says_where_it_is_is_found_by_its_mark(
    home: PlayedHome, asking: Asking
) -> None:
    """Whoever noted its cluster's end died before ending it. After a clock that went back that end is ahead, which is
    no reason to wait for it."""
    dies(home, "after the launch", lambda: home.request(asking("a", "ann", 1)))
    (cluster,) = home.clusters()
    home.played.hung.add(cluster.id)
    home.advance(LOCAL.headless + 1)
    dies(home, "before what follows", home.settle)
    assert home.played.heads[cluster.id].alive
    home.played.clock.now -= 7200
    home.settle()
    assert not home.played.heads[cluster.id].alive


def test_a_head_that_dies_while_it_ends_has_ended_for_the_reason_that_it_had(
    home: PlayedHome, asking: Asking
) -> None:
    cluster = ready(home, asking("a", "ann", 2))
    home.stop(cluster.id, Reason.STOPPED_BY_USER, "enough")
    home.played.mortal.moment = "before the end"
    home.advance(1)
    assert not home.played.heads[cluster.id].alive
    assert told(home, cluster) == STOPPED
    assert home.get(cluster.id).message == "enough"


def test_a_head_that_hangs_is_killed_and_what_it_held_is_free(home: PlayedHome, asking: Asking) -> None:
    cluster = ready(home, asking("a", "ann", 2))
    home.played.hung.add(cluster.id)
    home.stop(cluster.id, Reason.STOPPED_BY_USER, "enough")
    home.advance(LOCAL.stop - 1)
    assert home.get(cluster.id).state is State.STOPPING
    home.advance(2)
    assert told(home, cluster) == STOPPED
    assert home.get(cluster.id).message == "enough; its head did not end within 1 min and was killed"
    assert home.played.heads[cluster.id].workers == 0
    assert not home.held("ann").admitted


def test_one_that_hung_while_it_waited_does_not_hold_its_quota_for_ever(
    home: PlayedHome, asking: Asking
) -> None:
    """Its process was stopped in the queue; it was admitted, and nobody ever looked after it."""
    first = ready(home, asking("first", "ann", 4))
    waiting = home.request(asking("second", "ann", 4, hours=0.1))
    home.played.hung.add(waiting.id)
    home.stop(first.id, Reason.STOPPED_BY_USER, "enough")
    home.advance(1)
    assert home.get(waiting.id).state is State.ADMITTED
    home.advance(360 + LOCAL.overdue + 1)
    assert home.get(waiting.id).state is State.STOPPING
    home.advance(LOCAL.stop + 1)
    assert told(home, waiting) == (State.STOPPED, Reason.DEADLINE_REACHED)
    assert not home.held("ann").admitted


def test_on_several_machines_a_cut_off_head_counts_until_it_has_ended_itself(
    home: PlayedHome, asking: Asking
) -> None:
    cluster = ready(home, asking("a", "ann", 2))
    home.played.heads[cluster.id].reachable = False
    for _ in range(int(LOCAL.silent) // 5):
        home.advance(5)
        known = home.get(cluster.id)
        assert known.state is State.READY or not home.played.heads[cluster.id].alive
    home.advance(10)
    assert told(home, cluster) == (State.FAILED, Reason.HEAD_LOST)
    assert home.get(cluster.id).message == "no heartbeat from the head for 5 min 45 s"


def test_a_clock_that_jumps_ends_nothing_that_runs(home: PlayedHome, asking: Asking) -> None:
    cluster = ready(home, asking("a", "ann", 1))
    for jump in (7200, -14400, 7200):
        home.played.clock.now += jump
        assert home.get(cluster.id).state is State.READY
        home.advance(1)
        assert home.get(cluster.id).state is State.READY


def test_the_first_reason_to_end_stays(home: PlayedHome, asking: Asking) -> None:
    """Its user stopped it in the moment in which its time was over."""
    cluster = ready(home, asking("a", "ann", 1, hours=0.1))
    home.stop(cluster.id, Reason.STOPPED_BY_USER, "enough")
    home.advance(3600)
    assert told(home, cluster) == STOPPED


def test_how_long_it_lived_is_known_of_every_head_that_can_be_seen(home: PlayedHome, asking: Asking) -> None:
    """By its own clock once it was born; one that never noted that is judged by the ledger's."""
    cluster = home.request(asking("a", "ann", 1))
    now = float(cluster.admitted_at or 0) + 500
    unborn = replace(cluster, head=identity())
    assert look(unborn, now).lived == 500
    born = replace(cluster, head=identity() | {"since": time.monotonic() - 40})
    assert look(born, now).lived == pytest.approx(40, abs=20)
    assert look(replace(unborn, admitted_at=None, state=State.QUEUED), now).lived is None
