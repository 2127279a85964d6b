"""A head that is told to end while it starts."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import pytest

from shoal.head.life import Head, _ToldToEnd
from shoal.homes.base import Wishes
from shoal.model.cluster import Reason, State


def test_a_start_is_left_when_the_record_says_so() -> None:
    """In a pod nobody signals the head: one whose workers found no node was killed a minute after it was to end."""
    life = Head.__new__(Head)
    life._wakes, life._wake = os.pipe()
    life._terminated, life._phase = False, State.STARTING
    answers = iter([Wishes(), Wishes(stop=Reason.STOPPED_BY_USER)])
    life._desk = SimpleNamespace(  # type: ignore[assignment]
        periods=SimpleNamespace(tick=0.01), wishes=lambda: next(answers)
    )
    before = signal.signal(signal.SIGTERM, life._on_signal)
    begin = time.monotonic()
    try:
        with pytest.raises(_ToldToEnd), life._listening():
            time.sleep(60)
        assert time.monotonic() - begin < 30
    finally:
        signal.signal(signal.SIGTERM, before)
        os.close(life._wakes)
        os.close(life._wake)
