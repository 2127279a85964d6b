"""Starts, finds and ends test clusters: the only module that callers need.

It waits until a cluster is usable before it hands it out, and cleans up after keepers that were killed.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from . import binaries, control_plane, fleet, keeper, needs, node, paths, waiting
from .api import Api
from .errors import ClusterError
from .plan import Network, Plan

START_SECONDS = 90.0


@dataclass(frozen=True)
class Cluster:
    """A running cluster. folder: its files, None for one that existed before us."""

    name: str
    shape: str
    kubeconfig: Path
    folder: Path | None = None
    network: Network | None = None

    @property
    def admin(self) -> Api:
        return Api.from_kubeconfig(self.kubeconfig)

    def user(self, name: str) -> Api:
        """`alice` or `bob`, who have no rights but what a test gives them."""
        if self.folder is None:
            return self.admin.impersonating(name, control_plane.USERS[name])
        return Api.from_kubeconfig(self.folder / "kubeconfigs" / name)

    def kubeconfig_of(self, name: str) -> Path:
        if self.folder is None:
            raise ClusterError(f"cluster {self.name} was not made here: there is no kubeconfig of {name}")
        return self.folder / "kubeconfigs" / name

    def kubectl(self, *words: str) -> list[str]:
        """The command line of kubectl as admin."""
        program = binaries.ensure(["kubectl"])["kubectl"]
        return [str(program), f"--kubeconfig={self.kubeconfig}", *words]

    def enter(self, *command: str) -> list[str]:
        """A command line that runs `command` inside the node's namespaces."""
        if self.folder is None or self.network is None:
            raise ClusterError(f"cluster {self.name} ({self.shape}) has no node of ours to enter")
        first = _first_inside(self.folder)
        return ["nsenter", f"--target={first}", "--net", "--mount", "--pid", "--", *command]


def _first_inside(folder: Path) -> int:
    """The first process of the node's namespaces: the child of the unshare that is the keeper's child."""
    for unshare in psutil.Process(_keeper_pid(folder)).children():
        for first in unshare.children():
            return int(first.pid)
    raise ClusterError(f"no node runs for {folder.name}: see `make kube-status`")


def _keeper_pid(folder: Path) -> int:
    return int((folder / "keeper.pid").read_text())


def start(
    shape: str, name: str = "", owner: int | None = None, nodes: int = 20, audit: bool = False
) -> Cluster:
    """Starts a cluster and returns when pods can be made on it.

    shape: "node" or "fleet"; name: of one's choice, else made up; owner: the process whose death ends it,
    None for one that stays until `stop`; nodes: simulated nodes of a fleet; audit: log every change.
    Raises Unavailable where the machine lacks something, ClusterError with logs when a program fails.
    """
    needs.check(shape)
    programs = binaries.ensure(binaries.OF_SHAPE[shape])
    name = name or f"{shape}-{secrets.token_hex(3)}"
    with binaries.locked(paths.runs() / ".lock"):
        _sweep()
        folder = paths.runs() / name
        if folder.exists():
            raise ClusterError(f"a cluster named {name} exists: `make kube-down NAME={name}` ends it")
        folder.mkdir(parents=True, mode=0o700)
        (folder / "logs").mkdir()
        try:
            if shape == "fleet":
                plan = fleet.plan(name, folder, programs, owner, audit)
            else:
                plan = node.plan(name, folder, programs, owner, audit, _free_network())
            plan.write(folder)
            _keep(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    cluster = Cluster(name, shape, folder / "kubeconfigs" / "admin", folder, plan.network)
    try:
        waiting.until(
            f"cluster {name} is up", lambda: _phase(folder), lambda p: p == "up", START_SECONDS, 0.02
        )
        _settle(cluster, nodes)
    except BaseException as reason:
        logs = _tails(folder)
        stop(name)
        if isinstance(reason, Exception):
            raise ClusterError(f"cluster {name} did not start: {reason}\n{logs}") from reason
        raise
    return cluster


def _keep(folder: Path) -> None:
    """Starts the keeper, out of reach of this terminal's signals."""
    environment = {**os.environ, "PYTHONPATH": str(paths.HERE.parent)}
    with (folder / "logs" / "keeper.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.keeper", str(folder)], cwd=folder.parent, env=environment,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    (folder / "keeper.pid").write_text(str(process.pid))
    _children[process.pid] = process
    # The lock is held until then: a sweep by somebody else must not take a cluster for a dead one.
    state = folder / "state.json"
    waiting.until(
        "the keeper runs", lambda: state.exists() or process.poll() is not None, seconds=20, every=0.02
    )


# Keepers that this very process started: to be buried when they end.
_children: dict[int, subprocess.Popen[bytes]] = {}


def _settle(cluster: Cluster, nodes: int) -> None:
    """Waits for what the first pod needs: nodes, the default service account, and, with a kubelet, names."""
    admin = cluster.admin
    if cluster.shape == "fleet":
        for each in fleet.nodes(nodes):
            admin.create(each)
    else:
        for each in node.objects():
            admin.apply(each)
        load(cluster, pause_archive())

    def ready() -> int:
        if cluster.folder is not None:
            _phase(cluster.folder)  # raises if a program has ended meanwhile
        conditions = [n["status"].get("conditions", []) for n in admin.items("/api/v1/nodes")]
        return sum(any(c["type"] == "Ready" and c["status"] == "True" for c in each) for each in conditions)

    expected = nodes if cluster.shape == "fleet" else 1
    waiting.until(f"{expected} nodes are Ready", ready, lambda n: n >= expected, START_SECONDS)
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    waiting.until("the default service account", lambda: admin.items(accounts), seconds=START_SECONDS)
    admin.close()


def _phase(folder: Path) -> str:
    """starting, up; raises ClusterError for failed or gone."""
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except FileNotFoundError:
        if not _keeper_lives(folder):
            raise ClusterError("its keeper ended at once") from None
        return "starting"
    if state["phase"] == "failed":
        raise ClusterError(state["reason"])
    return str(state["phase"])


def _keeper_lives(folder: Path) -> bool:
    try:
        pid = _keeper_pid(folder)
        if pid in _children:
            return _children[pid].poll() is None
        keeper_process = psutil.Process(pid)
        # Pids are used again: it is ours only if it was started for this folder.
        return str(folder) in keeper_process.cmdline() and keeper_process.status() != psutil.STATUS_ZOMBIE
    except (FileNotFoundError, psutil.NoSuchProcess, ValueError):
        return False


def _tails(folder: Path, lines: int = 12) -> str:
    found = []
    for log in sorted((folder / "logs").glob("*.log")):
        tail = log.read_text(errors="replace").strip().splitlines()[-lines:]
        if tail:
            found.append(f"--- {log.name}\n" + "\n".join(line[:400] for line in tail))
    return "\n".join(found)


def running() -> list[tuple[str, str, int | None]]:
    """Name, shape and owner of each cluster whose keeper lives."""
    folders = sorted(paths.runs().glob("[!.]*")) if paths.runs().exists() else []
    plans = [
        Plan.read(folder) for folder in folders if (folder / "plan.json").exists() and _keeper_lives(folder)
    ]
    return [(plan.name, plan.shape, plan.owner) for plan in plans]


def find(name: str) -> Cluster:
    folder = paths.runs() / name
    if not _keeper_lives(folder):
        raise ClusterError(
            f"no cluster named {name} runs here; running: {[n for n, _, _ in running()] or 'none'}"
        )
    plan = Plan.read(folder)
    return Cluster(name, plan.shape, folder / "kubeconfigs" / "admin", folder, plan.network)


def stop(name: str, seconds: float = 30.0) -> None:
    """Ends a cluster; when this returns nothing of it is left. No cluster of that name: nothing to do."""
    folder = paths.runs() / name
    if _keeper_lives(folder):
        pid = _keeper_pid(folder)
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while _keeper_lives(folder):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.02)
        if pid in _children:
            _children.pop(pid).wait()
    sweep()


def restart(cluster: Cluster, program: str, away: float = 0.0, seconds: float = 60.0) -> None:
    """Kills a program of a cluster of ours ("kube-apiserver", "etcd") and starts it again `away` seconds later.

    Returns when it was started; it may take a moment more until it answers.
    """
    assert cluster.folder is not None
    folder = cluster.folder / "restarts"
    folder.mkdir(exist_ok=True)
    asked = folder / f".{program}"
    asked.write_text(str(away))
    asked = asked.rename(folder / program)
    deadline = time.monotonic() + seconds
    while asked.exists():
        if time.monotonic() > deadline or not _keeper_lives(cluster.folder):
            raise ClusterError(f"{program} of {cluster.name} was not started again")
        time.sleep(0.05)


def sweep() -> list[str]:
    """Removes what is left of clusters whose keeper was killed; returns their names."""
    with binaries.locked(paths.runs() / ".lock"):
        return _sweep()


def _sweep() -> list[str]:
    swept = []
    for folder in paths.runs().glob("*"):
        if not folder.is_dir() or _keeper_lives(folder):
            continue
        _end_programs(folder)
        if (folder / "plan.json").exists() and not folder.name.startswith("."):
            keeper.remove_traces(Plan.read(folder), folder)
            swept.append(folder.name)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return swept


def _end_programs(folder: Path) -> None:
    """Programs of a killed keeper: on Linux they died with it, elsewhere nothing ties them to it."""
    for process in psutil.process_iter(["cmdline"]):
        if any(f"{folder}/" in word for word in process.info["cmdline"] or [] if word.startswith(("-", "/"))):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _free_network() -> Network:
    """Three networks that neither this machine's routes nor another cluster use."""
    answer = subprocess.run(
        ["ip", "-json", "route", "show", "table", "all"], capture_output=True, text=True, check=True
    )
    routes = [route["dst"] for route in json.loads(answer.stdout) if route.get("dst", "default") != "default"]
    taken = [ipaddress.ip_network(route, strict=False) for route in routes if ":" not in route]
    taken += [
        ipaddress.ip_network(used)
        for file in paths.runs().glob("*/plan.json")
        if (found := Plan.read(file.parent).network) is not None
        for used in (found.nodes, found.pods, found.services)
    ]
    for index in range(1, 255):
        network = Network(index)
        ours = [ipaddress.ip_network(each) for each in (network.nodes, network.pods, network.services)]
        if not any(mine.overlaps(theirs) for mine in ours for theirs in taken if theirs.prefixlen):
            return network
    raise ClusterError("no free network: 10.98.N.0/24, 10.97.N.0/24 and 10.244.N.0/24 are taken for all N")


def load(cluster: Cluster, archive: Path) -> None:
    """Imports an image archive (docker or OCI) into the node."""
    command = cluster.enter(str(needs.where("ctr")), "--namespace=k8s.io", "images", "import", "-")
    with archive.open("rb") as content:
        done = subprocess.run(command, stdin=content, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{archive} could not be loaded into {cluster.name}: {done.stderr.strip()}")


def pause_archive() -> Path:
    """The image of every pod's first process, made of one program of ours."""
    from . import archives

    program = binaries.ensure(["pause"])["pause"]
    return archives.single(node.SANDBOX_IMAGE, {"pause": program}, ["/pause"], paths.images() / "pause.tar")
