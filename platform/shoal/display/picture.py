"""Pictures of a run, as inline SVG and HTML: phases, workers, memory against its limit. Pure.

Why it exists: one look tells where the time went and how much of the memory was needed; and a saved notebook
or a report keeps it, with nothing to load from anywhere.

What it must not do: measure, or let text from outside into the page unescaped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from shoal.model.cluster import State
from shoal.units import Bytes, Seconds

Span = tuple[str, float, float]  # what, from, to; in seconds since the cluster was asked for
Scale = Callable[[float], float]
Moment = tuple[float, float, float]  # seconds since the head began, workers, bytes in use by all of them

COLOURS = {
    "Queued": "#c9a227",
    "Admitted": "#9bb8d3",
    "Starting": "#5b8db8",
    "Ready": "#4c9f70",
    "Stopping": "#8d8d8d",
}
_WIDTH, _LEFT, _ROW = 640, 70, 18
_PLOT = _WIDTH - _LEFT - 10
_HIGH = 70


def timeline(
    spans: Sequence[Span], samples: Sequence[Moment], limit: float, marks: Sequence[str] = ()
) -> str:
    """An SVG of a run.

    ``limit`` is what one worker may use, in bytes; the memory axis is all workers' limits together.
    ``marks`` are said under the picture (workers restarted, bytes spilled).
    """
    end = max([to for _, _, to in spans] + [at for at, *_ in samples] + [1.0])

    def x(at: float) -> float:
        return _LEFT + _PLOT * at / end

    parts = [
        f'<rect x="{x(begin):.1f}" y="4" width="{max(1.0, x(to) - x(begin)):.1f}" height="{_ROW - 6}" '
        f'fill="{COLOURS.get(what, "#777")}"><title>{escape(what)}: {Seconds(to - begin)}</title></rect>'
        for what, begin, to in spans
    ]
    parts.append(_label("phases", 14))
    height = _ROW + 4
    if samples:
        served = next((begin for what, begin, _ in spans if what == State.READY), 0.0)
        shifted = [
            (min(end, served + at - samples[0][0]), workers, memory) for at, workers, memory in samples
        ]
        parts += _workers(shifted, x, height)
        parts += _memory(shifted, x, height + _ROW + 8, limit)
        height += _ROW + 8 + _HIGH + 4
    parts.append(f'<text x="{_LEFT}" y="{height + 12}">0 s</text>')
    parts.append(
        f'<text x="{_WIDTH - 10}" y="{height + 12}" text-anchor="end">{Seconds(round(end, 1))}</text>'
    )
    for number, mark in enumerate(marks, start=2):
        parts.append(f'<text x="{_LEFT}" y="{height + 13 * number}" fill="#b3261e">{escape(mark)}</text>')
    height += 16 + 13 * len(marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img" font-family="sans-serif" font-size="10" fill="#555">'
        f"{''.join(parts)}</svg>"
    )


def _label(text: str, y: float) -> str:
    return f'<text x="4" y="{y}">{escape(text)}</text>'


def _workers(samples: Sequence[Moment], x: Scale, top: float) -> list[str]:
    most = max(workers for _, workers, _ in samples) or 1.0
    points = " ".join(
        f"{x(at):.1f},{top + _ROW - (_ROW - 4) * workers / most:.1f}" for at, workers, _ in samples
    )
    return [
        _label(f"workers {most:g}", top + 12),
        f'<polyline points="{points}" fill="none" stroke="#5b8db8" stroke-width="1.5"/>',
    ]


def _memory(samples: Sequence[Moment], x: Scale, top: float, limit: float) -> list[str]:
    most = max(workers for _, workers, _ in samples) or 1.0
    peak = max(memory for *_, memory in samples)
    full = max(limit * most, peak, 1.0)
    bottom = top + _HIGH

    def y(value: float) -> float:
        return bottom - _HIGH * value / full

    line = " ".join(f"{x(at):.1f},{y(memory):.1f}" for at, _, memory in samples)
    first, last = x(samples[0][0]), x(samples[-1][0])
    parts = [
        _label("memory", top + 12),
        _label(f"{peak / full:.0%} of {Bytes(full)}", bottom - 2),
        f'<polygon points="{first:.1f},{bottom} {line} {last:.1f},{bottom}" fill="#4c9f70" '
        'fill-opacity="0.35"/>',
        f'<polyline points="{line}" fill="none" stroke="#4c9f70" stroke-width="1.5"/>',
    ]
    if limit:
        level = y(limit * most)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{level:.1f}" y2="{level:.1f}" '
            'stroke="#b3261e" stroke-dasharray="4 3"><title>limit of all workers</title></line>'
        )
    return parts


def bar(share: float, colour: str, width: int = 160) -> str:
    """A bar of ``share`` (0 to 1), as HTML."""
    filled = max(0, min(width, round(width * share)))
    return (
        f'<span style="display:inline-block;width:{width}px;height:9px;background:#e6e6e6;border-radius:3px">'
        f'<span style="display:block;width:{filled}px;height:9px;background:{colour};border-radius:3px">'
        "</span></span>"
    )


def box(title: str, badge: str, colour: str, rows: Sequence[tuple[str, str]], below: str = "") -> str:
    """A card. ``title`` and ``badge`` are text; the second of each row, and ``below``, are HTML already."""
    lines = "".join(
        f'<tr><td style="color:#777;padding:1px 10px 1px 0;text-align:left">{escape(name)}</td>'
        f'<td style="text-align:left;padding:1px 0">{value}</td></tr>'
        for name, value in rows
    )
    return (
        '<div style="border:1px solid #ddd;border-radius:6px;padding:8px 12px;max-width:680px;'
        'font-family:sans-serif;font-size:12px;line-height:1.5">'
        f'<b>{escape(title)}</b> <span style="background:{colour};color:white;border-radius:8px;'
        f'padding:1px 8px">{escape(badge)}</span>'
        f'<table style="border:0;margin-top:4px">{lines}</table>{below}</div>'
    )
