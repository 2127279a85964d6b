"""A small world: two teams, four users, a place that is too small for all, plans without an engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shoal.homes.base import Request
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.project.policy import Policy, Team, Tier, User
from shoal.units import Bytes, Seconds

GB = 10**9


def small_plan(workers: int = 1, hours: float = 1.0, gpus: int = 0, least: int | None = None) -> Plan:
    """``workers`` of 10 GB and 1 core, or at ``least`` so many, with a head of 1 GB."""
    size = Size(1, Bytes(10 * GB))
    group = Group("default", min(least or workers, workers), workers, workers, size, size, gpus)
    timeouts = Timeouts(Seconds(1200), Seconds(120), Seconds(hours * 3600))
    return Plan("etl", Engine.DASK, "fake", Size(1, Bytes(GB)), (group,), timeouts)


def small_policy(memory: int = 50, team: int = 80) -> Policy:
    tier = Tier(
        concurrent_clusters=3,
        workers_per_cluster=4,
        memory=Bytes(memory * GB),
        gpus=1,
        max_duration=Seconds(4 * 3600),
        head=Bytes(2 * GB),
    )
    red = Team(memory=Bytes(team * GB), weight=2.0)
    users = {"ann": User(tier="t", team="red"), "bob": User(tier="t", team="red"), "cid": User(tier="t")}
    users["dan"] = User(tier="t", team="blue")
    return Policy({"t": tier}, users, {"red": red, "blue": Team(concurrent_clusters=2)})


def small_ask(
    name: str,
    owner: str = "ann",
    workers: int = 1,
    *,
    queue: bool = True,
    hours: float = 1.0,
    least: int | None = None,
) -> Request:
    plan = small_plan(workers, hours, least=least)
    return Request(name, owner, Workload("etl", workers=workers, queue=queue), plan)


@pytest.fixture
def asking() -> Callable[..., Request]:
    return small_ask


@pytest.fixture
def policy() -> Policy:
    return small_policy()
