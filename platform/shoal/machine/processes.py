"""Processes of this machine: who they are, whether they live, which carry a cluster's mark.

Why it exists: a pid alone is not an identity. It is reused, means nothing on another host, and nothing
after a reboot; so an identity is host + boot + pid + start, and only that is ever signalled. The start is
counted from the boot where the system says it so (Linux): a clock that jumps makes nobody seem gone.

What it must not do: decide who should live.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from shoal.machine import cgroups

MARK = "SHOAL_CLUSTER"  # every process of a cluster carries its id in this variable
LEDGER = "SHOAL_LEDGER"  # and the URL of the ledger that knows it in this one
AHEAD = "SHOAL_AHEAD"  # a head that was started before its decision: the pid of who decides
# What the environment of a process has to say from its first moment on if Dask's workers are its forks. These are
# Dask's own values (distributed.nanny.pre-spawn-environ, and the seed by which all its workers hash alike); one
# worker is one process with its own threads, under which libraries must not start more.
FORKS_WORKERS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "PYTHONHASHSEED": "6640",
}
_START_TOLERANCE = 2.0  # s; psutil derives the start from the boot time, which clock changes move


@cache
def boot_id() -> str:
    """The kernel's id of this boot; where there is none (macOS), the boot time."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"boot-{psutil.boot_time():.0f}"


def identity(pid: int | None = None) -> dict[str, Any]:
    """Identity of a live process (default: this one), as a record's ``head`` keeps it."""
    pid = os.getpid() if pid is None else pid
    known = {
        "host": socket.gethostname(),
        "boot": boot_id(),
        "pid": pid,
        "pid_start": psutil.Process(pid).create_time(),
    }
    seen = state_and_ticks(pid)
    return known if seen is None else known | {"pid_ticks": seen[1]}


def process_space() -> str:
    """Which processes this one can see: that others are not among them proves nothing. Empty where all see all."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def state_and_ticks(pid: int) -> tuple[str, int] | None:
    """The process's state, and its start in clock ticks after the boot (proc(5), fields 3 and 22).

    None where it is gone, or where there is no such file.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is the program's name, in which anything may be, a bracket included.
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_alive(head: Mapping[str, Any]) -> bool | None:
    """Whether the process of this identity lives. None: cannot be known from here (another host)."""
    if not head.get("pid") or head.get("host") != socket.gethostname():
        return None
    if head.get("boot") != boot_id():
        return False
    if "pid_ticks" in head:
        try:
            seen = state_and_ticks(int(head["pid"]))
        except OSError:
            return None
        return seen is not None and seen[1] == head["pid_ticks"] and seen[0] not in "ZX"
    try:
        process = psutil.Process(int(head["pid"]))
        same = abs(process.create_time() - float(head["pid_start"])) < _START_TOLERANCE
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return None


def is_stopped(head: Mapping[str, Any]) -> bool:
    """Whether exactly this process is stopped (SIGSTOP, Ctrl-Z, a debugger), as far as can be seen from here."""
    if not is_alive(head):
        return False
    try:
        return psutil.Process(int(head["pid"])).status() in (
            psutil.STATUS_STOPPED,
            psutil.STATUS_TRACING_STOP,
        )
    except psutil.Error:
        return False


def since(head: Mapping[str, Any], moment: float | None) -> float | None:
    """Seconds since a head's ``moment`` (``time.monotonic()`` there); None where that means nothing here.

    All processes of one boot share that clock. It neither jumps nor counts while the machine sleeps.
    """
    if moment is None or not is_alive(head):
        return None
    return time.monotonic() - moment


def of_another(head: Mapping[str, Any], ledger_path: str) -> str:
    """Where the ledger of this head is, if it is not the one at ``ledger_path``, which is then a copy; else "".

    A ledger that was moved is the same one: nothing is where it was.
    """
    theirs = str(head.get("ledger") or "")
    if not theirs or not ledger_path or theirs == ledger_path:
        return ""
    try:
        its, ours = os.stat(theirs), os.stat(ledger_path)
    except OSError:
        return ""
    return theirs if (its.st_dev, its.st_ino) != (ours.st_dev, ours.st_ino) else ""


def signal_process(head: Mapping[str, Any], number: signal.Signals) -> bool:
    """Send a signal to exactly this process. False: it is gone, or not on this host."""
    if not is_alive(head):
        return False
    try:
        psutil.Process(int(head["pid"])).send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def is_ahead(pid: int) -> bool:
    """Whether this process is a head whose request is being decided, by a process that lives."""
    try:
        process = psutil.Process(pid)
        return process.environ().get(AHEAD) == str(process.ppid())
    except (psutil.Error, OSError):
        return False


def marked(cluster_id: str, guard: int | None = None) -> list[int]:
    """Pids of all live processes that carry this cluster's mark, but this one.

    ``guard``: the cluster's guard, which is left out; with it also what descends from it without a mark.
    """
    every = all_marked()
    found = {pid for pid, cluster in every.items() if cluster == cluster_id}
    if guard is not None:
        others = {pid for pid, cluster in every.items() if cluster != cluster_id}
        found = (found | _below(guard, others)) - {guard}
    return sorted(found - {1})  # the first process of a pod, which ends with its head


def _below(ancestor: int, leave: set[int]) -> set[int]:
    """The live descendants of a process but this one, without those in ``leave`` and what is below them."""
    children: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            children.setdefault(process.ppid(), []).append(process)
    found, look = set(), [ancestor]
    while look:
        for child in children.get(look.pop(), []):
            if child.pid in leave:
                continue
            look.append(child.pid)
            with contextlib.suppress(psutil.Error):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.add(child.pid)
    return found - {os.getpid()}


def all_marked(ledger: str | None = None) -> dict[int, str]:
    """Pid -> cluster id of all live processes that carry a cluster's mark, but this one.

    ``ledger``: only those of the clusters that this ledger (its URL) knows. Reads the environment each process
    was started with, so children of user code are found as well; one that cleared it, by its cgroup. Processes of other
    users cannot be read and are not looked at.
    """
    found: dict[int, str] = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if cluster := environment.get(MARK):
                known_by = ledger is None or environment.get(LEDGER) == ledger
            elif (its := cgroups.of(process.pid)) is not None:
                cluster = its.cluster
                known_by = ledger is None or its == cgroups.member(cluster, ledger)
            if not cluster or not known_by:
                continue
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = cluster
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError):
            continue
    return found


def end_marked(cluster_id: str, grace: float = 3.0, guard: int | None = None) -> list[int]:
    """End what carries the mark: SIGTERM, then after ``grace`` seconds SIGKILL. Returns pids it met.

    ``guard``: as in :func:`marked`.
    """
    met: set[int] = set()
    deadline = time.monotonic() + grace
    number = signal.SIGTERM
    for _ in range(100):
        pids = marked(cluster_id, guard)
        if not pids:
            break
        if time.monotonic() > deadline:
            number = signal.SIGKILL
        for pid in pids:
            if pid in met and number is signal.SIGTERM:
                continue
            met.add(pid)
            try:
                os.kill(pid, signal.SIGKILL if _ignores_term(pid) else number)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(0.1)
    return sorted(met)


def _ignores_term(pid: int) -> bool:
    """Python's resource tracker, which each head has, ignores SIGTERM: a grace would only be waited out."""
    try:
        return any("multiprocessing.resource_tracker" in part for part in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends (Linux; else nothing).

    Only this holds when the parent is killed with -9 and this process is busy in native code.
    """
    _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of <linux/prctl.h>


def adopt_orphans() -> bool:
    """Ask the kernel to make this process the parent of its orphaned descendants. False where it cannot be."""
    return _prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
