"""A cluster leaves nothing: ended by us, by the death of who asked for it, or by that of its keeper."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from cluster import clusters, fixtures, needs, paths, waiting
from cluster.clusters import Cluster
from cluster.errors import ClusterError, Unavailable

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]
_FOLDERS = ("/run", "/var/log", "/var/lib", "/etc", "/opt", "/usr/libexec")
_SYSCTLS = ("vm.overcommit_memory", "kernel.panic", "kernel.panic_on_oops", "net.ipv4.ip_forward")
Trace = set[tuple[str, str]]


def _lines(*command: str) -> list[str]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    )
    return done.stdout.splitlines()


def _traces(name: str) -> Trace:
    """All that a cluster could leave here; of what others also change, only what bears its name."""
    found: Trace = set()
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if f"{paths.runs() / name}" in line or f"/containerd/{name}" in line:
            found.add(("process", f"{process.pid} {line[:200]}"))
    found |= {("mount", line) for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    if os.geteuid() == 0:
        found |= {("interface", line.split(":")[1]) for line in _lines("ip", "-oneline", "link")}
        found |= {("route", line) for line in _lines("ip", "route", "show", "table", "all") if "10.9" in line}
        found |= {("rule", line) for line in _lines("iptables-save") if not line.startswith(("#", ":"))}
    found |= {("cgroup", str(each)) for each in Path("/sys/fs/cgroup").rglob(f"*{name}*")}
    found |= {("sysctl", f"{key}={_sysctl(key)}") for key in _SYSCTLS}
    for folder in _FOLDERS:
        found |= {("file", str(each)) for each in Path(folder).glob("*")}
    found |= {
        ("file", str(each)) for each in paths.runs().glob("*") if each.name.startswith((name, f".{name}"))
    }
    found |= {("file", str(each)) for each in Path("/tmp").glob(f"*{name}*")}
    return found


def _left(name: str, before: Trace, during: Trace) -> Trace:
    """What came with the cluster and is still there; what others start meanwhile is not ours to judge."""
    return (_traces(name) & during) - before


def _sysctl(key: str) -> str:
    return Path("/proc/sys", key.replace(".", "/")).read_text().strip()


@pytest.fixture(scope="module")
def shape() -> str:
    """What has most to leave, of what can run here: a node has containers, mounts, interfaces, rules."""
    try:
        needs.check("node")
        return "node"
    except Unavailable:
        try:
            needs.check("fleet")
        except Unavailable as reason:
            fixtures.unavailable(str(reason))
    return "fleet"


def _pod(cluster: Cluster) -> None:
    """Makes a pod, so that a node has containers, mounts and interfaces."""
    if cluster.shape == "node":
        clusters.load(cluster, fixtures.tools_archive())
    container = {"name": "main", "image": fixtures.TOOLS_IMAGE, "imagePullPolicy": "IfNotPresent"}
    item = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container]}}
    admin = cluster.admin
    admin.create(item)
    path = "/api/v1/namespaces/default/pods/x"
    waiting.until(
        "the pod runs", lambda: admin.get(path)["status"].get("phase"), lambda p: p == "Running", 60
    )
    admin.close()


def test_stop_leaves_nothing(shape: str) -> None:
    name = f"clean-{shape}-stop"
    before = _traces(name)
    cluster = clusters.start(shape, name, owner=os.getpid(), nodes=2)
    _pod(cluster)
    during = _traces(name)
    kinds = {"process", "file"} | ({"interface", "route", "cgroup"} if shape == "node" else set())
    assert kinds <= {kind for kind, _ in during - before}  # else the comparison below would prove nothing
    clusters.stop(name)
    assert _left(name, before, during) == set()
    lasting = {trace for trace in before if trace[0] in ("rule", "sysctl", "mount", "route")}
    assert lasting - _traces(name) == set()  # nor is anything gone that was there


_ASKER = """
import os, sys, time
from cluster import clusters
clusters.start(sys.argv[1], sys.argv[2], owner=os.getpid(), nodes=2)
print("up", flush=True)
time.sleep(600)
"""


def _dies(shape: str, name: str, kill: Callable[[int], None]) -> Trace:
    """Starts a cluster for a process of its own, and kills; returns what was there while it ran."""
    environment = {**os.environ, "PYTHONPATH": str(paths.HERE.parent)}
    command = [sys.executable, "-c", textwrap.dedent(_ASKER), shape, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as asker:
        assert asker.stdout is not None
        assert asker.stdout.readline() == "up\n"
        _pod(clusters.find(name))
        during = _traces(name)
        kill(asker.pid)
        asker.kill()
    return during


@pytest.mark.soak
def test_the_death_of_who_asked_leaves_nothing(shape: str) -> None:
    name = f"clean-{shape}-death"
    before = _traces(name)
    during = _dies(shape, name, lambda asker: os.kill(asker, signal.SIGKILL))
    waiting.until("nothing is left", lambda: _left(name, before, during), lambda left: not left, 20)


@pytest.mark.soak
def test_a_killed_keeper_takes_its_programs_along_and_the_next_sweep_the_rest(shape: str) -> None:
    name = f"clean-{shape}-killed"
    before = _traces(name)

    def kill_keeper(asker: int) -> None:
        os.kill(int((paths.runs() / name / "keeper.pid").read_text()), signal.SIGKILL)

    during = _dies(shape, name, kill_keeper)

    def processes() -> Trace:
        left = _left(name, before, during)
        return {trace for trace in left if trace[0] in ("process", "interface", "mount")}

    waiting.until("no process is left", processes, lambda left: not left, 20)
    assert name in clusters.sweep()
    assert _left(name, before, during) == set()


def test_a_program_that_fails_is_said_and_nothing_stays(
    shape: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = f"clean-{shape}-fails"
    before = _traces(name)
    broken = tmp_path / "etcd"
    broken.write_text("#!/bin/sh\necho the disk is full >&2\nexit 9\n")
    broken.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(ClusterError, match=r"(?s)etcd ended with 9.*the disk is full"):
        clusters.start(shape, name, owner=os.getpid(), nodes=2)
    assert {left for left in _traces(name) - before if left[0] in ("process", "cgroup", "rule")} == set()
    assert not (paths.runs() / name).exists()


def test_what_is_missing_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "where", lambda program: program if program not in ("runc", "ptp") else None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable) as said:
        needs.check("node")
    text = str(said.value)
    assert "root:" in text
    assert "sudo apt-get install --no-install-recommends containernetworking-plugins runc" in text
    assert "SHOAL_TEST_KUBECONFIG" in text


def test_on_macos_the_way_with_a_cluster_of_one_s_own_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    for shape in ("node", "images"):
        with pytest.raises(Unavailable) as said:
            needs.check(shape)
        assert "this is darwin, which has no kubelet" in str(said.value)
        assert "apt-get" not in str(said.value)
        assert "SHOAL_TEST_KUBECONFIG" in str(said.value)
