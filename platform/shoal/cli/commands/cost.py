"""``shoal cost``: what clusters cost, by person, team, template, flow or tag, and how much of it was of use.

Why it exists: a bill is paid by a team and caused by people; both ask where it comes from and what of it was idle.

What it must not do: work out what a run cost (``shoal.display.cost`` does).
"""

from __future__ import annotations

import csv
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import options as o

if TYPE_CHECKING:
    from shoal.display.cost import CostRow, RunCost

EXAMPLES = """\b
Examples:
  shoal cost                                  # mine, of the last 30 days, by template
  shoal cost --everybody --by team --by user
  shoal cost --everybody --by month --since 2026-01-01
  shoal cost --everybody --wasted             # idle workers and failed runs
  shoal cost --everybody -o focus > costs.csv # for a finance tool
"""
_BAR = 20  # columns of the bar that shows a row's share


class CostOutput(StrEnum):
    """How costs are written."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    FOCUS = "focus"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("cost", epilog=EXAMPLES)(cost)


def cost(
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            help="Group by user, team, template, engine, target, name, flow, day, month or tag:NAME; may be repeated.",
        ),
    ] = None,
    since: Annotated[
        str, typer.Option("--since", help="Start: '30 d' back, or a date such as 2026-11-01 (UTC).")
    ] = "30 d",
    until: Annotated[
        str | None, typer.Option("--until", help="End: '7 d' back, or a date (default: now).")
    ] = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="For all users, not only me.")] = False,
    wasted: Annotated[
        bool, typer.Option("--wasted", help="Show what was idle, and what failed runs cost.")
    ] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: Annotated[
        CostOutput,
        typer.Option("-o", "--output", help="json and csv have a stable schema; focus is FOCUS 1.0 as CSV."),
    ] = CostOutput.TEXT,
) -> None:
    """Show what clusters cost in that time: the head, starting, used and idle workers apart.

    A run costs evenly from its admission to its end, or until now. Without prices in shoal.yaml, core-hours are shown.
    """
    from shoal.cli import views
    from shoal.cli.commands.listing import open_target
    from shoal.cli.console import out, say, write_json
    from shoal.display import cost as costs

    now = time.time()
    names = list(dict.fromkeys(by or ["user" if everybody else "template"]))
    for name in names:
        costs.key(name)
    begin, end = between(since, until, now)
    home = open_target(project, target)
    runs = home.clusters(owner=None if everybody else home.user(), ended=True)
    each = costs.Period.MONTH if output is CostOutput.FOCUS else costs.period_in(names)
    found = costs.charges(runs, now, begin, end, each)
    if output is CostOutput.FOCUS:
        _write_focus(found)
        return
    rows = costs.grouped(found, names)
    total = costs.summed(found)
    shown = [views.cost_view(row, names) for row in rows]
    if output is CostOutput.JSON:
        times = {"since": views.moment(begin), "until": views.moment(end)}
        write_json(times | {"by": names, "rows": shown, "total": views.cost_view(total, ())})
    elif output is CostOutput.CSV:
        _write_csv([views.flat(row) for row in shown], list(views.flat(views.cost_view(total, ()))), names)
    elif not rows:
        say(f"Nothing ran between {views.moment(begin)} and {views.moment(end)}.")
    else:
        out().print(_table(rows, total, names, wasted=wasted))
        if why := without_money(total):
            say(why)


def between(since: str, until: str | None, now: float) -> tuple[float, float]:
    """Both moments, in seconds since the epoch; UsageError where no time lies between them (see :func:`moment`)."""
    from shoal.cli.views import moment as shown
    from shoal.errors import UsageError

    begin, end = moment(since, now), now if until is None else moment(until, now)
    if begin >= end:
        last = f"--until {until}" if until is not None else "now"
        raise UsageError(
            f"--since {since} is {shown(begin)}, not before {last} ({shown(end)})",
            hint="Give an earlier --since or a later --until.",
        )
    return begin, end


def without_money(total: CostRow) -> str:
    """Why core-hours are shown though some runs have prices; empty where all have, or none."""
    from shoal.words import count, listed

    if total.money is not None or not total.currencies:
        return ""
    why = [f"{total.unpriced} of {count(total.runs, 'run')} without a price"] if total.unpriced else []
    if len(total.currencies) > 1:
        why.append(f"prices in {listed(total.currencies)}")
    return f"Core-hours, as there is no sum of money: {' and '.join(why)}."


def moment(said: str, now: float) -> float:
    """Seconds since the epoch of ``"30 d"`` (so long before ``now``) or of ``"2026-11-01"`` (that day's begin, UTC).

    UsageError for a date that is none, UnitError for a duration that is none.
    """
    from shoal.errors import UsageError
    from shoal.units import Seconds

    if re.fullmatch(r"\d{4}-.*", said.strip()):
        try:
            found = datetime.fromisoformat(said.strip() + ("-01" if len(said.strip()) == 7 else ""))
        except ValueError as error:
            raise UsageError(f"{said!r} is not a date", hint="Write it as 2026-11-01.") from error
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    return now - Seconds.parse(said)


def _write_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str], names: Sequence[str]) -> None:
    writer = csv.DictWriter(sys.stdout, [*names, *columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {name: no_formula(row[name]) for name in names} for row in rows)


def no_formula(text: str) -> str:
    """``text`` so that a spreadsheet takes it for text: what one would run as a formula begins with an apostrophe."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) and len(text) > 1 else text


def _write_focus(found: Sequence[RunCost]) -> None:
    from shoal.cli.console import say
    from shoal.display import focus
    from shoal.words import count

    priced = [charge for charge in found if charge.money is not None]
    without = len({charge.cluster.id for charge in found}) - len({charge.cluster.id for charge in priced})
    writer = csv.DictWriter(sys.stdout, focus.COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(focus.rows(priced))
    if without:
        runs = len({charge.cluster.id for charge in found})
        say(
            f"Left out, as they have no price: {without} of {count(runs, 'run')}. "
            "`prices:` of the target in shoal.yaml gives runs from then on one."
        )


def _table(rows: Sequence[CostRow], total: CostRow, names: Sequence[str], *, wasted: bool) -> Any:
    from shoal.cli import layout

    priced = total.money is not None
    unit = total.currency if priced else "core-hours"
    parts = ["IDLE", "FAILED", "WASTED"] if wasted else ["HEAD", "STARTING", "USED", "IDLE"]
    heads = [*(name.upper() for name in names), "RUNS", f"TOTAL ({unit})", *parts, ""]
    table = layout.plain(*heads)
    for column in table.columns[len(names) : -1]:
        column.justify = "right"
    lines = [_amounts(row, priced=priced, wasted=wasted) for row in [*rows, total]]
    barred = -1 if wasted else 0  # that the bars are of
    most = max(line[barred] for line in lines[:-1])
    places = [
        2 if all(not each or each >= Fraction(1, 10) for each in column) else 4
        for column in zip(*lines, strict=True)
    ]
    for row, line in zip([*rows, total], lines, strict=True):
        keys = list(row.keys) or ["total", *[""] * (len(names) - 1)]
        bar = round(_BAR * line[barred] / most) if most and row is not total else 0
        shown = (f"{float(amount):.{digits}f}" for amount, digits in zip(line, places, strict=True))
        table.add_row(*keys, str(row.runs), *shown, "█" * bar)
    return table


def _amounts(row: CostRow, *, priced: bool, wasted: bool) -> list[Fraction]:
    """What a row shows, the whole first; all rows in one unit."""
    shown, lost = row.core_hours, row.lost_hours
    if priced and row.money is not None and row.lost is not None:
        shown, lost = row.money, row.lost
    if wasted:
        return [shown.total, shown.idle, lost, shown.idle + lost]
    return [shown.total, shown.head, shown.starting, shown.used, shown.idle]
