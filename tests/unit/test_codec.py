"""Stored values are read by several threads at once, as a governor and whoever asks do in one process."""

from __future__ import annotations

import subprocess
import sys

READ = """
import sys, threading
from dataclasses import field, make_dataclass
from shoal.model.codec import read

sys.setswitchinterval(1e-6)
for number in range(60):
    inner = make_dataclass(f"Inner{number}", [(f"f{each}", int, field(default=0)) for each in range(20)])
    kind = make_dataclass(f"Kind{number}", [(f"f{each}", inner | None, field(default=None)) for each in range(20)])
    together = threading.Barrier(4)
    found = []

    def one():
        together.wait()
        found.append(read(kind, {"f0": {"f0": 7}}).f0.f0)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert found == [7] * 4, found
"""


def test_a_type_that_several_threads_read_for_the_first_time_ends_no_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:] or f"ended by signal {-done.returncode}"
