"""Clocks that are an hour off: times in objects are the API server's, whoever writes them."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from cryptography import x509

from shoal.homes.kubernetes.clock import OFF, ServerClock
from shoal.machine.certificate import make_certificate

HOUR = 3600.0


@pytest.mark.parametrize("off", [-HOUR, HOUR])
def test_a_clock_that_is_off_is_corrected_and_so_is_a_correction(off: float) -> None:
    now = 1_000_000.0
    clock = ServerClock(lambda: now + off)
    assert clock.now() == now + off, "it has heard nothing yet"
    for _ in range(10):
        clock.heard(formatdate(now, usegmt=True))
        assert abs(clock.now() - now) <= OFF
        now += 0.3
    first = clock.now()
    clock.heard(formatdate(now, usegmt=True))
    assert clock.now() == first, "whole seconds make it neither jump nor go back"
    off = 0.0  # somebody sets it right
    clock.heard(formatdate(now, usegmt=True))
    assert clock.now() == now


def test_a_clock_that_is_right_is_taken_as_it_is() -> None:
    clock = ServerClock(lambda: 1_000_000.7)
    for date in (None, "", "yesterday", formatdate(1_000_000, usegmt=True), formatdate(999_999, usegmt=True)):
        clock.heard(date)
        assert clock.now() == 1_000_000.7


def test_a_client_whose_clock_is_an_hour_behind_takes_a_clusters_certificate() -> None:
    found = x509.load_pem_x509_certificate(make_certificate("u.shoal.internal")[0].encode())
    assert found.not_valid_before_utc.timestamp() < time.time() - 2 * HOUR
