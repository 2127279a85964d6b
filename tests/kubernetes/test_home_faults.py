"""What a place does to clusters: drained nodes, limits and webhooks of its own, clocks, users without measure."""

from __future__ import annotations

import base64
import json
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cluster.clusters import Cluster as Kubernetes

from shoal.client.clusters import open_project
from shoal.homes.choose import open_home
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.manifests import of_user, person
from shoal.homes.kubernetes.names import CLUSTER, NAMESPACE, POD, ROLE, WORKER
from shoal.homes.kubernetes.objects import Spec, asked
from shoal.machine.certificate import make_certificate
from shoal.model.cluster import Reason, State
from shoal.model.workload import Engine, Workload

from .installing import apply
from .played_heads import PlayedHeads
from .simulated import Simulated, ask

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(180)]
Eventually = Callable[..., Any]
HOUR = 3600.0


def test_of_a_node_that_is_drained_workers_are_replaced_and_a_head_is_the_end(
    place: Simulated, kube_fleet: Kubernetes, eventually: Eventually
) -> None:
    def kubectl(*words: str) -> str:
        done = subprocess.run(
            kube_fleet.kubectl(*words), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def drain(node: str) -> None:
        cordoned.append(node)
        kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=30s")

    def workers() -> dict[str, str]:
        found, _ = place.admin.list(POD.path(place.namespace), labelSelector=f"{ROLE}={WORKER}")
        return {each["metadata"]["name"]: each["spec"].get("nodeName", "") for each in found}

    cordoned: list[str] = []
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            most.append(len(workers()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        place.govern()
        home = open_home(open_project(place.project))
        cluster = ask(home, place.project, "one", workers=3)
        eventually(lambda: home.get(cluster.id).state is State.READY, 60, "it is Ready")
        head = place.admin.get(POD.path(place.namespace, "one-head"))["spec"]["nodeName"]
        before = workers()
        elsewhere = sorted({node for node in before.values() if node != head})
        drain(elsewhere[0])
        eventually(
            lambda: (
                len(there := workers()) == 3 and elsewhere[0] not in there.values() and all(there.values())
            ),
            60,
            lambda: f"those that went have others in their place: {workers()}",
        )
        assert home.get(cluster.id).state is State.READY
        assert {name for name, node in before.items() if node != elsewhere[0]} <= workers().keys()
        drain(head)
        eventually(lambda: home.get(cluster.id).state.ended, 60, lambda: str(home.get(cluster.id)))
        ended = home.get(cluster.id)
        assert (ended.state, ended.reason) == (State.FAILED, Reason.HEAD_LOST)
        # A pod on a simulated node is gone at once, so that it was evicted may have been told to nobody.
        assert re.match(r"its head's pod (was ended \(EvictionByEvictionAPI|is gone)", ended.message), (
            ended.message
        )
        eventually(lambda: place.left() == [], 60, lambda: f"{place.left()} is left")
    finally:
        over.set()
        watcher.join()
        for node in cordoned:
            kubectl("uncordon", node)
    assert max(most) == 3, "never more than were admitted"


def test_a_limit_range_is_told_with_its_sentence_and_asked_now_and_then(
    place: Simulated, eventually: Eventually
) -> None:
    limits = [{"type": "Container", "max": {"memory": "300Mi"}, "default": {"memory": "200Mi"}}]
    path = f"/api/v1/namespaces/{place.namespace}/limitranges"
    made = {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "small"},
        "spec": {"limits": limits},
    }

    def refused() -> int:
        counted = re.findall(r"^apiserver_request_total\{(.*)\} (\S+)$", place.admin.text("/metrics"), re.M)
        of_pods = ('code="403"', 'resource="pods"', 'verb="POST"')
        return sum(int(float(many)) for labels, many in counted if all(each in labels for each in of_pods))

    place.admin.create(path, made)
    place.govern()
    home = open_home(open_project(place.project))
    begin = time.monotonic()
    cluster = ask(home, place.project, "large")
    sentence = "maximum memory usage per Container is 300Mi"
    eventually(lambda: sentence in home.get(cluster.id).message, 15, lambda: str(home.get(cluster.id)))
    found = home.get(cluster.id)
    assert (found.state, found.reason) == (State.ADMITTED, Reason.PLACE_REFUSED)
    assert found.message.startswith("the API server refused its head: ")
    before, begin = refused(), time.monotonic()
    time.sleep(6)
    tries, took = refused() - before, time.monotonic() - begin
    assert 1 <= tries <= 1 + took / 4, "it is tried again, and not in a loop"
    place.admin.delete(f"{path}/small")
    eventually(lambda: home.get(cluster.id).state is State.READY, 60, "it goes on once it may")
    home.stop(cluster.id, Reason.STOPPED_BY_USER, "done")
    eventually(lambda: place.left() == [], 60, lambda: f"{place.left()} is left")


MESH = {
    "name": "mesh",
    "image": "mesh",
    "resources": {each: {"cpu": "100m", "memory": "50M", "ephemeral-storage": "1M"} for each in ("requests", "limits")},
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}  # fmt: skip


@contextmanager
def mesh(admin: Api, namespace: str, folder: Path) -> Iterator[None]:
    """A webhook that puts a container beside those of each pod of this namespace."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            patch = json.dumps([{"op": "add", "path": "/spec/containers/-", "value": MESH}])
            uid, kind = asked["request"]["uid"], {"apiVersion": asked["apiVersion"], "kind": asked["kind"]}
            said = {"uid": uid, "allowed": True, "patchType": "JSONPatch"}
            said["patch"] = base64.b64encode(patch.encode()).decode()
            body = json.dumps(kind | {"response": said}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    certificate, key = make_certificate("localhost")
    (folder / "mesh.pem").write_text(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "mesh.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = {
        "name": "mesh.example.com",
        "clientConfig": {
            "url": f"https://localhost:{server.server_address[1]}/",
            "caBundle": base64.b64encode(certificate.encode()).decode(),
        },
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": 5,
    }
    version = "admissionregistration.k8s.io/v1"
    path = f"/apis/{version}/mutatingwebhookconfigurations"
    made = {
        "apiVersion": version,
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": f"mesh-{namespace}"},
    }
    admin.create(path, {**made, "webhooks": [hook]})
    try:
        yield
    finally:
        admin.delete(f"{path}/mesh-{namespace}")
        server.shutdown()
        server.server_close()


def test_a_mesh_beside_every_container_needs_room_and_keeps_no_cluster_alive(
    place: Simulated, eventually: Eventually, tmp_path: Path
) -> None:
    with mesh(place.admin, place.namespace, tmp_path):
        place.govern()
        home = open_home(open_project(place.project))
        cluster = ask(home, place.project, "meshed")

        def said(what: str) -> None:
            eventually(lambda: what in home.get(cluster.id).message, 30, lambda: str(home.get(cluster.id)))

        said("something is added to these")
        file = place.project / "shoal.yaml"
        beside = "beside: {pods: 0, cores: 1, memory: 1 GB, scratch: 1 GB}"
        file.write_text(
            file.read_text().replace(f"system: {place.system}}}", f"system: {place.system}, {beside}}}", 1)
        )
        place.put()
        eventually(lambda: home.get(cluster.id).state is State.READY, 60, lambda: str(home.get(cluster.id)))
        pods, _ = place.admin.list(POD.path(place.namespace))
        assert {len(pod["spec"]["containers"]) for pod in pods} == {2}

        def ends(name: str, code: int, container: str) -> None:
            """Ours does; what the mesh put beside it runs on."""
            how = {"terminated": {"exitCode": code, "reason": "Error"}}
            stands = [
                {"name": each, "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state}
                for each, state in ((container, how), ("mesh", {"running": {}}))
            ]
            path = POD.path(place.namespace, name, "status")
            place.admin.patch(path, {"status": {"containerStatuses": stands}})

        def workers() -> list[str]:
            found, _ = place.admin.list(POD.path(place.namespace), labelSelector=f"{ROLE}={WORKER}")
            return [pod["metadata"]["uid"] for pod in found]

        (first,) = workers()
        ends("meshed-w-0", 137, "worker")
        # By its name it may be the same: until the first one is gone, the quota may have no room for another.
        eventually(
            lambda: len(now := workers()) == 1 and first not in now,
            30,
            lambda: f"another worker takes its place: {home.get(cluster.id)}",
        )
        said("lost: meshed-w-0 (Error, exit code 137)")
        ends("meshed-head", 3, "head")
        eventually(lambda: home.get(cluster.id).state.ended, 30, lambda: str(home.get(cluster.id)))
        assert (home.get(cluster.id).reason, "exit code 3" in home.get(cluster.id).message) == (
            Reason.HEAD_CRASHED,
            True,
        )
        eventually(lambda: place.admin.list(POD.path(place.namespace))[0] == [], 60, "no pod of it is left")


SHIFTED = """
import runpy, sys, time
real = time.time
time.time = lambda: real() + {off}
sys.argv = ["shoal", *{words!r}]
runpy.run_module("shoal", run_name="__main__", alter_sys=True)
"""


def test_clocks_that_are_an_hour_off_end_nothing_early_or_late(
    place: Simulated, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of governors that follow each other, and of the client: its lifetime of an hour would be over, or double."""
    place.put()
    place.heads = PlayedHeads(place.admin, place.namespace)
    words = ["governor", "--project", str(place.project), "--system", place.system]
    running: list[subprocess.Popen[bytes]] = []
    log = tmp_path / "governor.log"

    def govern(off: float) -> None:
        for each in running:
            each.send_signal(signal.SIGKILL)
            each.wait()
        with log.open("ab") as said:
            line = [sys.executable, "-P", "-c", SHIFTED.format(off=off, words=words)]
            running[:] = [subprocess.Popen(line, stdout=said, stderr=said)]

    true = time.time
    try:
        home = open_home(open_project(place.project))
        govern(-HOUR)
        begin = true()
        cluster = ask(home, place.project, "one", queue=True)
        eventually(lambda: home.get(cluster.id).state is State.READY, 60, lambda: log.read_text()[-2000:])
        ready = home.get(cluster.id)
        assert ready.admitted_at is not None
        assert begin - 5 < ready.admitted_at < true() + 5
        monkeypatch.setattr(time, "time", lambda: true() + 2 * HOUR)  # the client's
        govern(2 * HOUR)
        time.sleep(8)
        found = home.get(cluster.id)
        assert found.state is State.READY, found
        assert home.unresponsive(found) == ""
        assert home.scale(cluster.id, 2).plan.workers == 2
        eventually(lambda: home.get(cluster.id).workers == 2, 30, "it grew")
        monkeypatch.setattr(time, "time", lambda: true() - HOUR)
        govern(-HOUR)
        home.stop(cluster.id, Reason.STOPPED_BY_USER, "done")
        eventually(lambda: home.get(cluster.id).state is State.STOPPED, 60, lambda: str(home.get(cluster.id)))
        ended = home.get(cluster.id)
        assert ended.ended_at is not None
        assert begin < ended.ended_at < true() + 5
        eventually(lambda: place.left() == [], 60, lambda: f"{place.left()} is left")
    finally:
        for each in running:
            each.kill()
            each.wait()


def test_one_who_asks_for_fifty_clusters_a_second_keeps_nobody_waiting(
    place: Simulated, eventually: Eventually
) -> None:
    bobs = f"bob-{place.namespace}"
    apply(place.admin, of_user("bob", bobs, [person("bob")], place.system))
    place.more = (bobs,)
    over, sent = threading.Event(), [0]
    workload = Workload("small", engine=Engine.DASK, workers=1, queue=True)

    def churn(first: int) -> None:
        """Each of five asks for ten a second, and takes them back."""
        number, due = first, time.monotonic()
        while not over.is_set():
            name = f"c-{number}"
            place.admin.create(CLUSTER.path(place.namespace), asked(name, place.namespace, Spec(workload)))
            if number >= 50:
                place.admin.delete(CLUSTER.path(place.namespace, f"c-{number - 50}"))
            sent[0], number, due = sent[0] + 1, number + 5, due + 0.1
            time.sleep(max(0.0, due - time.monotonic()))

    def admitted(name: str) -> float:
        begin, path = time.monotonic(), CLUSTER.path(bobs, name)
        place.admin.create(CLUSTER.path(bobs), asked(name, bobs, Spec(workload)))
        eventually(
            lambda: place.admin.get(path).get("status", {}).get("state") not in (None, "Queued"),
            60,
            "it is admitted",
        )
        return time.monotonic() - begin

    place.govern()
    try:
        with ThreadPoolExecutor(5) as pool:
            churning = [pool.submit(churn, first) for first in range(5)]
            time.sleep(5)
            begin, before = time.monotonic(), sent[0]
            waited = [admitted("one"), admitted("two")]
            rate = (sent[0] - before) / (time.monotonic() - begin)
            over.set()
            for each in churning:
                each.result()
        print(f"bob waited for {waited} s beside {rate:.0f} a second of alice's")
        assert max(waited) < 5
    finally:
        over.set()
        place.stop()
        for name in ("one", "two"):
            place.admin.delete(CLUSTER.path(bobs, name))
        place.admin.delete(NAMESPACE.path(name=bobs))
