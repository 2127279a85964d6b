"""Admission: a plan is held against the policy, the accounts and the machine, and is admitted, waits or is
refused.

Why it exists: whoever asks gets the same answer at every home, with every reason at once: which limit, where
it is written, what is held by which clusters, and the ways on.

What it must not do: do I/O, change an account (the home's store does), or know a home.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from shoal.errors import (
    CapacityError,
    InfrastructureError,
    NeverFitsError,
    QuotaExceededError,
    RefusedError,
    UsageError,
)
from shoal.model.cluster import Cluster, Reason
from shoal.model.names import command
from shoal.model.resource import Resource
from shoal.model.workload import Plan
from shoal.project.policy import Limit, Limits
from shoal.project.targets import Machine
from shoal.quota.account import (
    Account,
    Need,
    Shortage,
    amounts,
    never_fits,
    real,
    refuse_what_never_fits,
    short_of,
)
from shoal.quota.budgets import Overspending, Purse
from shoal.units import Seconds

MACHINE = "the machine"
_IDLE_WORTH_SAYING = 60.0  # s


class Verdict(StrEnum):
    """Admit it; or it has to wait until something is freed; or it can never fit."""

    ADMIT = "admit"
    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Claim:
    """One request: the cluster's id, what people call it, its plan, and how urgent it says it is.

    ``group``: the workers that may be fewer, where not all have room (empty: those of the first group).
    """

    cluster: str
    name: str
    plan: Plan
    priority: int = 0
    group: str = ""


@dataclass(frozen=True)
class Capacity:
    """What the place holds, and what really runs there (``account.real`` amounts by cluster id).

    Memory and GPUs are held against it. Cores are not: processes share them in time.
    """

    machine: Machine
    used: Account = field(default_factory=Account)

    @property
    def limits(self) -> dict[Resource, Limit]:
        """The machine's memory and GPUs, as limits."""
        source = "machine: of the target (shoal.yaml)"
        found = {Resource.GPUS: Limit(self.machine.gpus, source)}
        if self.machine.memory is not None:
            found[Resource.MEMORY] = Limit(self.machine.memory, source)
        return found


@dataclass(frozen=True)
class Ways:
    """The ways on from a refusal, see :class:`Decision`."""

    free: tuple[str, ...] = ()
    workers: int | None = None
    hint: str = ""


@dataclass(frozen=True)
class Decision:
    """The answer to one request.

    ``reason`` is for programs, ``message`` for people. ``shortages``: every limit in the way (empty when
    admitted). ``look`` finds the ways on when they are first asked for: a store is not kept waiting for them.
    """

    verdict: Verdict
    reason: Reason
    message: str
    shortages: tuple[Shortage, ...] = ()
    look: Callable[[], Ways] = field(default=Ways, repr=False, compare=False)

    @cached_property
    def ways(self) -> Ways:
        return self.look()

    @property
    def free(self) -> tuple[str, ...]:
        """The user's own clusters whose end would make room, as few as can be."""
        return self.ways.free

    @property
    def workers(self) -> int | None:
        """How many would fit now, if any would."""
        return self.ways.workers

    @property
    def hint(self) -> str:
        """The ways on, as people read them."""
        return self.ways.hint

    def error(self) -> RefusedError:
        """The decision as an error, for whoever does not want to wait."""
        kind: type[RefusedError] = QuotaExceededError
        if self.verdict is Verdict.REFUSE:
            kind = NeverFitsError
        elif self.reason is Reason.WAITING_FOR_CAPACITY:
            kind = CapacityError
        return kind(self.message, hint=self.hint, shortages=self.shortages, free=self.free)


def decide(
    claim: Claim,
    limits: Limits,
    user: Account,
    team: Account | None = None,
    capacity: Capacity | None = None,
    names: Mapping[str, str] | None = None,
    idle: Mapping[str, float] | None = None,
    purses: Sequence[Purse] = (),
) -> Decision:
    """Whether ``claim`` may start now, for a user with ``limits``, within the budgets ``purses``.

    ``user`` and ``team`` are the accounts as they stand; what they hold for this same cluster already is left
    out, so asking again (or for another size) gives the answer that the first time would have. ``names`` says
    what to call other clusters in messages, by id (default: the id), ``idle`` for how long they have computed
    nothing, in seconds: of several whose end would make room, the one for the longest is proposed.
    """
    names = names or {}
    labels = dict(names)
    idle = {key: seconds for key, seconds in (idle or {}).items() if seconds >= _IDLE_WORTH_SAYING}
    for cluster, seconds in idle.items():
        labels[cluster] = f"{names.get(cluster, cluster)}, idle {Seconds(seconds)}"
    shortages = _shortages(claim, limits, user, team, capacity, purses)
    if not shortages:
        return Decision(Verdict.ADMIT, Reason.ADMITTED, f"{claim.name} is within every limit")
    message = "\n".join(shortage.sentence(claim.name, labels) for shortage in shortages)
    never = any(shortage.never for shortage in shortages)

    def look() -> Ways:
        workers = _fitting_workers(claim, limits, user, team, capacity, purses)
        budgets = _of_budgets(shortages, purses, claim)
        if never:
            hint = "Waiting would not help: ask for less. shoal quota shows your limits."
            return Ways((), workers, "\n  ".join((hint, *budgets)))
        free = _to_free(claim, limits, user, team, capacity, idle, purses)
        return Ways(free, workers, _ways_on(free, workers, names, claim, budgets))

    if never:
        return Decision(Verdict.REFUSE, Reason.OVER_LIMIT, message, shortages, look)
    full = all(shortage.scope == MACHINE for shortage in shortages)
    reason = Reason.WAITING_FOR_CAPACITY if full else Reason.WAITING_FOR_QUOTA
    return Decision(Verdict.WAIT, reason, message, shortages, look)


def beside(
    claim: Claim, limits: Limits, own: Mapping[str, Plan], machine: Machine | None = None
) -> tuple[Shortage, ...]:
    """What is in the way of ``claim`` for as long as ``own`` (plans by cluster id) run, whatever else ends."""
    held = Account({cluster: amounts(plan) for cluster, plan in own.items()})
    used = Account({cluster: real(plan) for cluster, plan in own.items()})
    capacity = Capacity(machine, used) if machine is not None else None
    return _shortages(claim, limits, held, held if limits.team is not None else None, capacity)


def _shortages(
    claim: Claim,
    limits: Limits,
    user: Account,
    team: Account | None,
    capacity: Capacity | None,
    purses: Sequence[Purse] = (),
) -> tuple[Shortage, ...]:
    need = Need.of(claim.plan, claim.priority)
    never = never_fits(need, limits)
    found = list(never)
    known = {(shortage.scope, shortage.what) for shortage in never}
    checks = [(need.amounts, user, limits.totals, "you")]
    if team is not None:
        checks.append((need.amounts, team, limits.team_totals, f"team {limits.team}"))
    if capacity is not None:
        checks.append((real(claim.plan), capacity.used, capacity.limits, MACHINE))
    for asked, account, totals, scope in checks:
        for shortage in short_of(asked, account.without(claim.cluster), totals, scope):
            if (scope, shortage.what) not in known:
                found.append(shortage)
    over = (purse.short(claim.cluster, claim.plan) for purse in purses)
    return (*found, *(shortage for shortage in over if shortage is not None))


def _fitting_workers(
    claim: Claim,
    limits: Limits,
    user: Account,
    team: Account | None,
    capacity: Capacity | None,
    purses: Sequence[Purse],
) -> int | None:
    """The most workers of its group, fewer than asked for, that would be admitted now."""
    low, high = 0, claim.plan.group(claim.group).count  # low fits (if above 0), high does not
    while high - low > 1:
        middle = (low + high) // 2
        smaller = replace(claim, plan=with_workers(claim.plan, middle, claim.group))
        if _shortages(smaller, limits, user, team, capacity, purses):
            high = middle
        else:
            low = middle
    return low or None


def lasting(
    cluster: Cluster, longest: Seconds, limits: Limits, now: float, purses: Sequence[Purse] = ()
) -> Plan:
    """The plan of a live cluster that is to live ``longest`` in all; ``now`` by the store's clock.

    NeverFitsError where the limits give less, QuotaExceededError where the budgets ``purses`` have no room for it,
    InfrastructureError where it has ended, UsageError where it has lived that long already.
    """
    if cluster.state.ended:
        raise InfrastructureError(f"{cluster.name} has ended ({cluster.reason})", hint="Start a new one.")
    lived = Seconds(now - cluster.admitted_at if cluster.admitted_at is not None else 0.0)
    if longest <= lived:
        more = command("extend", cluster.name, f"+{longest}".replace(" ", ""))
        raise UsageError(
            f"{cluster.name} has lived {lived} already, and may live {cluster.plan.timeouts.max}: with {longest} "
            "in total it would end at once",
            hint=f"`{more}` extends it by {longest}; `{command('down', cluster.name)}` ends it.",
            lived=float(lived),
            longest=float(longest),
        )
    plan = replace(cluster.plan, timeouts=cluster.plan.timeouts.lasting(longest))
    refuse_what_never_fits(Need.of(plan), limits, cluster.name)
    if cluster.admitted_at is not None:
        _refuse_to_overspend(cluster, plan, cluster.admitted_at, lived, purses)
    return plan


def _refuse_to_overspend(
    cluster: Cluster, plan: Plan, since: float, lived: Seconds, purses: Sequence[Purse]
) -> None:
    until = since + plan.timeouts.max
    over = [each for purse in purses if (each := purse.short(cluster.id, plan, until)) is not None]
    if not over:
        return
    lasts = [lived + each.lasts for each in over if each.lasts is not None]
    fits = Seconds(min(lasts) // 60 * 60) if len(lasts) == len(over) else Seconds(0)
    hint = f"Ask for more: {'; '.join(each.source for each in over)}"
    if fits > cluster.plan.timeouts.max:
        hint = f"`{command('extend', cluster.name, str(fits).replace(' ', ''))}` fits now.\n{hint}"
    never = all(each.never for each in over)
    kind: type[RefusedError] = NeverFitsError if never else QuotaExceededError
    message = "\n".join(each.sentence(cluster.name, {}) for each in over)
    raise kind(message, hint=hint, shortages=tuple(over))


def with_workers(plan: Plan, workers: int, group: str = "") -> Plan:
    """``plan`` with ``workers`` in a group (the first one, without a name), its bounds widened and the price changed
    as needed. UsageError where there is no group of that name.
    """
    chosen = plan.group(group)
    price, each = plan.price_per_hour, plan.price_of(chosen.name)
    if price is not None and each is not None:
        price = replace(price, amount=price.amount + (workers - chosen.count) * each.amount)
    other = replace(
        chosen, minimum=min(chosen.minimum, workers), count=workers, maximum=max(chosen.maximum, workers)
    )
    groups = tuple(other if its is chosen else its for its in plan.groups)
    return replace(plan, groups=groups, price_per_hour=price)


def _to_free(
    claim: Claim,
    limits: Limits,
    user: Account,
    team: Account | None,
    capacity: Capacity | None,
    idle: Mapping[str, float],
    purses: Sequence[Purse],
) -> tuple[str, ...]:
    """A smallest choice of the user's own clusters whose end makes room: one if one does, else several.

    Of those that do alone, the one that is idle for the longest, else the smallest.
    """

    def makes_room(clusters: Sequence[str]) -> bool:
        def less(account: Account) -> Account:
            return Account({key: value for key, value in account.admitted.items() if key not in clusters})

        freed = replace(capacity, used=less(capacity.used)) if capacity else None
        left = [purse.without(clusters) for purse in purses]
        return not _shortages(claim, limits, less(user), less(team) if team else None, freed, left)

    own = sorted(user.without(claim.cluster).admitted.items(), key=lambda pair: (pair[1].memory, pair[0]))
    for cluster, _ in sorted(own, key=lambda pair: -idle.get(pair[0], 0.0)):  # keeps the order of size
        if makes_room([cluster]):
            return (cluster,)
    chosen: list[str] = []
    for cluster, _ in reversed(own):
        chosen.append(cluster)
        if makes_room(chosen):
            return tuple(chosen)
    return ()


def _of_budgets(shortages: Sequence[Shortage], purses: Sequence[Purse], claim: Claim) -> list[str]:
    """The ways on from a budget that has no room: for less long, or with more in it."""
    over = [each for each in shortages if isinstance(each, Overspending)]
    if not over or any(each.unpriced for each in over):
        return []
    lasts, ways = [each.lasts for each in over if each.lasts is not None], []
    is_new = not any(claim.cluster in purse.spenders for purse in purses)
    if is_new and len(lasts) == len(over):
        longest = min(lasts)
        ways.append(f"Shorten it:          max_duration='{longest}' fits now (--max-duration '{longest}')")
    ways.append(f"Ask for more:        {'; '.join(each.source for each in over)}")
    return ways


def _ways_on(
    free: Sequence[str],
    workers: int | None,
    names: Mapping[str, str],
    claim: Claim,
    budgets: Sequence[str],
) -> str:
    ways = []
    if free:
        ways.append(f"Free what you hold:  {command('down', *(names.get(key, key) for key in free))}")
    if workers and claim.group:
        scale = command("scale", claim.name, str(workers))
        ways.append(f"Shrink it:           {scale} --group {claim.group}")
    elif workers:
        ways.append(f"Shrink it:           workers={workers} fits now (--workers {workers})")
    ways += budgets
    ways.append("Wait for it:         queue=True (--queue)")
    return "\n".join(f"  {way}" for way in ways)
