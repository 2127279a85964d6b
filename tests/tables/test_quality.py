"""The quality gate: what passes is in the table, what fails is not, and each failing row is accounted for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pytest

import shoal
from shoal.errors import UsageError
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.errors import (
    ColumnNotFoundError,
    ConflictError,
    QualityError,
    QualityWarning,
    RuleError,
    TableNotFoundError,
)
from shoal.tables.writing import points
from shoal.tables.writing.points import WritePoint

RULES = {"delay is sane": "delay >= -60 and delay < 3000", "carrier": "carrier in ('AA', 'UA')"}


def flights(rows: int = 100, bad: int = 7) -> pd.DataFrame:
    """The first ``bad`` rows have a delay that is not sane; the very first an unknown carrier as well."""
    frame = pd.DataFrame(
        {
            "id": np.arange(rows),
            "delay": np.where(np.arange(rows) < bad, -99.0, 5.0),
            "carrier": ["AA", "UA"] * (rows // 2),
        }
    )
    if bad:
        frame.loc[0, "carrier"] = "ZZ"
    return frame


def ids(name: str) -> list[int]:
    return sorted(shoal.read_table(name, columns=["id"]).id.compute())


def as_dask(frame: pd.DataFrame) -> dd.DataFrame:
    return dd.from_pandas(frame, npartitions=4)


def as_arrow(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def as_it_is(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


KINDS = [as_dask, as_it_is, as_arrow]


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_that_fails_is_not_written(
    kind: Callable[[pd.DataFrame], Any], name: str, dask_cluster: Any, data_files: Callable[[str], set[Path]]
) -> None:
    shoal.write_table(kind(flights(bad=0)), name, expect=RULES)
    before = data_files(name)
    with pytest.raises(QualityError) as caught:
        shoal.write_table(kind(flights()), name, expect=RULES)
    report = caught.value.report
    assert (report.rows, report.failed_rows) == (100, 7)
    assert {r.rule: r.failed for r in report.rules} == {"delay is sane": 7, "carrier": 1}
    assert report.failing("carrier").to_pylist() == [
        {"failed_rule": "carrier", "id": 0, "delay": -99.0, "carrier": "ZZ"}
    ]
    assert sorted(report.failing("delay is sane").column("id").to_pylist()) == list(range(7))
    assert "7 of 100 rows fail 2 of 2 rules" in str(caught.value)
    assert "delay=-99.0" in str(caught.value)
    assert "carrier=ZZ" in str(caught.value)
    assert ids(name) == list(range(100)), "the table is as it was"
    assert data_files(name) == before, "no file is left"


def test_nothing_is_made_of_a_new_table(name: str) -> None:
    with pytest.raises(QualityError):
        shoal.write_table(flights(), name, expect=RULES)
    with pytest.raises(TableNotFoundError):
        shoal.read_table(name)


@pytest.mark.parametrize("kind", KINDS)
def test_failing_rows_are_put_aside(
    kind: Callable[[pd.DataFrame], Any], name: str, dask_cluster: Any
) -> None:
    result = shoal.write_table(kind(flights()), name, expect=RULES, on_failure="quarantine", run_key="one")
    assert result.rows == 93
    assert ids(name) == list(range(7, 100))
    aside = shoal.read_table(f"{name}_quarantine").compute().sort_values("id")
    assert aside.id.tolist() == list(range(7))
    assert aside.failed_rules.tolist() == ["carrier; delay is sane", *["delay is sane"] * 6]
    assert set(aside.quarantine_run) == {"one"}
    assert result.quality is not None
    assert result.quality.quarantine == f"{name}_quarantine"
    side = catalogs.load(f"{name}_quarantine").current_snapshot()
    assert side is not None
    assert result.quality.quarantine_snapshot == side.snapshot_id
    again = shoal.write_table(kind(flights()), name, expect=RULES, on_failure="quarantine", run_key="one")
    assert again.replayed
    assert again.quality is not None
    assert again.quality.as_dict() == result.quality.as_dict(), "kept with the snapshot"
    assert len(shoal.read_table(f"{name}_quarantine")) == 7


def test_all_rows_are_put_aside_and_none(name: str) -> None:
    result = shoal.write_table(flights(bad=0), name, expect=RULES, on_failure="quarantine")
    assert result.quality is not None
    assert result.quality.ok
    with pytest.raises(TableNotFoundError):
        shoal.read_table(f"{name}_quarantine")
    result = shoal.write_table(flights(4, 4), name, expect=RULES, on_failure="quarantine")
    assert (result.rows, result.snapshot_id) == (0, 0)
    assert ids(f"{name}_quarantine") == [0, 1, 2, 3]
    assert len(ids(name)) == 100


def test_a_table_that_gets_a_column_and_its_quarantine(name: str) -> None:
    shoal.write_table(flights(4, 2), name, expect=RULES, on_failure="quarantine", quarantine=f"{name}_bad")
    wider = flights(4, 2).assign(gate="B4")
    how: Any = {"expect": RULES, "on_failure": "quarantine", "quarantine": f"{name}_bad"}
    shoal.write_table(wider, name, evolve=True, **how)
    assert sorted(shoal.read_table(f"{name}_bad").gate.compute().fillna("-")) == ["-", "-", "B4", "B4"]


def test_a_warning_and_what_the_snapshot_tells(name: str) -> None:
    with pytest.warns(QualityWarning, match="7 of 100 rows fail"):
        result = shoal.write_table(flights(), name, expect=RULES, on_failure="warn")
    assert len(ids(name)) == 100
    snapshot = catalogs.load(name).current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary["shoal.quality.failed-rows"] == "7"
    assert result.quality is not None
    assert "delay is sane" in result.quality._repr_html_()
    shoal.write_table(flights(bad=0), name)
    assert shoal.snapshots(name).failed_rows.tolist()[0] == 7
    assert shoal.snapshots(name).failed_rows.isna().tolist() == [False, True]


class DiedError(SystemExit):
    """Stands for the end of a process."""


def test_killed_between_the_two_commits(
    name: str, monkeypatch: pytest.MonkeyPatch, dask_cluster: Any
) -> None:
    """The failing rows are there, the others not; running it again makes each of them be there once."""
    how: Any = {"expect": RULES, "on_failure": "quarantine", "run_key": "k"}

    def die(reached: WritePoint) -> None:
        if reached is WritePoint.CLIENT_AFTER_SWAP:
            raise DiedError

    for _ in range(2):
        with monkeypatch.context() as now:
            now.setattr(points, "hook", die)
            with pytest.raises(DiedError):
                shoal.write_table(as_dask(flights()), name, **how)
        assert ids(f"{name}_quarantine") == list(range(7))
    assert ids(name) == list(range(7, 100)), "the second try died after its own commit"
    assert shoal.write_table(as_dask(flights()), name, **how).replayed
    assert ids(f"{name}_quarantine") == list(range(7))


def test_a_run_that_is_tried_again_with_other_rules_loses_no_row(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try put rows aside and died; the second, with other rules, fails other rows."""

    def die(reached: WritePoint) -> None:
        if reached is WritePoint.CLIENT_AFTER_SWAP:
            raise DiedError

    with monkeypatch.context() as now:
        now.setattr(points, "hook", die)
        with pytest.raises(DiedError):
            shoal.write_table(flights(), name, expect=RULES, on_failure="quarantine", run_key="k")
    result = shoal.write_table(
        flights(), name, expect={"few": "id < 90"}, on_failure="quarantine", run_key="k"
    )
    assert not result.replayed
    assert ids(name) == list(range(90))
    assert ids(f"{name}_quarantine") == [*range(7), *range(90, 100)]


def test_a_conflict_after_rows_were_put_aside(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shoal.write_table(flights(4, 0), name)
    how: Any = {"expect": RULES, "on_failure": "quarantine", "run_key": "k", "mode": "overwrite"}

    def meddle(reached: WritePoint) -> None:
        if reached is WritePoint.CLIENT_AFTER_FILES:
            monkeypatch.setattr(points, "hook", None)
            shoal.write_table(flights(2, 0), name)

    monkeypatch.setattr(points, "hook", meddle)
    with pytest.raises(ConflictError):
        shoal.write_table(flights(), name, **how)
    assert len(ids(name)) == 6
    shoal.write_table(flights(), name, **how)
    assert ids(name) == list(range(7, 100))
    assert ids(f"{name}_quarantine") == list(range(7)), "once"


@pytest.mark.parametrize(
    ("rule", "failing"),
    [
        ("x > 1", [0]),
        ("not (x > 1)", [2, 3]),
        ("x is not null", [1]),
        ("x is not nan", [3]),
        ("x != 2 or t = 'a'", [2]),
        ("t like 'b%'", [0]),
        ("t is not null and x is not null", [1, 3]),
        ([("x", "in", [0.5, 2.0])], [3]),
    ],
)
def test_what_fails_is_what_the_negated_filter_finds(rule: Any, failing: list[int], name: str) -> None:
    """A null passes unless the rule asks for it; NaN is above every number, as in filters."""
    rows = pa.table({"id": [0, 1, 2, 3], "x": [0.5, None, 2.0, float("nan")], "t": ["a", "b", "b", None]})
    report = shoal.check_rows(rows, {"rule": rule}, on_failure="warn")
    assert report.failing().to_pydict().get("id", []) == failing
    assert report.failed_rows == len(failing)
    if isinstance(rule, str):
        shoal.write_table(rows, name)
        assert sorted(shoal.read_table(name, filters=f"not ({rule})").id.compute()) == failing


def test_types_that_rules_look_at(name: str) -> None:
    from decimal import Decimal

    rows = pa.table(
        {
            "id": [0, 1],
            "d": pa.array([Decimal("1.10"), Decimal("2.20")], pa.decimal128(9, 2)),
            "s": pa.array([{"a": 1}, {"a": None}]),
            "at": pa.array([0, 86_400_000_000], pa.timestamp("us")),
            "u": pa.array([b"0" * 16, b"1" * 16], pa.binary(16)).cast(pa.uuid()),
            "b": [True, False],
        }
    )
    rules = ["d < 2", "s.a is not null", "at < '1970-01-01T12:00:00'", "b = true"]
    rules += ["u != '31313131-3131-3131-3131-313131313131'"]
    report = shoal.check_rows(rows, rules, on_failure="warn")
    assert [r.failed for r in report.rules] == [1] * 5
    assert set(report.failing().column("id").to_pylist()) == {1}


SCHEMA = pandera.DataFrameSchema(
    {
        "delay": pandera.Column(float, [pandera.Check.ge(-60), pandera.Check.lt(3000)]),
        "carrier": pandera.Column(checks=pandera.Check.isin(["AA", "UA"]), nullable=True),
    },
    checks=pandera.Check(lambda frame: frame.delay < frame.id + 1000, error="in bounds"),
)


class Model(pandera.DataFrameModel):
    delay: float = pandera.Field(ge=-60, lt=3000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_of_pandera(kind: Callable[[pd.DataFrame], Any], name: str, dask_cluster: Any) -> None:
    result = shoal.write_table(kind(flights()), name, expect=SCHEMA, on_failure="quarantine")
    assert ids(name) == list(range(7, 100))
    assert result.quality is not None
    assert {r.rule: r.failed for r in result.quality.rules if r.failed} == {
        "delay: greater_than_or_equal_to(-60)": 7,
        "carrier: isin(['AA', 'UA'])": 1,
    }
    assert "in bounds" in [r.rule for r in result.quality.rules]
    with pytest.raises(QualityError, match="7 of 100"):
        shoal.check_rows(kind(flights()), Model)


def test_what_pandera_cannot_say_of_rows(name: str) -> None:
    frame = as_dask(flights(8, 0))
    with pytest.raises(RuleError, match="'id' is unique cannot be told: the frame has 4 partitions"):
        shoal.write_table(frame, name, expect=pandera.DataFrameSchema({"id": pandera.Column(unique=True)}))
    mean = pandera.DataFrameSchema(checks=pandera.Check(lambda df: df.delay.mean() < 1, error="low mean"))
    with pytest.raises(
        RuleError, match=r"'low mean' failed for partition . of the frame, and not for single"
    ):
        shoal.write_table(frame, name, expect=mean)
    with pytest.raises(ColumnNotFoundError, match="'delays'"):
        shoal.write_table(frame, name, expect=pandera.DataFrameSchema({"delays": pandera.Column()}))
    with pytest.raises(TableNotFoundError):
        shoal.read_table(name)


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ({"expect": {"r": "delays > 1"}}, ColumnNotFoundError, "The rule 'r' cannot be checked.*'delays'"),
        ({"expect": {"r": "delay >"}}, RuleError, "The rule 'r' cannot be checked.*character"),
        ({"expect": {"r": "delay > 'late'"}}, RuleError, "not a value of 'delay'"),
        ({"expect": {"r": ""}}, RuleError, "is empty"),
        ({"expect": {}}, RuleError, "holds no rule"),
        ({"expect": {1: "delay > 1"}}, RuleError, "names are text"),
        ({"expect": ["id > 1", "id > 1"]}, RuleError, "more than once"),
        ({"expect": 7}, RuleError, "not a set of rules"),
        ({"expect": RULES, "on_failure": "drop"}, UsageError, "'drop' is not known"),
        ({"on_failure": "warn"}, UsageError, "go with expect="),
        ({"expect": RULES, "quarantine": "a.b"}, UsageError, "was not asked for"),
        ({"expect": RULES, "on_failure": "quarantine", "quarantine": 3}, UsageError, "not the name of"),
    ],
)
def test_rules_that_make_no_sense(how: dict[str, Any], kind: type[Exception], said: str, name: str) -> None:
    with pytest.raises(kind, match=f"(?s){said}"):
        shoal.write_table(flights(4, 1), name, **how)
    with pytest.raises(TableNotFoundError):
        shoal.read_table(name)


def test_a_column_that_a_quarantine_table_needs(name: str) -> None:
    frame = flights(4, 1).assign(failed_rules="none")
    with pytest.raises(UsageError, match="has a column 'failed_rules'"):
        shoal.write_table(frame, name, expect=RULES, on_failure="quarantine")


@pytest.mark.spark
def test_one_rule_set_for_dask_and_spark(name: str, spark: Any, sql: Callable[[str], Any]) -> None:
    """The same rows fail by the same rules on both engines, pandera's too; Spark reads what was put aside."""
    frame = flights()
    shoal.write_table(frame, name)
    on_spark = shoal.check_rows(spark.table(f"shoal.{name}"), RULES, on_failure="warn")
    pandera_on_spark = shoal.check_rows(spark.table(f"shoal.{name}"), SCHEMA, on_failure="warn")
    on_dask = shoal.check_rows(shoal.read_table(name), RULES, on_failure="warn")
    assert on_spark.as_dict() == on_dask.as_dict()
    assert on_spark.failed_rows == 7
    assert on_spark.failing("carrier").to_pylist() == on_dask.failing("carrier").to_pylist()
    by_pandera = {r.rule: r.failed for r in pandera_on_spark.rules if r.failed}
    assert by_pandera == {"delay: greater_than_or_equal_to(-60)": 7, "carrier: isin(['AA', 'UA'])": 1}
    with pytest.raises(ColumnNotFoundError, match="'delays'"):
        shoal.check_rows(spark.table(f"shoal.{name}"), {"r": "delays > 1"})
    mean = pandera.DataFrameSchema(checks=pandera.Check(lambda df: df.delay.mean() < -500, error="low mean"))
    with pytest.raises(RuleError, match="'low mean' failed"):
        shoal.check_rows(spark.table(f"shoal.{name}"), mean)
    shoal.write_table(frame, f"{name}_2", expect=RULES, on_failure="quarantine")
    assert sql(f"SELECT count(*) AS n FROM shoal.{name}_2").n[0] == 93
    assert sorted(sql(f"SELECT id FROM shoal.{name}_2_quarantine").id) == list(range(7))
