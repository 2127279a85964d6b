"""What a head tells travels between versions: an older head is read, and tells an older reader what that looks for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from shoal.display.explain import explain
from shoal.display.report import report_of
from shoal.errors import InfrastructureError
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.codec import plain, read
from shoal.model.status import Event, HeadStatus, NextEnd
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.units import Bytes, Seconds

# What a head of Shoal 0.1.0 answers, word for word.
OLD = (
    '{"id": "abc", "phase": "Ready", "ends_in": {"reason": "Idle", "seconds": 1195.7}, "clients": 1, "busy": false, '
    '"workers": 2, "memory": 157286400, "peak_memory": 83886080, "limit": 1000000000, "spilled": 0, '
    '"cpu_seconds": 3.5, "restarts": 0, "note": "", "worker_pids": [4711, 4712]}'
)


def test_the_status_of_an_older_head_is_read() -> None:
    assert read(HeadStatus, json.loads(OLD)) == HeadStatus(
        id="abc",
        phase=State.READY,
        ends_in=NextEnd(Reason.IDLE, Seconds(1195.7)),
        clients=1,
        workers=2,
        memory=Bytes(157286400),
        peak_memory=Bytes(83886080),
        limit=Bytes(1000000000),
        cpu_seconds=3.5,
        worker_pids=(4711, 4712),
    )


def test_an_older_reader_finds_what_it_looks_for_where_it_was() -> None:
    told = json.loads(OLD)
    again = json.loads(json.dumps(plain(read(HeadStatus, told))))
    assert {name: again[name] for name in told} == told
    assert json.loads(json.dumps(plain(HeadStatus())))["ends_in"] is None


def test_what_a_newer_head_tells_besides_is_left_out_and_its_words_are_kept() -> None:
    newer = {"phase": "Hibernating", "moons": 3, "ends_in": {"reason": "Eclipse", "seconds": 5, "of": "sun"}}
    found = read(HeadStatus, newer)
    assert found == HeadStatus(phase=State("Hibernating"), ends_in=NextEnd(Reason("Eclipse"), Seconds(5)))
    assert not found.phase.ended
    assert (str(found.phase), json.dumps(plain(found.phase))) == ("Hibernating", '"Hibernating"')


@pytest.mark.parametrize("said", [[], {"clients": "many"}, {"ends_in": {"reason": 5}}, {"memory": None}])
def test_what_is_no_status_is_none(said: object) -> None:
    with pytest.raises(InfrastructureError, match="HeadStatus cannot be read"):
        read(HeadStatus, said)


def test_a_record_may_be_in_no_state_that_is_not_known_here_but_its_past_may() -> None:
    none = Size(0, Bytes(0))
    plan = Plan(
        "etl",
        Engine.DASK,
        "local",
        none,
        (Group("default", 1, 1, 1, none, none),),
        Timeouts(Seconds(1), Seconds(1), Seconds(1)),
    )
    known = Cluster(
        "abc", "nightly", "ann", None, Workload("etl"), plan, State.STARTING, Reason.ADMITTED, "", 0, 0
    )
    with pytest.raises(InfrastructureError, match=r"does not know: Hibernating(.|\n)*upgrade Shoal"):
        replace(known, state=State("Hibernating"))
    past = [
        Event(State("Hibernating"), Reason("Eclipse"), "dark", 1.0),
        Event(known.state, known.reason, "", 2.0),
    ]
    assert report_of(known, past, 3.0).picture()
    assert explain(known, past)[-1].said == "not reached"
