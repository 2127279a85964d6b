"""What commands show to people: tables and bars made of the JSON views.

Why it exists: text and JSON say the same, because one is made of the other.

What it must not do: look anything up, or decide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shoal.display.explain import Outcome, Step
from shoal.display.forecast import clock, left
from shoal.model.cluster import Cluster, script_end
from shoal.model.resource import Resource
from shoal.model.workload import Group as WorkerGroup
from shoal.model.workload import Plan
from shoal.project.budget import said
from shoal.quota.account import written
from shoal.units import Bytes, Seconds
from shoal.words import count

STATE_COLOURS = {
    "Ready": "green",
    "Queued": "yellow",
    "Admitted": "yellow",
    "Starting": "yellow",
    "Stopping": "yellow",
    "Stopped": "dim",
    "Refused": "red",
    "Failed": "red",
}
NARROW = 100  # columns; below it `ls` leaves out what can be asked for otherwise


def plain(*columns: str, header: bool = True) -> Table:
    """A table without a frame: it reads well, and it greps well."""
    table = Table(box=None, show_header=header, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def age(at: str | None, now: datetime | None = None) -> str:
    """How long ago an ISO time was: ``"4 min"``."""
    if at is None:
        return ""
    passed = (now or datetime.now(UTC)) - datetime.fromisoformat(at)
    seconds = max(0, int(passed.total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def clusters(rows: Sequence[Mapping[str, Any]], width: int) -> RenderableType:
    """The now-table."""
    wide = width >= NARROW
    priced = any(row["price_per_hour"] for row in rows)
    columns = ["NAME", *(["OWNER", "ENGINE"] if wide else []), "TEMPLATE", "STATE", "SINCE", "WORKERS"]
    past = bool(rows) and "taken" in rows[0]
    columns += [*(["PRICE/H"] if priced else []), *(["ENDS IN"] if wide and not past else [])]
    columns += [*(["RESULT", "TOOK", "COST", "PEAK"] if past else []), "REASON"]
    table = plain(*columns)
    table.columns[0].no_wrap = table.columns[columns.index("STATE")].no_wrap = True
    for row in rows:
        cells: list[RenderableType] = [
            row["name"],
            *([row["owner"], row["engine"]] if wide else []),
            row["template"],
        ]
        cells += [Text(row["state"], STATE_COLOURS.get(row["state"], "")), age(row["since"])]
        cells += [_workers(row)]
        cells += [row["price_per_hour"] or ""] if priced else []
        cells += [countdown(row["status"])] if wide and not past else []
        cells += _taken(row) if past else []
        cells += [_reason(row)]
        table.add_row(*cells)
    return table


def _workers(row: Mapping[str, Any]) -> str:
    """How many are there, of how many; where there are several groups, of which."""
    said = f"{row['workers']}/{row['workers_planned']}"
    if len(row["groups"]) < 2:
        return said
    each = [
        f"{its['name']} {its['planned'] if its['workers'] is None else its['workers']}"
        for its in row["groups"]
    ]
    return f"{said} ({', '.join(each)})"


def _taken(row: Mapping[str, Any]) -> list[RenderableType]:
    """What came of a run, and what it took."""
    taken = row["taken"]
    result = row["result"] or ""
    cost = taken["cost"] or f"{taken['worker_hours']:.3g} worker-h"
    peak = str(Bytes(taken["peak_worker_memory"])) if taken["peak_worker_memory"] else ""
    return [
        Text(result, "red" if result == "failed" else ""),
        str(Seconds(round(taken["lived"]))) if taken["lived"] else "",
        cost if taken["lived"] else "",
        peak,
    ]


def _reason(row: Mapping[str, Any], now: float | None = None) -> Text:
    """Why it is in its state; that it is about to end counts more."""
    if row["warning"]:
        return Text(row["warning"], "bold red")
    if row["exit_code"] is not None:  # what came of its script counts more than that it was closed then
        return Text(script_end(row["exit_code"]), "red" if row["exit_code"] else "")
    said = f"{row['reason']}: {row['message'].splitlines()[0]}" if row["message"] else row["reason"]
    if row["latest_start"]:
        at = datetime.fromisoformat(row["latest_start"]).timestamp()
        said += f"; starts by {clock(at, now or time.time())} at the latest"
    return Text(said)


def countdown(status: Mapping[str, Any] | None) -> str:
    """When it ends on its own if nothing changes, and why: ``"18 min (Idle)"``."""
    if not status or status["ends_in"] is None:
        return ""
    return f"{left(float(status['ends_in']))} ({status['ends_reason']})"


def plan(settled: Plan) -> RenderableType:
    """Sizes with their reasons."""
    table = plain("", "SIZE", "WHY")
    table.columns[0].no_wrap = True
    for label, value, reason in _plan_rows(settled):
        table.add_row(Text(label, "bold"), value, Text(reason, "dim"))
    title = f"{settled.template} on {settled.engine} at target {settled.target}"
    above = [settled.reasons[key] for key in ("numbers", "here") if key in settled.reasons]
    return Group(
        *(Text(f"{each[:1].upper()}{each[1:]}", "bold") for each in above), Text(title, "bold"), table
    )


def _group_rows(group: WorkerGroup, why: Callable[[str], str]) -> list[tuple[str, str, str]]:
    many = (
        f"{group.count}"
        if group.minimum == group.maximum
        else f"{group.count} ({group.minimum}-{group.maximum})"
    )
    rows = [
        ("workers", many, why("workers")),
        ("cores", f"{group.size.cores:g} per worker", why("cores")),
        ("memory", f"{group.size.memory} per worker", why("memory")),
    ]
    if group.gpus:
        rows.append(("GPUs", f"{group.gpus} per worker", why("gpus")))
    if group.there != group.size:
        rows.append(
            ("actual size", f"{count(group.there.cores, 'core')}, {group.there.memory}", why("there"))
        )
    if group.scratch:
        rows.append(("scratch", f"{group.scratch} per worker", why("scratch")))
    rows.append(("spot", f"{group.spot:.0%}", why("spot")))
    return rows


def _plan_rows(settled: Plan) -> list[tuple[str, str, str]]:
    reasons = settled.reasons

    def why(key: str) -> str:
        sentence = reasons.get(key, "")
        return sentence.partition(": ")[2] or sentence

    rows = []
    for group in settled.groups:
        if len(settled.groups) > 1:
            rows.append((group.name, "", reasons.get("groups", "") if group is settled.groups[0] else ""))
        of = "" if group is settled.groups[0] else f"{group.name}."
        rows += _group_rows(group, lambda key, of=of: why(of + key))  # type: ignore[misc]
    if "groups" in reasons and len(settled.groups) == 1:
        rows.append(("groups", settled.groups[0].name, why("groups")))
    rows.append(("head", f"{count(settled.head.cores, 'core')}, {settled.head.memory}", why("head")))
    if settled.runner:
        rows.append(("script", "beside it", why("runner")))
    if "engine" in reasons:
        rows.append(("engine", settled.conf.get("spark.master", ""), why("engine")))
    if settled.packages:
        rows.append(("packages", ", ".join(settled.packages), "installed before work starts"))
    rows.append(("ends", f"after {settled.timeouts.max} at most", why("timeouts")))
    price = settled.price_per_hour
    rows.append(("price", "unknown" if price is None else f"{price} per hour", why("price")))
    return rows


def fit(view: Mapping[str, Any]) -> RenderableType:
    """The account before and after, and the verdict."""
    table = plain("QUOTA", "LIMIT", "HELD", "AFTER", "WHERE")
    for row in view["quota"]:
        over = row["after"] > row["limit"]
        after = Text(_amount(row, "after"), "red" if over else "")
        table.add_row(
            row["what"], _amount(row, "limit"), _amount(row, "held"), after, Text(row["source"], "dim")
        )
    verdict = {
        "admit": Text("Fits in your quota: it would be admitted now.", "green"),
        "wait": Text(f"Does not fit now.\n{view['message']}\n{view['hint']}", "yellow"),
        "refuse": Text(f"Never fits.\n{view['message']}\n{view['hint']}", "red"),
    }
    return Group(table, *map(budget, view["budgets"]), verdict[view["verdict"]])


def budget(row: Mapping[str, Any]) -> Text:
    """What is left of a budget, and what a plan may take of it."""
    unit, month = row["unit"], row["month"]
    whose = "Your budget" if row["scope"] == "you" else f"The budget of {row['scope']}"
    amounts = {name: said(row[name], unit) for name in ("monthly", "spent", "reserved", "left")}
    text = Text(f"{whose} of {amounts['monthly']} for {month}: ")
    spent = f"{amounts['spent']} spent"
    text.append(spent, "yellow" if row["warned"] else "")
    text.append(f", {amounts['reserved']} reserved by what runs, {amounts['left']} left")
    if row["warned"]:
        text.append(" (nearly spent)", "yellow")
    if row.get("may_take") is not None:
        text.append(f"; this may take {said(row['may_take'], unit)} until its maximum lifetime")
    if row["unpriced"]:
        text.append(f"; {count(row['unpriced'], 'run')} without a price in {unit} not counted", "yellow")
    return text.append(f"  {row['source']}", "dim")


def _amount(row: Mapping[str, Any], key: str) -> str:
    return written(Resource(row["what"]), row[key])


def quota(view: Mapping[str, Any]) -> RenderableType:
    """Bars of what is held, and by whom."""
    team = f", team {view['team']}" if view["team"] else ""
    parts: list[RenderableType] = [Text(f"{view['user']}: tier {view['tier']}{team}", "bold")]
    parts.append(_bars("", view["totals"]))
    if view["team_totals"]:
        parts += [
            Text(f"\nTeam {view['team']}, all members together", "bold"),
            _bars("", view["team_totals"]),
        ]
    if view["machine"] is not None:
        cores = view["machine"]["cores"]
        title = "\nThis machine, everybody together" + (f" ({count(cores, 'core')})" if cores else "")
        parts += [Text(title, "bold"), _bars("", view["machine"]["totals"])]
    if view["budgets"]:
        parts += [Text(""), *map(budget, view["budgets"])]
    one = ", ".join(
        f"{what} {written(Resource(what), row['limit'])}" for what, row in view["per_cluster"].items()
    )
    if one:
        parts.append(Text(f"\nOne cluster at most: {one}"))
    if view["clusters"]:
        table = plain("CLUSTER", "WORKERS", "CORES", "MEMORY", "GPUS", "HEAD")
        for row in view["clusters"]:
            table.add_row(
                row["name"],
                str(row["workers"]),
                f"{row['cores']:g}",
                str(Bytes(row["memory"])),
                str(row["gpus"]),
                str(Bytes(row["heads"])),
            )
        parts += [Text(""), table]
    return Group(*parts)


def _bars(title: str, rows: Sequence[Mapping[str, Any]], size: int = 20) -> Table:
    table = plain(title, "", "", "", header=False)
    for row in rows:
        share = row["held"] / row["limit"] if row["limit"] else 0.0
        full = min(size, round(share * size))
        colour = "red" if share >= 1 else "yellow" if share >= 0.75 else "green"
        bar = Text("█" * full, colour) + Text("░" * (size - full), "dim")
        held = f"{_amount(row, 'held')} of {_amount(row, 'limit')}"
        if row["held"] > row["limit"]:
            held += " (over the limit: kept until it ends)"
        if row.get("queued"):
            held += f", {_amount(row, 'queued')} queued"
        table.add_row(f"  {row['what']}", bar, held, Text(row["source"], "dim"))
    return table


_OUTCOMES = {
    Outcome.PASSED: ("✓", "green"),
    Outcome.NOW: ("→", "cyan"),
    Outcome.FAILED: ("✗", "red"),
    Outcome.ENDED: ("■", "dim"),
    Outcome.PENDING: ("·", "dim"),
}


def steps(cluster: Cluster, found: Sequence[Step]) -> RenderableType:
    """Where a cluster stands, stage by stage."""
    table = plain("", "", "", header=False)
    for step in found:
        mark, colour = _OUTCOMES[step.outcome]
        style = "dim" if step.outcome is Outcome.PENDING else ""
        table.add_row(Text(mark, colour), Text(step.stage.value, "bold"), Text(step.said, style))
        if step.fix:
            table.add_row("", "", Text(f"fix: {step.fix}", colour))
    # A cluster ends with its script, by its user's wish: that is how, and not why.
    why = cluster.reason if cluster.exit_code is None else script_end(cluster.exit_code)
    title = Text.assemble((cluster.name, "bold"), f": {cluster.state}, {why}")
    return Group(title, table)


def usage(
    rows: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]] | None, every: float
) -> RenderableType:
    """What clusters use now; CPU since ``before``, ``every`` seconds ago."""
    earlier = {row["id"]: row["status"] for row in before or () if row["status"]}
    table = plain("NAME", "STATE", "WORKERS", "MEMORY", "", "CPU", "CLIENTS", "ENDS IN")
    for row in rows:
        status = row["status"] or {}
        limit = (status.get("memory_limit") or 0) * max(1, row["workers"])
        share = (status.get("memory") or 0) / limit if limit else 0.0
        colour = "red" if share >= 0.9 else "yellow" if share >= 0.7 else "green"
        full = min(12, round(share * 12))
        memory = f"{Bytes(status['memory'])} of {Bytes(limit)}" if status else ""
        cpu = ""
        if status and row["id"] in earlier:
            spent = status["cpu_seconds"] - earlier[row["id"]]["cpu_seconds"]
            cpu = f"{max(0.0, spent / every):.1f} cores"
        table.add_row(
            row["name"],
            Text(row["state"], STATE_COLOURS.get(row["state"], "")),
            f"{row['workers']}/{row['workers_planned']}",
            Text("█" * full, colour) + Text("░" * (12 - full), "dim"),
            memory,
            cpu or ("computes" if status.get("busy") else "idle" if status else ""),
            str(status.get("clients", "")),
            countdown(row["status"]),
        )
    return table if rows else Text("No clusters are running.")
