"""Tags, branches and rollbacks as people use them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import shoal
from shoal.errors import UsageError
from shoal.tables import labels
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.errors import ConflictError, SnapshotNotFoundError
from shoal.tables.writing import turns


def write(name: str, value: int) -> int:
    return shoal.write_table(pa.table({"x": [value]}), name).snapshot_id


def rows(name: str, **how: Any) -> list[int]:
    return sorted(shoal.read_table(name, **how).x.compute())


def test_a_tag_of_digits(name: str) -> None:
    """A day as a tag could be made and never read."""
    first = write(name, 1)
    write(name, 2)
    shoal.tag(name, "20260101", snapshot=first)
    assert rows(name, snapshot="20260101") == [1]
    assert rows(name, snapshot=str(first)) == [1], "an id as text"
    shoal.branch(name, "7", snapshot="20260101")
    assert rows(name, branch="7") == [1]
    assert rows(name, since="20260101") == [2]
    shoal.rollback(name, "20260101")
    assert rows(name) == [1]


def test_a_tag_that_is_another_snapshots_id_is_refused(name: str) -> None:
    """Which of the two would be meant by it?"""
    first = write(name, 1)
    with pytest.raises(UsageError, match="is a snapshot's id"):
        shoal.tag(name, str(first))


def test_a_rollback_is_undone(name: str) -> None:
    first = write(name, 1)
    second = write(name, 2)
    third = write(name, 3)
    shoal.rollback(name, first)
    assert rows(name) == [1]
    shoal.rollback(name, second)
    assert rows(name) == [1, 2]
    shoal.rollback(name, third)
    assert rows(name) == [1, 2, 3]
    shoal.rollback(name, third)
    assert rows(name) == [1, 2, 3]
    write(name, 4)
    assert rows(name) == [1, 2, 3, 4]
    assert shoal.history(name).snapshot_id.tolist()[:5] == [first, second, third, first, second]


def test_a_rollback_to_what_only_a_branch_held_is_refused(name: str) -> None:
    write(name, 1)
    shoal.branch(name, "trial")
    other = shoal.write_table(pa.table({"x": [9]}), name, branch="trial").snapshot_id
    with pytest.raises(SnapshotNotFoundError, match="never was"):
        shoal.rollback(name, other)
    assert rows(name) == [1]


def test_a_rollback_of_one_is_an_undo_of_anothers(name: str, sql: Callable[[str], Any]) -> None:
    """Spark rolls back; the other side undoes it, and Spark sees that."""
    first = write(name, 1)
    second = write(name, 2)
    sql(f"CALL shoal.system.rollback_to_snapshot('{name}', {first})")
    assert rows(name) == [1]
    shoal.rollback(name, second)
    assert sorted(sql(f"SELECT x FROM shoal.{name}").x) == [1, 2]


def test_a_branch_that_is_a_tag(name: str) -> None:
    write(name, 1)
    shoal.tag(name, "fixed")
    with pytest.raises(UsageError, match="is a tag"):
        shoal.write_table(pa.table({"x": [2]}), name, branch="fixed")
    with pytest.raises(UsageError, match="is a tag"):
        shoal.read_table(name, branch="fixed")
    assert rows(name, snapshot="fixed") == [1]


def test_a_branch_is_published(name: str) -> None:
    """Write, audit, publish; also what was started before, and with what runs twice."""
    write(name, 1)
    shoal.branch(name, "audit")
    for _ in range(2):
        shoal.write_table(pa.table({"x": [2]}), name, branch="audit", run_key="load")
    assert rows(name) == [1]
    published = shoal.publish(name, "audit")
    assert rows(name) == [1, 2]
    assert shoal.publish(name, "audit") == published, "once more changes nothing"
    write(name, 3)
    assert shoal.publish(name, "audit") == published
    assert rows(name) == [1, 2, 3], "main has gone on from it"
    assert rows(name, branch="audit") == [1, 2]
    shoal.write_table(pa.table({"x": [4]}), name, branch="audit")
    with pytest.raises(ConflictError) as told:
        shoal.publish(name, "audit")
    assert f"main has snapshot {shoal.snapshots(name).snapshot_id.iloc[2]} (append, " in str(told.value)
    assert f"'audit' has snapshot {shoal.snapshots(name).snapshot_id.iloc[3]} (append, " in str(told.value)
    assert rows(name) == [1, 2, 3]
    with pytest.raises(SnapshotNotFoundError, match="no branch 'none'"):
        shoal.publish(name, "none")


def test_main_moves_while_a_branch_is_published(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(name, 1)
    shoal.branch(name, "audit")
    shoal.write_table(pa.table({"x": [2]}), name, branch="audit")
    load = catalogs.load

    def late(*given: Any) -> Any:
        table = load(*given)
        monkeypatch.setattr(catalogs, "load", load)
        write(name, 3)
        return table

    monkeypatch.setattr(catalogs, "load", late)
    with pytest.raises(ConflictError, match="at the same moment"):
        shoal.publish(name, "audit")
    assert (rows(name), rows(name, branch="audit")) == ([1, 3], [1, 2])


def test_a_tag_and_a_branch_are_dropped(name: str) -> None:
    first = write(name, 1)
    write(name, 2)
    shoal.tag(name, "old", snapshot=first)
    shoal.branch(name, "trial")
    how: Any = {"branch": "trial", "run_key": "k"}
    shoal.write_table(pa.table({"x": [3]}), name, **how)
    with pytest.raises(UsageError, match=r"shoal\.drop_tag"):
        shoal.expire_snapshots(name, snapshots=[first])
    with pytest.raises(SnapshotNotFoundError, match="no branch 'old'"):
        shoal.drop_branch(name, "old")
    with pytest.raises(UsageError, match="itself"):
        shoal.drop_branch(name, "main")
    assert shoal.drop_tag(name, "old") == first
    with pytest.raises(SnapshotNotFoundError, match="no tag 'old'"):
        shoal.drop_tag(name, "old")
    shoal.drop_branch(name, "trial")
    assert rows(name) == [1, 2]
    assert shoal.expire_snapshots(name, snapshots=[first, first]).snapshots == (first,)
    shoal.expire_snapshots(name, older_than="0s")
    shoal.branch(name, "trial")
    assert not shoal.write_table(pa.table({"x": [3]}), name, **how).replayed, "a run goes with its branch"
    assert rows(name, branch="trial") == [1, 2, 3]


def test_a_tag_is_made_beside_a_writer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose commit comes between the look at the table and the change."""
    first = write(name, 1)
    named = labels._named

    def meddle(*args: Any) -> int:
        monkeypatch.setattr(labels, "_named", named)
        done = threading.Thread(target=write, args=(name, 2))
        done.start()
        done.join()
        return named(*args)

    monkeypatch.setattr(labels, "_named", meddle)
    monkeypatch.setattr(turns, "_LONGEST", 0.0)
    assert shoal.tag(name, "first", snapshot=first) == first
    assert rows(name) == [1, 2]
    assert rows(name, snapshot="first") == [1]
