"""Memory and CPU of processes, as the kernel counted them.

Why it exists: peaks decide the size of the next run, so they come from the kernel's high-water mark and
not from samples that miss them.

What it must not do: judge.
"""

from __future__ import annotations

from pathlib import Path

import psutil


def resident(pid: int) -> int:
    """Resident memory now, in bytes; 0 when the process is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def peak_resident(pid: int) -> int:
    """Largest resident memory of the process's life, in bytes (VmHWM of proc(5); else as of now)."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return resident(pid)


def cpu_seconds(pid: int) -> float:
    """User and system time of the process so far; 0 when it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0
