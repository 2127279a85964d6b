"""Sizing: a workload meets a template and becomes a plan, with a sentence of reason for each number.

Why it exists: people say what they want to do; how many workers that takes follows from the data, the
template, what the policy gives and how big a worker is at the target, and can be explained.

What it must not do: do I/O, or look at what is running (``admission``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal

from shoal.model.resource import Resource
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Why, Workload
from shoal.planning.asking import check
from shoal.project.policy import Limit, Limits
from shoal.project.targets import Prices, Target
from shoal.project.templates import Template
from shoal.quota.account import Need, refuse_what_never_fits, said
from shoal.units import Bytes, Money, Seconds
from shoal.words import count

# A Spark worker's memory is its pod's; Spark's own rule for what a JVM takes beside its heap when Python runs
# next to it is 40 % of the heap (spark.kubernetes.memoryOverheadFactor for non-JVM jobs).
POD_PER_HEAP = 1.4


_SPILLS = "it takes longer and spills to scratch disk"


@dataclass(frozen=True)
class _Range:
    """How many workers: bounds and the count to start with, each with a reason."""

    minimum: int
    count: int
    maximum: int
    reason: Why


def plan(
    workload: Workload,
    template: Template,
    limits: Limits,
    target: Target,
    prices: Prices | None = None,
    *,
    runner: bool = False,
) -> Plan:
    """Settle every number of ``workload``, for a user with ``limits``, at ``target``.

    A template's default that is over a limit is lowered to it, and the reason says so. What was asked for
    explicitly is never changed: NeverFitsError names every limit that it is over. UsageError (one of its own
    kinds where there is one) for values that make no sense; NotFoundError for an engine that the template
    lacks. ``prices`` defaults to the target's. ``runner``: a script is to run beside it, which is its client.
    """
    check(workload)
    engine, settings = template.engine(workload.engine)
    its = f"template {template.name}"
    reasons: dict[str, str] = {}

    def settled(name: str, asked: float | None, default: float, shown: str) -> None:
        reasons[name] = f"{shown}: " + ("as requested" if asked is not None else f"from {its}")

    size = Size(
        template.workers.cores if workload.cores is None else workload.cores,
        template.workers.memory if workload.memory is None else workload.memory,
    )
    settled("cores", workload.cores, template.workers.cores, f"{count(size.cores, 'core')} per worker")
    settled("memory", workload.memory, template.workers.memory, f"{size.memory} per worker")
    gpus = template.workers.gpus if workload.gpu is None else workload.gpu
    if gpus:
        settled("gpus", workload.gpu, template.workers.gpus, f"{count(gpus, 'GPU')} per worker")
    spot = template.workers.spot if workload.spot is None else workload.spot
    settled("spot", workload.spot, template.workers.spot, f"{spot:.0%} of the workers on spot machines")
    if target.home == "local" and spot:
        spot = 0.0
        reasons["spot"] = f"no spot machines at target {target.name}"
    if template.scratch:
        settled("scratch", None, template.scratch, f"{template.scratch} of local disk per worker")

    there = target.there(size, target.worker)
    if there != size:
        reasons["there"] = (
            f"{count(there.cores, 'core')} and {there.memory} is a worker's actual size on target {target.name}; "
            f"quota is charged for the requested size"
        )
    head = _head(template, limits, reasons)
    head_there = target.there(head, target.head)
    if runner:
        reasons["runner"] = (
            f"{count(head.cores, 'core')} and {head.memory} more for the script, as for the head"
        )
    wanted = _workers(workload, template, limits, size, gpus)
    conf: dict[str, str] = dict(settings.conf)
    if engine is Engine.SPARK and target.home == "local":
        wanted = _fixed(wanted, ranged=isinstance(workload.workers, tuple))
        conf |= _one_jvm(wanted.count, there, head_there, reasons)
    reasons["workers"] = wanted.reason
    if there != size:
        reasons["here"] = _really(workload.data, template, wanted.count, there, target.name)

    group = Group(
        "default", wanted.minimum, wanted.count, wanted.maximum, size, there, gpus, spot, template.scratch
    )
    result = Plan(
        template=template.name,
        engine=engine,
        target=target.name,
        head=head,
        groups=(group,),
        timeouts=_timeouts(workload, template, limits, reasons, runner=runner),
        image=target.images.get(settings.image, settings.image),
        conf=conf,
        packages=tuple(dict.fromkeys((*template.packages, *workload.packages))),
        head_there=head_there,
        mounts=template.mounts,
        may_last=Seconds(limit.value)
        if (limit := limits.per_cluster.get(Resource.DURATION)) is not None
        else None,
        runner=runner,
    )
    refuse_what_never_fits(Need.of(result, workload.priority), limits, result.template)
    prices = prices or target.prices
    price = _price(result, prices, reasons)
    more = prices.worker_hour(group) if prices is not None else None
    return replace(result, price_per_hour=price, worker_price=more, reasons=reasons)


def _really(data: Bytes | None, template: Template, workers: int, there: Size, target: str) -> str:
    """What will really be there, and whether the data can be done with it."""
    room = Bytes(workers * there.memory)
    each = f"{count(there.cores, 'core')} and {there.memory}"
    said_ = f"actual size on {target}: {count(workers, 'worker')} of {each}, {room} in total"
    if data is None:
        return said_
    grown = Bytes(data * template.sizing.expansion)
    if grown <= room:
        return f"{said_}; {data} of input takes {grown} in memory, which fits"
    return (
        f"{said_}; {data} of input takes {grown} in memory, {grown / room:.2g} times that: what works "
        f"partition by partition runs; a join, sort or shuffle of all of it spills to disk or runs out of memory"
    )


def lowered(plan: Plan) -> list[str]:
    """What a limit made smaller than a template or an upper bound says, and which limit; and what that costs.

    Parts of the plan's reasons: nobody should have to look for these among the others.
    """
    return [part for why in plan.reasons.values() if isinstance(why, Why) for part in why.lowered]


def _ceiling(limits: Limits, size: Size, gpus: int, scratch: Bytes) -> tuple[float, str]:
    """The most workers of this size that the limits give one cluster, and which limit says so."""
    per_worker = {
        Resource.CORES: size.cores,
        Resource.MEMORY: size.memory,
        Resource.GPUS: gpus,
        Resource.SCRATCH: scratch,
    }
    found: list[tuple[float, str]] = [(math.inf, "")]
    if limit := limits.per_cluster.get(Resource.WORKERS):
        found.append((limit.value, f"{limit.source} gives {count(limit.value, 'worker')} per cluster"))
    for totals in (limits.totals, limits.team_totals):
        for what, each in per_worker.items():
            total: Limit | None = totals.get(what)
            if total is not None and each:
                found.append((total.value // each, f"{total.source} gives {said(what, total.value)}"))
    return min(found, key=lambda pair: pair[0])


def _workers(workload: Workload, template: Template, limits: Limits, size: Size, gpus: int) -> _Range:
    needed, by_data = _by_data(workload.data, template, size)
    if isinstance(workload.workers, int):
        note = f" ({by_data})" if needed and needed != workload.workers else ""
        n = workload.workers
        return _Range(n, n, n, Why(f"{count(n, 'worker')}: as requested{note}"))

    most, source = _ceiling(limits, size, gpus, template.scratch)
    if workload.workers is None:
        asked = (template.workers.min, template.workers.max)
        reason = f"{asked[0]} to {asked[1]} workers: from template {template.name}"
        minimum = max(1, int(min(asked[0], most)))
    else:
        asked = workload.workers
        reason = f"{asked[0]} to {asked[1]} workers: as requested"
        minimum = asked[0]
    # An upper bound is a permission, not a request: a limit lowers it, and says so.
    maximum = max(minimum, int(min(asked[1], most)))
    lowered: tuple[str, ...] = ()
    if maximum < asked[1]:
        lowered = (f"at most {count(maximum, 'worker')}, since {source}",)
        reason += f"; {lowered[0]}"
    start = min(max(needed or minimum, minimum), maximum)
    reason += f"; starts with {start}" + (f": {by_data}" if by_data else "")
    if needed and needed > maximum:
        lowered += (f"with {maximum} {_SPILLS}",)
        reason += f"; {lowered[-1]}"
    return _Range(minimum, start, maximum, Why(reason, lowered))


def _by_data(data: Bytes | None, template: Template, size: Size) -> tuple[int | None, str]:
    """How many workers ``data`` takes, so that it fits in memory and is done in the template's time."""
    if data is None:
        return None, ""
    sizing = template.sizing
    grown = Bytes(data * sizing.expansion)
    for_memory = math.ceil(grown / size.memory)
    for_time = math.ceil(data / (sizing.throughput_per_core * size.cores * sizing.target))
    needed = max(1, for_memory, for_time)
    return needed, (
        f"{data} of input takes {grown} in memory (x {sizing.expansion:g}), so "
        f"{count(max(1, for_memory), 'worker')} of {size.memory}; done in {sizing.target} at "
        f"{sizing.throughput_per_core}/s per core takes {count(max(1, for_time), 'worker')}"
    )


def _head(template: Template, limits: Limits, reasons: dict[str, str]) -> Size:
    head = template.head.size
    limit = limits.per_cluster.get(Resource.HEAD)
    reasons["head"] = f"{count(head.cores, 'core')} and {head.memory}: from template {template.name}"
    if limit and head.memory > limit.value:
        head = Size(head.cores, Bytes(limit.value))
        less = f"memory of the head lowered to {head.memory}, since {limit.source} allows no more"
        reasons["head"] = Why(f"{reasons['head']}; {less}", (less,))
    return head


def _timeouts(
    workload: Workload, template: Template, limits: Limits, reasons: dict[str, str], *, runner: bool
) -> Timeouts:
    default = template.timeouts
    longest = default.max if workload.max_duration is None else workload.max_duration
    why = f"from template {template.name}" if workload.max_duration is None else "as requested"
    limit = limits.per_cluster.get(Resource.DURATION)
    lowered: tuple[str, ...] = ()
    if workload.max_duration is None and limit and longest > limit.value:
        longest = Seconds(limit.value)
        lowered = (f"maximum lifetime lowered to {longest}, since {limit.source} allows no more",)
        why += f"; {lowered[0]}"
    idle = default.idle if workload.idle is None else workload.idle
    no_client = default.no_client if workload.no_client is None else workload.no_client
    alone = f"{no_client} with no client"
    if runner:
        no_client, alone = longest, "with its script"
    ends = f"ends after {longest} ({why}), {idle} with nothing to compute, {alone}"
    reasons["timeouts"] = Why(ends, lowered)
    return Timeouts(idle=idle, no_client=no_client, max=longest)


def _fixed(wanted: _Range, *, ranged: bool) -> _Range:
    """One JVM cannot grow: Spark on a laptop reserves at the start what it may ever have."""
    n = wanted.maximum if ranged else wanted.count
    if wanted.minimum == wanted.maximum:
        return _Range(n, n, n, wanted.reason)
    return _Range(n, n, n, Why(f"{wanted.reason}; {n}, fixed for Spark here", wanted.reason.lowered))


def _one_jvm(workers: int, there: Size, head: Size, reasons: dict[str, str]) -> dict[str, str]:
    cores = max(1, int(workers * there.cores))
    memory = Bytes(head.memory + workers * there.memory)
    heap = int(memory / POD_PER_HEAP / 1024**2)
    reasons["engine"] = (
        f"one JVM does the work of {count(workers, 'worker')} here: local[{cores}], {memory} "
        f"with the head, of which {Bytes(heap * 1024**2)} are heap"
    )
    return {"spark.master": f"local[{cores}]", "spark.driver.memory": f"{heap}m"}


def _price(result: Plan, prices: Prices | None, reasons: dict[str, str]) -> Money | None:
    if prices is None:
        reasons["price"] = f"no price: target {result.target} has no prices, hours are counted instead"
        return None
    head = prices.hour(result.head_there or result.head)
    of_head = f"{head} for the head"
    if result.runner:
        of_head += f", {head} for its script"
        head = Money(2 * head.amount, head.currency)
    workers = sum((prices.worker_hour(group).amount * group.count for group in result.groups), Decimal(0))
    total = Money(head.amount + workers, prices.currency)
    reasons["price"] = (
        f"{total} per hour: {Money(workers, prices.currency)} for {count(result.workers, 'worker')}, "
        f"{of_head}"
    )
    return total
