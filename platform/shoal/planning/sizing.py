"""Sizing: a workload meets a template and becomes a plan, with a sentence of reason for each number.

Why it exists: people say what they want to do; how many workers that takes follows from the data, the
template, what the policy gives and how big a worker is at the target, and can be explained.

What it must not do: do I/O, or look at what is running (``admission``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from shoal.model.resource import Resource
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Via, Why, Workload
from shoal.planning.asking import check
from shoal.project.policy import Limit, Limits
from shoal.project.targets import Prices, Target
from shoal.project.templates import Template, TemplateWorkers
from shoal.quota.account import Amounts, Need, add_up, refuse_what_never_fits, said
from shoal.units import Bytes, Money, Seconds
from shoal.words import count, listed

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
    reasons: dict[str, str] = {}
    head = _head(template, limits, reasons)
    head_there = target.there(head, target.head)
    if runner:
        reasons["runner"] = (
            f"{count(head.cores, 'core')} and {head.memory} more for the script, as for the head"
        )
    (first, its), *others = template.groups
    # What a person asks for is the first group's; the others are as their template says.
    group = _group(first, its, workload, template, target, reasons)
    more = [_group(name, each, None, template, target, reasons) for name, each in others]
    conf: dict[str, str] = dict(settings.conf)
    if engine is Engine.SPARK:
        if more:
            reasons["groups"] = (
                f"Spark has workers of one kind: group {first}, the first of template {template.name}"
            )
        more = []
    wanted = _workers(workload, template, limits, group, _held(more))
    if engine is Engine.SPARK and target.in_processes:
        wanted = _fixed(wanted, ranged=isinstance(workload.workers, tuple))
        conf |= _one_jvm(wanted.count, group.there, head_there, reasons)
    reasons["workers"] = wanted.reason
    group = replace(group, minimum=wanted.minimum, count=wanted.count, maximum=wanted.maximum)
    if group.there != group.size:
        reasons["here"] = _really(workload.data, template, wanted.count, group.there, target.name)
    groups = [group]
    for index, each in enumerate(more):
        beside = _held([*groups, *more[index + 1 :]])
        groups.append(_within(each, template, limits, beside, reasons))
    named = dict(template.groups)
    several = {} if len(groups) == 1 else {each.name: each for each in groups}

    result = Plan(
        template=template.name,
        engine=engine,
        target=target.name,
        head=head,
        groups=tuple(groups),
        timeouts=_timeouts(workload, template, limits, reasons, runner=runner),
        image=target.images.get(settings.image, settings.image),
        conf=conf,
        packages=tuple(dict.fromkeys((*template.packages, *workload.packages))),
        head_there=head_there,
        mounts=template.mounts,
        secrets=template.secrets if target.in_pods else (),
        may_last=Seconds(limit.value)
        if (limit := limits.per_cluster.get(Resource.DURATION)) is not None
        else None,
        runner=runner,
        via=target.via if engine is Engine.DASK else Via.PODS,
        fallbacks={
            each.name: wait
            for each in groups
            if each.spot and (wait := named[each.name].fallback) is not None
        },
    )
    refuse_what_never_fits(Need.of(result, workload.priority), limits, result.template)
    prices = prices or target.prices
    price = _price(result, prices, reasons)
    if prices is None:
        return replace(result, price_per_hour=price, reasons=reasons)
    by_group = {name: prices.worker_hour(each) for name, each in several.items()}
    one = prices.worker_hour(group)
    return replace(result, price_per_hour=price, worker_price=one, worker_prices=by_group, reasons=reasons)


def _group(
    name: str,
    its: TemplateWorkers,
    workload: Workload | None,
    template: Template,
    target: Target,
    reasons: dict[str, str],
) -> Group:
    """One kind of worker with its sizes, as asked for by ``workload`` where there is one, and its bounds as they are
    in the template."""
    asked = workload or Workload(template.name)
    of = "" if workload is not None else f"{name}."

    def settled(what: str, said: float | None, shown: str) -> None:
        reasons[of + what] = f"{shown}: " + (
            "as requested" if said is not None else f"from template {template.name}"
        )

    size = Size(
        its.cores if asked.cores is None else asked.cores,
        its.memory if asked.memory is None else asked.memory,
    )
    settled("cores", asked.cores, f"{count(size.cores, 'core')} per worker")
    settled("memory", asked.memory, f"{size.memory} per worker")
    gpus = its.gpus if asked.gpu is None else asked.gpu
    if gpus:
        settled("gpus", asked.gpu, f"{count(gpus, 'GPU')} per worker")
    spot = its.spot if asked.spot is None else asked.spot
    settled("spot", asked.spot, f"{spot:.0%} of the workers on spot machines")
    if spot and not target.has_spot:
        spot = 0.0
        reasons[f"{of}spot"] = f"no spot machines at target {target.name}"
    elif spot and its.fallback is not None:
        reasons[f"{of}spot"] += f"; one that finds none for {its.fallback} gets another machine"
    if template.scratch:
        settled("scratch", None, f"{template.scratch} of local disk per worker")
    there = target.there(size, target.worker)
    if there != size:
        reasons[f"{of}there"] = (
            f"{count(there.cores, 'core')} and {there.memory} is a worker's actual size on target {target.name}; "
            f"quota is charged for the requested size"
        )
    return Group(name, its.min, its.min, its.max, size, there, gpus, spot, template.scratch)


def _within(
    group: Group, template: Template, limits: Limits, beside: Amounts, reasons: dict[str, str]
) -> Group:
    """A further group as far as the limits give it, ``beside`` all the others. It starts with its minimum."""
    most, source = _ceiling(limits, group, beside)
    low, high = (int(min(bound, most)) for bound in (group.minimum, group.maximum))
    reason = f"{_bounds(group.minimum, group.maximum)}: from template {template.name}"
    lowered: tuple[str, ...] = ()
    if high < group.maximum:
        less = (
            f"at most {count(high, 'worker')} in group {group.name}"
            if high
            else f"none in group {group.name}"
        )
        lowered = (f"{less}, since {source}",)
        reason += f"; {lowered[0]}"
    reasons[f"{group.name}.workers"] = Why(f"{reason}; starts with {low}", lowered)
    return replace(group, minimum=low, count=low, maximum=high)


def _held(groups: Iterable[Group]) -> Amounts:
    return add_up(
        Amounts(
            workers=each.count,
            cores=each.count * each.size.cores,
            memory=Bytes(each.count * each.size.memory),
            gpus=each.count * each.gpus,
            scratch=Bytes(each.count * each.scratch),
        )
        for each in groups
    )


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
        f"{said_}; {data} of input takes {grown} in memory, {grown / room:.2g} times what is there: what works "
        f"partition by partition runs; a join, sort or shuffle of all of it spills to disk or runs out of memory"
    )


def lowered(plan: Plan) -> list[str]:
    """What a limit made smaller than a template or an upper bound says, and which limit; and what that costs.

    Parts of the plan's reasons: nobody should have to look for these among the others.
    """
    return [part for why in plan.reasons.values() if isinstance(why, Why) for part in why.lowered]


def _ceiling(limits: Limits, group: Group, beside: Amounts) -> tuple[float, str]:
    """The most workers of this kind that the limits give one cluster ``beside`` its others, and which limit says so."""
    per_worker = {
        Resource.CORES: group.size.cores,
        Resource.MEMORY: group.size.memory,
        Resource.GPUS: group.gpus,
        Resource.SCRATCH: group.scratch,
    }
    found: list[tuple[float, str]] = [(math.inf, "")]
    if limit := limits.per_cluster.get(Resource.WORKERS):
        left = max(0, limit.value - beside.workers)
        found.append((left, f"{limit.source} gives {count(limit.value, 'worker')} per cluster"))
    for totals in (limits.totals, limits.team_totals):
        for what, each in per_worker.items():
            total: Limit | None = totals.get(what)
            if total is not None and each:
                left = max(0, total.value - beside.of(what))
                found.append((left // each, f"{total.source} gives {said(what, total.value)}"))
    return min(found, key=lambda pair: pair[0])


def _workers(workload: Workload, template: Template, limits: Limits, group: Group, beside: Amounts) -> _Range:
    needed, by_data = _by_data(workload.data, template, group.size)
    if isinstance(workload.workers, int):
        note = f" ({by_data})" if needed and needed != workload.workers else ""
        n = workload.workers
        return _Range(n, n, n, Why(f"{count(n, 'worker')}: as requested{note}"))

    most, source = _ceiling(limits, group, beside)
    if workload.workers is None:
        asked = (group.minimum, group.maximum)
        reason = f"{_bounds(*asked)}: from template {template.name}"
        minimum = max(1, int(min(asked[0], most)))
    else:
        asked = workload.workers
        reason = f"{_bounds(*asked)}: as requested"
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


def _bounds(low: int, high: int) -> str:
    return count(high, "worker") if low == high else f"{low} to {count(high, 'worker')}"


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
    many = count(result.workers, "worker")
    if len(result.groups) > 1:
        many += f" ({listed(f'{each.count} {each.name}' for each in result.groups)})"
    reasons["price"] = f"{total} per hour: {Money(workers, prices.currency)} for {many}, {of_head}"
    return total
