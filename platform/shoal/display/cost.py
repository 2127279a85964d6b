"""What clusters cost, and who or what for: used, idle, starting and the head apart. Pure: records in, values out.

Why it exists: a team shares a bill only if it adds up. Every amount here is exact, so parts, months and groups
sum to what :func:`shoal.display.report.taken` says of each run.

The rules: a run costs from its admission to its end, so that a month gets the share of its time that lies in it. Of
what workers cost, ``starting`` is what passes before the cluster is Ready; of the rest, ``used`` is the share of their
cores' time that was computed in (CPU seconds of head and workers), ``idle`` is what is left. Each part is spread evenly
over the time that it may lie in: starting until the cluster is Ready, used and idle from then on.

What it must not do: look records up, or print.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from shoal.display.report import taken
from shoal.errors import UsageError
from shoal.model.cluster import Cluster
from shoal.units import Money
from shoal.words import did_you_mean, sentence

TAG = "tag:"
_NONE = "-"


class Period(StrEnum):
    """Into which stretches of time costs are cut, by the calendar of UTC."""

    WHOLE = "whole"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True)
class Parts:
    """An amount of money, or of core-hours, by what it was for."""

    head: Fraction = Fraction(0)
    starting: Fraction = Fraction(0)
    used: Fraction = Fraction(0)
    idle: Fraction = Fraction(0)

    @property
    def total(self) -> Fraction:
        """All four."""
        return self.head + self.starting + self.used + self.idle

    def __add__(self, other: Parts) -> Parts:
        return Parts(*(mine + its for mine, its in zip(self._all, other._all, strict=True)))

    def times(self, share: Fraction) -> Parts:
        """That share of each."""
        return self.by(Parts(share, share, share, share))

    def by(self, shares: Parts) -> Parts:
        """Each times its own share."""
        return Parts(*(part * share for part, share in zip(self._all, shares._all, strict=True)))

    @property
    def _all(self) -> tuple[Fraction, ...]:
        return self.head, self.starting, self.used, self.idle


@dataclass(frozen=True)
class RunCost:
    """What one run cost between ``begin`` and ``end`` (seconds since the epoch).

    ``core_hours`` as they really were there; ``money`` is None where no prices are known.
    """

    cluster: Cluster
    begin: float
    end: float
    core_hours: Parts
    money: Parts | None
    currency: str


@dataclass(frozen=True)
class CostRow:
    """The charges of one group. ``keys`` are its values of what was grouped by.

    ``failed`` counts the runs that failed; ``lost_hours`` and ``lost`` are what these cost besides idle workers.
    ``money`` is None where the price of any run is not known, or they are in several currencies: half a sum would be
    a wrong one. ``unpriced`` counts the runs without a price, ``currencies`` are those of the others.
    """

    keys: tuple[str, ...]
    runs: int
    failed: int
    core_hours: Parts
    lost_hours: Fraction
    money: Parts | None
    lost: Fraction | None
    currency: str
    unpriced: int = 0
    currencies: tuple[str, ...] = ()

    @property
    def shown(self) -> Parts:
        """The money; core-hours where it is not known."""
        return self.money if self.money is not None else self.core_hours

    @property
    def wasted(self) -> Fraction:
        """What nobody had anything of, in the unit of :attr:`shown`: idle workers, and runs that failed."""
        return self.shown.idle + (self.lost_hours if self.lost is None else self.lost)


def charges(
    clusters: Iterable[Cluster],
    now: float,
    since: float | None = None,
    until: float | None = None,
    each: Period = Period.WHOLE,
) -> list[RunCost]:
    """What each run cost between ``since`` and ``until`` (seconds since the epoch; None: from its start, until now).

    What was never admitted costs nothing. With ``each``, one charge per day or month that a run lies in.
    """
    found = []
    for cluster in clusters:
        if cluster.admitted_at is None:
            continue
        began, ended = cluster.admitted_at, now if cluster.ended_at is None else cluster.ended_at
        core_hours, money, currency = _parts(cluster, now)
        whole = Fraction(ended) - Fraction(began)
        for first, last in _stretches(began, ended, each):
            begin = first if since is None else max(first, since)
            end = last if until is None else min(last, until)
            # One that ended in the moment it began lies in the part that begins then, and in no other.
            nothing = begin == end and (whole > 0 or end == until)
            if begin > end or nothing:
                continue
            shares = _shares(begin, end, began, cluster.ready_at, ended)
            its = money.by(shares) if money is not None else None
            found.append(RunCost(cluster, begin, end, core_hours.by(shares), its, currency))
    return found


def _shares(begin: float, end: float, began: float, ready: float | None, ended: float) -> Parts:
    """Which share of each part of a run lies between ``begin`` and ``end``."""
    middle = ended if ready is None else min(max(ready, began), ended)

    def within(first: float, last: float) -> Fraction | None:
        whole = Fraction(last) - Fraction(first)
        if whole <= 0:
            return None
        return max(Fraction(0), Fraction(min(end, last)) - Fraction(max(begin, first))) / whole

    of_all = within(began, ended)
    even = Fraction(1) if of_all is None else of_all
    starting, serving = within(began, middle), within(middle, ended)
    # What is told of a time of no length lies anywhere in the run.
    at_work = even if serving is None else serving
    return Parts(even, even if starting is None else starting, at_work, at_work)


def _parts(cluster: Cluster, now: float) -> tuple[Parts, Parts | None, str]:
    """Core-hours and money of a whole run, and the currency."""
    plan, used = cluster.plan, cluster.usage
    lived, worker_seconds, price = taken(cluster, now)
    ended = now if cluster.ended_at is None else cluster.ended_at
    admitted = cluster.admitted_at or cluster.created
    starting = max(0.0, (ended if cluster.ready_at is None else cluster.ready_at) - admitted)
    cores = sum(group.count * group.there.cores for group in plan.groups) / max(
        1, plan.workers
    )  # of one worker
    of_workers = Fraction(worker_seconds) * Fraction(cores)
    of_start = min(of_workers, Fraction(plan.workers * starting) * Fraction(cores))
    computed = min(of_workers - of_start, max(Fraction(0), Fraction(used.cpu_seconds)))
    heads = 2 if plan.runner else 1  # its script runs beside it, in as much
    of_head = heads * Fraction((plan.head_there or plan.head).cores) * Fraction(lived)
    seconds = Parts(of_head, of_start, computed, of_workers - of_start - computed)
    core_hours = seconds.times(Fraction(1, 3600))
    if price is None or plan.price_per_hour is None:
        return core_hours, None, ""
    total = max(Fraction(0), Fraction(price.amount))
    if plan.worker_price is not None:
        prices = [(group.count, plan.price_of(group.name)) for group in plan.groups]
        workers = sum(many * Fraction(each.amount) for many, each in prices if each is not None)
        head = Fraction(plan.price_per_hour.amount) - workers
        head = min(total, max(Fraction(0), head * Fraction(lived) / 3600))
    else:  # a record of before prices were told apart
        head = total * of_head / (of_head + of_workers) if of_head + of_workers else total
    rest = total - head
    if not of_workers:
        return core_hours, Parts(head=total), price.currency
    parts = (seconds.starting, seconds.used, seconds.idle)
    return core_hours, Parts(head, *(rest * part / of_workers for part in parts)), price.currency


def _stretches(begin: float, end: float, each: Period) -> Iterable[tuple[float, float]]:
    """From begin to end, cut where a day or month of UTC begins."""
    while each is not Period.WHOLE:
        _, following = period_of(begin, each)
        if following >= end:
            break
        yield begin, following
        begin = following
    yield begin, end


def period_of(at: float, each: Period) -> tuple[float, float]:
    """When the day or month of that moment began, and when the next one begins (seconds since the epoch, UTC)."""
    first = _first(at, each)
    long = timedelta(days=1 if each is Period.DAY else 32)
    following = first + long if each is Period.DAY else (first + long).replace(day=1)
    return first.timestamp(), following.timestamp()


def _first(at: float, each: Period) -> datetime:
    midnight = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight.replace(day=1) if each is Period.MONTH else midnight


KEYS: dict[str, Callable[[RunCost], str]] = {
    "user": lambda charge: charge.cluster.owner,
    "team": lambda charge: charge.cluster.team or _NONE,
    "template": lambda charge: charge.cluster.plan.template,
    "engine": lambda charge: charge.cluster.plan.engine.value,
    "target": lambda charge: charge.cluster.plan.target,
    "name": lambda charge: charge.cluster.name,
    "flow": lambda charge: charge.cluster.tags.get("prefect.flow", _NONE),
    "day": lambda charge: _first(charge.begin, Period.DAY).strftime("%Y-%m-%d"),
    "month": lambda charge: _first(charge.begin, Period.MONTH).strftime("%Y-%m"),
}


def key(name: str) -> Callable[[RunCost], str]:
    """What a charge is grouped by: one of :data:`KEYS`, or ``tag:NAME``. UsageError for another one."""
    if name.startswith(TAG) and len(name) > len(TAG):
        return lambda charge: charge.cluster.tags.get(name.removeprefix(TAG), _NONE)
    if name not in KEYS:
        raise UsageError(
            f"costs cannot be grouped by {name!r}",
            hint="Name the tag, such as tag:project."
            if name == TAG
            else sentence(f"{did_you_mean(name, KEYS)}; or tag:NAME, such as tag:project"),
        )
    return KEYS[name]


def period_in(names: Sequence[str]) -> Period:
    """How finely costs have to be cut to be grouped by these."""
    return Period.DAY if "day" in names else Period.MONTH if "month" in names else Period.WHOLE


def grouped(found: Iterable[RunCost], names: Sequence[str]) -> list[CostRow]:
    """One row per group, the dearest first; with days or months, the oldest first."""
    keys = [key(name) for name in names]
    groups: dict[tuple[str, ...], list[RunCost]] = {}
    for charge in found:
        groups.setdefault(tuple(each(charge) for each in keys), []).append(charge)
    rows = [summed(group, values) for values, group in groups.items()]
    if period_in(names) is not Period.WHOLE:
        return sorted(rows, key=lambda row: row.keys)
    if len({row.currency for row in rows}) > 1:  # no two of them compare but by hours
        return sorted(rows, key=lambda row: (-row.core_hours.total, row.keys))
    return sorted(rows, key=lambda row: (-row.shown.total, row.keys))


def summed(found: Sequence[RunCost], keys: tuple[str, ...] = ()) -> CostRow:
    """All of them in one row."""
    failed = [charge for charge in found if charge.cluster.result == "failed"]
    moneys = [charge.money for charge in found if charge.money is not None]
    currencies = sorted({charge.currency for charge in found if charge.money is not None})
    known = len(moneys) == len(found) and len(currencies) == 1
    return CostRow(
        keys=keys,
        runs=len({charge.cluster.id for charge in found}),
        failed=len({charge.cluster.id for charge in failed}),
        core_hours=_sum(charge.core_hours for charge in found),
        lost_hours=sum((_not_idle(charge.core_hours) for charge in failed), Fraction(0)),
        money=_sum(moneys) if known else None,
        lost=sum((_not_idle(charge.money) for charge in failed if charge.money), Fraction(0))
        if known
        else None,
        currency=currencies[0] if known else "",
        unpriced=len({charge.cluster.id for charge in found if charge.money is None}),
        currencies=tuple(currencies),
    )


def _not_idle(parts: Parts) -> Fraction:
    return parts.total - parts.idle


def _sum(parts: Iterable[Parts]) -> Parts:
    total = Parts()
    for each in parts:
        total += each
    return total


def money(amount: Fraction, currency: str) -> Money:
    """As money is kept: to 28 digits."""
    return Money(Decimal(amount.numerator) / Decimal(amount.denominator), currency)
