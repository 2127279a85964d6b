"""Cards and pictures: what they say, and that nothing from outside gets into the page as markup."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from xml.etree import ElementTree

from shoal.display import card
from shoal.display.picture import timeline
from shoal.display.report import report_of
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.status import Event, HeadStatus, NextEnd
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.units import Bytes, Money, Seconds

CLUSTER = Cluster(
    id="abc",
    name="nightly",
    owner="alice",
    team=None,
    workload=Workload("etl"),
    plan=Plan(
        template="etl",
        engine=Engine.DASK,
        target="local",
        head=Size(1, Bytes(10**9)),
        groups=(Group("default", 2, 2, 3, Size(4, Bytes(14 * 10**9)), Size(1, Bytes(10**9))),),
        timeouts=Timeouts(Seconds(1200), Seconds(120), Seconds(14400)),
    ),
    state=State.READY,
    reason=Reason.SERVING,
    message="2 workers serve",
    since=103.0,
    created=100.0,
    admitted_at=100.0,
    ready_at=103.0,
    workers=2,
    report={
        "samples": [[3, 2, 1e8], [4, 2, 9e8], [5, 2, 2e8]],
        "worker_memory_limit": 10**9,
        "peak_worker_memory": 6 * 10**8,
        "restarts": 1,
        "restart_note": "worker <s-1> used too much",
    },
)
HISTORY = [
    Event(State.ADMITTED, Reason.ADMITTED, "within every limit", 100.0),
    Event(State.STARTING, Reason.HEAD_STARTING, "starting <the> scheduler", 100.5),
    Event(State.READY, Reason.SERVING, "2 workers serve", 103.0),
]
STATUS = HeadStatus(
    memory=Bytes(5 * 10**8),
    limit=Bytes(10**9),
    workers=2,
    clients=1,
    busy=True,
    ends_in=NextEnd(Reason.IDLE, Seconds(540)),
)


def test_a_card_says_what_a_person_wants_to_know() -> None:
    plain = card.text(CLUSTER, HISTORY, STATUS, 160.0)
    html = card.html(CLUSTER, HISTORY, STATUS, 160.0, {"Dask's dashboard": "http://127.0.0.1:1/status"})
    for word in ("nightly", "alice", "2 of 2", "500 MB of 2 GB", "9 min", "Idle", "worker-hours"):
        assert word in plain, word
        assert word in html, word
    assert "http://127.0.0.1:1/status" in html
    assert "2.5 s" in html, "the phase's time"
    assert "0.00" not in html


def test_a_card_warns_before_the_end_and_tells_when_a_queued_one_starts() -> None:
    soon = replace(STATUS, ends_in=NextEnd(Reason.DEADLINE_REACHED, Seconds(600)))
    for shown in (card.text(CLUSTER, HISTORY, soon, 160.0), card.html(CLUSTER, HISTORY, soon, 160.0)):
        assert "ends in 10 min, its maximum lifetime (4 h)" in shown
        assert "shoal extend nightly +1h" in shown
    assert "ends in 10 min," not in card.text(CLUSTER, HISTORY, STATUS, 160.0)
    waits = replace(CLUSTER, state=State.QUEUED, report={"latest": 700.0})
    assert "at the latest" in card.text(waits, HISTORY, None, 160.0)
    assert "at the latest" in card.html(waits, HISTORY, None, 160.0)
    assert "at the latest" not in card.text(waits, HISTORY, None, 800.0)


def test_a_price_is_told_as_it_grows() -> None:
    priced = replace(CLUSTER, plan=replace(CLUSTER.plan, price_per_hour=Money(Decimal("3.60"))))
    assert "0.06 USD" in card.text(priced, HISTORY, None, 160.0).replace("0.0600", "0.06")


def test_text_from_outside_stays_text() -> None:
    evil = replace(CLUSTER, name="<script>x</script>", message="<img>")
    html = card.html(evil, HISTORY, STATUS, 160.0, {"<b>": '"><i>'})
    assert "<script>" not in html
    assert "<img>" not in html
    assert "<the>" not in html
    assert "<i>" not in html


def test_the_picture_is_well_formed_and_marks_what_went_wrong() -> None:
    ended = replace(CLUSTER, state=State.STOPPED, ended_at=160.0)
    history = [*HISTORY, Event(State.STOPPING, Reason.IDLE, "", 159.0)]
    report = report_of(ended, history, 160.0)
    svg = ElementTree.fromstring(report.picture())
    titles = [title.text for title in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert "Starting: 2.5 s" in titles
    assert "limit of all workers" in titles
    said = " ".join(text.text or "" for text in svg.iter("{http://www.w3.org/2000/svg}text"))
    assert "worker <s-1> used too much" in said
    assert "memory" in said
    assert report.to_json().keys() >= {"name", "phases", "price"}
    assert "samples" not in report.to_json()
    assert "<svg" in report.html()


def test_a_run_without_samples_has_a_picture_too() -> None:
    ElementTree.fromstring(timeline([("Starting", 0.0, 0.0)], [], 0.0))
