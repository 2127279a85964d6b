"""The report of an analytics flow: its tables and plots in one HTML file, and in short as markdown.

Why it exists: whoever asked for the numbers has neither a cluster nor Python; one file can be opened, kept and mailed.

What it must not do: read tables (it gets frames), or load anything from the network when it is opened.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import pandas as pd

from shoal.errors import UsageError
from shoal.words import count, did_you_mean, listed, sentence

ChartKind = Literal["line", "bar", "points"]
_KINDS = ("line", "bar", "points")
SHOWN = 20
"""Rows of a table that a report shows."""
POINTS = 5_000
"""Rows that a plot draws at most."""
_COLORS = 10  # groups that get a color of their own
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:13px}th,td{padding:.2rem .7rem;border-bottom:1px solid #ddd;"
    "text-align:right}th{border-bottom:2px solid #888}.note{color:#666}"
)


@dataclass(frozen=True)
class Plot:
    """A plot of a result table.

    Attributes:
        table: The step's name.
        x: The column of the horizontal axis: numbers, dates, times or texts.
        y: The column or columns of numbers that are drawn over it.
        kind: ``"line"``, ``"bar"`` or ``"points"``.
        color: A column, each value of which is drawn in a color of its own; with one ``y`` alone. The ten that come
            first are drawn.
        title: Default: which columns of which table it shows.
        last: With ``x`` being the column of dates: how many days up to the run's date it shows.
    """

    table: str
    x: str
    y: str | Sequence[str]
    kind: ChartKind = "line"
    color: str | None = None
    title: str = ""
    last: int = 90

    def __post_init__(self) -> None:
        object.__setattr__(self, "y", (self.y,) if isinstance(self.y, str) else tuple(self.y))
        if self.kind not in _KINDS:
            raise UsageError(f"kind={self.kind!r} is not a kind of plot", hint=f"One of {', '.join(_KINDS)}.")
        if not self.y or (self.color is not None and len(self.y) > 1):
            raise UsageError(
                f"the plot of {self.table} has y={list(self.y)} and color={self.color!r}",
                hint="One column y with color=, or several without.",
            )
        if not isinstance(self.last, int) or self.last < 1:
            raise UsageError(f"last={self.last!r} is not a number of days", hint="For example last=90.")

    @property
    def columns(self) -> list[str]:
        """That it needs."""
        return list(dict.fromkeys([self.x, *self.y, *([self.color] if self.color else [])]))

    @property
    def heading(self) -> str:
        """Above it."""
        by = f" by {self.color}" if self.color else ""
        return self.title or f"{self.table}: {', '.join(self.y)} over {self.x}{by}"

    def check(self, columns: Sequence[str]) -> None:
        """UsageError if its table lacks a column."""
        for name in self.columns:
            if name not in columns:
                raise UsageError(
                    f"a plot of {self.table} names the column {name!r}, which the table does not have",
                    hint=sentence(did_you_mean(name, columns)),
                )


@dataclass(frozen=True)
class Section:
    """What a report shows of one table."""

    table: str
    rows: int
    head: pd.DataFrame
    """Its first rows."""


@dataclass(frozen=True)
class Page:
    """All of it."""

    title: str
    about: Mapping[str, Any]
    """The date and parameters."""
    sections: Sequence[Section]
    plots: Sequence[tuple[Plot, pd.DataFrame]] = ()
    """With the rows that each draws."""

    def html(self) -> str:
        """One file that needs no other."""
        from bokeh.embed import components
        from bokeh.resources import Resources

        figures = [_figure(plot, rows) for plot, rows in self.plots]
        code, places = components(figures) if figures else ("", ())
        parts = [
            f"<h1>{html.escape(self.title)}</h1>",
            f'<p class="note">{html.escape(_about(self.about))}</p>',
        ]
        for (plot, rows), place in zip(self.plots, places, strict=True):
            parts += [f"<h2>{html.escape(plot.heading)}</h2>", place]
            if len(rows) > POINTS:
                parts.append(f'<p class="note">The first {POINTS:,} of more rows.</p>')
        for section in self.sections:
            parts.append(f"<h2>{html.escape(section.table)}</h2>")
            parts.append(f'<p class="note">{_note(section)}</p>')
            if len(section.head):
                parts.append(section.head.to_html(index=False, border=0, na_rep="", escape=True))
        scripts = Resources(mode="inline", components=["bokeh"]).render() if figures else ""
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            f"<style>{_STYLE}</style>{scripts}</head><body>{''.join(parts)}{code}</body></html>\n"
        )

    def markdown(self, rows: int = 10) -> str:
        """Its tables alone, with their first rows."""
        parts = [f"# {self.title}", _about(self.about)]
        for section in self.sections:
            parts += [f"## {section.table}", _note(section)]
            if len(section.head):
                parts.append(_markdown(section.head.head(rows)))
        return "\n\n".join(part for part in parts if part) + "\n"


def _about(about: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in about.items())


def _note(section: Section) -> str:
    more = f", the first {len(section.head)} of which are shown" if section.rows > len(section.head) else ""
    return f"{count(section.rows, 'row')}{more}."


def _markdown(frame: pd.DataFrame) -> str:
    def cell(value: Any) -> str:
        said = "" if value is None or value is pd.NA or value is pd.NaT else str(value)
        return said.replace("|", "\\|").replace("\n", " ")

    lines = [
        "| " + " | ".join(cell(name) for name in frame.columns) + " |",
        "|" + "---|" * len(frame.columns),
    ]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in frame.itertuples(index=False, name=None)]
    return "\n".join(lines)


def _figure(plot: Plot, rows: pd.DataFrame) -> Any:
    """The plot of Bokeh. Rows without an x are left out; what is neither a number nor a time is a text."""
    from bokeh.palettes import Category10
    from bokeh.plotting import figure

    x = _plain(rows[plot.x].head(POINTS))
    kept = x.notna()
    drawn = {name: _plain(rows[name].head(POINTS))[kept] for name in plot.columns} | {plot.x: x[kept]}
    texts = not pd.api.types.is_numeric_dtype(x) and not pd.api.types.is_datetime64_any_dtype(x)
    if texts:
        drawn[plot.x] = drawn[plot.x].astype(str)
    how: dict[str, Any] = {"height": 320, "sizing_mode": "stretch_width", "x_axis_label": plot.x}
    if texts:
        how["x_range"] = list(dict.fromkeys(drawn[plot.x]))
    elif pd.api.types.is_datetime64_any_dtype(x):
        how["x_axis_type"] = "datetime"
    made = figure(**how)
    for number, (name, xs, ys) in enumerate(_series(plot, drawn)):
        if not pd.api.types.is_numeric_dtype(ys):
            raise UsageError(
                f"a plot of {plot.table} draws {name!r}, which holds {ys.dtype} and no numbers",
                hint=f"The columns of y= hold numbers; here: {listed(list(map(repr, plot.y)))}.",
            )
        how = {"color": Category10[10][number % 10], "legend_label": name}
        if plot.kind == "line":
            made.line(list(xs), list(ys), line_width=2, **how)
        elif plot.kind == "points":
            made.scatter(list(xs), list(ys), size=6, **how)
        else:
            made.vbar(x=list(xs), top=list(ys), width=_width(xs, texts), fill_alpha=0.7, **how)
    made.legend.visible = len(plot.y) > 1 or plot.color is not None
    return made


def _series(plot: Plot, drawn: Mapping[str, pd.Series]) -> list[tuple[str, pd.Series, pd.Series]]:
    """Name, x and y of each line, in the order of x."""
    order = drawn[plot.x].sort_values(kind="stable").index if plot.kind == "line" else drawn[plot.x].index
    xs = drawn[plot.x].loc[order]
    if plot.color is None:
        return [(name, xs, drawn[name].loc[order]) for name in plot.y]
    groups = drawn[plot.color].loc[order].astype(str)
    ys = drawn[plot.y[0]].loc[order]
    names = list(dict.fromkeys(drawn[plot.color].astype(str)))[:_COLORS]
    return [(name, xs[groups == name], ys[groups == name]) for name in names]


def _width(xs: pd.Series, texts: bool) -> Any:
    """Of a bar: nine tenths of the least distance to the next."""
    if texts:
        return 0.9
    steps = xs.drop_duplicates().sort_values().diff().dropna()
    return steps.min() * 0.9 if len(steps) else 0.9


def _plain(values: pd.Series) -> pd.Series:
    """Values as Bokeh takes them: floats, whole numbers, times without a zone, or texts."""
    import pyarrow as pa

    kind = values.dtype
    if isinstance(kind, pd.ArrowDtype):
        arrow = kind.pyarrow_dtype
        if pa.types.is_date(arrow) or pa.types.is_timestamp(arrow):
            values = pd.Series(pd.to_datetime(values.astype(object), errors="coerce"), index=values.index)
            return values.dt.tz_localize(None) if values.dt.tz is not None else values
        if pa.types.is_boolean(arrow):
            return values.astype(object).astype(str)
        if pa.types.is_integer(arrow) or pa.types.is_floating(arrow) or pa.types.is_decimal(arrow):
            return pd.Series(
                [float("nan") if v is pd.NA or v is None else float(v) for v in values], index=values.index
            )
        return pd.Series([None if v is pd.NA else v for v in values], index=values.index, dtype=object)
    if values.dtype == object and len(values) and isinstance(values.iloc[0], Decimal):
        return values.astype(float)
    return values
