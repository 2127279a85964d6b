"""What a check of rows found, to look at, to go on with, and to keep with a snapshot.

Why it exists: a failed check is of use only if it says which rule, how many rows, and shows some. What it must not do:
check anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import pyarrow as pa

from shoal.tables.errors import RuleError
from shoal.tables.quality.judging import Tally
from shoal.tables.quality.rules import RuleSet
from shoal.words import count

PREFIX = "shoal.quality."
"""Of the properties of a snapshot that tell its report."""
_MOST = 20_000  # characters of a snapshot's property


@dataclass(frozen=True)
class RuleResult:
    """What became of one rule."""

    rule: str
    """Its name."""
    condition: str
    """As it was written."""
    failed: int
    """Rows that break it."""
    examples: pa.Table | None = field(default=None, repr=False)
    """Up to ten of them; ``None`` if there are none, or if the report is of an earlier write."""


@dataclass(frozen=True, repr=False)
class QualityReport:
    """What a check of rows found."""

    table: str
    """The table that the rows were for; what was checked, without one."""
    rows: int
    """Rows checked."""
    failed_rows: int
    """Rows that break at least one rule."""
    rules: tuple[RuleResult, ...]
    on_failure: str = "fail"
    quarantine: str | None = None
    """The table that holds the failing rows, if they were put aside."""
    quarantine_snapshot: int | None = None
    """Its snapshot that holds them."""
    note: str | None = None
    """What else there is to know."""

    @property
    def ok(self) -> bool:
        """Whether no row failed."""
        return self.failed_rows == 0

    def failing(self, rule: str | None = None) -> pa.Table:
        """Examples of the rows that fail, of one rule or of all, each with the rule's name in front of its columns
        (as ``failed_rule``).

        Raises :class:`RuleError` for a rule that there is not.
        """
        if rule is not None and rule not in (names := [found.rule for found in self.rules]):
            raise RuleError(
                f"There is no rule {rule!r} in the report on {self.table}.",
                hint=f"Its rules: {', '.join(map(repr, names))}",
                rule=rule,
            )
        parts = [
            found.examples.add_column(
                0, "failed_rule", pa.array([found.rule] * found.examples.num_rows, pa.string())
            )
            for found in self.rules
            if found.examples is not None and rule in (None, found.rule)
        ]
        return pa.concat_tables(parts) if parts else pa.table({"failed_rule": pa.array([], pa.string())})

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; without the rows."""
        return {
            "table": self.table,
            "rows": self.rows,
            "failed_rows": self.failed_rows,
            "on_failure": self.on_failure,
            "quarantine": self.quarantine,
            "quarantine_snapshot": self.quarantine_snapshot,
            "note": self.note,
            "rules": [{"rule": r.rule, "condition": r.condition, "failed": r.failed} for r in self.rules],
        }

    def __repr__(self) -> str:
        return f"<QualityReport {said(self)}{f'. {self.note}' if self.note else ''}>"

    def _repr_html_(self) -> str:
        lines = "".join(
            f"<tr><td>{escape(r.rule)}</td><td>{escape(r.condition)}</td><td>{r.failed:,}</td></tr>"
            for r in self.rules
        )
        head = "<tr><th>rule</th><th>condition</th><th>rows that fail</th></tr>"
        note = f"<div>{escape(self.note)}</div>" if self.note else ""
        return f"<div>{escape(said(self))}</div>{note}<table>{head}{lines}</table>"


def said(report: QualityReport) -> str:
    """``nyc.flights: 3 of 1,000 rows fail 2 of 3 rules``."""
    broken = sum(r.failed > 0 for r in report.rules)
    rules, rows = count(len(report.rules), "rule"), count(report.rows, "row")
    if report.ok:
        passed = "1 row passes" if report.rows == 1 else f"all {rows} pass"
        return f"{report.table}: {passed} {rules}"
    fail = "fails" if report.failed_rows == 1 else "fail"
    return f"{report.table}: {report.failed_rows:,} of {rows} {fail} {broken} of {rules}"


def details(report: QualityReport, rules: RuleSet, most: int = 5) -> str:
    """A line for each broken rule, with the values of one row that breaks it."""
    lines = []
    broken = sorted((r for r in report.rules if r.failed), key=lambda r: -r.failed)
    columns = {c.name: c.columns for c in rules.conditions}
    for found in broken[:most]:
        condition = f" ({found.condition})" if found.condition != found.rule else ""
        lines.append(
            f"  {found.rule}{condition}: {count(found.failed, 'row')}{_shown(found, columns.get(found.rule, ()))}"
        )
    if len(broken) > most:
        lines.append(f"  and {count(len(broken) - most, 'more rule')}")
    return "\n".join(lines)


def _shown(found: RuleResult, columns: tuple[str, ...]) -> str:
    if found.examples is None or not found.examples.num_rows:
        return ""
    first = found.examples.slice(0, 1).to_pylist()[0]
    named = {name.split(".")[0] for name in columns} or {found.rule.split(":")[0]}
    values = [f"{name}={str(value)[:60]!s}" for name, value in first.items() if name in named]
    return f", such as {', '.join(values[:4])}" if values else ""


def report_of(table: str, tally: Tally, rules: RuleSet, on_failure: str) -> QualityReport:
    """The report of rows that were checked."""
    names = dict.fromkeys([*rules.names, *tally.failures])
    results = tuple(
        RuleResult(name, rules.text_of(name), tally.failures.get(name, 0), tally.examples.get(name))
        for name in names
    )
    return QualityReport(table, tally.rows, tally.failed, results, on_failure)


def properties_of(report: QualityReport) -> dict[str, str]:
    """The properties of a snapshot that tell the report."""
    told = {
        f"{PREFIX}rows": str(report.rows),
        f"{PREFIX}failed-rows": str(report.failed_rows),
        f"{PREFIX}on-failure": report.on_failure,
    }
    results = json.dumps([[r.rule, r.condition, r.failed] for r in report.rules])
    if len(results) <= _MOST:
        told[f"{PREFIX}rules"] = results
    if report.note is not None:
        told[f"{PREFIX}note"] = report.note
    if report.quarantine is not None:
        told[f"{PREFIX}quarantine"] = f"{report.quarantine}@{report.quarantine_snapshot}"
    return told


def report_in(table: str, properties: Mapping[str, str]) -> QualityReport | None:
    """The report that a snapshot's properties tell, without rows; ``None`` if it was written without rules."""
    if f"{PREFIX}rows" not in properties:
        return None
    side, _, snapshot = properties.get(f"{PREFIX}quarantine", "").rpartition("@")
    return QualityReport(
        table,
        int(properties[f"{PREFIX}rows"]),
        int(properties[f"{PREFIX}failed-rows"]),
        tuple(RuleResult(*one) for one in json.loads(properties.get(f"{PREFIX}rules", "[]"))),
        properties[f"{PREFIX}on-failure"],
        side or None,
        int(snapshot) if side else None,
        properties.get(f"{PREFIX}note"),
    )
