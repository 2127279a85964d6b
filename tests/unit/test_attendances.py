"""Since when nobody waits for a cluster in the queue, told by Leases that change."""

from __future__ import annotations

from typing import Any

from shoal.homes.kubernetes.attending import Attendances
from shoal.homes.kubernetes.names import OF_CLUSTER
from shoal.homes.kubernetes.periods import KUBERNETES

LOOK = float(KUBERNETES.look)
WAITING = {"a": "shoal-alice"}


def lease(version: int, uid: str = "1", of: str = "a", namespace: str = "shoal-alice") -> dict[str, Any]:
    return {
        "metadata": {
            "uid": uid,
            "namespace": namespace,
            "resourceVersion": str(version),
            "labels": {OF_CLUSTER: of},
        },
        "spec": {"holderIdentity": f"process {uid}", "renewTime": "2001-01-01T00:00:00.000000Z"},
    }


class Looks:
    """Looks one after the other, ``LOOK`` seconds apart."""

    def __init__(self) -> None:
        self.attendances, self.now = Attendances(lambda: self.now), 1000.0

    def at(self, *leases: dict[str, Any], after: float = LOOK) -> tuple[float, str] | None:
        self.now += after
        pulse = self.attendances.pulses(WAITING, lambda: leases).get("a")
        return None if pulse is None or pulse.alone is None else (pulse.alone, pulse.last)


def test_alone_is_how_long_no_lease_changed() -> None:
    looks = Looks()
    assert looks.at() is None, "nobody ever said that they wait: nothing is known"
    assert looks.at(lease(1)) == (0, "process 1")
    assert looks.at(lease(1)) == (LOOK, "process 1")
    assert looks.at(lease(2), lease(1, "2")) == (0, "process 2")
    assert looks.at(lease(3), lease(1, "2")) == (0, "process 1"), "one of them is enough"
    assert looks.at(lease(1, "2")) == (LOOK, "process 1")
    assert looks.at() == (2 * LOOK, "process 1"), "one that was deleted is renewed no more"


def test_between_two_looks_time_goes_on_and_leases_are_not_read() -> None:
    looks = Looks()
    looks.at(lease(1))
    assert looks.at(lease(2), after=1.0) == (1.0, "process 1")


def test_a_governor_that_could_not_look_begins_again() -> None:
    """As one that was just started: whoever waits may not have been able to renew either."""
    looks = Looks()
    looks.at(lease(1))
    assert looks.at(lease(1), after=10 * LOOK) == (0, "process 1")
    assert looks.at(lease(1)) == (LOOK, "process 1")


def test_a_lease_of_another_namespace_says_nothing() -> None:
    looks = Looks()
    assert looks.at(lease(1, namespace="shoal-bob")) is None
    assert looks.at(lease(1, of="b")) is None
