"""One pass over the queue: whose turn it is, who may pass whom, who can never start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.model.cluster import Reason
from shoal.model.codec import plain, read
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts
from shoal.project.policy import Limits, Policy, Team, Tier, User
from shoal.project.targets import Machine
from shoal.quota.account import Account, Fair, amounts, real
from shoal.quota.admission import Capacity, Claim, Verdict
from shoal.quota.fairness import OVERDUE, PATIENCE
from shoal.quota.queueing import Books, TurnResult, Waiting, admit, explain
from shoal.units import Bytes, Seconds

GB, HOUR = 10**9, 3600.0
NOW = 1_000_000.0


def plan(workers: int = 1, hours: float = 1.0, gpus: int = 0) -> Plan:
    """``workers`` of 10 GB; the head takes nothing."""
    size, nothing = Size(1, Bytes(10 * GB)), Size(0, Bytes(0))
    group = Group("default", 1, workers, workers, size, size, gpus)
    return Plan(
        "etl", Engine.DASK, "t", nothing, (group,), Timeouts(Seconds(9), Seconds(9), Seconds(hours * HOUR))
    )


def wait(
    name: str, user: str, workers: int = 1, *, since: float = 0.0, hours: float = 1.0, priority: int = 0
) -> Waiting:
    """``since``: seconds ago."""
    return Waiting(Claim(name, name, plan(workers, hours)), user, NOW - since, priority)


@pytest.fixture
def policy() -> Policy:
    tier = Tier(
        concurrent_clusters=9,
        workers_per_cluster=9,
        memory=Bytes(200 * GB),
        max_duration=Seconds(8 * HOUR),
        head=Bytes(GB),
    )
    users = {name: User(tier="t", team="red") for name in ("ann", "bob")}
    users |= {name: User(tier="t", team="blue") for name in ("cid", "dan")}
    return Policy({"t": tier}, users, {"red": Team(weight=1.0), "blue": Team(weight=2.0)})


def place(gigabytes: int, *running: tuple[str, int, float]) -> Capacity:
    """A machine of so much memory; of ``running``: name, workers, hours until its end at the latest."""
    used = Account()
    for name, workers, hours in running:
        used = used.with_(name, real(plan(workers)), NOW + hours * HOUR)
    return Capacity(Machine(memory=Bytes(gigabytes * GB)), used)


def run(
    queue: list[Waiting], policy: Policy, where: Capacity | None, books: Books | None = None
) -> dict[str, TurnResult]:
    return {outcome.claim.cluster: outcome for outcome in admit(queue, books or Books(), policy, where, NOW)}


def admitted(outcomes: dict[str, TurnResult]) -> list[str]:
    return [name for name, outcome in outcomes.items() if outcome.verdict is Verdict.ADMIT]


def served(hours: float, *, start: float = 0.0) -> Account:
    """An account that had the whole place for so long, and asked without a pause."""
    return Account(served=hours * HOUR, as_of=NOW, last=NOW, start=start)


class TestTurns:
    def test_the_older_request_of_two_comes_first(self, policy: Policy) -> None:
        queue = [wait("new", "ann", since=1), wait("old", "ann", since=100)]
        assert admitted(run(queue, policy, place(10))) == ["old"]

    def test_the_team_that_was_served_less_comes_first(self, policy: Policy) -> None:
        books = Books(teams={"red": served(2), "blue": served(1)})
        queue = [wait("red", "ann", since=100), wait("blue", "cid", since=1)]
        assert admitted(run(queue, policy, place(10), books)) == ["blue"]

    @pytest.mark.parametrize(("red", "first"), [(0.9, "red"), (1.1, "blue")])
    def test_a_weight_of_two_may_be_served_twice_as_much(
        self, policy: Policy, red: float, first: str
    ) -> None:
        books = Books(teams={"red": served(red), "blue": served(2)})
        queue = [wait("red", "ann", since=1), wait("blue", "cid", since=1)]
        assert admitted(run(queue, policy, place(10), books)) == [first]

    def test_within_a_team_whoever_was_served_less_comes_first(self, policy: Policy) -> None:
        books = Books(users={"ann": served(2), "bob": served(1)})
        queue = [wait("ann", "ann", since=100), wait("bob", "bob", since=1)]
        assert admitted(run(queue, policy, place(10), books)) == ["bob"]

    def test_priority_counts_within_a_team_and_not_between_teams(self, policy: Policy) -> None:
        books = Books(teams={"red": served(1), "blue": served(0)})
        queue = [
            wait("plain", "ann", since=100),
            wait("urgent", "bob", since=1, priority=5),
            wait("blue", "cid", since=1),
        ]
        assert admitted(run(queue, policy, place(20), books)) == ["blue", "urgent"]

    def test_turns_alternate_within_one_pass(self, policy: Policy) -> None:
        queue = [wait(f"ann-{n}", "ann", since=99 - n) for n in range(4)]
        queue += [wait(f"bob-{n}", "bob", since=50 - n) for n in range(4)]
        got = admitted(run(queue, policy, place(40)))
        assert sorted(name.split("-")[0] for name in got) == ["ann", "ann", "bob", "bob"]

    def test_nobody_saves_up_while_asking_for_nothing(self, policy: Policy) -> None:
        # Red was away since long ago; blue has asked without a pause. Red comes level, not far ahead.
        away = Account(served=0.0, as_of=0.0, last=NOW - 99 * HOUR)
        busy = Account(served=100 * HOUR, as_of=NOW, last=NOW)
        queue = [wait(f"red-{n}", "ann", since=2) for n in range(3)]
        queue += [wait(f"blue-{n}", "cid", since=60) for n in range(6)]
        outcomes = run(queue, policy, place(60), Books(teams={"red": away, "blue": busy}))
        assert sorted(name.split("-")[0] for name in admitted(outcomes)) == ["blue"] * 4 + ["red"] * 2
        fair = next(outcomes[name].team for name in admitted(outcomes) if name.startswith("red"))
        assert fair is not None
        assert fair.floor == pytest.approx(50 * HOUR)  # blue's 100 h at weight 2

    def test_whoever_got_nothing_for_long_comes_first_once(self, policy: Policy) -> None:
        starved = replace(served(50), last=NOW - PATIENCE - 1)
        books = Books(teams={"red": starved, "blue": served(1)})
        queue = [wait(f"red-{n}", "ann", since=PATIENCE + 5) for n in range(2)]
        queue += [wait(f"blue-{n}", "cid", since=1) for n in range(2)]
        assert admitted(run(queue, policy, place(30), books)) == ["red-0", "blue-0", "blue-1"]

    def test_an_overdue_request_goes_first_unless_its_team_is_far_ahead(self, policy: Policy) -> None:
        old = wait("old", "ann", workers=2, since=OVERDUE + 1)
        queue = [old, wait("blue", "cid", since=1)]
        near = Books(teams={"red": replace(served(0.01), last=NOW), "blue": served(0.0)})
        assert next(iter(run(queue, policy, place(20), near))) == "old"
        far = Books(teams={"red": replace(served(90), last=NOW), "blue": served(0.0)})
        assert next(iter(run(queue, policy, place(20), far))) == "blue"

    def test_a_clock_that_went_back_makes_nobody_urgent_or_poorer(self, policy: Policy) -> None:
        ahead = Account(served=HOUR, as_of=NOW + 5 * HOUR, last=NOW + 5 * HOUR)
        assert ahead.at(NOW) == ahead
        books = Books(teams={"red": ahead, "blue": replace(ahead, served=0.0)})
        queue = [wait("red", "ann", since=-3600), wait("blue", "cid", since=-7200)]
        assert admitted(run(queue, policy, place(10), books)) == ["blue"]


class TestReservations:
    def test_small_ones_do_not_starve_a_large_one(self, policy: Policy) -> None:
        full = place(40, ("a", 2, 1.0), ("b", 1, 3.0))
        queue = [wait("large", "ann", 3, since=60), wait("small", "ann", 1, since=1, hours=2)]
        outcomes = run(queue, policy, full)
        assert admitted(outcomes) == []
        assert outcomes["large"].short == ("the machine",)
        assert outcomes["large"].latest == NOW + HOUR  # a's end: 10 GB are free, 20 come
        assert (outcomes["small"].short, outcomes["small"].behind) == ((), "large")
        assert (outcomes["large"].position, outcomes["small"].position) == (1, 2)

    def test_several_large_ones_gather_room_at_a_time(self, policy: Policy) -> None:
        full = place(60, ("a", 3, 1.0), ("b", 2, 3.0))
        queue = [wait("one", "ann", 3, since=60), wait("two", "bob", 3, since=50)]
        small = [wait("small", "bob", 1, since=1, hours=2)]
        # One alone gets its 30 GB from a and what is free: small may use the rest until b ends.
        assert admitted(run([queue[0], *small], policy, full)) == ["small"]
        outcomes = run([*queue, *small], policy, full)
        assert admitted(outcomes) == ["small"]  # it ends before b does, and both need b's
        later = [wait("small", "bob", 1, since=1, hours=4)]
        assert admitted(run([queue[0], *later], policy, full)) == ["small"]
        outcomes = run([*queue, *later], policy, full)
        assert admitted(outcomes) == []
        assert outcomes["small"].behind == "two"
        assert (outcomes["one"].latest, outcomes["two"].latest) == (NOW + HOUR, None)

    def test_what_ends_in_time_may_pass(self, policy: Policy) -> None:
        full = place(40, ("a", 2, 1.0), ("b", 1, 3.0))
        queue = [wait("large", "ann", 3, since=60), wait("small", "ann", 1, since=1, hours=0.9)]
        assert admitted(run(queue, policy, full)) == ["small"]

    def test_what_leaves_room_enough_may_pass(self, policy: Policy) -> None:
        full = place(50, ("a", 3, 1.0))
        queue = [wait("large", "ann", 3, since=60), wait("small", "ann", 2, since=1, hours=8)]
        assert admitted(run(queue, policy, full)) == ["small"]  # 3 + 2 fit once a has ended

    def test_without_a_known_end_nothing_passes_on_what_is_short(self, policy: Policy) -> None:
        unknown = Capacity(Machine(memory=Bytes(40 * GB)), Account({"a": real(plan(3))}))
        queue = [wait("large", "ann", 3, since=60), wait("small", "ann", 1, since=1, hours=0.1)]
        outcomes = run(queue, policy, unknown)
        assert outcomes["large"].latest is None
        assert admitted(outcomes) == ["small"]  # 0.1 h is before any end
        assert outcomes["large"].verdict is Verdict.WAIT

    def test_who_waits_for_their_own_limit_holds_up_nobody_else(self, policy: Policy) -> None:
        mine = Account({f"c{n}": amounts(plan(6)) for n in range(3)})  # 180 of 200 GB
        queue = [wait("mine", "ann", 3, since=60), wait("theirs", "bob", 9, since=1)]
        outcomes = run(queue, policy, place(500), Books(users={"ann": mine}))
        assert admitted(outcomes) == ["theirs"]
        assert outcomes["mine"].short == ("you",)


class TestAnswers:
    def test_what_can_never_fit_is_refused_at_once(self, policy: Policy) -> None:
        outcomes = run([wait("wide", "ann", 10), wait("big", "ann", 9)], policy, place(50))
        assert [outcome.verdict for outcome in outcomes.values()] == [Verdict.REFUSE] * 2
        assert "the limit per cluster is 9 workers" in outcomes["wide"].message
        assert outcomes["big"].message.startswith("big requests ")
        assert "; the machine has " in outcomes["big"].message
        assert "of memory: machine: of the target (shoal.yaml)" in outcomes["big"].message

    def test_an_unknown_user_is_refused_and_holds_up_nobody(self, policy: Policy) -> None:
        outcomes = run(
            [wait("who", "zoe"), wait("ann", "ann")], policy, place(10), Books(users={"gone": Account()})
        )
        assert outcomes["who"].verdict is Verdict.REFUSE
        assert "no user 'zoe'" in outcomes["who"].message
        assert admitted(outcomes) == ["ann"]

    def test_one_that_grows_is_held_only_against_what_is_left(self, policy: Policy) -> None:
        where = place(40, ("mine", 2, 1.0))
        books = Books(users={"ann": Account({"mine": amounts(plan(2))})})
        assert admitted(run([wait("mine", "ann", 4)], policy, where, books)) == ["mine"]
        outcomes = run([wait("mine", "ann", 5)], policy, where, books)
        assert outcomes["mine"].verdict is Verdict.REFUSE
        both = [wait("other", "cid", 2, since=60), wait("mine", "ann", 3, since=1)]
        assert admitted(run(both, policy, where, books)) == ["other"]

    def test_people_are_told_what_they_wait_for(self, policy: Policy) -> None:
        full = place(40, ("a", 2, 1.0), ("b", 1, 3.0))
        queue = [wait("large", "ann", 3, since=60), wait("small", "ann", 1, since=1, hours=2)]
        outcomes, limits = run(queue, policy, full), policy.limits_of("ann")
        large = explain(outcomes["large"], limits, Books(), full, {"a": "nightly", "b": "explore"})
        assert large.reason is Reason.WAITING_FOR_CAPACITY
        assert large.message.startswith(
            "large requests 30 GB of memory; the machine holds 30 GB of 40 GB (nightly; "
        )
        small = explain(outcomes["small"], limits, Books(), full, {"large": "backfill-2013"})
        assert small.message == "small is queued behind backfill-2013, which needs more than is free"
        assert small.verdict is Verdict.WAIT

    @given(data=st.data())
    def test_what_one_pass_admits_exceeds_no_limit(self, data: st.DataObject) -> None:
        tier = Tier(
            concurrent_clusters=3,
            workers_per_cluster=5,
            memory=Bytes(70 * GB),
            max_duration=Seconds(8 * HOUR),
            head=Bytes(GB),
        )
        policy = Policy(
            {"t": tier},
            {name: User(tier="t", team="red") for name in "ab"},
            {"red": Team(memory=Bytes(90 * GB))},
            User(tier="t"),
        )
        queue = [
            wait(
                f"q{number}",
                data.draw(st.sampled_from("abcd")),
                data.draw(st.integers(1, 6)),
                since=data.draw(st.integers(-5, 100_000)),
                hours=data.draw(st.sampled_from([1.0, 8.0])),
                priority=data.draw(st.integers(-2, 2)),
            )
            for number in range(data.draw(st.integers(0, 12)))
        ]
        where = place(data.draw(st.integers(20, 200)))
        outcomes = run(queue, policy, where)
        assert set(outcomes) == {waiting.claim.cluster for waiting in queue}
        by_user: dict[str, list[Plan]] = {}
        for waiting in queue:
            if outcomes[waiting.claim.cluster].verdict is Verdict.ADMIT:
                by_user.setdefault(waiting.user, []).append(waiting.claim.plan)
        total = 0
        for plans in by_user.values():
            assert len(plans) <= 3
            assert sum(each.workers for each in plans) <= 7
            total += sum(each.workers for each in plans)
        assert sum(each.workers for user in "ab" for each in by_user.get(user, [])) <= 9
        assert total * 10 * GB <= (where.machine.memory or 0)


def test_an_account_integrates_what_is_held_and_survives_json(policy: Policy) -> None:
    fair = Fair(share=0.5, floor=100.0, start=7.0)
    account = Account().with_("a", amounts(plan(2)), NOW + HOUR, NOW, fair)
    assert (account.served, account.last, account.start) == (100.0, NOW, 7.0)
    assert account.served_at(NOW + 10) == 105.0
    assert account.promised_at(NOW) == 0.5 * HOUR / 2
    again = account.with_("a", amounts(plan(2)), now=NOW + 10)
    assert again.shares == {"a": 0.5}
    assert again.last == NOW
    after = again.without("a", NOW + 20)
    assert after.served == 110.0
    assert after.at(NOW + 99).served == 110.0
    assert read(Account, plain(account)) == account
    assert read(Account, {**plain(account), "of another version": 1}) == account


def test_limits_are_asked_for_once(policy: Policy) -> None:
    first: Limits = policy.limits_of("ann")
    assert policy.limits_of("ann") is first


class TestPartialAdmission:
    """A cluster with a range takes the low end of it where there is no room for more."""

    def ask(self, name: str, least: int, workers: int) -> Waiting:
        return replace(wait(name, "ann", workers), least=least)

    def test_it_starts_with_as_many_as_fit(self, policy: Policy) -> None:
        outcome = run([self.ask("a", 2, 8)], policy, place(50))["a"]
        assert (outcome.verdict, outcome.workers) == (Verdict.ADMIT, 5)
        limits = policy.limits_of("ann")
        assert explain(outcome, limits, Books(), place(50)).message == (
            "starting with 5 of 8 workers; the rest as quota frees up"
        )

    def test_with_room_for_all_it_has_all(self, policy: Policy) -> None:
        outcome = run([self.ask("a", 2, 8)], policy, place(80))["a"]
        assert (outcome.verdict, outcome.workers) == (Verdict.ADMIT, None)

    def test_without_room_for_the_least_it_waits_for_that_and_no_more(self, policy: Policy) -> None:
        busy = place(50, ("soon", 1, 1.0), ("late", 4, 9.0))
        outcome = run([self.ask("a", 1, 8)], policy, busy)["a"]
        assert (outcome.verdict, outcome.workers) == (Verdict.WAIT, None)
        assert outcome.latest == NOW + 1 * HOUR, "the end of the small one makes room for the least"

    def test_what_was_asked_for_as_a_number_is_never_less(self, policy: Policy) -> None:
        assert run([wait("a", "ann", 8)], policy, place(50))["a"].verdict is Verdict.REFUSE
        busy = place(80, ("other", 3, 1.0))
        assert run([wait("a", "ann", 8)], policy, busy)["a"].verdict is Verdict.WAIT

    def test_it_takes_nothing_that_is_reserved(self, policy: Policy) -> None:
        # The large one waits for all; behind it there are three free, which it will need.
        busy = place(80, ("other", 5, 1.0))
        queue = [wait("large", "ann", 8, since=100), replace(wait("range", "ann", 3, hours=2), least=1)]
        outcomes = run(queue, policy, busy)
        assert outcomes["large"].verdict is Verdict.WAIT
        assert outcomes["range"].verdict is Verdict.WAIT

    @given(
        free=st.integers(1, 12),
        asked=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 8)), min_size=1, max_size=6),
    )
    def test_together_they_never_exceed_the_place(self, free: int, asked: list[tuple[int, int]]) -> None:
        tier = Tier(
            concurrent_clusters=9,
            workers_per_cluster=12,
            memory=Bytes(900 * GB),
            max_duration=Seconds(8 * HOUR),
            head=Bytes(GB),
        )
        everybody = Policy({"t": tier}, default=User(tier="t"))
        queue = [self.ask(f"n{i}", low, low + more) for i, (low, more) in enumerate(asked)]
        taken = 0
        for outcome in run(queue, everybody, place(free * 10)).values():
            waiting = next(each for each in queue if each.claim.cluster == outcome.claim.cluster)
            if outcome.verdict is Verdict.ADMIT:
                got = outcome.workers or waiting.claim.plan.workers
                assert (waiting.least or 0) <= got <= waiting.claim.plan.workers
                taken += got
            elif outcome.verdict is Verdict.WAIT:
                assert (waiting.least or 0) > free - taken or not outcome.short
        assert taken <= free
