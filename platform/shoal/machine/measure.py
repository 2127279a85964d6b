"""Memory and CPU of processes, as the kernel counted them.

Why it exists: peaks decide the size of the next run, so they come from the kernel's high-water mark and
not from samples that miss them.

What it must not do: judge.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from shoal.machine.processes import MARK


@dataclass(frozen=True)
class ProcessUsage:
    """One process: its parent, its state as in proc(5), when it started, and core-seconds so far.

    The children that it has waited for count in its core-seconds, so what a process used is not lost with it.
    """

    parent: int
    state: str
    start: float
    cpu: float


class Tree:
    """The live processes below ``root``, without those of another cluster that one of them started."""

    def __init__(self, cluster_id: str, root: int) -> None:
        self._cluster_id = cluster_id
        self._root = root
        self._foreign: dict[tuple[int, float], bool] = {}

    def look(self) -> dict[int, ProcessUsage]:
        """By pid. One pass over all processes of the machine."""
        every = _every()
        children: dict[int, list[int]] = {}
        for pid, usage in every.items():
            children.setdefault(usage.parent, []).append(pid)
        found: dict[int, ProcessUsage] = {}
        known, self._foreign = self._foreign, {}
        look = [self._root]
        while look:
            for pid in children.get(look.pop(), []):
                key = pid, every[pid].start
                foreign = self._foreign[key] = known[key] if key in known else self._is_foreign(pid)
                if not foreign and every[pid].state != "Z":
                    found[pid] = every[pid]
                    look.append(pid)
        return found

    def _is_foreign(self, pid: int) -> bool:
        return mark_of(pid) not in (None, self._cluster_id)


def mark_of(pid: int) -> str | None:
    """The id of the cluster whose mark this process carries; None: none, or it cannot be read."""
    try:
        return psutil.Process(pid).environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _every() -> Mapping[int, ProcessUsage]:
    if sys.platform != "linux":
        return _every_by_psutil()
    ticks, found = os.sysconf("SC_CLK_TCK"), {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The second field is the program's name, in which anything may be, a bracket included.
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            cpu = sum(map(int, fields[11:15])) / ticks
            found[int(name)] = ProcessUsage(int(fields[1]), fields[0].decode(), float(fields[19]), cpu)
    return found


def _every_by_psutil() -> Mapping[int, ProcessUsage]:
    found = {}
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                state = {psutil.STATUS_ZOMBIE: "Z", psutil.STATUS_STOPPED: "T"}.get(process.status(), "S")
                found[process.pid] = ProcessUsage(
                    process.ppid(), state, process.create_time(), sum(process.cpu_times()[:4])
                )
        except (psutil.Error, OSError):
            continue
    return found


def resident(pid: int) -> int:
    """Resident memory now, in bytes; 0 when the process is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def own_resident(pid: int) -> int:
    """Resident memory now that it shares with no file and no other process's (Linux), in bytes.

    What a fork has not changed yet is counted with it: the kernel tells that apart only at a high price.
    """
    try:
        info = psutil.Process(pid).memory_info()
        return int(info.rss - getattr(info, "shared", 0))
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


def threads(pid: int) -> list[str]:
    """The names of the process's threads, as far as the kernel keeps them (Linux: 15 letters; else none)."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/comm") as file:
                found.append(file.read().strip())
    except OSError:
        pass  # it ended meanwhile, or there is no such folder
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the process so far; 0 when it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def state(pid: int) -> str:
    """As in proc(5): ``T`` is stopped; empty when it is gone."""
    try:
        status = psutil.Process(pid).status()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
    return {psutil.STATUS_STOPPED: "T", psutil.STATUS_ZOMBIE: "Z"}.get(status, "S")
