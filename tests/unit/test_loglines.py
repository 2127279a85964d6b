"""What is shown of an engine's log: not fifty lines of a cluster that did nothing, and never too little."""

from __future__ import annotations

from shoal.cli.loglines import Filter, Level

HEAD = "2026-11-29 02:22:09,123 - shoal.head - INFO - the head is running (pid 7)"
SCHEDULER = "2026-11-28 22:32:52,585 - distributed.scheduler - INFO - State start"
WORKER = "2026-11-28 22:32:52,779 - distributed.worker - INFO - Start worker at: tls://127.0.0.1:1"
WARNING = "2026-11-28 22:32:53,000 - distributed.worker.memory - WARNING - Unmanaged memory use is high"
PRINTED = "what my function printed on a worker"
SPARK = "26/11/28 22:32:52 INFO SparkContext: Running Spark version 4.0.0"
SPARK_WARNING = "26/11/28 22:32:52 WARN TaskSetManager: Lost task 0.0 in stage 1.0"
LINES = [HEAD, SCHEDULER, WORKER, WARNING, PRINTED, SPARK, SPARK_WARNING]


def test_by_default_an_engine_that_did_nothing_is_quiet() -> None:
    assert Filter().kept(LINES) == [HEAD, WARNING, PRINTED, SPARK_WARNING]


def test_every_line_is_there_for_who_asks() -> None:
    assert Filter(Level.INFO).kept(LINES) == LINES
    assert Filter(Level.ERROR).kept(LINES) == [HEAD, PRINTED]


def test_head_and_workers_are_told_apart() -> None:
    lines = LINES[:5]
    assert Filter(Level.INFO, head=True).kept(lines) == [HEAD, SCHEDULER]
    assert Filter(Level.INFO, workers=True).kept(lines) == [WORKER, WARNING, PRINTED]
    assert Filter(Level.INFO, head=True, workers=True).kept(lines) == lines


def test_lines_of_pods_are_told_apart_by_their_pods() -> None:
    """Each begins with its pod's name: so none had a level, and none was the head's."""
    head = [f"nightly-head | {line}" for line in (HEAD, SCHEDULER, "Traceback of the scheduler")]
    worker = [f"nightly-w-12 | {line}" for line in (HEAD, WORKER, WARNING, PRINTED)]
    assert Filter().kept(head + worker) == [head[0], head[2], worker[0], worker[2], worker[3]]
    assert Filter(Level.INFO).kept(head + worker) == head + worker
    assert Filter(Level.INFO, head=True).kept(head + worker) == head
    assert Filter(Level.INFO, workers=True).kept(head + worker) == worker
    assert Filter(head=True, workers=True).kept(head + worker) == Filter().kept(head + worker)
