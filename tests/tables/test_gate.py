"""What could let a failing row through the gate, lose it, or put it aside twice."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pytest

import shoal
from shoal.errors import UsageError
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.errors import QualityError, RuleError, TableNotFoundError, TypeNotSupportedError
from shoal.tables.writing import points
from shoal.tables.writing.points import WritePoint

MANY = pd.DataFrame({"x": [-1.0] * 97 + [1.0, 2.0, 3.0]})
ABOVE = pandera.Check.gt(0)


def of_x(check: Any = ABOVE, schema: dict[str, Any] | None = None, **column: Any) -> Any:
    return pandera.DataFrameSchema({"x": pandera.Column(float, check, **column)}, **(schema or {}))


@pytest.mark.parametrize(
    "expect",
    [
        of_x(schema={"drop_invalid_rows": True}),
        of_x(drop_invalid_rows=True),
        of_x(parsers=pandera.Parser(abs)),
        of_x(schema={"parsers": pandera.Parser(lambda frame: frame.abs())}),
        of_x(pandera.Check.gt(0, n_failure_cases=3)),
        pandera.DataFrameSchema({"x": pandera.Column(float)}, checks=pandera.Check.gt(0, n_failure_cases=3)),
    ],
)
def test_no_option_of_a_schema_hides_rows_that_fail(expect: Any) -> None:
    report = shoal.check_rows(MANY, expect, on_failure="warn")
    assert report.failed_rows == 97
    with pandera.config.config_context(validation_enabled=False):
        assert shoal.check_rows(MANY, expect, on_failure="warn").failed_rows == 97


def test_a_schema_sees_values_as_they_are_and_not_as_it_would_make_them() -> None:
    frame = pd.DataFrame({"x": [1.5, None], "n": ["1", "2"]})
    filled = shoal.check_rows(frame, of_x(default=3.0), on_failure="warn")
    assert {r.rule: r.failed for r in filled.rules if r.failed} == {"x: not_nullable": 1}
    for schema in (
        pandera.DataFrameSchema({"n": pandera.Column(int, coerce=True)}),
        pandera.DataFrameSchema({"n": pandera.Column(int)}, coerce=True),
    ):
        with pytest.raises(RuleError, match=r"n: dtype\('int64'\)"):
            shoal.check_rows(frame, schema)
        assert schema.columns["n"].coerce or schema.coerce, "the user's own is as it was"
    for schema, said in [
        (of_x(pandera.Check.gt(0, raise_warning=True)), "raise_warning=True"),
        (of_x(schema={"index": pandera.Index(int, pandera.Check.lt(1))}), "index="),
        (of_x(pandera.Check(lambda groups: groups["1"] > 0, groupby=lambda at: at.groupby("n"))), "groupby="),
    ]:
        with pytest.raises(RuleError, match=said):
            shoal.check_rows(frame, schema)


@pytest.mark.parametrize("kind", [None, "Int64"])
def test_whole_numbers_with_a_null_among_them_are_no_floats(kind: str | None) -> None:
    rows = pa.table({"id": [2**53 + 1, 2**53, None], "ok": [True, None, False]})
    checks = pandera.Check.ne(2**53)
    schema = pandera.DataFrameSchema(
        {"id": pandera.Column(kind, checks, nullable=True), "ok": pandera.Column("boolean", nullable=True)}
    )
    report = shoal.check_rows(rows, schema, on_failure="warn")
    assert report.failing().column("id").to_pylist() == [2**53]
    assert shoal.check_rows(rows.slice(0, 1), schema).ok, "the type does not hang on the other rows"


class DiedError(SystemExit):
    """Stands for the end of a process."""


def test_a_row_is_put_aside_once_however_the_frame_is_divided(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whatever types: what a row is does not hang on which others are in its partition."""
    rows = pa.table(
        {
            "id": range(8),
            "n": [1, None, 3, 4, 5, 6, None, 8],
            "s": [{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}] * 2 + [None, None],
            "l": [[1, None], [], None, [2]] * 2,
            "t": pd.to_datetime(["2026-01-01", None] * 4),
        }
    )
    frame = rows.to_pandas(types_mapper=pd.ArrowDtype)
    how: Any = {"expect": {"few": "id < 3"}, "on_failure": "quarantine", "run_key": "k"}

    def die(reached: WritePoint) -> None:
        if reached is WritePoint.CLIENT_AFTER_SWAP:
            raise DiedError

    for given in (dd.from_pandas(frame, npartitions=1), rows):
        monkeypatch.setattr(points, "hook", die)
        with pytest.raises(DiedError):
            shoal.write_table(given, name, **how)
    monkeypatch.setattr(points, "hook", None)
    shoal.write_table(dd.from_pandas(frame[::-1], npartitions=4, sort=False), name, **how)
    aside = shoal.read_table(f"{name}_quarantine").compute()
    assert sorted(aside.id) == [3, 4, 5, 6, 7]
    assert len(shoal.read_table(name)) == 3


def test_what_is_deleted_is_the_tables_own(name: str, tmp_path: Path) -> None:
    """Nothing behind a link, and a file whatever its name."""
    shoal.write_table(pa.table({"x": [1]}), name)
    data = Path(catalogs.load(name).location().removeprefix("file://")) / "data"
    others = tmp_path / "others.parquet"
    (data / "a#b?c.parquet").write_bytes(b"x")
    others.write_bytes(b"x")
    (data / "link").symlink_to(tmp_path)
    (data / "link.parquet").symlink_to(others)
    (data / "round").symlink_to(data)
    then = time.time() - 10 * 86_400
    for path in (others, data / "a#b?c.parquet"):
        os.utime(path, (then, then))
    assert "1 file is nobody's" in shoal.table_health(name).advice[0]
    done = shoal.remove_orphans(name, dry_run=False)
    assert [path.rpartition("/")[2] for path in done.paths] == ["a#b?c.parquet"]
    assert (done.left, done.bytes) == (0, 1)
    assert not (data / "a#b?c.parquet").exists()
    assert others.exists()
    assert (data / "link.parquet").is_symlink()
    assert len(shoal.read_table(name).compute()) == 1


BAD = {"never": "x > 99"}
ASIDE: Any = {"expect": BAD, "on_failure": "quarantine"}


def test_a_table_is_not_emptied_by_rows_that_all_fail(name: str) -> None:
    rows = pa.table({"x": [1, 2]})
    shoal.write_table(rows, name, partition_by="x")
    with pytest.raises(QualityError, match=r"(?s)2 of 2 rows fail.*would empty the table") as caught:
        shoal.write_table(rows, name, "overwrite", **ASIDE)
    assert "frame.head(0)" in caught.value.hint
    with pytest.raises(TableNotFoundError):
        shoal.read_table(f"{name}_quarantine")
    assert len(shoal.read_table(name)) == 2
    few: Any = {"expect": {"few": "x > 1"}, "on_failure": "quarantine"}
    kept = shoal.write_table(rows, name, "overwrite_partitions", **few)
    assert "keeps its old rows" in repr(kept.quality)
    assert sorted(shoal.read_table(name).x.compute()) == [1, 2]
    shoal.write_table(rows.to_pandas().head(0), name, "overwrite")
    assert len(shoal.read_table(name)) == 0


def test_a_run_that_landed_no_row_is_not_done(name: str) -> None:
    rows = pa.table({"x": [1, 2]})
    for _ in range(2):
        tried = shoal.write_table(rows, name, run_key="k", **ASIDE)
        assert (tried.replayed, tried.snapshot_id, tried.rows) == (False, 0, 0)
        assert tried.quality is not None
        assert tried.quality.failed_rows == 2
    assert len(shoal.read_table(f"{name}_quarantine")) == 2, "put aside once"
    landed = shoal.write_table(rows, name, run_key="k", expect={"right": "x > 0"}, on_failure="quarantine")
    assert landed.rows == 2
    assert shoal.write_table(rows, name, run_key="k").replayed


def test_what_a_report_and_a_quarantine_say(name: str) -> None:
    one = pa.table({"x": [1], "items": [[{"n": 1}]], "at": pd.to_datetime(["2026-01-31"]).tz_localize("UTC")})
    report = shoal.check_rows(one, {"a; b": "x > 1", "c": "x > 2"}, on_failure="warn")
    assert "1 of 1 row fails 2 of 2 rules" in repr(report)
    assert "1 row passes 1 rule" in repr(shoal.check_rows(one, {"z": "at < '2026-02-01T00:00:00Z'"}))
    with pytest.raises(RuleError, match="no rule 'b' in the report"):
        report.failing("b")
    for path in ("items.n", "items.element.n"):
        with pytest.raises(RuleError, match=f"'{path}' is inside 'items'"):
            shoal.check_rows(one, [f"{path} > 0"])
    rules = {"a; b": "x > 1", "c": "x > 2"}
    shoal.write_table(one, name, expect=rules, on_failure="quarantine")
    aside = shoal.read_table(f"{name}_quarantine").compute()
    assert aside.failed_rules.tolist() == ['"a; b"; c']
    none = pd.DataFrame({"s": pd.Series([], dtype=object), "n": pd.Series([], dtype=object)})
    assert shoal.check_rows(none, {"s": "s = 'x'"}).rows == 0
    with pytest.raises(TypeNotSupportedError, match="'s', 'n'"):
        shoal.check_rows(none, {"n": "n > 0"})


@pytest.mark.parametrize("bad", ["a#b", "a?b"])
def test_a_name_that_no_folder_can_have(bad: str, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    for given in (f"{name}.{bad}", f"{bad}.t"):
        with pytest.raises(UsageError, match="is not a table name"):
            shoal.write_table(pa.table({"x": [1]}), given)
    assert capfd.readouterr().err == ""
