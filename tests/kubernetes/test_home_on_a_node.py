"""Home ``kubernetes`` on a real kubelet: a person's clusters in pods, with the rights that they have and no more."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster.clusters import Cluster as Kubernetes

import shoal
from shoal.client.clusters import open_project
from shoal.errors import ClusterEndedError, InfrastructureError, NotFoundError
from shoal.homes.choose import open_home
from shoal.homes.kubernetes import tunnel
from shoal.homes.kubernetes.errors import RightsError
from shoal.homes.kubernetes.names import CLUSTER, POD, SECRET, STATUS_PORT
from shoal.model.cluster import Reason, State

from .installing import put_project
from .on_a_node import World, governed, listening, world

__all__ = ["governed", "world"]  # fixtures
pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # The image has Debian's Python 3.11; the patch of the one that runs the tests may differ.
]
Eventually = Callable[..., Any]


def test_a_cluster_in_pods_computes_grows_shrinks_and_leaves_nothing(
    world: World, eventually: Eventually
) -> None:
    before = listening()
    with shoal.dask("small", workers=1, name="nightly", project=world.project, quiet=True) as cluster:
        client = cluster.client
        assert client.submit(sum, [1, 2]).result(60) == 3
        assert client.gather(client.map(lambda n: n * n, range(50))) == [n * n for n in range(50)]
        where = client.run(lambda: __import__("socket").gethostname())
        assert set(where.values()) == {"nightly-w-0"}
        cluster.scale(2)
        assert len(client.scheduler_info()["workers"]) == 2
        names = {pod["metadata"]["name"] for pod in world.admin.list(POD.path(world.namespace))[0]}
        assert names == {"nightly-head", "nightly-w-0", "nightly-w-1"}
        status = cluster._home.status(cluster.id, 10)
        assert status is not None
        assert (status.phase, status.workers, status.clients) == ("Ready", 2, 1)
        cluster.scale(1)
        eventually(lambda: len(world.admin.list(POD.path(world.namespace))[0]) == 2, 60, "one pod is gone")
        assert client.submit(sum, [2, 3]).result(60) == 5, "the one that stays computes"
        assert "nightly-head | " in cluster.logs()
        assert listening() > before, "it is reached through tunnels"
    assert (cluster.record.state, cluster.record.reason) == (State.STOPPED, Reason.STOPPED_BY_USER)
    assert cluster.report().worker_hours > 0
    assert cluster.report().phases["Stopping"] < 8, (
        "nothing was waited for that never ends: such a wait there takes ten seconds"
    )
    assert world.left() == []
    eventually(lambda: listening() <= before, 30, "its tunnels went with it")


def test_groups_compute_with_the_folders_and_secrets_of_their_template(world: World, tmp_path: Path) -> None:
    shared, path = tmp_path / "shared", f"/api/v1/namespaces/{world.namespace}"
    shared.mkdir()
    shared.chmod(0o777)
    volume = f"shared-{world.namespace}"
    claim: dict[str, Any] = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "",
    }
    many = {"accessModes": claim["accessModes"], "capacity": {"storage": "1Gi"}, "storageClassName": ""}
    of = {"claimRef": {"namespace": world.namespace, "name": "shared"}, "hostPath": {"path": str(shared)}}
    for where, kind, name, more in (
        ("/api/v1/persistentvolumes", "PersistentVolume", volume, {"spec": many | of}),
        (f"{path}/persistentvolumeclaims", "PersistentVolumeClaim", "shared", {"spec": claim}),
        (f"{path}/secrets", "Secret", "tokens", {"stringData": {"API_TOKEN": "of alice"}}),
    ):
        world.admin.create(where, {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **more})
    template = world.project / "clusters" / "mixed.yaml"
    template.write_text(
        """
        workers:
          - {name: cpu, min: 1, max: 1, cores: 1, memory: 600 MB}
          - {name: large, min: 1, max: 1, cores: 1, memory: 700 MB}
        head: {cores: 1, memory: 700 MB}
        mounts: [shared]
        secrets: [tokens]
        """
    )
    file = world.project / "shoal.yaml"
    text = file.read_text()
    file.write_text(f"{text}\nmounts:\n  shared: {{path: /shared, claim: shared, read_only: false}}\n")
    put_project(world.admin, world.project, world.system)

    def look(name: str) -> tuple[str, ...]:
        Path("/shared", name).write_text("seen")
        return (name, *(os.environ[each] for each in ("SHOAL_WORKER_NAME", "PLACE", "API_TOKEN")))

    try:
        with shoal.dask("mixed", name="mixed", project=world.project, quiet=True) as cluster:
            asked = [cluster.client.submit(look, name, resources={name: 1}) for name in ("cpu", "large")]
            told = [each.result(120) for each in asked]
            assert sorted(told) == [
                ("cpu", "mixed-w-0", "node", "of alice"),
                ("large", "mixed-w-1", "node", "of alice"),
            ]
            pods = world.admin.list(POD.path(world.namespace))[0]
            assert {each["metadata"]["annotations"]["example.com/place"] for each in pods} == {"node"}
            assert "API_TOKEN" not in json.dumps(pods)
        assert {each.name for each in shared.iterdir()} == {"cpu", "large"}
    finally:
        file.write_text(text)
        template.unlink()
        put_project(world.admin, world.project, world.system)
        for name in (f"{path}/persistentvolumeclaims/shared", f"{path}/secrets/tokens"):
            world.admin.delete(name)
        world.admin.delete(f"/api/v1/persistentvolumes/{volume}")


def test_the_record_is_an_object_that_kubectl_shows_and_scales(
    world: World, kube_node: Kubernetes, eventually: Eventually
) -> None:
    def kubectl(*words: str) -> str:
        line = [kube_node.kubectl()[0], f"--kubeconfig={kube_node.kubeconfig_of('alice')}"]
        line += [f"--namespace={world.namespace}", *words]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    request = {
        "apiVersion": "shoal.dev/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": "by-hand", "namespace": world.namespace},
        "spec": {"workload": {"template": "small", "engine": "dask", "workers": 1, "queue": True}},
    }
    file = Path("request.yaml")
    file.write_text(json.dumps(request))
    kubectl("apply", "-f", str(file))
    kubectl("wait", "--for=condition=Ready", "shoalclusters/by-hand", "--timeout=120s")
    header, *rows = kubectl("get", "shc").splitlines()
    assert header.split() == ["NAME", "ENGINE", "STATE", "REASON", "WORKERS", "AGE", "PRICE"]
    (row,) = (row for row in rows if row.startswith("by-hand "))
    assert row.split()[:5] == ["by-hand", "dask", "Ready", "Serving", "1"]
    attached = shoal.connect("by-hand", project=world.project)
    assert attached.client.submit(sum, [4, 4]).result(60) == 8
    kubectl("scale", "shc/by-hand", "--replicas=2")
    eventually(lambda: attached.record.workers == 2, 60, "two workers")
    attached.close()
    kubectl("delete", "shc/by-hand", "--wait=true")
    eventually(lambda: world.left() == [], 60, "nothing is left of it")


def test_a_head_that_is_killed_is_noticed_and_told(world: World, eventually: Eventually) -> None:
    cluster = shoal.up("small", engine="dask", workers=1, name="lost", project=world.project, quiet=True)
    # A tunnel that nobody ends: of a process that has not heard of the end.
    port = tunnel.local_port(None, world.namespace, "lost-head", "unheard", STATUS_PORT)
    with pytest.raises((OSError, ClusterEndedError)):
        cluster.client.run_on_scheduler(lambda: __import__("os")._exit(3))
    eventually(lambda: cluster.record.state.ended, 60, "its end is recorded")
    assert cluster.record.state is State.FAILED
    with pytest.raises(ClusterEndedError, match=r"exited unexpectedly.*exit code 3"):
        cluster.raise_if_ended()
    assert "lost-head | " in cluster.logs(), "its last lines are in its record"
    cluster.close()
    eventually(lambda: world.left() == [], 60, "its pods are gone")
    with socket.create_connection(("127.0.0.1", port), 30) as late:
        assert late.recv(1) == b"", "it leads nowhere, and says so"
    tunnel.close("unheard")
    eventually(lambda: port not in listening(), 30, "it is closed")
    with pytest.raises(InfrastructureError, match="no tunnel to pod lost-head"):
        tunnel.local_port(None, world.namespace, "lost-head", "unheard", STATUS_PORT)


def test_what_makes_no_sense_is_refused_with_the_reason_in_its_record(
    world: World, eventually: Eventually
) -> None:
    home = open_home(open_project(world.project))
    request = {
        "apiVersion": "shoal.dev/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": "unknown", "namespace": world.namespace},
        "spec": {"workload": {"template": "nowhere"}},
    }
    world.alice.create(CLUSTER.path(world.namespace), request)
    eventually(lambda: home.find("unknown", "alice").state is State.REFUSED, 20, "it is refused")  # type: ignore[union-attr]
    found = home.find("unknown", "alice")
    assert found is not None
    assert "nowhere" in found.message
    world.alice.delete(CLUSTER.path(world.namespace, "unknown"))


def test_alice_and_her_code_may_no_more_than_they_need(world: World) -> None:
    with shoal.dask("small", workers=1, name="rights", project=world.project, quiet=True) as cluster:

        def as_the_head() -> dict[str, int]:
            """What the head's own token may do, tried from a task on the scheduler."""
            import json as json_
            import ssl
            import urllib.error
            import urllib.request
            from pathlib import Path as Path_

            folder = Path_("/var/run/secrets/kubernetes.io/serviceaccount")
            token, here = (folder / "token").read_text(), (folder / "namespace").read_text()
            context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
            root = f"/apis/shoal.dev/v1alpha1/namespaces/{here}"
            tried = {
                "own record": ("GET", f"{root}/shoalclusters/rights", None),
                "its status": ("PATCH", f"{root}/shoalclusters/rights/status", {"status": {"workers": 99}}),
                "its spec": ("PATCH", f"{root}/shoalclusters/rights", {"spec": {"replicas": 99}}),
                "secrets": ("GET", f"/api/v1/namespaces/{here}/secrets", None),
                "pods": ("GET", f"/api/v1/namespaces/{here}/pods", None),
                "accounts": ("GET", "/apis/shoal.dev/v1alpha1/shoalaccounts", None),
            }
            answers = {}
            for name, (method, path, body) in tried.items():
                request = urllib.request.Request(
                    f"https://kubernetes.default.svc{path}",
                    method=method,
                    data=None if body is None else json_.dumps(body).encode(),
                    headers={
                        "Authorization": f"Bearer {token}",
                        "Content-Type": "application/merge-patch+json",
                    },
                )
                try:
                    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                        answers[name] = answer.status
                except urllib.error.HTTPError as error:
                    answers[name] = error.code
            return answers

        answers = cluster.client.run_on_scheduler(as_the_head)
        assert answers.pop("own record") == 200
        assert set(answers.values()) == {403}, answers
        on_worker = cluster.client.run(
            lambda: __import__("os").path.exists("/var/run/secrets/kubernetes.io/serviceaccount/token")
        )
        assert list(on_worker.values()) == [False]
    for path in (POD.path(world.namespace), SECRET.path(world.namespace), CLUSTER.path()):
        if path == POD.path(world.namespace):
            with pytest.raises(RightsError):
                world.alice.create(path, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine"}})
        else:
            with pytest.raises(RightsError):
                world.alice.list(path)
    with pytest.raises((RightsError, NotFoundError)):
        world.alice.patch(CLUSTER.path(world.namespace, "rights", "status"), {"status": {"workers": 99}})


def test_with_its_governor_killed_a_cluster_computes_and_ends_once_there_is_one_again(
    world: World, eventually: Eventually
) -> None:
    cluster = shoal.up("small", engine="dask", workers=1, name="survives", project=world.project, quiet=True)
    world.governor.kill()
    world.governor.wait(10)
    assert cluster.client.submit(sum, [1, 1]).result(60) == 2
    home = open_home(open_project(world.project))
    home.stop(cluster.id, Reason.STOPPED_BY_USER, "no longer needed")
    world.governor = world.start()
    eventually(lambda: cluster.record.state.ended, 60, "it ended")
    assert cluster.record.message == "no longer needed"
    cluster.close()


MAIN = """
import importlib, pathlib, shoal
import helpers, package


def lazy(x):
    import unseen
    return unseen.f(x)

with shoal.dask("small", workers=1, name="code", project={project!r}, quiet=True) as cluster:
    client = cluster.client
    numbers = list(range(20))
    assert client.gather(client.map(helpers.double, numbers)) == [helpers.double(n) for n in numbers]
    assert client.gather(client.map(package.triple, numbers)) == [package.triple(n) for n in numbers]
    point = client.submit(helpers.Point.doubled, helpers.Point(4)).result()
    assert point == helpers.Point(4).doubled() and type(point) is helpers.Point
    assert client.submit(lazy, 1).result() == lazy(1)
    assert client.run_on_scheduler(helpers.double, 2) == 4
    cluster.scale(2)
    assert sorted(client.run(helpers.double, 3).values()) == [6, 6]
    source = pathlib.Path("helpers.py")
    source.write_text(source.read_text().replace("2 * x", "7 * x"))
    importlib.reload(helpers)
    assert sorted(client.run(helpers.double, 3).values()) == [21, 21]
    assert client.run_on_scheduler(helpers.double, 3) == 21
    print("equal")
"""


def test_modules_of_a_persons_own_folder_arrive_in_every_pod(world: World, tmp_path: Path) -> None:
    """A script beside ``helpers.py``, a package and a module that a task alone imports; a later worker; an edit."""
    folder = tmp_path / "elsewhere"
    for name, text in {
        "helpers.py": "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n"
        "    def doubled(self): return Point(double(self.x))\ndef double(x): return 2 * x\n",
        "package/__init__.py": "from .sub import triple\n",
        "package/sub.py": "def triple(x): return 3 * x\n",
        "unseen.py": "def f(x): return x + 1\n",
        "main.py": MAIN.format(project=str(world.project)),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr
    assert "UserModuleWarning" not in done.stderr
