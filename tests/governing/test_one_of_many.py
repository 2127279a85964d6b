"""A defect that one cluster meets keeps nobody else waiting; what fails for all of them does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shoal.errors import InfrastructureError
from shoal.governor.rounds import Governor
from shoal.homes.base import Request
from shoal.homes.fake import PERIODS, FakeHome
from shoal.model.cluster import State
from shoal.project.policy import Policy


def test_a_defect_of_one_cluster_keeps_nobody_else_waiting(
    policy: Policy, asking: Callable[..., Request], caplog: pytest.LogCaptureFixture
) -> None:
    home = FakeHome(policy)
    first, second = (home.request(asking(name, owner)) for name, owner in (("one", "ann"), ("two", "cid")))
    start = home.start_head

    def broken(cluster_id: str) -> None:
        if cluster_id == first.id:
            raise KeyError("slot")
        start(cluster_id)

    home.start_head = broken  # type: ignore[method-assign]
    for _ in range(3):
        Governor(home, policy, PERIODS).round()
    assert home.get(first.id).state is State.ADMITTED
    assert home.heads.keys() == {second.id}
    assert "one of ann is looked at again" in caplog.text

    def away(cluster_id: str) -> None:
        raise InfrastructureError("the place is away")

    home.start_head = away  # type: ignore[method-assign]
    with pytest.raises(InfrastructureError, match="is away"):
        Governor(home, policy, PERIODS).round()
