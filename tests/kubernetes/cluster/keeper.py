"""The one process that owns a running cluster, and takes it down: asked to, or when its owner dies.

It starts the programs phase by phase, each tied to its own life (PR_SET_PDEATHSIG), and watches the
owner. A node shape lives in process, network and mount namespaces of its own, whose first process is a
second copy of this module: when that ends, the kernel ends every process, mount and interface in them.
It must never touch a process, mount, interface or rule that is not its cluster's.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import psutil

from .plan import Plan, Process

START_SECONDS = 60.0
_POLL = 0.02
# Kubernetes is in Go. A fifth less of CPU for some hundred MB more (tests/kubernetes/test_home_behaviour.py).
_COLLECT_LESS = {"GOGC": "400"}
_PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """A program did not start or ended; the message names it."""


def write_state(folder: Path, **values: object) -> None:
    """Replaces state.json at once, so that readers never see half of it."""
    temporary = folder / f"state.{os.getpid()}"
    temporary.write_text(json.dumps(values))
    temporary.replace(folder / "state.json")


def _die_with_parent() -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Programs:
    """The programs of a plan, started in order."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        for phase in self._plan.phases:
            for process in phase:
                self._spawn(process)
            for process in phase:
                while not self._answers(process.ready):
                    self.check()
                    if time.monotonic() > deadline:
                        raise Failed(
                            f"{process.name} did not answer at {process.ready} in {START_SECONDS:.0f} s"
                        )
                    time.sleep(_POLL)

    def _spawn(self, process: Process) -> None:
        with (self._folder / "logs" / f"{process.name}.log").open("ab") as log:
            self.running[process.name] = subprocess.Popen(
                process.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder,
                env=_COLLECT_LESS | os.environ | process.environment, preexec_fn=_die_with_parent,
            )  # fmt: skip

    def check(self) -> None:
        """Raises Failed if one of them has ended; ends and starts again what is asked for (`clusters.restart`)."""
        for asked in (self._folder / "restarts").glob("[!.]*"):
            self._restart(asked)
        for name, process in self.running.items():
            if process.poll() is not None:
                raise Failed(f"{name} ended with {process.returncode}")

    def _restart(self, asked: Path) -> None:
        (again,) = [each for phase in self._plan.phases for each in phase if each.name == asked.name]
        before = self.running[again.name]
        before.kill()
        before.wait()
        time.sleep(float(asked.read_text()))
        self._spawn(again)
        asked.unlink()

    def kill(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
        for process in self.running.values():
            process.wait()

    def _answers(self, ready: str) -> bool:
        try:
            if ready.startswith("unix:"):
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(ready.removeprefix("unix:"))
            elif ready.startswith("tcp:"):
                _, host, port = ready.split(":")
                with socket.create_connection((host, int(port)), 1):
                    pass
            elif ready:
                context = ssl.create_default_context(cafile=str(self._folder / "pki" / "ca.crt"))
                with urllib.request.urlopen(ready, context=context, timeout=2) as answer:
                    return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False
        return True


class _Ended:
    """Set by SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self.yes = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._set)

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.yes = True


def _alive(owner: psutil.Process | None) -> bool:
    try:
        return owner is None or (owner.is_running() and owner.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def keep(folder: Path) -> None:
    """Runs the cluster of `folder` until SIGTERM or its owner's death; then nothing of it is left."""
    plan, ended = Plan.read(folder), _Ended()
    try:
        owner = psutil.Process(plan.owner) if plan.owner else None
    except psutil.NoSuchProcess:
        shutil.rmtree(folder, ignore_errors=True)
        return
    write_state(folder, phase="starting")

    def watch(step: Callable[[], None]) -> None:
        while not ended.yes and _alive(owner):
            step()
            time.sleep(0.2)

    programs, inner = Programs(plan, folder), None
    try:
        if plan.network is None:
            try:
                programs.start()
                write_state(folder, phase="up")
                watch(programs.check)
            except Failed as reason:
                write_state(folder, phase="failed", reason=str(reason))
                watch(lambda: None)
        else:
            inner = _namespaces(folder)
            _connect(plan, _first_process(inner))
            watch(lambda: None)
    finally:
        if inner is not None:
            inner.kill()  # unshare --kill-child: everything in the namespaces goes with it
            inner.wait()
        programs.kill()
        remove_traces(plan, folder)


def _namespaces(folder: Path) -> subprocess.Popen[bytes]:
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "logs" / "inside.log").open("ab") as log:
        return subprocess.Popen(
            [*command, sys.executable, "-m", "cluster.keeper", "--inside", str(folder)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent,
        )  # fmt: skip


def _first_process(unshare: subprocess.Popen[bytes]) -> int:
    """The pid, seen from here, of the first process in the new namespaces."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and unshare.poll() is None:
        children = psutil.Process(unshare.pid).children()
        if children:
            return int(children[0].pid)
        time.sleep(_POLL)
    raise Failed("unshare made no namespaces in 10 s")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _connect(plan: Plan, first: int) -> None:
    """A cable between this machine and the node, and routes to its pods and Services."""
    network = plan.network
    assert network is not None
    outside = network.interface
    _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", str(first))
    _ip("address", "add", f"{network.host}/24", "dev", outside)
    _ip("link", "set", outside, "up")
    for reached in (network.pods, network.services):
        # onlink: the other end comes up a moment later.
        _ip("route", "add", reached, "via", network.node, "dev", outside, "onlink")


def inside(folder: Path) -> None:
    """The first process of a node's namespaces: prepares them, starts the programs, reaps orphans."""
    plan, network = Plan.read(folder), Plan.read(folder).network
    assert network is not None
    programs = Programs(plan, folder)
    try:
        _private_files(plan, folder)
        _make_cgroups(plan.cgroup)
        _ip("link", "set", "lo", "up")
        deadline = time.monotonic() + 10
        while "eth0" not in (name for _, name in socket.if_nameindex()) and time.monotonic() < deadline:
            time.sleep(_POLL)
        _ip("address", "add", f"{network.node}/24", "dev", "eth0")
        _ip("link", "set", "eth0", "up")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        programs.start()
        write_state(folder, phase="up")
        while True:
            programs.check()
            _reap({process.pid for process in programs.running.values()})
            time.sleep(0.2)
    except (Failed, OSError, subprocess.CalledProcessError) as reason:
        write_state(folder, phase="failed", reason=str(reason))
        signal.pause()


def _reap(ours: set[int]) -> None:
    """Buries the orphans that a first process inherits, and leaves its own children to Popen."""
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_pid in ours:
            return
        os.waitpid(ended.si_pid, 0)


def _private_files(plan: Plan, folder: Path) -> None:
    def mount(*words: str) -> None:
        subprocess.run(["mount", *words], check=True, capture_output=True)

    for where, what in plan.mounts:
        if what == "tmpfs":
            mount("-t", "tmpfs", "shoal", where)
        else:
            source = folder / what
            source.mkdir(parents=True, exist_ok=True)
            Path(where).mkdir(parents=True, exist_ok=True)
            mount("--bind", str(source), where)
    for number, (file, value) in enumerate(plan.kernel_values.items()):
        if Path(file).exists():
            pretended = folder / f"kernel-{number}"
            pretended.write_text(value + "\n")
            mount("--bind", str(pretended), file)


def _make_cgroups(name: str) -> None:
    """One control group for all of the node's pods, in each hierarchy (version 1) or the only one."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        # The kubelet takes a root of its own only if it has all the controllers that the machine has.
        for controller in (root / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):  # one that this machine hands on to nobody
                (root / "cgroup.subtree_control").write_text(f"+{controller}")
        (root / name).mkdir(exist_ok=True)
        return
    for top in root.iterdir():
        if top.is_dir() and not top.is_symlink() and (top / "tasks").exists():
            (top / name).mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):  # empty ones let no process in
                if (top / file).exists():
                    (top / name / file).write_text((top / file).read_text())


def remove_traces(plan: Plan, folder: Path) -> None:
    """Removes what the kernel does not remove by itself; safe to repeat, also for one that was killed."""
    if plan.network is not None:
        subprocess.run(["ip", "link", "delete", plan.network.interface], capture_output=True, check=False)
        deadline = time.monotonic() + 10
        while not _remove_cgroups(plan.cgroup) and time.monotonic() < deadline:
            time.sleep(0.05)
    # The folder is what says that a cluster exists: it goes last.
    gone = folder.with_name(f".{folder.name}.gone")
    if folder.exists():
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _remove_cgroups(name: str) -> bool:
    """Removes the (empty) control groups of one cluster; False while one still has a dying process."""
    clean = True
    for top in [Path("/sys/fs/cgroup", name), *Path("/sys/fs/cgroup").glob(f"*/{name}")]:
        if not top.is_dir():
            continue
        for current, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(current)
            except OSError:
                clean = False
    return clean


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        inside(Path(sys.argv[2]))
    else:
        keep(Path(sys.argv[1]))
