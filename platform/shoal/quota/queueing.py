"""The queue: one pass over everybody who waits, giving each an answer.

Why it exists: every home runs this same pass whenever something is asked for or freed, so that a place gives
its capacity away in one order, and fairly.

How it goes: requests get their turn in the order of ``fairness``. One that fits is admitted. One that does
not fit reserves its place in each account where it is short: whoever comes later may pass it only when that
does not make it wait longer (backfill as in EASY: Lifka, The ANL/IBM SP scheduling system, 1995). Every
cluster has a latest end, so the reservation has a time, and no stream of small requests starves a large one.

What it must not do: do I/O or change an account; it says what should be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from shoal.errors import UsageError
from shoal.model.cluster import Cluster, Reason
from shoal.model.resource import Resource
from shoal.model.workload import Plan
from shoal.project.policy import Limit, Limits, Policy
from shoal.quota.account import Account, Fair, Need, Shortage, amounts, never_fits, real, short_of
from shoal.quota.admission import MACHINE, Capacity, Claim, Decision, Verdict, decide, with_workers
from shoal.quota.budgets import Purse, Spending
from shoal.quota.fairness import NO_TEAM, Order, Turn, share, shared_total
from shoal.quota.reservations import NOTHING, Holder, Reservation, Vector, vector
from shoal.words import count

_NO_BUDGETS = "this home does not enforce budgets, and a limit that is not enforced is misleading"


def least(plan: Plan) -> Plan:
    """``plan`` with the fewest workers (of its first group) that it starts with where there is no room for all."""
    group = plan.groups[0]
    return plan if group.minimum >= group.count else with_workers(plan, group.minimum)


@dataclass(frozen=True)
class Waiting:
    """One request in the queue: who asks, since when (seconds since the epoch), and how urgently.

    ``least``: the fewest workers of its first group that it starts with, where there is no room for all of its plan
    (None: it takes all or waits). A cluster that is admitted already and wants more is here too: what it
    holds is not asked for again.
    """

    claim: Claim
    user: str
    since: float
    priority: int = 0
    least: int | None = None

    @classmethod
    def of(cls, cluster: Cluster) -> Waiting:
        """What a cluster that is not admitted yet asks for. One with a range takes the low end of it, if need be."""
        priority, fewest = cluster.workload.priority, least(cluster.plan).groups[0].count
        claim = Claim(cluster.id, cluster.name, cluster.plan, priority)
        ranged = fewest if fewest < cluster.plan.groups[0].count else None
        return cls(claim, cluster.owner, cluster.created, priority, ranged)


@dataclass(frozen=True)
class Books:
    """All accounts: by user and by team; and what was spent (None: nobody keeps it there)."""

    users: Mapping[str, Account] = field(default_factory=dict)
    teams: Mapping[str, Account] = field(default_factory=dict)
    spending: Spending | None = None


@dataclass(frozen=True)
class TurnResult:
    """The answer to one request of the queue.

    ``position``: its place among those that wait, from 1 (0 when it does not). ``short``: whose limits it waits
    for (``"you"``, ``"team growth"``, ``"the machine"``); ``budget``: whose budgets. ``behind``: the cluster that it
    must let go first.
    ``latest``: when it starts at the latest, if what runs uses its whole lifetime; None where that cannot be
    told. ``workers``: it is admitted with so many in its first group, fewer than its plan says. ``message``: why it
    is refused. ``team`` and ``user``: what their accounts keep of an admission, see ``Account.with_``.
    """

    claim: Claim
    verdict: Verdict
    position: int = 0
    short: tuple[str, ...] = ()
    behind: str | None = None
    latest: float | None = None
    workers: int | None = None
    message: str = ""
    team: Fair | None = None
    user: Fair | None = None
    budget: tuple[str, ...] = ()


def admit(
    queue: Sequence[Waiting], books: Books, policy: Policy, capacity: Capacity | None, now: float
) -> list[TurnResult]:
    """One pass over the whole ``queue``: who starts now, who waits and behind whom, who can never start.

    Outcomes come in the order of turns. ``now`` is the store's clock in seconds since the epoch. Together,
    what is admitted exceeds no limit of any account, nor of the place. Nothing is changed: the home charges
    the accounts, and asks again if they have changed meanwhile.
    """
    scopes = _Scopes(books, capacity)
    asked: dict[str, tuple[Waiting, Limits]] = {}
    outcomes: list[TurnResult] = []
    for waiting in queue:
        try:
            its = scopes.limits_of(waiting.user, policy)
            scopes.purses(its)
            asked[waiting.claim.cluster] = waiting, its
        except UsageError as error:
            outcomes.append(TurnResult(waiting.claim, Verdict.REFUSE, message=str(error)))
    present = {waiting.user for waiting, _ in asked.values()} | set(books.users)
    whole = shared_total(limits for user in present if (limits := scopes.known(user, policy)))
    parts = {name: share(amounts(waiting.claim.plan), whole) for name, (waiting, _) in asked.items()}
    turns = [
        Turn(
            name,
            waiting.user,
            limits.team or NO_TEAM,
            limits.weight,
            waiting.since,
            waiting.priority,
            parts[name] * waiting.claim.plan.timeouts.max,
        )
        for name, (waiting, limits) in asked.items()
    ]
    order = Order(turns, books.users, books.teams, now)
    position = 0
    while (turn := order.next()) is not None:
        waiting, limits = asked[turn.cluster]
        outcome = _answer(waiting, limits, scopes, position + 1, now)
        if outcome.verdict is Verdict.ADMIT:
            team, user = order.admitted(turn, parts[turn.cluster])
            outcome = replace(outcome, team=team, user=user)
        position += outcome.verdict is Verdict.WAIT
        outcomes.append(outcome)
    return outcomes


class _Scopes:
    """The accounts of this pass, made when they are first needed."""

    def __init__(self, books: Books, capacity: Capacity | None) -> None:
        self._books = books
        self._limits: dict[str, Limits] = {}
        self._made: dict[tuple[str, str], Holder] = {}
        self._place = Holder(MACHINE, capacity.used, capacity.limits) if capacity else None
        self._capacity = capacity
        self._purses: dict[tuple[str, str], Purse] = {}

    def limits_of(self, user: str, policy: Policy) -> Limits:
        if user not in self._limits:
            self._limits[user] = policy.limits_of(user)
        return self._limits[user]

    def known(self, user: str, policy: Policy) -> Limits | None:
        """None for one who holds something, and whom the policy does not know any more."""
        try:
            return self.limits_of(user, policy)
        except UsageError:
            return None

    def of(self, plan: Plan, limits: Limits) -> list[tuple[Holder, Vector]]:
        """Each account that a claim of this plan is held against, with what it needs of it."""
        found = [self._scope("user", limits.user, "you", self._books.users, limits.totals)]
        if limits.team is not None:
            name = f"team {limits.team}"
            found.append(self._scope("team", limits.team, name, self._books.teams, limits.team_totals))
        counted = vector(amounts(plan))
        pairs = [(scope, counted) for scope in found]
        if self._place is not None:
            pairs.append((self._place, vector(real(plan))))
        return pairs

    def larger(self, plan: Plan) -> Iterable[Shortage]:
        """What of the plan the machine could not hold with nothing else running."""
        if self._capacity is not None:
            yield from short_of(real(plan), Account(), self._capacity.limits, MACHINE)

    def purses(self, limits: Limits) -> list[Purse]:
        """The budgets of this user, with what this pass has admitted."""
        if not limits.budgeted:
            return []
        spending = self._books.spending
        if spending is None:
            raise UsageError(_NO_BUDGETS)
        return [self._purses.setdefault(_key(purse, limits), purse) for purse in spending.purses(limits)]

    def spend(self, limits: Limits, cluster: str, plan: Plan) -> None:
        """``cluster`` is admitted with this plan: from now on that is reserved."""
        for purse in self.purses(limits):
            self._purses[_key(purse, limits)] = purse.with_(cluster, plan)

    def _scope(
        self,
        kind: str,
        key: str,
        name: str,
        accounts: Mapping[str, Account],
        limits: Mapping[Resource, Limit],
    ) -> Holder:
        if (kind, key) not in self._made:
            self._made[kind, key] = Holder(name, accounts.get(key, Account()), limits)
        return self._made[kind, key]


def _key(purse: Purse, limits: Limits) -> tuple[str, str]:
    return purse.scope, limits.user if purse.scope == "you" else ""


def _is_too_large(claim: Claim, limits: Limits) -> bool:
    """Whether a limit per cluster is in the way."""
    need = Need.of(claim.plan, claim.priority)
    return any(need.per_cluster(what) > limit.value for what, limit in limits.per_cluster.items())


_Pairs = Sequence[tuple[Holder, Vector]]


class _Pending:
    """One request in this pass. What it holds already is taken out of its scopes, until :meth:`put_back`."""

    def __init__(self, claim: Claim, limits: Limits, scopes: _Scopes, pairs: _Pairs, now: float) -> None:
        self._claim, self._limits, self._scopes = claim, limits, scopes
        self._end = now + claim.plan.timeouts.max
        # What it holds already (it grows, or a governor died while charging it) is not in its own way.
        self._own = [(scope, scope.drop(claim.cluster)) for scope, _ in pairs]
        self.pairs = self._with_own(pairs)

    def _with_own(self, pairs: _Pairs) -> _Pairs:
        """Nor does it give anything back by asking: workers that are being retired still count."""
        return [
            (scope, need if has is None else tuple(map(max, need, has[0])))
            for (scope, need), (_, has) in zip(pairs, self._own, strict=True)
        ]

    def short(self) -> _Pairs:
        return [(scope, need) for scope, need in self.pairs if not scope.fits(need)]

    def is_over_budget(self, plan: Plan) -> bool:
        purses = self._scopes.purses(self._limits)
        return not all(purse.fits(self._claim.cluster, plan) for purse in purses)

    def blocking(self) -> list[Reservation]:
        return [kept for scope, need in self.pairs if (kept := scope.delays(need, self._end)) is not None]

    def raise_to(self, most: int, fits: int) -> int:
        """The most workers, from ``fits`` on, that have room now."""
        low, high = fits, most + 1
        while high - low > 1:
            middle = (low + high) // 2
            kept = self.pairs
            plan = with_workers(self._claim.plan, middle)
            self.pairs = self._with_own(self._scopes.of(plan, self._limits))
            if self.short() or self.blocking() or self.is_over_budget(plan):
                self.pairs, high = kept, middle
            else:
                low = middle
        return low

    def take(self, plan: Plan) -> None:
        for scope, need in self.pairs:
            scope.take(self._claim.cluster, need, self._end)
        self._scopes.spend(self._limits, self._claim.cluster, plan)

    def put_back(self) -> None:
        for scope, has in self._own:
            if has is not None:
                scope.take(self._claim.cluster, *has)


def _answer(waiting: Waiting, limits: Limits, scopes: _Scopes, position: int, now: float) -> TurnResult:
    asked = claim = waiting.claim
    if waiting.least is not None and waiting.least < claim.plan.groups[0].count:
        # First whether the least fits: for all of it nobody has to wait, it grows into the rest.
        claim = replace(claim, plan=with_workers(claim.plan, waiting.least))
    pairs = scopes.of(claim.plan, limits)
    if _is_too_large(claim, limits) or not all(scope.fits(need, NOTHING) for scope, need in pairs):
        never = [*never_fits(Need.of(claim.plan, claim.priority), limits), *scopes.larger(claim.plan)]
        why = "\n".join(shortage.sentence(claim.name, {}) for shortage in never)
        return TurnResult(asked, Verdict.REFUSE, message=why)
    purses = scopes.purses(limits)
    over = [each for purse in purses if (each := purse.short(claim.cluster, claim.plan)) is not None]
    if any(each.never for each in over):
        why = "\n".join(each.sentence(claim.name, {}) for each in over if each.never)
        return TurnResult(asked, Verdict.REFUSE, message=why, budget=tuple(each.scope for each in over))
    request = _Pending(claim, limits, scopes, pairs, now)
    short, blocking = request.short(), request.blocking()
    if over:
        # It keeps no room for itself: until others end, or the month does, may be too long for that.
        request.put_back()
        names = tuple(scope.name for scope, _ in short)
        budget = tuple(each.scope for each in over)
        return TurnResult(asked, Verdict.WAIT, position, names, budget=budget)
    if not short and not blocking:
        workers, plan = None, claim.plan
        if claim is not asked:
            whole = asked.plan.groups[0].count
            most = request.raise_to(whole, claim.plan.groups[0].count)
            workers, plan = most if most < whole else None, with_workers(asked.plan, most)
        request.take(plan)
        return TurnResult(asked, Verdict.ADMIT, workers=workers)
    request.put_back()
    # Only whoever goes first can be told a time: what is behind depends on what comes between.
    first = not any(scope.reserved for scope, _ in short or request.pairs)
    latest = max((scope.reserve(claim.cluster, need) for scope, need in short), default=math.inf)
    behind = blocking[0].cluster if blocking else None
    names = tuple(scope.name for scope, _ in short)
    start = latest if first and latest < math.inf else None
    return TurnResult(asked, Verdict.WAIT, position, names, behind, start)


def admitted(outcome: TurnResult) -> str:
    """The sentence of a cluster that is admitted."""
    if outcome.workers is None:
        return "within every limit"
    whole = outcome.claim.plan.workers
    fewer = with_workers(outcome.claim.plan, outcome.workers).workers
    return f"starting with {fewer} of {count(whole, 'worker')}; the rest as quota frees up"


def explain(
    outcome: TurnResult,
    limits: Limits,
    books: Books,
    capacity: Capacity | None = None,
    names: Mapping[str, str] | None = None,
    idle: Mapping[str, float] | None = None,
) -> Decision:
    """``outcome`` with every reason and the ways on, for people.

    ``books`` and ``capacity`` as they are after the pass. A request that would fit but for another's turn says
    whose.
    """
    claim = outcome.claim
    if outcome.verdict is Verdict.ADMIT:
        return Decision(Verdict.ADMIT, Reason.ADMITTED, admitted(outcome))
    if outcome.verdict is Verdict.REFUSE and outcome.message and not outcome.budget:
        return Decision(Verdict.REFUSE, Reason.OVER_LIMIT, outcome.message)
    team = books.teams.get(limits.team, Account()) if limits.team is not None else None
    user = books.users.get(limits.user, Account())
    purses = books.spending.purses(limits) if books.spending is not None else ()
    decision = decide(claim, limits, user, team, capacity, names, idle, purses)
    if outcome.budget and decision.verdict is Verdict.ADMIT:
        message = outcome.message or f"{claim.name} needs more of a budget than those before it leave"
        return replace(decision, verdict=outcome.verdict, reason=Reason.WAITING_FOR_QUOTA, message=message)
    if outcome.verdict is Verdict.WAIT and decision.verdict is Verdict.ADMIT:
        ahead = (names or {}).get(outcome.behind or "", outcome.behind)
        message = f"{claim.name} is queued behind {ahead}, which needs more than is free"
        return Decision(Verdict.WAIT, Reason.WAITING_FOR_QUOTA, message)
    return replace(decision, verdict=outcome.verdict)
