"""The limits of one user, and where each comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shoal.errors import NotFoundError, UsageError
from shoal.project import loading as project
from shoal.project.loading import Project
from shoal.project.policy import Limits, Policy, Tier
from shoal.units import Bytes, Seconds

USERS = """\
default: {tier: standard}
alice: {tier: power, team: growth}
bob:
  tier: standard
  team: growth
  memory: 20 GB
  max_duration: 6 h
no: {tier: power}
"""
TEAMS = """\
growth: {memory: 140 GB, weight: 2, max_duration: 5 h, concurrent_clusters: 8}
"""


@pytest.fixture
def policy(folder: Callable[..., Path]) -> Policy:
    return project.load(folder(users=USERS, teams=TEAMS)).policy


def values(limits: Limits) -> dict[str, float]:
    return {what: limit.value for what, limit in {**limits.totals, **limits.per_cluster}.items()}


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        (
            "standard",
            {"clusters": 3, "workers": 3, "memory": 42e9, "duration": 12 * 3600, "head": 8e9, "gpus": 0},
        ),
        (
            "power",
            {"clusters": 5, "workers": 5, "memory": 70e9, "duration": 24 * 3600, "head": 16e9, "gpus": 2},
        ),
    ],
)
def test_the_shipped_tiers(shipped: Project, tier: str, expected: dict[str, float]) -> None:
    user = shipped.policy.default
    assert user is not None
    policy = Policy(shipped.policy.tiers, {"u": user.model_copy(update={"tier": tier})})
    assert values(policy.limits_of("u")) == expected


def test_somebody_not_named_has_the_default(policy: Policy) -> None:
    limits = policy.limits_of("zoe")
    assert (limits.user, limits.tier, limits.team, limits.weight) == ("zoe", "standard", None, 1.0)
    assert limits.team_totals == {}


def test_every_limit_says_where_it_comes_from(policy: Policy) -> None:
    limits = policy.limits_of("bob")
    assert limits.totals["memory"].value == Bytes.parse("20 GB")
    assert limits.totals["memory"].source == "user bob (policies/users.yaml:6)"
    assert limits.totals["clusters"].source == "tier standard (policies/tiers.yaml:3)"
    assert limits.team_totals["memory"].source == "team growth (policies/teams.yaml:1)"
    assert limits.weight == 2


def test_per_cluster_the_strictest_of_tier_and_team_counts_unless_the_user_says_otherwise(
    policy: Policy,
) -> None:
    alice, bob = policy.limits_of("alice"), policy.limits_of("bob")
    assert alice.per_cluster["duration"].value == Seconds.parse("5 h")  # power gives 8 h, the team 5 h
    assert alice.per_cluster["duration"].source.startswith("team growth")
    assert bob.per_cluster["duration"].value == Seconds.parse(
        "6 h"
    )  # standard 4 h, the team 5 h, bob's line 6 h
    assert bob.per_cluster["duration"].source.startswith("user bob")


def test_a_teams_totals_do_not_replace_a_users_own(policy: Policy) -> None:
    alice = policy.limits_of("alice")
    assert alice.totals["memory"].value == Bytes.parse("70 GB")
    assert {what: limit.value for what, limit in alice.team_totals.items()} == {
        "memory": 140e9,
        "clusters": 8,
    }


def test_a_user_called_no_is_not_the_boolean(policy: Policy) -> None:
    assert policy.limits_of("no").tier == "power"


def test_an_unknown_user_without_a_default_is_an_error() -> None:
    tier = Tier(
        concurrent_clusters=1,
        workers_per_cluster=1,
        memory=Bytes(10**9),
        max_duration=Seconds(60),
        head=Bytes(10**9),
    )
    with pytest.raises(NotFoundError, match="There is no user 'zoe', and no default for unknown users"):
        Policy({"t": tier}).limits_of("zoe")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x00", " zoe"])
def test_a_name_that_is_none_is_refused(policy: Policy, name: str) -> None:
    with pytest.raises(UsageError, match="is not a user name"):
        policy.limits_of(name)


@pytest.mark.parametrize(
    "name", ["zoë", "o'neil", "a.b@example.org", "'; drop table users; --", "日本", "a" * 300]
)
def test_odd_names_are_names(policy: Policy, name: str) -> None:
    assert policy.limits_of(name).user == name


def test_where_nobody_is_named_that_is_said() -> None:
    with pytest.raises(NotFoundError, match=r"to policies/users.yaml, which names nobody yet\.$"):
        Policy(tiers={}).user("ann")
