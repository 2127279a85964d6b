"""When a cluster ends on its own, as a table of moments."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.engines.limits import ENGINE
from shoal.engines.port import Sample
from shoal.engines.watch import Losses, Peer, Watch, Work
from shoal.governor.ends import ahead, due
from shoal.head.effort import Effort
from shoal.machine.measure import Tree
from shoal.model.cluster import Reason
from shoal.model.workload import Timeouts
from shoal.units import Seconds

TIMEOUTS = Timeouts(idle=Seconds(20), no_client=Seconds(5), max=Seconds(100))
BUSY, IDLE = Sample(clients=1, busy=True), Sample(clients=1, busy=False)
ALONE, ALONE_BUSY = Sample(clients=0, busy=False), Sample(clients=0, busy=True)


def live(looks: list[tuple[float, Sample | None]]) -> Watch:
    watch = Watch.begin(0)
    for now, look in looks:
        watch = watch.seen(look, now)
    return watch


@pytest.mark.parametrize(
    ("what", "looks", "now", "reason"),
    [
        ("nobody ever came", [], 5, Reason.CLIENT_GONE),
        ("nobody came yet", [], 4.9, None),
        ("a client that does nothing", [(1, IDLE)], 20, Reason.IDLE),
        ("a client that works", [(1, BUSY), (30, BUSY)], 31, None),
        ("idle counts from when work ended", [(1, BUSY), (30, IDLE)], 49, None),
        ("idle for long after work", [(1, BUSY), (30, IDLE)], 50, Reason.IDLE),
        ("the client left, its work goes on", [(1, BUSY), (10, ALONE_BUSY)], 15, Reason.CLIENT_GONE),
        ("the client came back in time", [(1, BUSY), (10, ALONE), (14, BUSY)], 16, None),
        ("no answer is not idleness", [(1, BUSY), (10, ALONE), (11, None)], 60, None),
        ("no answer is no licence to live for ever", [(1, BUSY), (11, None)], 100, Reason.DEADLINE_REACHED),
        ("busy at the deadline", [(1, BUSY), (99, BUSY)], 100, Reason.DEADLINE_REACHED),
    ],
)
def test_it_ends(
    what: str, looks: list[tuple[float, Sample | None]], now: float, reason: Reason | None
) -> None:
    end = due(live(looks).pulse(started=0, now=now), TIMEOUTS)
    assert (end.reason if end else None) is reason, what


@given(
    st.lists(st.sampled_from([BUSY, IDLE, ALONE, ALONE_BUSY, None]), max_size=60),
    st.integers(1, 80).map(lambda eighths: eighths / 8),  # exact: two limits are equal or far apart
)
def test_what_it_says_of_its_end_is_when_it_ends(looks: list[Sample | None], step: float) -> None:
    watch = live([((number + 1) * step, look) for number, look in enumerate(looks)])
    now = len(looks) * step
    first = ahead(watch.pulse(0, now), TIMEOUTS)
    end = due(watch.pulse(0, now), TIMEOUTS)
    assert (end is not None) == (first.seconds == 0)
    later = due(watch.pulse(0, now + float(first.seconds) + 1e-6), TIMEOUTS)
    assert later is not None
    if end is None:
        assert later.reason is first.reason


@pytest.mark.parametrize(
    ("what", "peer", "counts"),
    [
        ("nothing is known", Peer(), True),
        ("a person's process", Peer(silent=1, worked=0), True),
        ("a worker whose task uses a client", Peer(inside=True, silent=1, worked=5), False),
        ("suspended by Ctrl-Z", Peer(stopped=True, silent=1, worked=0), False),
        ("silent for minutes", Peer(silent=ENGINE.silent_client - 1, worked=0), True),
        ("silent for long, and at rest", Peer(silent=ENGINE.silent_client, worked=0.2), False),
        ("silent for long, for it computes in C", Peer(silent=3 * ENGINE.silent_client, worked=900), True),
        ("silent for long, and its process cannot be seen", Peer(silent=ENGINE.silent_client), False),
        ("it need not say anything (Spark)", Peer(silent=None, worked=0), True),
    ],
)
def test_who_is_a_client(what: str, peer: Peer, counts: bool) -> None:
    assert peer.counts is counts, what


def test_a_process_that_computes_is_work_and_one_that_only_breathes_is_not() -> None:
    work = Work.begin(Timeouts(idle=Seconds(1200), no_client=Seconds(5), max=Seconds(10)), {1: 50.0}, 0)
    assert not work.due(9.9)
    assert work.due(10)
    assert not work.seen({1: 50.3}, 10).computing, "an idle worker"
    busy = work.seen({1: 50.0 + 10 * ENGINE.computes}, 10)
    assert busy.computing
    assert not busy.seen({1: 51.2}, 20).computing, "it ended"
    assert work.seen({1: 50.0, 2: 3.0}, 10).computing, "a new process counts with all that it used"
    assert work.seen({1: 50.3, "w-0/17": 3.0}, 10).computing, "one on another machine"
    assert not work.seen({}, 10).computing
    assert Work.begin(TIMEOUTS, {}, 0).due(TIMEOUTS.idle / 4), "short idle times have short windows"


def test_what_keeps_leaving_is_brought_back_later_and_later_and_what_left_long_ago_is_forgotten() -> None:
    losses, now, pauses = Losses(), 0.0, []
    for _ in range(10):
        losses = losses.lost(now)
        pauses.append(losses.wait(now))
        now += pauses[-1] + 1
    assert pauses[:3] == [0, 0, 0]
    assert pauses[3:] == sorted(pauses[3:])
    assert pauses[3] > 0
    assert pauses[-1] == 60
    assert losses.wait(now + 1000) == 0
    assert losses.lost(now + 1000).wait(now + 1000) == 0


def test_a_thread_on_another_machine_is_work_as_one_here_is() -> None:
    effort = Effort(Tree("c", os.getpid()), TIMEOUTS, Sample(elsewhere={"w-0/7": 5.0}), 0)
    window = TIMEOUTS.idle / 4
    rests, spins = Sample(elsewhere={"w-0/7": 5.1}), Sample(elsewhere={"w-0/7": 5.1 + window})
    assert (look := effort.added(rests, window)) is not None
    assert not look.busy
    assert (look := effort.added(spins, 2 * window)) is not None
    assert look.busy
    assert effort.added(None, 3 * window) is None
    assert (look := effort.added(spins, 4 * window)) is not None
    assert not look.busy, "it ended"


@pytest.mark.parametrize(
    "wrong",
    [
        {"silent_client": 10},
        {"heartbeat": 11},
        {"worked": 600},
        {"absent": 60},
        {"longest_pause": 300},
        {"ask_every": 30},
    ],
)
def test_limits_that_contradict_each_other_are_no_settings(wrong: dict[str, float]) -> None:
    """A client that is taken for silent between two heartbeats, say."""
    with pytest.raises(ValueError, match="has to be shorter"):
        replace(ENGINE, **wrong)  # type: ignore[arg-type]


def test_the_heartbeat_is_the_one_that_clients_have() -> None:
    """Where nobody sets another, in distributed as it is installed."""
    import distributed  # noqa: F401 - its settings come with it
    from dask.config import get
    from dask.utils import parse_timedelta

    assert parse_timedelta(get("distributed.client.heartbeat"), default="ms") == ENGINE.heartbeat
