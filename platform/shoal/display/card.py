"""The card of a cluster: what a notebook shows while it starts, runs, and after it ended. Pure.

Why it exists: owner, phases, workers, memory, price so far and the time it has left, in one place, in HTML
for a notebook and in plain text for a terminal.

What it must not do: look anything up, or display anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from shoal.display.computing import PartDone, counted, most_left
from shoal.display.forecast import starts, warning
from shoal.display.picture import COLOURS, bar, box
from shoal.display.report import Report, taken
from shoal.model.cluster import Cluster, State
from shoal.model.status import Event, HeadStatus
from shoal.units import Seconds
from shoal.words import count

_BADGES = {"Failed": "#b3261e", "Refused": "#b3261e", "Stopped": "#777777"}


def facts(
    cluster: Cluster, history: Sequence[Event], status: HeadStatus | None, now: float
) -> list[tuple[str, str]]:
    """What there is to say, as plain text: (what, value) pairs."""
    group = cluster.plan.groups[0]
    said = [
        ("owner", cluster.owner),
        ("workers", f"{cluster.workers} of {cluster.plan.workers}, {_each(cluster, status)}"),
    ]
    if group.maximum > group.count and not cluster.state.ended:
        several = f" in group {group.name}" if len(cluster.plan.groups) > 1 else ""
        said.append(("grows", f"up to {group.maximum} workers{several}, as work and quota allow"))
    if status is not None and status.limit and cluster.state is State.READY:
        said.append(("memory", f"{status.memory} of {status.whole}"))
    if not cluster.state.ended:
        said.append(("so far", _cost(cluster, now)))
        ends = status.ends_in if status is not None else None
        if soon := warning(cluster, ends):
            said.append(("soon", soon))
        elif ends is not None:
            said.append(("ends in", f"{Seconds(round(ends.seconds))} if nothing changes ({ends.reason})"))
    phases = [
        f"{entry.message} {Seconds(round(took, 1))}"
        for entry, took in _durations(history, cluster, now)
        if entry.state in (State.QUEUED, State.ADMITTED, State.STARTING)
    ]
    if phases:
        said.append(("start", "; ".join(phases)))
    said.append(("why", f"{cluster.reason}: {cluster.message}"))
    if ahead := starts(cluster, now):
        said.append(("ahead", ahead))
    return said


def _each(cluster: Cluster, status: HeadStatus | None) -> str:
    """How big a worker is; of several groups also how many of each there are, and are to be."""
    groups = cluster.plan.groups
    if len(groups) == 1:
        return f"{groups[0].there.memory} each"
    there = status.groups if status is not None else {}
    return "; ".join(
        f"{each.name} {f'{there[each.name]} of ' if each.name in there else ''}{each.count} of {each.there.memory}"
        for each in groups
    )


def html(
    cluster: Cluster,
    history: Sequence[Event],
    status: HeadStatus | None,
    now: float,
    links: Mapping[str, str] | None = None,
    report: Report | None = None,
    work: tuple[Sequence[PartDone], float] | None = None,
) -> str:
    """The card in HTML. ``links`` are dashboards by name; ``report`` settles it once the cluster ended. ``work``:
    what is computed now, and for how many seconds.
    """
    rows: list[tuple[str, str]] = []
    for what, value in facts(cluster, history, status, now):
        shown = escape(value)
        if what == "workers" and cluster.plan.workers:
            shown = f"{bar(cluster.workers / cluster.plan.workers, '#5b8db8')} {shown}"
        if what == "memory" and status is not None:
            shown = f"{bar(status.memory / status.whole, '#4c9f70')} {shown}"
        if what == "soon":
            shown = f"<b style='color:{_BADGES['Failed']}'>{shown}</b>"
        if what == "start":
            shown = _phase_bars(history, cluster, now)
        rows.append((what, shown))
    if work is not None and not cluster.state.ended:
        rows.append(("computes", _work(*work)))
    if links and not cluster.state.ended:
        anchors = (f'<a href="{escape(to)}" target="_blank">{escape(name)}</a>' for name, to in links.items())
        rows.append(("look", " · ".join(anchors)))
    below = ""
    if report is not None:
        rows.append(("took", escape(report.line())))
        below = report.picture()
    plan = cluster.plan
    title = f"{cluster.name} · {plan.engine} · {plan.template}"
    colour = _BADGES.get(cluster.state.value, COLOURS.get(cluster.state.value, "#777777"))
    return box(title, cluster.state.value, colour, rows, below)


def text(cluster: Cluster, history: Sequence[Event], status: HeadStatus | None, now: float) -> str:
    """The same in plain text."""
    plan = cluster.plan
    head = f"{cluster.name} · {plan.engine} · {plan.template} · {cluster.state}"
    return "\n".join(
        [head, *(f"  {what:<8} {value}" for what, value in facts(cluster, history, status, now))]
    )


def _durations(history: Sequence[Event], cluster: Cluster, now: float) -> list[tuple[Event, float]]:
    end = cluster.ended_at if cluster.ended_at is not None else now
    times = [entry.at for entry in history]
    return [
        (entry, max(0.0, after - begin))
        for entry, begin, after in zip(history, times, [*times[1:], end], strict=True)
    ]


def _phase_bars(history: Sequence[Event], cluster: Cluster, now: float) -> str:
    """One bar per phase of the start, to a common scale."""
    phases = [
        (entry, took)
        for entry, took in _durations(history, cluster, now)
        if entry.state in (State.QUEUED, State.ADMITTED, State.STARTING)
    ]
    longest = max([took for _, took in phases] + [0.1])
    return "<br>".join(
        f"{bar(took / longest, COLOURS[entry.state.value], 90)} "
        f"{escape(entry.message)} <span style='color:#999'>{Seconds(round(took, 1))}</span>"
        for entry, took in phases
    )


def _work(parts: Sequence[PartDone], seconds: float) -> str:
    done, total = counted(parts)
    shown = f"{done:,} of {count(total, 'task')}, {Seconds(int(seconds))}"
    left = most_left(parts)
    return f"{bar(done / total if total else 0.0, '#5b8db8')} {escape(f'{shown}; {left}' if left else shown)}"


def _cost(cluster: Cluster, now: float) -> str:
    lived, worker_seconds, so_far = taken(cluster, now)
    if so_far is None:
        return f"{Seconds(round(lived))}, {worker_seconds / 3600:.3g} worker-hours"
    return f"{Seconds(round(lived))}, {so_far} ({cluster.plan.price_per_hour} per hour)"
