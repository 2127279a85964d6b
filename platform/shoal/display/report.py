"""What a run took: times per phase, peaks, what was held, price or hours. Pure: records in, text out.

Why it exists: every run ends with what it cost, and says hours where nobody told prices.

What it must not do: measure (the head does) or advise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import Any

from shoal.display.picture import Moment, Span, bar, box, timeline
from shoal.model.cluster import Cluster, script_end
from shoal.model.status import Event
from shoal.units import Bytes, Money, Seconds
from shoal.words import count

# Left out of JSON, or written differently there.
_NOT_PLAIN = ("price", "phases", "spans", "samples")


@dataclass(frozen=True, repr=False)
class Report:
    """One cluster's run, settled. Shares are 0 to 1; ``price`` is None where no prices are known.

    ``workers`` is how many it had in the end; ``worker_hours`` and ``price`` are of as many as there were, and as
    long.
    """

    name: str
    engine: str
    template: str
    reason: str
    message: str
    lived: Seconds
    phases: Mapping[str, Seconds]
    workers: int
    worker_hours: float
    price: Money | None
    peak_worker_memory: Bytes
    worker_memory_limit: Bytes
    peak_memory: Bytes
    spilled: Bytes
    cpu_share: float
    restarts: int
    restart_note: str
    spans: Sequence[Span] = ()
    samples: Sequence[Moment] = ()
    exit_code: int | None = None  # of the script that ran on it; None where none did

    @property
    def cost(self) -> str:
        """The price, or hours where no prices are known."""
        return str(self.price) if self.price is not None else f"{self.worker_hours:.3g} worker-hours"

    def picture(self) -> str:
        """The run's timeline as SVG, with what went wrong marked."""
        marks = []
        if self.restarts:
            marks.append(f"{count(self.restarts, 'worker')} restarted: {self.restart_note}")
        if self.spilled:
            marks.append(f"{self.spilled} spilled to disk")
        return timeline(self.spans, self.samples, float(self.worker_memory_limit), marks)

    def html(self) -> str:
        """The report as a card with its picture."""
        phases = ", ".join(f"{phase} {took}" for phase, took in self.phases.items())
        rows = [
            ("took", escape(f"{self.lived} ({phases})")),
            ("cost", escape(self.cost)),
            ("memory", escape(f"peak worker memory {self.peak_worker_memory} of {self.worker_memory_limit}")),
            ("cpu", f"{bar(self.cpu_share, '#5b8db8')} {self.cpu_share:.0%}"),
            ("ended", escape(self.end)),
        ]
        title = f"{self.name} · {self.engine} · {self.template}"
        return box(title, "report", "#777777", rows, self.picture())

    _repr_html_ = html

    def __repr__(self) -> str:
        return f"<Report {self.line()}>"

    @property
    def memory_share(self) -> float:
        """The peak memory of any one worker over its limit."""
        return self.peak_worker_memory / self.worker_memory_limit if self.worker_memory_limit else 0.0

    @property
    def end(self) -> str:
        """How it ended, in words."""
        if self.exit_code is None:
            return f"{self.reason}: {self.message}"
        said = script_end(self.exit_code)
        return self.message if self.message.startswith(said) else said

    def line(self) -> str:
        """One line, as it ends a run."""
        failed = [self.end.removeprefix("its ")] if self.exit_code else []
        parts = [self.name, *failed, str(self.lived), self.cost, f"peak memory {self.memory_share:.0%}"]
        parts += [f"cpu {self.cpu_share:.0%}", f"spilled {self.spilled}"]
        if self.restarts:
            parts.append(f"{count(self.restarts, 'worker')} restarted: {self.restart_note}")
        return " · ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Plain values: times in seconds, sizes in bytes, the price as text."""
        plain = {key: value for key, value in vars(self).items() if key not in _NOT_PLAIN}
        plain["phases"] = {phase: round(float(took), 3) for phase, took in self.phases.items()}
        plain["lived"] = round(float(self.lived), 3)
        plain["price"] = str(self.price) if self.price is not None else None
        plain["memory_share"] = round(self.memory_share, 4)
        return plain


def report_of(cluster: Cluster, history: Sequence[Event], now: float) -> Report:
    """The report of a cluster that ended, or as it stands ``now`` (seconds since the epoch)."""
    end = cluster.ended_at if cluster.ended_at is not None else now
    phases: dict[str, Seconds] = {}
    for entry, after in zip(history, [*(each.at for each in history[1:]), end], strict=False):
        phase, took = entry.state.value, max(0.0, after - entry.at)
        if took > 0 or phase not in phases:
            phases[phase] = Seconds(phases.get(phase, 0.0) + took)
    for phase in ("Stopped", "Failed", "Refused"):
        phases.pop(phase, None)
    lived, worker_seconds, price = taken(cluster, now)
    ready = float(phases.get("Ready", 0.0))
    used = cluster.usage
    workers = cluster.plan.workers
    cores = sum(group.count * group.there.cores for group in cluster.plan.groups)
    return Report(
        name=cluster.name,
        engine=cluster.plan.engine.value,
        template=cluster.plan.template,
        reason=cluster.reason.value,
        message=cluster.message,
        lived=lived,
        phases=phases,
        workers=workers,
        worker_hours=worker_seconds / 3600,
        price=price,
        peak_worker_memory=used.peak_worker_memory,
        worker_memory_limit=used.worker_memory_limit,
        peak_memory=used.peak_memory,
        spilled=used.spilled,
        cpu_share=used.cpu_seconds / (cores * ready) if cores and ready else 0.0,
        restarts=used.restarts,
        restart_note=used.restart_note,
        spans=_spans(history, cluster.created, end),
        exit_code=cluster.exit_code,
        samples=used.samples,
    )


def taken(cluster: Cluster, now: float) -> tuple[Seconds, float, Money | None]:
    """How long it lived, its worker-seconds, and its price (None where no prices are known), until ``now``.

    The head counts workers as they come and go. The time that it did not see, before its first look and after
    its last, counts with the workers that the plan has.
    """
    end = cluster.ended_at if cluster.ended_at is not None else now
    lived = max(0.0, end - (cluster.admitted_at or cluster.created))
    plan, used = cluster.plan, cluster.usage
    unseen = max(0.0, lived - used.seen)
    worker_seconds = used.worker_seconds + plan.workers * unseen
    price = plan.price_per_hour
    if price is not None:
        amount = price.amount * Decimal(str(lived))
        by_group = used.group_seconds or {plan.groups[0].name: used.worker_seconds}
        for group in plan.groups:  # the price is of the workers that it has now
            if (each := plan.price_of(group.name)) is not None:
                its = by_group.get(group.name, 0.0) + group.count * (unseen - lived)
                amount += each.amount * Decimal(str(its))
        price = Money(amount / 3600, price.currency)
    return Seconds(lived), worker_seconds, price


def _spans(history: Sequence[Event], asked: float, end: float) -> tuple[Span, ...]:
    """Each state with when it began and ended, in seconds since the cluster was asked for."""
    times = [entry.at - asked for entry in history] + [end - asked]
    return tuple(
        (entry.state.value, max(0.0, begin), max(0.0, begin, to))
        for entry, begin, to in zip(history, times, times[1:], strict=False)
        if not entry.state.ended
    )
