"""1,000 hours of 200 users in 12 teams, on the queue's own pass and accounts: is it fair, does one starve?

Time is simulated, so that this needs no cluster and takes minutes. Four teams always have more to ask for
than they get; of these, each one's part of what all four got is held against its weight, over every window of
100 hours. ``bench_queue.py`` runs it, and a first-come queue as its peer.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shoal.model.workload import Engine, Group, Plan, Size, Timeouts
from shoal.project.policy import Policy, Team, Tier, User
from shoal.project.targets import Machine
from shoal.quota.account import Account, amounts, real
from shoal.quota.admission import Capacity, Claim, Verdict
from shoal.quota.queueing import Books, TurnResult, Waiting, admit
from shoal.units import Bytes, Seconds

GB, HOUR = 10**9, 3600.0
WEIGHTS = (1, 2, 3, 1, 2, 4, 1, 1, 2, 1, 1, 2)
BACKLOGGED = 4  # teams that ask again as soon as something of theirs ends
LONGEST = 8.0  # h
WINDOW = 100 * HOUR
WARM = 24 * HOUR  # until the queue has filled


@dataclass
class Result:
    """What came of it. Deviations are of a backlogged team's part from its weight, in a window of 100 h."""

    requests: int = 0
    hours: float = 0.0
    waits: list[float] = field(default_factory=list)
    unanswered: int = 0
    deviations: list[float] = field(default_factory=list)
    used: float = 0.0
    decisions: int = 0
    cpu_seconds: float = 0.0


def plan(workers: int, hours: float) -> Plan:
    size = Size(4, Bytes(14 * GB))
    group = Group("default", workers, workers, workers, size, size)
    timeouts = Timeouts(Seconds(1200), Seconds(120), Seconds(hours * HOUR))
    nothing = Size(0, Bytes(0))
    return Plan("etl", Engine.DASK, "simulated", nothing, (group,), timeouts, head_there=nothing)


Pass = Callable[[Sequence[Waiting], Books, Policy, Capacity | None, float], list[TurnResult]]


def first_fit(
    queue: Sequence[Waiting], books: Books, policy: Policy, place: Capacity | None, now: float
) -> list[TurnResult]:
    """The peer: oldest first, whoever fits. (Each user has one request at a time, so the place decides.)"""
    assert place is not None
    free = float(place.machine.memory or 0) - float(place.used.held.memory)
    outcomes = []
    for waiting in sorted(queue, key=lambda each: each.since):
        need = float(real(waiting.claim.plan).memory)
        fits = need <= free
        free -= need if fits else 0
        outcomes.append(TurnResult(waiting.claim, Verdict.ADMIT if fits else Verdict.WAIT))
    return outcomes


class Simulation:
    """Users ask, wait, run and think; one at a time each."""

    def __init__(
        self, seed: int, users: int, requests: int, hours: float, workers: int, decide: Pass = admit
    ) -> None:
        self.decide = decide
        self.random = random.Random(seed)
        self.most, self.end = requests, hours * HOUR
        self.teams = {f"team-{index}": float(weight) for index, weight in enumerate(WEIGHTS)}
        # A team has people as it has weight.
        dealt = [name for name, weight in self.teams.items() for _ in range(int(weight))]
        self.team_of = {f"user-{index}": dealt[index % len(dealt)] for index in range(users)}
        tier = Tier(
            concurrent_clusters=5,
            workers_per_cluster=5,
            memory=Bytes(70 * GB),
            max_duration=Seconds(LONGEST * HOUR),
            head=Bytes(16 * GB),
        )
        self.policy = Policy(
            {"power": tier},
            {user: User(tier="power", team=team) for user, team in self.team_of.items()},
            {team: Team(weight=weight) for team, weight in self.teams.items()},
        )
        self.machine = Machine(memory=Bytes(workers * 14 * GB))
        self.users: dict[str, Account] = {}
        self.accounts: dict[str, Account] = {}
        self.place = Account()
        self.queue: dict[str, Waiting] = {}
        self.life: dict[str, float] = {}
        self.served: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.waiting: dict[str, list[tuple[float, bool]]] = defaultdict(list)
        self.result = Result()
        self.number = itertools.count()
        self.events: list[tuple[float, int, str, str]] = []

    def run(self) -> Result:
        for user in self.team_of:
            self.later(self.random.random() * HOUR + self.think(user), "", user)
        now = 0.0
        while self.events and self.events[0][0] <= self.end:
            now = self.events[0][0]
            while self.events and self.events[0][0] <= now:
                _, _, cluster, user = heapq.heappop(self.events)
                self.ends(cluster, user, now) if cluster else self.asks(user, now)
            self.admits(now)
        self.result.hours = now / HOUR
        self.result.unanswered = len(self.queue)
        self.measure(now)
        return self.result

    def later(self, at: float, cluster: str, user: str) -> None:
        heapq.heappush(self.events, (at, next(self.number), cluster, user))

    def think(self, user: str) -> float:
        backlogged = int(self.team_of[user].split("-")[1]) < BACKLOGGED
        return 1.0 if backlogged else self.random.expovariate(1 / (40 * HOUR))

    def asks(self, user: str, now: float) -> None:
        if self.result.requests >= self.most:
            return
        self.result.requests += 1
        name = f"cluster-{self.result.requests}"
        hours = self.random.choice([2.0, 4.0, LONGEST])
        self.life[name] = hours * HOUR * self.random.uniform(0.1, 1.0)
        self.queue[name] = Waiting(Claim(name, name, plan(self.random.randint(1, 5), hours)), user, now)

    def ends(self, cluster: str, user: str, now: float) -> None:
        team = self.team_of[user]
        self.users[user] = self.users[user].without(cluster, now)
        self.accounts[team] = self.accounts[team].without(cluster, now)
        self.place = self.place.without(cluster, now)
        self.later(now + self.think(user), "", user)

    def admits(self, now: float) -> None:
        begun = time.process_time()
        books, place = Books(self.users, self.accounts), Capacity(self.machine, self.place)
        outcomes = self.decide(list(self.queue.values()), books, self.policy, place, now)
        self.result.cpu_seconds += time.process_time() - begun
        self.result.decisions += len(outcomes)
        for outcome in outcomes:
            if outcome.verdict is not Verdict.ADMIT:
                continue
            name = outcome.claim.cluster
            waiting = self.queue.pop(name)
            team, its = self.team_of[waiting.user], amounts(waiting.claim.plan)
            until = now + waiting.claim.plan.timeouts.max
            for accounts, key, fair in (
                (self.accounts, team, outcome.team),
                (self.users, waiting.user, outcome.user),
            ):
                accounts[key] = accounts.get(key, Account()).with_(name, its, until, now, fair)
            self.place = self.place.with_(name, real(waiting.claim.plan), until, now)
            self.result.waits.append((now - waiting.since) / HOUR)
            self.later(now + self.life[name], name, waiting.user)
        assert self.place.held.memory <= (self.machine.memory or 0)
        asking = {self.team_of[waiting.user] for waiting in self.queue.values()}
        for team in self.teams:
            self.served[team].append((now, float(self.accounts.get(team, Account()).held.memory)))
            self.waiting[team].append((now, team in asking))

    def measure(self, end: float) -> None:
        """Every window of 100 h, from each 10th hour: those that waited all through it, by weight."""
        until = {team: _integral(values) for team, values in self.served.items()}
        total = sum(integral(end) for integral in until.values())
        self.result.used = total / end / float(self.machine.memory or 1)
        start = WARM
        while start + WINDOW <= end:
            stop = start + WINDOW
            always = [
                team
                for team, values in self.waiting.items()
                if all(asking for at, asking in values if start <= at <= stop)
            ]
            got = {team: until[team](stop) - until[team](start) for team in always}
            weight = sum(self.teams[team] for team in always)
            for team in always if len(always) > 1 else ():
                part = got[team] / sum(got.values())
                self.result.deviations.append(part / (self.teams[team] / weight) - 1)
            start += 10 * HOUR


def _integral(values: list[tuple[float, float]]) -> Callable[[float], float]:
    """The integral of a step function, as a function of its end."""
    times = [at for at, _ in values]
    sums = [0.0]
    for (at, value), (following, _) in itertools.pairwise(values):
        sums.append(sums[-1] + value * (following - at))

    def until(at: float) -> float:
        index = bisect.bisect_right(times, at) - 1
        return 0.0 if index < 0 else sums[index] + values[index][1] * (at - times[index])

    return until


def simulate(
    decide: Pass = admit,
    *,
    seed: int = 1,
    users: int = 200,
    requests: int = 10_000,
    hours: float = 1000,
    workers: int = 80,
) -> Result:
    """Run it. ``workers`` of 14 GB is what the place holds."""
    return Simulation(seed, users, requests, hours, workers, decide).run()
