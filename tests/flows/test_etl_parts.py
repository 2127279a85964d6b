"""What an etl flow does, without Prefect and without a cluster: what it finds, lands, keeps and refuses."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

import shoal
from shoal.errors import UsageError
from shoal.flows import etl, inputs, pieces, script
from shoal.flows.errors import EmptyInputError, InputChangedError, InputMissingError, ScriptError
from shoal.flows.etl import Etl
from shoal.flows.progress import Done
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.errors import NoRowsError, NotSupportedError, SchemaMismatchError, SnapshotNotFoundError
from shoal.tables.writing import points
from shoal.tables.writing.points import WritePoint

NOON = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)


class Killed(BaseException):
    """Where the process would be gone."""


def job(**options: Any) -> Etl:
    """What the flow of these options runs."""
    given: dict[str, Any] = {"input": "data/*.csv", "output": "sales.rows"}
    made = etl("sales", **(given | options))
    (found,) = (c.cell_contents for c in made.fn.__closure__ if isinstance(c.cell_contents, Etl))
    return found


def run(one: Etl, *, again: bool = False, flow_run: str = "run-1") -> Any:
    """A run of it in this process; None where nothing is new."""
    function = script.load(one.transform, Path())
    assert not isinstance(function, script.Query)
    found = one.find(Path.cwd(), flow_run, again=again)
    if found is None:
        return None
    frame = found.frame(one.types, one.output, function, as_they_are=one.transform is None)
    return one.land(frame, found, NOON)


@pytest.fixture
def put(empty_home: Path) -> Callable[..., Path]:
    """``put("a.csv", (1, 5.0), ...)`` writes a file with ids and amounts into data/."""

    def write(name: str, *rows: tuple[object, ...], columns: str = "id,amount") -> Path:
        file = Path("data", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n")
        return file

    return write


def ids(table: str = "sales.rows") -> list[int]:
    return sorted(shoal.read_table(table).id.compute().tolist())


def test_each_file_lands_once_whatever_happens_in_between(put: Callable[..., Path]) -> None:
    one = job(expect={"sane": "amount > 0"})
    put("a.csv", (1, 5.0), (2, -1.0))
    put("_part.csv", (99, 1.0))
    assert run(one).rows == 1
    assert run(one) is None
    put("b.csv", (3, 1.0))
    put("c.csv", (4, -2.0))
    result = run(one)
    assert (result.rows, result.quality.failed_rows) == (1, 1)
    assert run(one) is None
    # Of nothing but failing rows a file is done, too.
    put("d.csv", (5, -3.0))
    assert run(one).rows == 0
    assert run(one) is None
    assert (ids(), ids("sales.rows_quarantine")) == ([1, 3], [2, 4, 5])
    # Compacted, and all other snapshots expired: what is done is still known.
    shoal.write_table(pd.DataFrame({"id": [100], "amount": [1.0]}), "sales.rows")
    shoal.compact("sales.rows")
    shoal.expire_snapshots("sales.rows", older_than="0 s", keep=1)
    assert run(one) is None
    # Rolled back: what was taken out comes again, and its failing rows are put aside as those of another write.
    put("e.csv", (6, 1.0), (7, -1.0))
    before = catalogs.load("sales.rows").metadata.current_snapshot_id
    run(one)
    shoal.rollback("sales.rows", before)
    assert run(one).rows == 1
    assert (ids(), ids("sales.rows_quarantine")) == ([1, 3, 6, 100], [2, 4, 5, 7, 7])
    # Everything on purpose.
    assert run(one, again=True, flow_run="run-2").rows == 3


@pytest.mark.parametrize("point", [p for p in WritePoint if p.name.startswith("CLIENT")])
def test_killed_at_any_moment_of_the_write_the_next_run_completes_it_once(
    point: WritePoint, put: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = job(expect={"sane": "amount > 0"})
    put("a.csv", (1, 5.0))
    run(one)
    put("b.csv", (2, 1.0), (3, -1.0))

    def kill(reached: WritePoint) -> None:
        if reached is point:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(points, "hook", kill)
        with pytest.raises(Killed):
            run(one)
    run(one)
    assert run(one) is None
    assert (ids(), ids("sales.rows_quarantine")) == ([1, 2], [3])
    metadata = catalogs.load("sales.rows").metadata
    assert metadata.refs["flow-sales"].snapshot_id == metadata.current_snapshot_id


def test_a_file_that_changed_is_refused_or_read_again_where_its_rows_replace_the_old(
    put: Callable[..., Path],
) -> None:
    put("a.csv", (1, 5.0))
    run(job())
    put("a.csv", (1, 6.0), (2, 7.0))
    with pytest.raises(InputChangedError, match=r"a\.csv"):
        run(job())
    other = {"output": "sales.latest", "mode": "upsert", "keys": "id"}
    run(job(**other))
    put("a.csv", (1, 8.0), (22, 9.0))
    assert run(job(**other)).replaced_rows == 1
    assert ids("sales.latest") == [1, 2, 22]


def test_a_table_is_read_from_where_the_last_run_was(put: Callable[..., Path]) -> None:
    one = job(input="raw.sales", transform=lambda part: part.assign(double=part.amount * 2))
    shoal.write_table(pd.DataFrame({"id": [1, 2], "amount": [1.0, 2.0]}), "raw.sales")
    assert run(one).rows == 2
    assert run(one) is None
    shoal.write_table(pd.DataFrame({"id": [3], "amount": [3.0]}), "raw.sales")
    shoal.compact("raw.sales")
    assert run(one).rows == 1
    assert shoal.read_table("sales.rows").double.compute().sum() == 12
    shoal.write_table(pd.DataFrame({"id": [9], "amount": [9.0]}), "raw.sales", mode="overwrite")
    with pytest.raises(NotSupportedError, match="not only added"):
        run(one)
    shoal.rollback("raw.sales", int(shoal.snapshots("raw.sales").snapshot_id.iloc[0]))
    with pytest.raises(SnapshotNotFoundError, match="full=True"):
        run(one)


def test_a_column_without_a_value_is_what_it_was_before(put: Callable[..., Path]) -> None:
    one = job(transform=lambda part: part.assign(twice=part.amount * 2))
    columns = "id,amount,at"
    put("a.csv", (1, "", ""), columns=columns)
    put("b.csv", (2, 1.5, "2026-11-30 10:00:00"), columns=columns)
    assert run(one).rows == 2  # as the next file says
    put("c.csv", (3, "", ""), columns=columns)
    assert run(one).rows == 1  # as the table says
    put("d.csv", columns=columns)
    assert run(one).rows == 0  # a day on which nothing happened
    put("e.csv", (4, "abc", ""), columns=columns)
    found = one.find(Path.cwd(), "run-1", again=False)
    assert found is not None
    with pytest.raises(TypeError, match="twice") as caught:
        found.frame(one.types, one.output, script.load(broken, Path()), as_they_are=False)
    assert "columns id int64[pyarrow], amount string, at timestamp" in caught.value.__notes__[0]


def broken(part: pd.DataFrame) -> pd.DataFrame:
    raise TypeError("twice")


def test_late_rows_are_put_aside_with_that_reason(put: Callable[..., Path]) -> None:
    rows = (
        (1, 1.0, "2026-11-30 08:00:00"),
        (2, 1.0, "2026-11-27 08:00:00"),
        (3, -1.0, "2026-11-01 00:00:00"),
    )
    put("a.csv", *rows, columns="id,amount,at")
    run(job(late=("at", "2 d"), expect={"sane": "amount > 0"}))
    aside = shoal.read_table("sales.rows_quarantine").compute().set_index("id").failed_rules
    assert (ids(), aside.to_dict()) == ([1], {2: "late", 3: "late; sane"})


def test_pieces_of_any_size_are_the_whole_file_once(
    put: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(n, f"{n * 7 % 1000}.5") for n in range(40)]
    whole = csv.read_csv(put("a.csv", *rows)).to_pandas()
    whole.to_json("data/b.jsonl", orient="records", lines=True)
    pq.write_table(pa.Table.from_pandas(whole), "data/c.parquet", row_group_size=7)
    Path("data/d.csv.gz").write_bytes(gzip.compress(Path("data/a.csv").read_bytes()))
    for name in ("a.csv", "b.jsonl", "c.parquet", "d.csv.gz"):
        (file,) = inputs.find(f"data/{name}", Path.cwd(), {})
        for size in (7, 50, file.size - 1, file.size):
            monkeypatch.setattr(pieces, "PIECE", size)
            reader = pieces.reader_of([file], "data", {}, {}, {})
            frame = pieces.frame_of(reader, [file])
            assert frame.compute().astype(whole.dtypes).reset_index(drop=True).equals(whole), (name, size)
            assert frame.npartitions == 1 or size < file.size


def test_files_on_s3_are_read_as_tables_there_are(
    s3: Any, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket("incoming")
    (bucket / "sales" / "day").mkdir(parents=True)
    (bucket / "sales" / "day" / "a.csv").write_text("id,amount\n1,2.0\n")
    monkeypatch.setenv("SHOAL_CATALOG_PROPERTIES", json.dumps(s3.properties))
    one = job(input="s3://incoming/sales/**/*.csv")
    assert run(one).rows == 1
    assert run(one) is None
    with pytest.raises(InputMissingError, match="s3://incoming/nowhere"):
        run(replace(one, input="s3://incoming/nowhere/"))


EMPTYING = {"transform": lambda part: part.head(0), "mode": "overwrite"}


def tables() -> list[tuple[str, int]]:
    """Every table, with its number of snapshots."""
    opened = catalogs.catalog()
    names = [name for space in opened.list_namespaces() for name in opened.list_tables(space)]
    return [(".".join(name), len(opened.load_table(name).metadata.snapshots)) for name in names]


def bad_header(put: Callable[..., Path]) -> None:
    put("a.csv", (1, 5.0))
    put("b.csv", (1, 5.0, 2), columns="id,price,shop")


def bad_value(put: Callable[..., Path]) -> None:
    put("a.csv", (1, 5.0))
    put("b.csv", (1, "dear"))


def not_the_tables(put: Callable[..., Path]) -> None:
    shoal.write_table(pd.DataFrame({"id": [1], "price": [1.0]}), "sales.rows")
    put("a.csv", (1, 5.0))


def empty_file(put: Callable[..., Path]) -> None:
    put("a.csv").write_text("")


def script_without(put: Callable[..., Path]) -> None:
    put("a.csv", (1, 5.0))
    Path("clean.py").write_text("def cleaned(part):\n    return part\n")


@pytest.mark.parametrize(
    ("prepare", "options", "kind", "said"),
    [
        pytest.param(None, {"input": "data/x.csv"}, InputMissingError, "is not there", id="no such file"),
        pytest.param(empty_file, {"input": "data/*.parquet"}, InputMissingError, r"Such as a\.csv", id="none fits"),
        pytest.param(empty_file, {}, EmptyInputError, r"a\.csv is empty", id="a file without content"),
        pytest.param(bad_header, {}, InputChangedError, "'price' is new.*'amount' is missing", id="columns"),
        pytest.param(bad_value, {}, InputChangedError, r"b\.csv.*dear", id="values"),
        pytest.param(not_the_tables, {}, SchemaMismatchError, "amount: new", id="not the table's columns"),
        pytest.param(script_without, {"transform": "clean.py:clean"}, ScriptError, "mean 'cleaned'", id="function"),
        pytest.param(script_without, {"transform": "gone.py:clean"}, ScriptError, "is not there", id="script"),
        pytest.param(script_without, {"transform": lambda part: len(part)}, ScriptError, "gave int", id="no frame"),
        pytest.param(script_without, EMPTYING, NoRowsError, "No row", id="it would empty the table"),
        pytest.param(script_without, {"late": ("when", "1 d")}, UsageError, "'when'", id="late column"),
        pytest.param(script_without, {"types": {"zip": "string"}}, UsageError, "'zip'", id="type of no column"),
        pytest.param(script_without, {"input": "ftp://x/y.csv"}, UsageError, "s3://", id="scheme"),
    ],
)  # fmt: skip
def test_bad_input_is_told_and_nothing_is_written(
    prepare: Callable[..., None] | None,
    options: Any,
    kind: type[Exception],
    said: str,
    put: Callable[..., Path],
) -> None:
    if prepare is not None:
        prepare(put)
    before = tables()
    with pytest.raises(kind, match=f"(?s){said}"):
        run(job(**options))
    assert tables() == before
    assert not list(Path(os.environ["SHOAL_DATA"]).rglob("*.parquet")) or prepare is not_the_tables


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"output": "rows"}, "not a table"),
        ({"mode": "replace"}, "not known"),
        ({"mode": "upsert"}, "keys="),
        ({"mode": "overwrite", "incremental": True}, "contradicts"),
        ({"input": "sales.rows"}, "both"),
        ({"input": ""}, "neither a path nor a table"),
        ({"transform": "clean"}, "neither a function nor a script"),
        ({"late": "at"}, "column and a time"),
        ({"types": {"id": "number"}}, "not a type"),
        ({"quarantine": "sales.bad"}, "expect="),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(options: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        job(**options)


def test_what_is_done_survives_being_written_and_newer_words() -> None:
    done = Done({"a" * 12: "b" * 6, "c" * 12: "d" * 6}, "raw.sales", 2**62)
    assert Done.read(done.written()) == done
    assert Done.read('{"files": "", "since": "tomorrow"}') == Done()
