"""Maintenance: what may go goes, what anybody needs stays, and both engines read equal rows after each step."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import shoal
from shoal.client.table_upkeep import unused_patterns, upkeep_tables
from shoal.errors import UsageError
from shoal.project.tables import TablePolicy
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.errors import NotSupportedError, SnapshotNotFoundError
from shoal.tables.maintenance import compaction, expiry
from shoal.tables.writing import points
from shoal.tables.writing.points import WritePoint

from .upkept import backdate, folder, ids, on_disk, put, rows


def test_old_snapshots_go_with_the_files_that_only_they_needed(name: str) -> None:
    first = put(name, [1])
    put(name, [2])
    third = put(name, [7, 8], "overwrite")
    fourth = put(name, [9])
    before = on_disk(name)
    weights = {path: path.stat().st_size for path in before}
    told = shoal.expire_snapshots(name, older_than="0s", dry_run=True)
    assert on_disk(name) == before
    assert len(ids(name)) == 4
    done = shoal.expire_snapshots(name, older_than="0s")
    assert done.snapshots == told.snapshots == (first, *done.snapshots[1:2], third)
    assert (done.files, done.bytes) == (told.files, told.bytes)
    assert ids(name) == [fourth]
    assert rows(name) == [7, 8, 9]
    gone = before - on_disk(name)
    assert done.bytes == sum(weights[path] for path in gone if not path.name.endswith(".json")), (
        "of manifests as well"
    )
    assert sum(path.suffix == ".parquet" for path in gone) == 2
    assert sum(path.suffix == ".avro" for path in gone) >= 3
    assert all(path.is_file() for path in on_disk(name))
    with pytest.raises(SnapshotNotFoundError):
        shoal.read_table(name, snapshot=first)
    put(name, [10], "overwrite")
    shoal.expire_snapshots(name, older_than="0s")
    assert rows(name) == [10]
    assert len(list(folder(name).rglob("*.parquet"))) == 1, (
        "what a snapshot only says it took out is not needed"
    )


def test_age_and_number_keep_snapshots(name: str) -> None:
    for i in range(5):
        put(name, [i])
    assert shoal.expire_snapshots(name).snapshots == (), "all are younger than 5 days"
    assert shoal.expire_snapshots(name, older_than="0s", keep=3).kept == 3
    assert rows(name, snapshot=ids(name)[0]) == [0, 1, 2]
    assert shoal.expire_snapshots(name, older_than=pd.Timedelta(0).to_pytimedelta()).kept == 1


def test_what_the_table_and_its_branches_say_of_themselves(name: str) -> None:
    """Nothing else is said; then that everything may go."""
    for x in range(5):
        put(name, [x])
    known = ids(name)
    table, day = catalogs.load(name), 24 * 3600 * 1000
    with table.manage_snapshots() as manage:
        manage.create_branch(known[1], "aside", max_snapshot_age_ms=day, min_snapshots_to_keep=1)
    with table.transaction() as change:
        change.set_properties(
            {"history.expire.max-snapshot-age-ms": "1", "history.expire.min-snapshots-to-keep": "2"}
        )
    assert shoal.expire_snapshots(name, dry_run=True).snapshots == (known[2],)
    assert shoal.expire_snapshots(name, older_than="1h", dry_run=True).snapshots == ()
    assert shoal.expire_snapshots(name, keep=1, older_than="0s").snapshots == (known[2], known[3])
    assert rows(name, branch="aside") == [0, 1]


def test_what_a_branch_or_tag_needs_stays(name: str) -> None:
    first = put(name, [1])
    shoal.tag(name, "start")
    put(name, [2], "overwrite")
    shoal.branch(name, "trial")
    put(name, [3], "overwrite")
    trial = put(name, [20], branch="trial")
    put(name, [4], "overwrite")
    rolled = put(name, [5], "overwrite")
    shoal.rollback(name, ids(name)[-2])
    with pytest.raises(UsageError, match="is what the tag 'start' points to; nothing was expired"):
        shoal.expire_snapshots(name, snapshots=[rolled, first])
    with pytest.raises(UsageError, match="the branch 'trial'"):
        shoal.expire_snapshots(name, snapshots=[trial])
    assert len(ids(name)) == 6
    shoal.expire_snapshots(name, older_than="0s")
    assert rows(name) == [4]
    assert rows(name, snapshot="start") == [1]
    assert rows(name, branch="trial") == [2, 20]
    assert len(ids(name)) == 3


def test_a_run_that_expired_is_still_known(name: str) -> None:
    put(name, [1], run_key="a")
    put(name, [2], run_key="b")
    shoal.expire_snapshots(name, older_than="0s")
    assert shoal.write_table(pa.table({"x": [1]}), name, run_key="a").replayed
    assert rows(name) == [1, 2]
    shoal.rollback(name, put(name, [3], run_key="c"))
    back = ids(name)[0]
    shoal.rollback(name, back)
    shoal.expire_snapshots(name, older_than="0s")
    assert not shoal.write_table(pa.table({"x": [3]}), name, run_key="c").replayed, (
        "its rows were rolled back"
    )
    assert rows(name) == [1, 2, 3]


def test_a_tag_that_is_made_meanwhile_is_not_lost(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the table and the commit somebody names what is to be expired."""
    first = put(name, [1])
    put(name, [2], "overwrite")
    commit, done = expiry._commit, []

    def late(table: Any, chosen: Any) -> None:
        if not done:
            done.append(shoal.tag(name, "late", snapshot=first))
        commit(table, chosen)

    monkeypatch.setattr(expiry, "_commit", late)
    assert shoal.expire_snapshots(name, older_than="0s").snapshots == ()
    assert rows(name, snapshot="late") == [1]


def test_a_writer_that_commits_meanwhile(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files, and those that it goes on using, stay; the expiry is planned again."""
    put(name, [1])
    put(name, [2])
    commit, done = expiry._commit, []

    def late(table: Any, chosen: Any) -> None:
        if not done:
            done.append(put(name, [3], "upsert", keys="x"))
        commit(table, chosen)

    monkeypatch.setattr(expiry, "_commit", late)
    shoal.expire_snapshots(name, older_than="0s")
    assert rows(name) == [1, 2, 3]
    assert len(ids(name)) == 1


def test_two_who_expire_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the snapshots has gone meanwhile; the others go, too."""
    first = put(name, [1])
    put(name, [2], "overwrite")
    put(name, [3], "overwrite")
    commit, done = expiry._commit, []

    def late(table: Any, chosen: Any) -> None:
        if not done:
            done.append(first)
            shoal.expire_snapshots(name, snapshots=[first])
        commit(table, chosen)

    monkeypatch.setattr(expiry, "_commit", late)
    assert len(shoal.expire_snapshots(name, older_than="0s").snapshots) == 1
    assert (rows(name), len(ids(name))) == ([3], 1)
    assert len(list(folder(name).rglob("*.parquet"))) == 1


def test_expiry_in_the_middle_of_a_write(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each moment of a write that replaces rows, everything old is expired and orphans are removed."""
    put(name, [0])
    moments = [point for point in WritePoint if point.name.startswith("CLIENT")]
    for number, point in enumerate(moments):
        put(name, [100 + number])

        def expire(reached: WritePoint, wanted: WritePoint = point) -> None:
            if reached is wanted:
                monkeypatch.setattr(points, "hook", None)
                shoal.expire_snapshots(name, older_than="0s")
                shoal.remove_orphans(name, dry_run=False)

        monkeypatch.setattr(points, "hook", expire)
        put(name, [number, number + 1], "upsert", keys="x", run_key=f"run {number}")
        assert rows(name) == [*range(number + 2), *range(100, 101 + number)], point


WRONG: list[tuple[Callable[[str], object], str]] = [
    (lambda n: shoal.expire_snapshots(n, older_than="soon"), "is not a duration"),
    (lambda n: shoal.expire_snapshots(n, older_than="5"), "is not a duration"),
    (lambda n: shoal.expire_snapshots(n, older_than="-1d"), "is not a duration"),
    (lambda n: shoal.expire_snapshots(n, keep=0), "not a whole number above 0"),
    (lambda n: shoal.expire_snapshots(n, snapshots=["x"]), "is not a snapshot's id"),
    (lambda n: shoal.expire_snapshots(n, snapshots=[5]), "has no snapshot 5; nothing was expired"),
    (lambda n: shoal.expire_snapshots(n, snapshots=5), "is not a list of ids"),
    (lambda n: shoal.expire_snapshots(n, snapshots="5"), "is not a list of ids"),
    (lambda n: shoal.expire_snapshots(n, snapshots=[5], keep=2), "contradict each other"),
    (lambda n: shoal.expire_snapshots(n, dry_run=None), "dry_run=None is neither True nor False"),
    (lambda n: shoal.compact(n, dry_run="no"), "dry_run='no' is neither True nor False"),
    (lambda n: shoal.rewrite_manifests(n, dry_run=0), "dry_run=0 is neither True nor False"),
    (lambda n: shoal.remove_orphans(n, dry_run=None), "dry_run=None is neither True nor False"),
    (lambda n: shoal.remove_orphans(n, older_than="1h"), "less than 24 hours"),
]


def test_what_makes_no_sense(name: str) -> None:
    put(name, [1])
    for act, said in WRONG:
        with pytest.raises(UsageError, match=said):
            act(name)
    assert len(ids(name)) == 1


def test_a_table_whose_files_are_not_its_own(name: str) -> None:
    put(name, [1])
    with catalogs.load(name).transaction() as change:
        change.set_properties({"gc.enabled": "false"})
    for act in (shoal.expire_snapshots, shoal.remove_orphans):
        with pytest.raises(NotSupportedError, match=r"gc\.enabled=false"):
            act(name)


def test_upkeep_goes_on_whatever_ends_a_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what nobody thought of: one table must not leave all others as they are, every night."""
    put(f"{name}_1", [1])
    put(f"{name}_2", [1])

    def ends(table: str, **_: object) -> None:
        raise ValueError(f"nobody thought of {table}")

    monkeypatch.setattr(compaction, "compact", ends)
    policy = TablePolicy.model_validate({"compact": True, "expire": True})
    later = TablePolicy.model_validate({"orphans": True})
    project: Any = SimpleNamespace(tables={f"{name}_*": policy, f"{name}_1": later})
    steps = [(step.table[-1], step.step, step.failed, step.done) for step in upkeep_tables(project)]
    nobody, done = "ValueError: nobody thought of ", ("expire", False, "nothing to do")
    assert steps == [
        (one, *step) for one in "12" for step in (("compact", True, f"{nobody}{name}_{one}"), done)
    ]
    assert unused_patterns(project) == [f"{name}_1"], "the one before it fits"


def test_health_tells_what_maintenance_would_save(name: str) -> None:
    for i in range(6):
        shoal.write_table(
            pa.table({"x": [i], "p": ["a" if i else "b"]}), name, partition_by=["p"] if not i else None
        )
    found = shoal.table_health(name)
    assert (found.rows, found.files, found.small_files, found.files_after_compaction) == (6, 6, 5, 2)
    assert (found.partitions, found.snapshots, found.refs) == (2, 6, ("main",))
    assert found.skew > 1
    assert (found.orphans, found.expirable_snapshots, found.delete_files) == (0, 0, 0)
    assert "5 of 6 files are small" in found.advice[0]
    shoal.create_table(f"{name}_empty", pa.schema({"x": pa.int64()}))
    empty = shoal.table_health(f"{name}_empty")
    assert (empty.rows, empty.files, empty.oldest, empty.advice) == (0, 0, None, ())


@pytest.mark.spark
def test_spark_reads_equal_rows_after_each_step(name: str, sql: Callable[[str], Any]) -> None:
    """With Spark's writes and deletes in the same table."""
    put(name, list(range(20)))
    put(name, list(range(20, 30)))
    sql(f"INSERT INTO shoal.{name} VALUES (100), (101)")
    sql(f"ALTER TABLE shoal.{name} SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
    sql(f"DELETE FROM shoal.{name} WHERE x < 5")
    put(name, [200], run_key="k")
    expected = [*range(5, 30), 100, 101, 200]

    def equal() -> None:
        assert rows(name) == expected
        assert sorted(sql(f"SELECT x FROM shoal.{name}").x) == expected

    found = shoal.table_health(name)
    assert (found.delete_files, found.deleted_rows) == (1, 5)
    assert any("Every read applies" in line for line in found.advice)
    equal()
    shoal.expire_snapshots(name, older_than="0s")
    equal()
    for path in on_disk(name):
        backdate(path, 100)
    shoal.remove_orphans(name, dry_run=False)
    equal()
    sql(f"CALL shoal.system.rewrite_data_files(table => '{name}', options => map('rewrite-all', 'true'))")
    equal()
    done = shoal.expire_snapshots(name, older_than="0s")
    assert done.files > 4
    equal()
    for path in on_disk(name):
        backdate(path, 100)
    assert shoal.remove_orphans(name, dry_run=False).dry_run is False
    equal()
    assert shoal.table_health(name).files == 1
