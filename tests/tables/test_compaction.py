"""Compaction: the same rows in fewer files, whoever writes or reads meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import shoal
from shoal.errors import ShoalError
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.errors import ConflictError, StorageError, StorageFullError
from shoal.tables.maintenance import compaction, rewriting
from shoal.tables.maintenance.packing import PackedFile, files_after, pack_all, pack_small
from shoal.tables.writing import points
from shoal.tables.writing.points import WritePoint

from .small_files import INF, NAN, content, files, made, meanwhile, paths, small_files


def test_files_are_put_together_partition_by_partition(
    name: str, data_files: Callable[[str], set[Path]], dask_cluster: Any
) -> None:
    small_files(name, partition_by="carrier")
    before, old, at = content(name), data_files(name), int(shoal.snapshots(name).snapshot_id.iloc[-1])
    health = shoal.table_health(name)
    told = shoal.compact(name, dry_run=True)
    assert (data_files(name), told.snapshot_id) == (old, 0)
    done = shoal.compact(name)
    assert (told.files, told.files_written) == (done.files, done.files_written) == (18, 3)
    assert health.files_after_compaction == 3
    assert done.rows == len(before) == 300
    assert content(name) == before
    assert len(files(name)) == 3
    assert {file.partition[0] for file in files(name)} == {"AA", "UA", None}
    last = shoal.snapshots(name).iloc[-1]
    assert (last.operation, last.total_rows, last.total_files) == ("replace", 300, 3)
    assert content(name, snapshot=at) == before, "a reader of an earlier snapshot"
    assert len(shoal.read_table(name, since=at)) == 0, "nothing was added"
    assert shoal.compact(name).files == 0, "nothing is left to do"
    assert data_files(name) == old | paths(name)
    shoal.expire_snapshots(name, older_than="0s")
    assert data_files(name) == paths(name)
    assert content(name) == before


def test_what_is_packed() -> None:
    def of(*sizes: int, place: str = "p", changed: bool = False) -> list[PackedFile]:
        return [PackedFile(f"{place}{i}", place, size, size * 3.0, changed) for i, size in enumerate(sizes)]

    def sizes(groups: list[Any]) -> list[list[int]]:
        return [[file.bytes for file in group] for group in groups]

    assert sizes(pack_small(of(30, 30, 30, 30, 80, 100, 10), 100)) == [[30, 30, 30], [30, 10]]
    assert sizes(pack_small([*of(30), *of(30, place="q")], 100)) == []
    assert sizes(pack_small(of(100, changed=True), 100)) == [[100]]
    assert sizes(pack_all(of(30, 30, 500), 200)) == [[30, 30], [500]]
    assert files_after(7, pack_small(of(30, 30, 30, 30, 80, 100, 10), 100), 100) == 4


def test_who_changes_rows_meanwhile_wins(
    name: str, data_files: Callable[[str], set[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one partition are replaced: that one stays as it is, the others are put together; what is added stays."""
    small_files(name, partition_by="carrier")
    changed = made(0, 1).set_column(0, "id", pa.array([3], pa.int64()))

    def others() -> None:
        shoal.write_table(changed, name, "upsert", keys="id")
        shoal.write_table(made(900), name)

    meanwhile(monkeypatch, others)
    done = shoal.compact(name)
    assert (done.skipped_files, done.files, done.files_written) == (6, 12, 2)
    read = [
        eval(row, {"nan": NAN, "inf": INF, "Decimal": str, "datetime": __import__("datetime")})
        for row in content(name)
    ]
    assert sorted(row["id"] for row in read) == [*range(300), *range(900, 950)]
    assert sum(row["text"] is None and row["id"] == 3 for row in read) == 1
    assert data_files(name) >= paths(name)
    shoal.expire_snapshots(name, older_than="0s")
    assert data_files(name) == paths(name), "nothing of what was dropped is left"


@pytest.mark.parametrize("end", ["all changed", "fails", "interrupted"])
def test_a_compaction_that_does_not_land_leaves_nothing(
    name: str, end: str, data_files: Callable[[str], set[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_files(name, 3)
    before, old = content(name), data_files(name)
    expected: Any = {"all changed": ConflictError, "fails": OSError, "interrupted": KeyboardInterrupt}[end]

    def act() -> None:
        if end != "all changed":
            raise expected("as it happens")
        shoal.write_table(pa.Table.from_pylist(made(0).to_pylist()[:1], made(0).schema), name, "overwrite")

    if end == "interrupted":
        seen: list[WritePoint] = []

        def hook(point: WritePoint) -> None:
            seen.append(point)
            if point is WritePoint.WORKER_IN_FILE:
                raise KeyboardInterrupt

        monkeypatch.setattr(points, "hook", hook)
    else:
        meanwhile(monkeypatch, act)
    with pytest.raises(expected):
        shoal.compact(name)
    monkeypatch.setattr(points, "hook", None)
    if end == "all changed":
        assert len(content(name)) == 1
        assert data_files(name) == old | paths(name)
    else:
        assert content(name) == before
        assert data_files(name) == old


def test_a_file_that_has_not_the_rows_of_its_manifest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_files(name, 2)
    read = rewriting.read_arrow
    monkeypatch.setattr(rewriting, "read_arrow", lambda *given: read(*given).slice(1))
    with pytest.raises(StorageError, match="100 rows by the manifests"):
        shoal.compact(name)
    assert len(shoal.snapshots(name)) == 2


def test_live_writers_and_a_reader(name: str) -> None:
    """Four writers append, upsert and replace partitions while it compacts; no row is lost or doubled."""
    for i in range(8):
        shoal.write_table(
            pa.table({"w": [i % 4] * 5, "n": range(5 * i, 5 * i + 5)}), name, partition_by=None if i else "w"
        )
    at, start = int(shoal.snapshots(name).snapshot_id.iloc[-1]), content(name)
    faults: list[BaseException] = []
    turns = 3

    def guarded(act: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                act()
            except BaseException as error:
                faults.append(error)

        return run

    def append(writer: int) -> None:
        for turn in range(turns):
            shoal.write_table(
                pa.table({"w": [writer] * 2, "n": [1000 * (writer + 1) + 2 * turn + i for i in (0, 1)]}), name
            )

    def upsert() -> None:
        for turn in range(turns):
            shoal.write_table(pa.table({"w": [2, 2], "n": [10, 5000 + turn]}), name, "upsert", keys="n")

    def replace() -> None:
        for turn in range(turns):
            while True:
                try:
                    shoal.write_table(pa.table({"w": [3], "n": [7000 + turn]}), name, "overwrite_partitions")
                    break
                except ConflictError:
                    continue

    writers = [
        threading.Thread(target=guarded(act))
        for act in (lambda: append(0), lambda: append(1), upsert, replace)
    ]
    for writer in writers:
        writer.start()
    landed = 0
    while any(writer.is_alive() for writer in writers):
        with suppress(ConflictError):
            landed += shoal.compact(name).files > 0
        assert content(name, snapshot=at) == start
    for writer in writers:
        writer.join()
    assert not faults, faults
    landed += shoal.compact(name).files > 0
    assert landed
    expected = {
        0: [*range(5), *range(20, 25), *range(1000, 1006)],
        1: [*range(5, 10), *range(25, 30), *range(2000, 2006)],
    }
    expected |= {2: [*range(10, 15), *range(30, 35), *range(5000, 5003)], 3: [7002]}
    frame = shoal.read_table(name).compute()
    assert {w: sorted(rows.n) for w, rows in frame.groupby("w")} == expected


def test_manifests_are_put_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same files in fewer lists, beside a writer that commits meanwhile."""
    small_files(name, 5, partition_by="carrier")
    before, old = content(name), paths(name)
    assert shoal.rewrite_manifests(name, dry_run=True).manifests_after == 1
    load, done = catalogs.load, []

    def late(*given: Any) -> Any:
        table = load(*given)
        if not done:
            done.append(1)
            shoal.write_table(made(900), name)
        return table

    monkeypatch.setattr(catalogs, "load", late)
    assert shoal.rewrite_manifests(name).manifests == 5
    head = load(name).current_snapshot()
    assert len(head.manifests(load(name).io)) == 1
    assert (head.summary.operation.value, head.summary["total-records"]) == ("replace", "300")
    assert paths(name) > old
    assert sorted(before + [row for row in content(name) if row not in before]) == content(name)
    assert len(content(name)) == 300
    assert shoal.rewrite_manifests(name).snapshot_id == 0
    shoal.expire_snapshots(name, older_than="0s")
    assert len(content(name)) == 300


@pytest.mark.spark
def test_deletes_are_applied_and_those_that_come_meanwhile_are_kept(
    name: str, sql: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(4):
        shoal.write_table(
            pa.table({"p": ["a", "b"] * 5, "n": range(10 * i, 10 * i + 10)}),
            name,
            partition_by=None if i else "p",
        )
    sql(f"ALTER TABLE shoal.{name} SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
    sql(f"DELETE FROM shoal.{name} WHERE n < 3")
    assert shoal.table_health(name).delete_files
    meanwhile(monkeypatch, lambda: sql(f"DELETE FROM shoal.{name} WHERE n IN (4, 24)"))
    done = shoal.compact(name)
    assert (done.files_written, done.skipped_files) == (1, 4), "rows of a were deleted, b is put together"
    expected = [n for n in range(40) if n >= 3 and n not in (4, 24)]

    def equal() -> None:
        assert sorted(shoal.read_table(name).n.compute()) == expected
        assert sorted(sql(f"SELECT n FROM shoal.{name}").n) == expected

    equal()
    shoal.rewrite_manifests(name)
    equal()
    done = shoal.compact(name, sort_by="n")
    assert done.files_written == 2
    assert shoal.table_health(name).delete_files == 0
    assert len(shoal.read_table(name)) == len(expected), "by metadata alone"
    equal()
    sql(f"DELETE FROM shoal.{name} WHERE n = 39")
    sql(f"ALTER TABLE shoal.{name} ADD PARTITION FIELD bucket(2, n)")
    expected.remove(39)
    shoal.compact(name)
    assert {file.spec_id for file in files(name)} == {1}, (
        "files of the earlier partitioning are divided again"
    )
    equal()


WRONG: list[tuple[Any, str]] = [
    ({"sort_by": "nothing"}, "nothing"),
    ({"sort_by": "tags"}, "cannot be sorted by 'tags'"),
    ({"zorder_by": ["x"]}, "names 1 column;"),
    ({"sort_by": "x", "zorder_by": ["x", "id"]}, "contradict"),
    ({"target_size": "much"}, "not a size"),
    ({"branch": "none"}, "no branch 'none'"),
]


def test_what_makes_no_sense(name: str) -> None:
    shoal.write_table(made(0), name)
    for how, said in WRONG:
        with pytest.raises(ShoalError, match=said):
            shoal.compact(name, **how)
    assert len(shoal.snapshots(name)) == 1


def test_a_disk_without_room() -> None:
    compaction.refuse_if_full(10, 10, "/data")
    with pytest.raises(StorageFullError, match="10 bytes, and 9 are free at /data"):
        compaction.refuse_if_full(10, 9, "/data")
