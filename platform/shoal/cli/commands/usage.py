"""``shoal usage``: what runs took together, by template.

Why it exists: "what did I use this week" is one question, and a report answers it for one run only.

What it must not do: work out what one run took (``shoal.display.report`` does).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any

import typer

from shoal.cli import options as o
from shoal.units import Bytes, Money, Seconds

EXAMPLES = """\b
Examples:
  shoal usage                      # mine, of the last seven days
  shoal usage --since 30d --everybody
  shoal usage -o json | jq .total
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("usage", epilog=EXAMPLES)(usage)


def usage(
    since: Annotated[str, typer.Option("--since", help="How far back, such as '7 d' or '12 h'.")] = "7 d",
    everybody: Annotated[bool, typer.Option("--everybody", help="For all users, not only me.")] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Show what the runs that began in that time took, by template and in all."""
    from shoal.cli import views
    from shoal.cli.commands.listing import open_target
    from shoal.cli.console import out, say, write_json

    span = Seconds.parse(since)
    now = time.time()
    home = open_target(project, target)
    runs = home.clusters(owner=None if everybody else home.user(), ended=True)
    rows = [views.taken_view(run, now) for run in runs if run.created >= now - span]
    rows = [row for row in rows if row["result"] != "refused"]
    groups = _by_template(rows)
    total = add_up(rows)
    if output is o.Output.JSON:
        write_json({"since": views.moment(now - span), "templates": groups, "total": total})
        return
    if not rows:
        say(f"Nothing ran in the last {span}.")
        return
    from shoal.cli import layout as tables

    table = tables.plain("TEMPLATE", "RUNS", "FAILED", "WORKER-HOURS", "COST", "PEAK MEMORY")
    for row in [*groups, {"template": "total", **total}]:
        peak = "" if not row["peak_worker_memory"] else str(Bytes(row["peak_worker_memory"]))
        hours = f"{row['worker_hours']:.3g}"
        table.add_row(row["template"], str(row["runs"]), str(row["failed"]), hours, row["cost"] or "", peak)
    out().print(table)


def _by_template(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of each template added up, the most worker-hours first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["template"], []).append(row)
    found = [{"template": name, **add_up(group)} for name, group in groups.items()]
    return sorted(found, key=lambda row: -row["worker_hours"])


def add_up(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Runs, failures, hours, cost and the largest peak of what :func:`shoal.cli.views.taken_view` tells of each.

    ``cost`` is None where the price of any run is not known, or they are in several currencies: half a sum
    would be a wrong one.
    """
    rows = list(rows)
    prices = [Money.parse(row["cost"]) if row["cost"] else None for row in rows]
    known = [price for price in prices if price is not None]
    whole = known and len(known) == len(rows) and len({price.currency for price in known}) == 1
    cost = str(Money(sum((p.amount for p in known), Decimal(0)), known[0].currency)) if whole else None
    return {
        "runs": len(rows),
        "failed": sum(row["result"] == "failed" for row in rows),
        "lived": round(sum(row["lived"] for row in rows), 3),
        "worker_hours": round(sum(row["worker_hours"] for row in rows), 6),
        "cost": cost,
        "peak_worker_memory": max((row["peak_worker_memory"] for row in rows), default=0),
    }
