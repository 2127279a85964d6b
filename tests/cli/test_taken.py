"""What is asked after the work: which tables there are, what runs took, one cluster's use; and how it is shown."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shoal.cli.commands.usage import add_up
from shoal.client.preparing import describe, prepare

WRITES = """
import pandas as pd
import shoal

frame = pd.DataFrame({"day": ["mon", "tue"], "amount": [1.0, 2.0]})
result = shoal.write_table(frame, "shop.orders")
print(repr(result))
assert "<table>" in result._repr_html_()
shoal.write_table(frame, "shop.orders", mode="append")
shoal.write_table(frame, "nyc.flights")
print(shoal.list_tables(), shoal.list_tables("shop"), shoal.list_tables("shoal.shop"), shoal.list_tables("no"))
"""


@pytest.fixture(scope="module")
def written(shoal: Any) -> str:
    """What a script said that wrote three times, into two tables."""
    file = shoal.write("write.py", WRITES)
    done = subprocess.run(
        [sys.executable, str(file)],
        cwd=shoal.folder, env=shoal.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_tables_are_listed(shoal: Any, written: str) -> None:
    assert "['nyc.flights', 'shop.orders'] ['shop.orders'] ['shop.orders'] []" in written
    plain, rows, shop, names, history, nothing = shoal.many(
        [
            ["tables"], ["tables", "ls", "-o", "json"], ["tables", "ls", "shop", "-o", "json"],
            ["tables", "ls", "--names"], ["tables", "history", "shop.orders", "-o", "json"],
            ["tables", "ls", "nosuch"],
        ]
    )  # fmt: skip
    assert "nyc.flights" in plain.out
    assert "shop.orders" in plain.out
    found = {row["name"]: row for row in json.loads(rows.out)}
    assert list(found) == ["nyc.flights", "shop.orders"]
    assert list(found["shop.orders"]) == [
        "name", "rows", "files", "bytes", "snapshots", "updated", "location",
    ]  # fmt: skip
    assert (found["shop.orders"]["rows"], found["shop.orders"]["snapshots"]) == (4, 2)
    assert [row["name"] for row in json.loads(shop.out)] == ["shop.orders"]
    assert names.out == "nyc.flights\nshop.orders\n"
    assert [row["added_rows"] for row in json.loads(history.out)] == [2, 2]
    assert nothing.code == 0
    assert "Namespace nosuch holds no tables" in nothing.err
    assert shoal.quick("tables", "history", "shop.ordrs").code == 2
    place = Path(found["nyc.flights"]["location"].removeprefix("file://"))
    place.rename(place.with_name("away"))
    try:
        broken = shoal.quick("tables")
    finally:
        place.with_name("away").rename(place)
    assert (broken.code, "shop.orders" in broken.out) == (4, True), (
        "one that is gone does not hide the others"
    )
    assert "Not listed: nyc.flights" in broken.err


def test_tables_are_kept_small(shoal: Any, written: str) -> None:
    told, plain, planned, compacted, dry, expired, orphans, deleted, untagged, after = shoal.many(
        [
            ["tables", "doctor", "shop.orders", "-o", "json"], ["tables", "doctor", "shop.orders"],
            ["tables", "compact", "shop.orders", "--dry-run"],
            ["tables", "compact", "shop.orders", "--sort-by", "amount desc", "-o", "json"],
            ["tables", "expire", "shop.orders", "--older-than", "0s", "--dry-run"],
            ["tables", "expire", "shop.orders", "--older-than", "0s", "-o", "json"],
            ["tables", "remove-orphans", "shop.orders"],
            ["tables", "remove-orphans", "shop.orders", "--older-than", "24h", "--delete", "-o", "json"],
            ["tables", "drop-tag", "shop.orders", "none"],
            ["tables", "history", "shop.orders", "-o", "json"],
        ]
    )  # fmt: skip
    health = json.loads(told.out)
    assert (health["rows"], health["files"], health["small_files"], health["snapshots"]) == (4, 2, 2, 2)
    assert "4 rows, 2 files" in plain.out
    assert "2 of 2 files are small" in plain.out
    assert "2 files would become about 1" in planned.out + planned.err
    assert json.loads(compacted.out)["files_written"] == 1
    assert "2 snapshots would be expired, 1 kept" in dry.out + dry.err
    done = json.loads(expired.out)
    assert (len(done["snapshots"]), done["kept"], done["left"]) == (2, 1, 0)
    assert "0 files are nobody's" in orphans.out + orphans.err
    assert json.loads(deleted.out)["paths"] == []
    assert "shop.orders has no tag 'none'" in untagged.err
    assert [row["total_rows"] for row in json.loads(after.out)] == [4]
    refused = shoal.quick("tables", "remove-orphans", "shop.orders", "--older-than", "1h")
    assert refused.code == 2
    assert "less than 24 hours" in refused.err


def test_a_writes_result_is_told_in_a_line(written: str) -> None:
    line = written.splitlines()[0]
    assert line.startswith("<WriteResult shop.orders: 2 rows in 1 file, snapshot ")
    assert len(line) < 120


def test_usage_adds_up_what_runs_took(shoal: Any) -> None:
    before = json.loads(shoal.quick("usage", "-o", "json").out)["total"]["runs"]
    shoal("up", "small", "-w", "1", "--name", "spent", "--detach", "--yes")
    only, everything = shoal.many([["top", "spent", "-o", "json"], ["top", "nosuch"]])
    assert [row["name"] for row in json.loads(only.out)] == ["spent"]
    assert everything.code == 2
    assert shoal.quick("down", "spent").code == 0
    said = json.loads(shoal.quick("usage", "--since", "1 h", "-o", "json").out)
    assert list(said) == ["since", "templates", "total"]
    assert list(said["total"]) == [
        "runs", "failed", "lived", "worker_hours", "cost", "peak_worker_memory",
    ]  # fmt: skip
    assert said["total"]["runs"] == before + 1
    assert said["total"]["worker_hours"] > 0
    assert said["templates"][0]["template"] == "small"
    row = next(
        row for row in json.loads(shoal.quick("ls", "--all", "-o", "json").out) if row["name"] == "spent"
    )
    assert row["result"] == "ended"
    assert row["taken"]["worker_hours"] > 0
    page = shoal.quick("report", "spent", "--html", "spent.html")
    assert str(shoal.folder / "spent.html") in page.err.replace("\n", "")
    text = shoal.quick("ls", "--all").out
    for column in ("RESULT", "TOOK", "COST", "PEAK"):
        assert column in text.splitlines()[0]
    assert "total" in shoal.quick("usage").out


def test_costs_of_a_priced_run(shoal: Any) -> None:
    """One run at the target that has prices, as text, JSON, CSV and FOCUS; all say the same sum."""
    there = ["--target", "priced"]
    assert shoal("up", "small", "-w", "1", "--name", "paid", "--detach", "--yes", *there).code == 0
    assert shoal.quick("down", "paid", *there).code == 0
    asked = ["cost", "--by", "target", "--by", "name", *there]
    text, plain, table, focus, wasted, wrong, nothing = shoal.many(
        [
            asked, [*asked, "-o", "json"], [*asked, "-o", "csv"], ["cost", *there, "-o", "focus"],
            [*asked, "--wasted"], ["cost", "--by", "tean", *there],
            ["cost", "--since", "2020-01-01", "--until", "2020-02", *there],
        ]
    )  # fmt: skip
    said = json.loads(plain.out)
    assert list(said) == ["since", "until", "by", "rows", "total"]
    row = next(row for row in said["rows"] if row["name"] == "paid")
    assert list(row) == ["target", "name", "runs", "failed", "unpriced", "core_hours", "cost"]
    assert list(row["core_hours"]) == ["head", "starting", "used", "idle", "total", "wasted"]
    assert row["cost"]["currency"] == "USD"
    assert Decimal(row["cost"]["total"]) > 0
    assert (row["target"], row["runs"]) == ("priced", 1)
    line = next(line for line in csv.DictReader(table.out.splitlines()) if line["name"] == "paid")
    assert line["cost_total"] == row["cost"]["total"]
    billed = [
        Decimal(r["BilledCost"])
        for r in csv.DictReader(focus.out.splitlines())
        if r["ResourceName"] == "paid"
    ]
    assert abs(sum(billed) - Decimal(row["cost"]["total"])) < Decimal("0.000002")
    for word in ("TARGET", "NAME", "RUNS", "HEAD", "STARTING", "USED", "IDLE", "paid", "total"):
        assert word in text.out
    assert "WASTED" in wasted.out
    assert (wrong.code, nothing.code) == (2, 0)
    assert "cannot be grouped by 'tean'" in wrong.err
    assert "Nothing ran between 2020-01-01T00:00:00Z and 2020-02-01T00:00:00Z." in nothing.err


def test_half_a_sum_is_no_sum() -> None:
    row = {"template": "etl", "result": "ended", "lived": 1.0, "worker_hours": 0.5, "peak_worker_memory": 7}
    one, other, none = ({**row, "cost": cost} for cost in ("1.50 USD", "2.00 USD", None))
    assert add_up([one, other])["cost"] == "3.50 USD"
    assert add_up([one, none])["cost"] is None
    assert add_up([one, {**row, "cost": "1.00 EUR"}])["cost"] is None
    assert add_up([])["cost"] is None
    assert add_up([{**one, "result": "failed"}, other])["failed"] == 1


def test_on_a_laptop_the_first_line_says_what_will_really_be_there(shoal: Any) -> None:
    big, small_, no_data, plain = shoal.many(
        [
            ["plan", "small", "--data", "25 GB"], ["plan", "small", "--data", "100 MB"], ["plan", "small"],
            ["plan", "small", "--memory", "500 MB", "--cores", "1"],
        ]
    )  # fmt: skip
    first = big.out.splitlines()[0]
    assert first.startswith(
        "Actual size on local: 3 workers of 1 core and 500 MB, 1.5 GB in total; 25 GB of input takes 75 GB"
    )
    assert "50 times what is there" in " ".join(big.out.split())
    assert "which fits" in small_.out.splitlines()[0]
    assert no_data.out.startswith("Actual size on local: 1 worker of 1 core and 500 MB")
    assert "Actual size" not in plain.out  # what was requested is what is there
    assert "Fits in your quota" in no_data.out


def test_starting_says_it_in_the_same_order(project: Path) -> None:
    """``shoal up``, ``shoal submit`` and Python show the plan before they start; what counts in quota comes second."""
    first, really, counts, *_ = describe(prepare("small", project=project).plan).splitlines()
    assert first == "small on dask, target local"
    assert really.startswith("  actual size on local: 1 worker of 1 core and 500 MB")
    assert counts.startswith("  requested size, which counts in quota: 1 worker")
    plain = describe(prepare("small", project=project, memory="500 MB", cores=1).plan).splitlines()
    assert plain[0].startswith("small on dask, target local: 1 worker")


def test_what_goes_into_a_pipe_is_not_padded(shoal: Any) -> None:
    for answer in shoal.many([["plan", "small"], ["ls", "--all"], ["quota"], ["tables"]]):
        assert answer.out
        assert not [line for line in answer.out.splitlines() if line != line.rstrip()]


def test_init_puts_containerfiles_only_before_who_asks(bare: Any) -> None:
    plain, images = bare.many([["init", "one"], ["init", "two", "--images"]])
    assert "Containerfile" not in plain.out
    assert "images/shoal-dask/Containerfile" in images.out
    assert not (Path(bare.folder) / "one" / "images").exists()
    assert bare.quick("plan", "etl", "--project", "one").code == 0
