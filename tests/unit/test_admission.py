"""One request against limits, accounts and the machine: the answer, with every reason and the ways on."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import CapacityError, NeverFitsError, QuotaExceededError
from shoal.model.cluster import Reason
from shoal.model.codec import plain, read
from shoal.model.resource import Resource
from shoal.model.workload import Plan
from shoal.planning.asking import ask
from shoal.planning.sizing import plan
from shoal.project.loading import Project
from shoal.project.policy import PER_CLUSTER, TOTALS, Limit, Limits, Policy, Team, Tier, User
from shoal.project.targets import Machine
from shoal.quota.account import Account, Amounts, Need, amounts, real, said, written
from shoal.quota.admission import Capacity, Claim, Decision, Verdict, beside, decide
from shoal.quota.reservations import vector
from shoal.units import Bytes, Seconds

Planned = Callable[..., Plan]
GB = 10**9


def of(name: str, plan_: Plan) -> Claim:
    return Claim(f"id-{name}", name, plan_)


def holding(*plans: tuple[str, Plan]) -> tuple[Account, dict[str, str]]:
    return Account({f"id-{name}": amounts(each) for name, each in plans}), {
        f"id-{name}": name for name, _ in plans
    }


def test_standard_gets_three_workers_of_14_gb_and_a_head_and_the_fourth_is_refused(
    planned: Planned, standard: Limits
) -> None:
    three = planned("etl", workers=3)
    assert decide(of("etl", three), standard, Account()).verdict is Verdict.ADMIT
    (group,) = three.groups
    four = replace(three, groups=(replace(group, count=4, maximum=4),))
    decision = decide(of("etl", four), standard, Account())
    assert (decision.verdict, decision.reason, decision.workers) == (Verdict.REFUSE, Reason.OVER_LIMIT, 3)
    assert isinstance(decision.error(), NeverFitsError)


def test_the_fourth_cluster_at_once_waits(planned: Planned, standard: Limits) -> None:
    one = planned("etl", workers=1)
    account, names = holding(("a", one), ("b", one))
    assert decide(of("c", one), standard, account).verdict is Verdict.ADMIT
    account, names = holding(("a", one), ("b", one), ("c", one))
    decision = decide(of("d", one), standard, account, names=names)
    assert decision.verdict is Verdict.WAIT
    assert decision.reason is Reason.WAITING_FOR_QUOTA
    assert {shortage.what for shortage in decision.shortages} == {"clusters", "memory"}


def test_a_refusal_names_limit_holders_source_and_three_ways_on(planned: Planned, standard: Limits) -> None:
    account, names = holding(("nightly", planned("etl", workers=1)), ("explore", planned("etl", workers=1)))
    decision = decide(
        of("etl-2", planned("etl", workers=2)),
        standard,
        account,
        names=names,
        idle={"id-nightly": 41 * 60.0, "id-explore": 5.0},
    )
    assert str(decision.error()) == (
        "etl-2 requests 28 GB of memory; you hold 28 GB of 42 GB (explore; nightly, idle 41 min): "
        "tier standard (policies/tiers.yaml:3)\n"
        "  Free what you hold:  shoal down nightly\n"
        "  Shrink it:           workers=1 fits now (--workers 1)\n"
        "  Wait for it:         queue=True (--queue)"
    )
    assert isinstance(decision.error(), QuotaExceededError)
    assert not isinstance(decision.error(), NeverFitsError)
    assert pickle.loads(pickle.dumps(decision.error())).values["shortages"] == decision.shortages


def test_what_is_to_be_freed_is_as_little_as_can_be(planned: Planned, standard: Limits) -> None:
    small, big = planned("etl", workers=1), planned("etl", workers=2)
    account, names = holding(("small", small), ("big", big))
    assert decide(of("new", small), standard, account, names=names).free == ("id-small",)
    assert decide(of("new", big), standard, account, names=names).free == ("id-big",)
    idle = {"id-small": 120.0, "id-big": 3600.0}
    assert decide(of("new", small), standard, account, names=names, idle=idle).free == ("id-big",)
    idle = {"id-small": 3600.0, "id-big": 120.0}
    assert decide(of("new", big), standard, account, names=names, idle=idle).free == ("id-big",)
    assert set(decide(of("new", planned("etl", workers=3)), standard, account).free) == {"id-small", "id-big"}


def test_asking_again_under_the_same_id_gives_the_same_answer(planned: Planned, standard: Limits) -> None:
    three = planned("etl", workers=3)
    account, _ = holding(("a", three))
    assert decide(of("a", three), standard, account).verdict is Verdict.ADMIT
    assert decide(of("b", three), standard, account).verdict is Verdict.WAIT


def test_a_team_may_be_full_while_the_user_is_not(planned: Planned, standard: Limits) -> None:
    limits = replace(
        standard, team="growth", team_totals={"memory": Limit(Bytes(42 * GB), "team growth (t:1)")}
    )
    theirs, names = holding(("theirs", planned("etl", workers=2)))
    decision = decide(of("mine", planned("etl", workers=2)), limits, Account(), theirs, names=names)
    assert decision.message == (
        "mine requests 28 GB of memory; team growth holds 28 GB of 42 GB (theirs): team growth (t:1)"
    )
    assert decision.free == ()  # it is not the user's to end
    assert "shoal down" not in decision.hint
    assert "workers=1 fits now" in decision.hint


def test_the_machine_may_be_full_while_quota_is_not(planned: Planned, standard: Limits) -> None:
    two = planned("etl", workers=2)  # 1 GB each and 1 GB for the head
    place = Capacity(Machine(cores=2, memory=Bytes(5 * GB)), Account({"id-other": real(two)}))
    decision = decide(of("mine", two), standard, Account(), capacity=place, names={"id-other": "other"})
    assert decision.reason is Reason.WAITING_FOR_CAPACITY
    assert decision.message.startswith("mine requests 3 GB of memory; the machine holds 3 GB of 5 GB (other)")
    assert isinstance(decision.error(), CapacityError)
    assert decision.workers == 1
    small = Capacity(Machine(memory=Bytes(2 * GB)))
    decision = decide(of("mine", two), standard, Account(), capacity=small)
    assert decision.verdict is Verdict.REFUSE
    assert "the machine has 2 GB of memory" in decision.message


def test_cores_are_shared_in_time_so_a_small_machine_still_works(planned: Planned, standard: Limits) -> None:
    place = Capacity(Machine(cores=1, memory=Bytes(8 * GB)))
    assert (
        decide(of("a", planned("etl", workers=3)), standard, Account(), capacity=place).verdict
        is Verdict.ADMIT
    )


def test_every_limit_in_the_way_is_said(planned: Planned, standard: Limits) -> None:
    limits = replace(
        standard,
        team="growth",
        totals={**standard.totals, "scratch": Limit(Bytes(150 * GB), "tier")},
        team_totals={"clusters": Limit(1, "team")},
    )
    account, _ = holding(("a", planned("etl", workers=1)))
    place = Capacity(Machine(memory=Bytes(4 * GB)), Account({"x": Amounts(memory=Bytes(3 * GB))}))
    decision = decide(of("b", planned("etl", workers=3)), limits, account, account, place)
    assert {(shortage.scope, shortage.what, shortage.never) for shortage in decision.shortages} == {
        ("you", "memory", False),
        ("you", "scratch", True),
        ("team growth", "clusters", False),
        ("the machine", "memory", False),
    }
    assert decision.verdict is Verdict.REFUSE  # 300 GB of scratch never fit 150 GB


def test_a_limit_lowered_below_what_runs_stops_only_what_needs_it(planned: Planned, standard: Limits) -> None:
    account, _ = holding(("a", planned("etl", workers=3)))
    lowered = replace(standard, totals={**standard.totals, "gpus": Limit(0, "tier")})
    lowered_account = account.with_("g", Amounts(clusters=1, gpus=2))
    decision = decide(of("b", planned("etl", workers=1)), lowered, lowered_account)
    assert {shortage.what for shortage in decision.shortages} == {"memory"}


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_admitted_never_exceeds_a_limit_and_a_refusal_is_always_right(
    shipped: Project, standard: Limits, data: st.DataObject
) -> None:
    team_memory = data.draw(st.integers(20, 100)) * GB
    limits = replace(standard, team="t", team_totals={"memory": Limit(Bytes(team_memory), "team")})
    machine = Machine(memory=Bytes(data.draw(st.integers(2, 20)) * GB))
    users = {name: Account() for name in "ab"}
    team, used = Account(), Account()
    for step in range(data.draw(st.integers(1, 15))):
        user = data.draw(st.sampled_from("ab"))
        if team.admitted and data.draw(st.booleans()):
            ended = data.draw(st.sampled_from(sorted(team.admitted)))
            team, used = team.without(ended), used.without(ended)
            users = {name: account.without(ended) for name, account in users.items()}
            continue
        asked = ask("etl", workers=data.draw(st.integers(1, 3)))
        settled = plan(asked, shipped.template("etl"), standard, shipped.target)
        request = Claim(f"c{step}", f"c{step}", settled)
        decision: Decision = decide(request, limits, users[user], team, Capacity(machine, used))
        after_user = users[user].with_(request.cluster, amounts(settled))
        after_team = team.with_(request.cluster, amounts(settled))
        after_used = used.with_(request.cluster, real(settled))
        fits = (
            after_user.held.memory <= 42 * GB
            and after_user.held.clusters <= 3
            and after_team.held.memory <= team_memory
            and after_used.held.memory <= (machine.memory or 0)
        )
        assert (decision.verdict is Verdict.ADMIT) == fits
        if decision.verdict is Verdict.ADMIT:
            users[user], team, used = after_user, after_team, after_used
        elif decision.free and decision.verdict is Verdict.WAIT:
            # Doing what the message says makes it fit.
            free = set(decision.free)

            def less(account: Account, gone: set[str] = free) -> Account:
                return Account({key: value for key, value in account.admitted.items() if key not in gone})

            again = decide(request, limits, less(users[user]), less(team), Capacity(machine, less(used)))
            assert again.verdict is Verdict.ADMIT


amounts_ = st.builds(
    Amounts,
    clusters=st.integers(0, 9),
    workers=st.integers(0, 99),
    cores=st.integers(0, 99),
    memory=st.integers(0, 10**13).map(Bytes),
    gpus=st.integers(0, 9),
    scratch=st.integers(0, 10**13).map(Bytes),
    heads=st.integers(0, 10**11).map(Bytes),
)


@given(st.dictionaries(st.text(min_size=1), amounts_, max_size=5), st.text(min_size=1), amounts_)
def test_an_account_is_a_sum_over_ids_and_steps_can_be_repeated(
    admitted: dict[str, Amounts], cluster: str, its: Amounts
) -> None:
    account = Account(admitted)
    once = account.with_(cluster, its)
    assert once.with_(cluster, its) == once
    assert once.held == account.without(cluster).held + its
    assert once.held - its == account.without(cluster).held
    assert once.without(cluster).without(cluster) == account.without(cluster)
    assert read(Amounts, plain(its)) == its


def test_what_runs_around_it_is_in_the_way_whatever_else_ends(planned: Planned, standard: Limits) -> None:
    one, three = planned("etl", workers=1), planned("etl", workers=3)
    shortage = beside(Claim("", "second", three), standard, {"first": one})[0]
    assert (shortage.what, shortage.never) == ("memory", False)
    assert "second requests 42 GB of memory; you hold 14 GB of 42 GB (etl-1)" in shortage.sentence(
        "second", {"first": "etl-1"}
    )
    assert beside(Claim("", "second", one), standard, {"first": one}) == ()
    assert beside(Claim("", "second", three), standard, {}) == ()
    small = Machine(memory=Bytes(int(real(one).memory * 1.5)))
    (shortage,) = beside(Claim("", "second", one), standard, {"first": one}, small)
    assert shortage.scope == "the machine"


def test_a_priority_above_the_limit_never_fits_and_one_below_does(planned: Planned) -> None:
    tier = Tier(
        concurrent_clusters=3,
        workers_per_cluster=3,
        memory=Bytes(42 * GB),
        max_duration=Seconds(14400),
        head=Bytes(8 * GB),
        max_priority=5,
    )
    team = Team(max_priority=2)
    policy = Policy({"t": tier}, {"u": User(tier="t", team="x"), "v": User(tier="t")}, {"x": team})
    plan = planned("etl", workers=1)
    strict, wide = policy.limits_of("u"), policy.limits_of("v")
    assert decide(Claim("1", "a", plan, 2), strict, Account()).verdict is Verdict.ADMIT
    refused = decide(Claim("1", "a", plan, 3), strict, Account())
    assert refused.verdict is Verdict.REFUSE
    assert "a requests priority 3; the limit is priority 2: team x" in refused.message
    assert decide(Claim("1", "a", plan, 5), wide, Account()).verdict is Verdict.ADMIT


def test_every_limited_resource_can_be_counted_compared_and_said(planned: Planned) -> None:
    assert {*TOTALS, *PER_CLUSTER, Resource.BUDGET} == set(Resource)
    numbered = Amounts(**{what.value: number for number, what in enumerate(TOTALS, start=1)})
    assert [numbered.of(what) for what in TOTALS] == [1, 2, 3, 4, 5]
    assert vector(numbered) == (1, 2, 3, 4, 5), "vectors are in the order of limits"
    need = Need.of(planned("etl"))
    assert all(need.per_cluster(what) >= 0 for what in PER_CLUSTER)
    assert all(written(what, 1) in said(what, 1) for what in Resource)
