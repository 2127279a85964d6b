"""What people and machines get wrong: each has an error of its own that says so, and leaves nothing half-made.

Here is what needs a world of its own (a full disk, a locked catalog, a schema that changes under a reader);
what is refused by looking at the frame is in test_evolve.py.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pytest

import shoal
from shoal.errors import ShoalError, UsageError
from shoal.tables import errors
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.writing import points
from shoal.tables.writing.points import WritePoint


def rows(ids: Any, value: str = "old") -> pa.Table:
    ids = list(ids)
    return pa.table(
        {"id": pa.array(ids, pa.int64()), "part": [f"p{i % 3}" for i in ids], "v": [value] * len(ids)}
    )


def ids(name: str, **how: Any) -> list[int]:
    return sorted(shoal.read_table(name, **how).id.compute())


WRITES: dict[str, dict[str, Any]] = {
    "append": {},
    "overwrite": {"mode": "overwrite"},
    "overwrite_partitions": {"mode": "overwrite_partitions"},
    "upsert": {"mode": "upsert", "keys": "id"},
}


# ---- a table that vanishes or changes mid-job


@pytest.mark.parametrize("change", ["drop", "rename", "columns"])
@pytest.mark.parametrize("how", WRITES)
def test_a_table_that_changes_under_a_writer(
    name: str, monkeypatch: pytest.MonkeyPatch, how: str, change: str, data_files: Any
) -> None:
    shoal.write_table(rows(range(6)), name, partition_by="part")
    table, before = catalogs.load(name), data_files(name)

    def meddle(point: WritePoint) -> None:
        if point is WritePoint.CLIENT_AFTER_FILES:
            monkeypatch.setattr(points, "hook", None)
            if change == "drop":
                shoal.catalog().drop_table(name)
            elif change == "rename":
                shoal.catalog().rename_table(name, name + "_renamed")
            else:
                with table.update_schema() as update:
                    update.rename_column("v", "w")

    monkeypatch.setattr(points, "hook", meddle)
    words = "columns .* were changed" if change == "columns" else "vanished while rows were written"
    with pytest.raises(errors.TableChangedError, match=words):
        shoal.write_table(rows(range(3, 9), "new"), name, **WRITES[how])
    folder = Path(table.location().removeprefix("file://"), "data")
    assert set(folder.rglob("*.parquet")) == before, "its files are deleted again"
    if change != "drop":
        kept = name + "_renamed" if change == "rename" else name
        assert ids(kept) == list(range(6))
        assert len(shoal.snapshots(kept)) == 1


def test_columns_that_change_under_a_reader(name: str) -> None:
    """A frame keeps the columns that it was made with."""
    shoal.write_table(rows(range(6)), name)
    df = shoal.read_table(name)
    with catalogs.load(name).update_schema() as update:
        update.rename_column("v", "w")
        update.delete_column("part")
    assert df.compute().columns.tolist() == ["id", "part", "v"]
    assert shoal.read_table(name).columns.tolist() == ["id", "w"]


def test_a_table_that_is_purged_under_a_reader(name: str) -> None:
    shoal.write_table(rows(range(6)), name)
    df = shoal.read_table(name)
    shutil.rmtree(catalogs.load(name).location().removeprefix("file://"))
    with pytest.raises(errors.StorageError, match=r"metadata file of the table .* is gone") as caught:
        df.compute()
    assert "expired, or the table dropped" in str(caught.value)


# ---- columns that are missing


@pytest.mark.parametrize(
    "attempt",
    [
        lambda name: shoal.read_table(name, columns=["id", "vv"]),
        lambda name: shoal.read_table(name, filters="vv = 1"),
        lambda name: shoal.write_table(rows([9]), name, sort_by="vv"),
        lambda name: shoal.write_table(rows([9]), name, mode="upsert", keys=["id", "vv"]),
        lambda name: shoal.write_table(rows([9]), name + "_new", partition_by="bucket(4, vv)"),
        lambda name: shoal.write_table(rows([9]), name + "_new", sort_by="vv desc"),
    ],
    ids=["read", "filter", "sort", "keys", "new, partitioned", "new, sorted"],
)
def test_a_column_that_is_not_there(name: str, attempt: Callable[[str], Any], data_files: Any) -> None:
    shoal.write_table(rows(range(6)), name)
    before = data_files(name)
    with pytest.raises((errors.ColumnNotFoundError, errors.FilterError), match="'vv'") as caught:
        attempt(name)
    assert "'v'" in str(caught.value), "the one that is like it is shown"
    assert data_files(name) == before
    with pytest.raises(errors.TableNotFoundError):
        shoal.read_table(name + "_new")


# ---- values that the type cannot hold


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (pa.int32(), 1, 2**31),
        (pa.timestamp("us"), pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-01 00:00:00.000000001")),
    ],
    ids=str,
)
def test_the_error_names_column_partition_row_and_value(
    name: str, kind: pa.DataType, good: Any, bad: Any, dask_cluster: Any, data_files: Any
) -> None:
    shoal.create_table(name, {"n": pa.int64(), "c": kind})
    frame = pd.DataFrame({"n": range(40), "c": [good] * 40})
    frame.loc[27, "c"] = bad
    with pytest.raises(errors.ValueNotRepresentableError, match=r"'c'.*in row 7 of partition 2") as caught:
        shoal.write_table(dd.from_pandas(frame, npartitions=4), name)
    values = caught.value.values
    assert (values["column"], values["partition"], values["row"]) == ("c", 2, 7)
    assert pd.Timestamp(values["value"]) == bad if isinstance(bad, pd.Timestamp) else values["value"] == bad
    assert not data_files(name)
    assert len(shoal.snapshots(name)) == 0


# ---- no space left


FILL = textwrap.dedent(
    """
    import os, sys, pathlib
    import pyarrow as pa
    import shoal
    from shoal.tables import errors
    from shoal.tables.catalogs import opening as catalogs
    from shoal.tables.catalogs.opening import CatalogSettings

    disk = pathlib.Path(sys.argv[1])
    given = CatalogSettings(uri=f"sqlite:///{disk}/catalog.db", timeout=2)
    rows = lambda start: pa.table({"id": range(start, start + 3000), "s": [os.urandom(4).hex() for _ in range(3000)]})
    files = lambda: sorted(str(p) for p in (disk / "warehouse").rglob("*") if p.is_file() and p.suffix != ".json")
    filler, expected, failed, landed, step = disk / "filler", 0, 0, 0, 4096
    shoal.write_table(rows(0), "a.t", catalog=given)
    expected += 3000
    free = 0
    while landed < 2:
        before = files()
        out = os.open(filler, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)  # the disk is full but for ``free`` bytes
        try:
            while os.write(out, b"0" * step):
                pass
        except OSError:
            os.ftruncate(out, max(0, os.fstat(out).st_size - free))
        os.close(out)
        try:
            shoal.write_table(rows(expected), "a.t", catalog=given)
            expected += 3000
            landed += 1
        except errors.StorageError as error:
            assert "space" in str(error), error
            failed += 1
            assert files() == before, "something was left"
        free += step
    filler.unlink()
    df = shoal.read_table("a.t", catalog=given)
    assert sorted(df.id.compute()) == list(range(expected)), "rows are lost or doubled"
    assert len(catalogs.load("a.t", given).metadata.snapshots) == expected // 3000
    print("failed", failed, "landed", landed, "free", free)
    """
)


def own_mounts() -> list[str]:
    """The command in front of another one that gives it mounts of its own, that end with it."""
    command = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    probe = subprocess.run(
        [*command, "mount", "-t", "tmpfs", "t", "/mnt"], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must skip nothing, but: no mounts of one's own: {probe.stderr}")
        pytest.skip(f"needs mounts of its own: {probe.stderr.strip()}")
    return command


def test_no_space_left_at_any_moment(tmp_path: Path) -> None:
    """A real disk, full but for 0, 4, 8, ... KiB: in the data file, the manifests, the metadata, the catalog."""
    script = 'mount -t tmpfs -o size=4m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        [*own_mounts(), "sh", "-c", script, "sh", str(tmp_path), sys.executable, FILL],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert int(words[1]) > 5, "it failed at several moments"


# ---- a catalog that is locked or down when it matters


@pytest.mark.parametrize("held", ["exclusive", "immediate"])
def test_a_catalog_that_is_locked_at_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    """``immediate``: it can be read but not changed, so only the swap itself is refused."""
    given = CatalogSettings(uri=f"sqlite:///{tmp_path}/c.db", timeout=0.6)
    shoal.write_table(rows(range(6)), "a.t", catalog=given)
    files = sorted(tmp_path.rglob("*.parquet"))
    holder = sqlite3.connect(tmp_path / "c.db", isolation_level=None)

    def lock(point: WritePoint) -> None:
        if point is WritePoint.CLIENT_AFTER_FILES:
            holder.execute(f"begin {held}")

    monkeypatch.setattr(points, "hook", lock)
    with pytest.raises(
        errors.CatalogUnavailableError, match=r"for \d+\.\d s \(database is locked\)"
    ) as caught:
        shoal.write_table(rows(range(9)), "a.t", catalog=given)
    assert 0.3 < caught.value.values["tried_for"] < 10
    holder.execute("rollback")
    holder.close()
    assert sorted(tmp_path.rglob("*.parquet")) == files, "its files are deleted again"
    assert ids("a.t", catalog=given) == list(range(6))


# ---- two writers of one partition


@pytest.mark.parametrize("how", ["overwrite", "overwrite_partitions"])
def test_two_processes_replace_one_partition(name: str, lake: CatalogSettings, how: str) -> None:
    """Whoever is second says so or comes after: the partition is one writer's, whole."""
    shoal.write_table(rows(range(9)), name, partition_by="part")
    program = textwrap.dedent(
        """
        import sys, pyarrow as pa, shoal
        from shoal.tables.errors import ConflictError
        name, how, mine = sys.argv[1:]
        table = pa.table({"id": [0, 3, 6], "part": ["p0"] * 3, "v": [mine] * 3})
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(8):
            try:
                shoal.write_table(table, name, mode=how)
                print("landed", flush=True)
            except ConflictError as error:
                assert "Someone else changed" in str(error), error
                print("conflict", flush=True)
        """
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, name, how, who],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in ("anna", "otto")
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    landed = sum(words.count("landed") for words in said)
    conflicts = sum(words.count("conflict") for words in said)
    assert landed + conflicts == 16
    assert len(shoal.snapshots(name)) == 1 + landed
    found = shoal.read_table(name).compute()
    assert sorted(found.id) == ([0, 3, 6] if how == "overwrite" else list(range(9)))
    assert len(set(found[found.part == "p0"].v)) == 1, "a mixture of both"


# ---- frames with nothing in them


@pytest.mark.parametrize("how", WRITES)
def test_an_empty_frame_in_every_mode(name: str, how: str, dask_cluster: Any) -> None:
    shoal.write_table(rows(range(6)), name, partition_by="part")
    df = dd.from_pandas(rows(range(6)).to_pandas(), npartitions=3)
    empty = df[df.id > 100]
    result = shoal.write_table(empty, name, **WRITES[how])
    assert (result.rows, result.files) == (0, ())
    assert ids(name) == ([] if how == "overwrite" else list(range(6)))
    some = df[df.id > 4]  # all partitions but one are empty
    assert shoal.write_table(some, name, **WRITES[how]).rows == 1


def test_a_frame_without_columns(name: str) -> None:
    for nothing in (pd.DataFrame(), pa.table({})):
        with pytest.raises(UsageError, match="no columns"):
            shoal.write_table(nothing, name)
    with pytest.raises(errors.TableNotFoundError):
        shoal.read_table(name)


# ---- unknown divisions


@pytest.mark.parametrize("how", WRITES)
def test_a_frame_of_unknown_divisions_and_unknown_order(name: str, how: str, dask_cluster: Any) -> None:
    shoal.write_table(rows(range(6)), name, partition_by="part")
    df = dd.from_pandas(rows(range(3, 30), "new").to_pandas(), npartitions=4)
    mixed = dd.concat([df.partitions[2:], df.partitions[:2]]).clear_divisions().shuffle("v")
    assert not mixed.known_divisions
    shoal.write_table(mixed, name, **WRITES[how])
    added = list(range(3, 30))
    expected = {"append": [*range(6), *added], "upsert": [*range(30)]}.get(how, added)
    assert ids(name) == sorted(expected)


def test_every_line_of_the_list_is_an_error_of_ours() -> None:
    kinds = {errors.TableChangedError, errors.ColumnNotFoundError, errors.ValueNotRepresentableError}
    kinds |= {errors.StorageError, errors.CatalogUnavailableError, errors.ConflictError}
    assert all(issubclass(kind, ShoalError) for kind in kinds)


def test_a_task_that_comes_to_its_end_after_another_failed_leaves_no_file(
    name: str, dask_cluster: Any, data_files: Any
) -> None:
    def part(number: int) -> pd.DataFrame:
        import time

        import numpy as np

        if number == 0:
            time.sleep(0.7)  # the other is being written when this one fails
            return pd.DataFrame({"n": [2**40]})
        return pd.DataFrame({"n": np.random.default_rng(0).integers(0, 2**31, 20_000_000)})

    shoal.create_table(name, {"n": pa.int32()})
    meta = pd.DataFrame({"n": pd.Series([], dtype="int64")})
    with pytest.raises(errors.ValueNotRepresentableError):
        shoal.write_table(dd.from_map(part, [0, 1], meta=meta), name)
    time.sleep(2)
    assert not data_files(name)
