"""Which rows of a partition break which rule.

Why it exists: it is what the gate runs where the data is. What it must not do: decide what becomes of the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from hashlib import blake2b
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.schema import Schema

from shoal.tables.pyiceberg_private import bind
from shoal.tables.quality import panderas
from shoal.tables.quality.rules import RuleSet
from shoal.tables.reading.proof import as_arrow

EXAMPLES = 10
"""Rows that are shown of those that break a rule."""


@dataclass(frozen=True)
class Tally:
    """How many rows were checked and how many failed, with some of them."""

    rows: int
    failed: int = 0
    """Rows that break at least one rule."""
    failures: dict[str, int] = field(default_factory=dict)
    """Rule -> rows that break it."""
    examples: dict[str, pa.Table] = field(default_factory=dict)
    """Rule -> up to :data:`EXAMPLES` of these rows."""


@dataclass(frozen=True)
class Judged:
    """A partition's rows, told apart."""

    tally: Tally
    broken: dict[str, Any]
    """Rule -> an array of which rows break it."""

    def divide(self, table: pa.Table) -> tuple[pa.Table, pa.Table, pa.Array]:
        """The rows that pass, those that fail, and for each of these the names of the rules that it breaks.

        They are divided by ``"; "``; a name that holds a semicolon is in double quotes, as JSON has it.
        """
        names = sorted(self.broken)
        matrix = np.column_stack([self.broken[name] for name in names])
        failed = matrix.any(axis=1)
        kinds, which = np.unique(matrix[failed], axis=0, return_inverse=True)
        shown = [json.dumps(n, ensure_ascii=False) if ";" in n or n.startswith('"') else n for n in names]
        said = ["; ".join(n for n, broken in zip(shown, kind, strict=True) if broken) for kind in kinds]
        reasons = pa.array(said, pa.string()).take(pa.array(which.reshape(-1)))
        return table.filter(pa.array(~failed)), table.filter(pa.array(failed)), reasons


def judge(
    table: pa.Table, frame: pd.DataFrame | pa.Table | None, rules: RuleSet, schema: Schema, where: str
) -> Judged:
    """Check every row against every rule.

    ``table``: the rows as they would be stored, of the columns and types of ``schema``. ``frame``: the same rows as
    they were given, for pandera; ``None``: as Arrow gives them to pandas.

    Raises :class:`RuleError`.
    """
    broken: dict[str, Any] = {}
    if rules.conditions:
        asked = {
            str(i): as_arrow(bind(schema, c.failing, case_sensitive=True), schema)
            for i, c in enumerate(rules.conditions)
        }
        answers = ds.dataset(table).to_table(columns=asked, use_threads=False)
        for i, condition in enumerate(rules.conditions):
            mask = answers.column(str(i)).combine_chunks().fill_null(False).to_numpy(zero_copy_only=False)
            if mask.any():
                broken[condition.name] = mask
    if rules.schema is not None:
        plain = table if frame is None else frame
        if isinstance(plain, pa.Table):
            plain = panderas.as_pandas(rules.schema, plain)
        broken |= panderas.masks(rules.schema, plain, where)
    if not broken:
        return Judged(Tally(table.num_rows), {})
    tally = Tally(
        table.num_rows,
        int(reduce(np.logical_or, broken.values()).sum()),
        {name: int(mask.sum()) for name, mask in broken.items()},
        {name: table.take(pa.array(np.flatnonzero(mask)[:EXAMPLES])) for name, mask in broken.items()},
    )
    return Judged(tally, broken)


def digest_of(table: pa.Table) -> int:
    """A number for the rows of a table, whatever their order; those of parts of it add up to it, modulo 2**64.

    Made of the values that Arrow has, which do not depend on the other rows, as a pandas column's type does.
    """
    total = 0
    for batch in table.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            total += int.from_bytes(blake2b(repr(row).encode(), digest_size=8).digest(), "big")
    return total % 2**64


def added_up(tallies: Iterable[Tally]) -> Tally:
    """All of them together."""
    rows = failed = 0
    failures: dict[str, int] = {}
    examples: dict[str, pa.Table] = {}
    for tally in tallies:
        rows, failed = rows + tally.rows, failed + tally.failed
        for name, count in tally.failures.items():
            failures[name] = failures.get(name, 0) + count
            more = tally.examples[name]
            known = examples.get(name)
            if known is None or known.num_rows < EXAMPLES:
                examples[name] = (more if known is None else pa.concat_tables([known, more])).slice(
                    0, EXAMPLES
                )
    return Tally(rows, failed, failures, examples)
