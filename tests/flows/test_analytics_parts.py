"""What an analytics flow is made of, without Prefect and without a cluster."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import shoal
from shoal.errors import UsageError
from shoal.flows import Plot, analytics
from shoal.flows import steps as stepping
from shoal.flows.analytics import dates
from shoal.flows.errors import ScriptError
from shoal.flows.reporting import POINTS, Page, Section
from shoal.flows.results import write_dask

FIRST, SECOND = dt.date(2026, 11, 29), dt.date(2026, 11, 30)


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, str], None]:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    return write


def test_steps_come_in_the_order_of_their_numbers(tmp_path: Path, put: Callable[[str, str], None]) -> None:
    for name in ("10_b.sql", "2_a.view.sql", "last.sql", "_draft.sql", "notes.txt"):
        put(f"sql/{name}", "select 1;")
    put("trend.py", "def trend(date): pass\n")
    found = stepping.find(["sql/", "trend.py:trend"], tmp_path)
    assert [(each.name, each.engine, each.view) for each in found] == [
        ("a", "spark", True),
        ("b", "spark", False),
        ("last", "spark", False),
        ("trend", "dask", False),
    ]
    assert found[0].query == "select 1"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere/", "not there"),
        ("empty/", "no .sql file"),
        ("void.sql", "is empty"),
        (["a.sql", "other/1_a.sql"], r"a.sql and other/1_a.sql give the same table, 'a'"),
        (["Bad.sql"], "cannot name a table: 'Bad'"),
        (["a.view.sql"], "views alone"),
        (["f.py:gone"], "no function 'gone'"),
        ([lambda date: date], "cannot name a table"),
    ],
)
def test_steps_that_cannot_be_are_told(
    tmp_path: Path, put: Callable[[str, str], None], given: Any, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    put("void.sql", " ;\n")
    for name in ("a.sql", "other/1_a.sql", "Bad.sql", "a.view.sql"):
        put(name, "select 1")
    put("f.py", "def here(): pass\n")
    with pytest.raises(ScriptError, match=said):
        stepping.find(stepping.check(given), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 7}, "neither a folder"),
        ({"steps": []}, "neither a folder"),
        ({"output": "a b"}, "namespace"),
        ({"by": "a b"}, "column"),
        ({"parameters": {"date": 1}}, "'date'"),
        ({"plots": ["x"]}, "plots="),
        ({"name": "a/b"}, "flow's name"),
    ],
)
def test_wrong_arguments_are_told_at_once(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        analytics(**({"name": "daily", "steps": "sql/", "output": "daily"} | wrong))


def test_dates_of_a_run() -> None:
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    assert dates(None, None)[0] in (yesterday, yesterday + dt.timedelta(days=1))
    assert dates(FIRST, SECOND) == [FIRST, SECOND]
    for first, last in ((SECOND, FIRST), (dt.date(1, 1, 1), SECOND), (None, FIRST)):
        with pytest.raises(UsageError):
            dates(first, last)


def test_a_run_replaces_the_rows_of_its_own_date(empty_home: Path) -> None:
    def write(date: dt.date, *amounts: int, column: str = "amount", evolve: bool = False) -> int:
        frame = pd.DataFrame({column: pd.Series(amounts, dtype="int64")})
        return write_dask(frame, "daily.sums", "sums", by="day", date=date, evolve=evolve)

    def rows() -> dict[str, list[int]]:
        frame = shoal.read_table("daily.sums").compute()
        return {str(day): sorted(part.amount) for day, part in frame.groupby("day")}

    write(FIRST, 1, 2)
    write(SECOND, 3)
    assert write(FIRST, 4) == 1
    assert rows() == {"2026-11-29": [4], "2026-11-30": [3]}
    assert write(SECOND) == 0
    assert rows() == {"2026-11-29": [4]}, "a date without rows has none afterwards"
    with pytest.raises(ScriptError, match="gives a column 'day'"):
        write(FIRST, 1, column="day")
    with pytest.raises(ScriptError, match="gave int, not a frame"):
        write_dask(7, "daily.sums", "sums", by=None, date=FIRST, evolve=False)


def test_a_report_is_one_file_and_shows_values_as_text() -> None:
    arrow = pa.table(
        {
            "day": pa.array([FIRST, SECOND, None]),
            "at": pa.array([dt.datetime(2026, 11, 30)] * 3, pa.timestamp("us", "UTC")),
            "amount": pa.array([Decimal("1.50"), None, Decimal("2.25")]),
            "name": ["<script>alert(1)</script>", "a|b", None],
            "ok": [True, False, None],
        }
    )
    frame = arrow.to_pandas(types_mapper=pd.ArrowDtype)
    plots = [
        (Plot("t", x=x, y="amount", kind=kind, color=color), frame)
        for x in frame.columns
        for kind in ("line", "bar", "points")
        for color in (None, "name", "ok")
    ]
    report = Page("daily", {"date": FIRST}, [Section("daily.t", 7, frame)], plots)
    page = report.html()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    tags = re.findall(
        r"<(?:script|link|img)[^>]*>", re.sub(r"(<script[^>]*>).*?</script>", r"\1", page, flags=re.S)
    )
    assert tags
    assert not [tag for tag in tags if "src=" in tag or "href=" in tag], "nothing is loaded when it is opened"
    assert "7 rows, the first 3 of which are shown." in page
    assert len(page) < 3_000_000
    assert r"a\|b" in report.markdown()
    with pytest.raises(UsageError, match="'name', which holds"):
        Page("daily", {}, [], [(Plot("t", x="day", y="name"), frame)]).html()
    long = pd.DataFrame({"x": range(POINTS + 1), "y": range(POINTS + 1)})
    assert "The first 5,000 of more rows." in Page("d", {}, [], [(Plot("t", x="x", y="y"), long)]).html()


def test_a_plot_that_cannot_be_drawn_is_told() -> None:
    for wrong in ({"kind": "pie"}, {"y": ()}, {"y": ["a", "b"], "color": "c"}, {"last": 0}):
        with pytest.raises(UsageError):
            Plot(**({"table": "t", "x": "x", "y": "y"} | wrong))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'y', which the table does not have"):
        Plot("t", x="x", y="y").check(["x", "yy"])
