"""The node shape: what a real kubelet, network and name server do, each seen from where a user stands."""

from __future__ import annotations

import time
import urllib.request
from contextlib import suppress

import pytest
from cluster import waiting
from cluster.clusters import Cluster
from cluster.fixtures import TOOLS_IMAGE
from cluster.namespaces import Namespace

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]


@pytest.fixture
def web(node_namespace: Namespace) -> str:
    """The name of a Service, and of the pod behind it, that answers "hello from POD"."""
    serve = (
        'mkdir /tmp/w; echo "hello from $HOSTNAME" > /tmp/w/index.html; exec httpd -f -v -p 8080 -h /tmp/w'
    )
    node_namespace.pod("web", TOOLS_IMAGE, ["sh", "-c", serve])
    ports = [{"port": 80, "targetPort": 8080}]
    spec = {"selector": {"app": "web"}, "ports": ports}
    node_namespace.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
    node_namespace.wait_pod("web")
    return "web"


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_a_pod_finds_a_service_by_name_and_reaches_it(web: str, node_namespace: Namespace) -> None:
    # From another pod and from the pod itself (hairpin), by short and by full name.
    full = f"{web}.{node_namespace.name}.svc.cluster.local"
    look = f"nslookup {full} && fetch http://{web}/ && fetch http://{full}/"
    # Names and rules follow the pod a moment later.
    often = f"for i in 1 2 3 4 5; do {look} && exit 0; sleep 1; done; exit 1"
    node_namespace.pod("visitor", TOOLS_IMAGE, ["sh", "-c", often])
    node_namespace.wait_pod("visitor", "Succeeded")
    assert node_namespace.logs("visitor").count("hello from web") == 2
    address = node_namespace.admin.get(node_namespace.path("services", web))["spec"]["clusterIP"]
    assert address in node_namespace.logs("visitor")
    itself = node_namespace.exec(web, "fetch", f"http://{full}/")
    assert (itself.returncode, itself.stdout) == (0, "hello from web\n")


def test_this_machine_reaches_pods_and_services_by_their_addresses(
    web: str, node_namespace: Namespace, kube_node: Cluster
) -> None:
    if kube_node.network is None:
        pytest.skip("somebody else's cluster: its pods need not be reachable from here")
    pod = node_namespace.wait_pod(web)["status"]["podIP"]
    service = node_namespace.admin.get(node_namespace.path("services", web))["spec"]["clusterIP"]
    assert _fetch(f"http://{pod}:8080/") == "hello from web\n"

    def by_service() -> str:
        with suppress(OSError):  # kube-proxy follows a moment after the pod is ready
            return _fetch(f"http://{service}/")
        return ""

    assert waiting.until("the Service answers", by_service, seconds=20) == "hello from web\n"


def test_logs_follow_what_a_pod_writes(node_namespace: Namespace) -> None:
    node_namespace.pod("talker", TOOLS_IMAGE, ["sh", "-c", "echo first; echo second >&2; exit 3"])
    node_namespace.wait_pod("talker", "Failed")
    assert sorted(node_namespace.logs("talker").split()) == ["first", "second"]
    assert node_namespace.logs("talker", tailLines=1).split() in (["first"], ["second"])


def test_exec_runs_in_the_pod_and_returns_its_code(web: str, node_namespace: Namespace) -> None:
    done = node_namespace.exec(web, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (7, "out\n", "err")


@pytest.mark.parametrize("target", ["pod", "service"])
def test_port_forward_reaches_the_pod(web: str, target: str, node_namespace: Namespace) -> None:
    with node_namespace.forward(f"{target}/{web}", 8080 if target == "pod" else 80) as port:
        assert _fetch(f"http://127.0.0.1:{port}/") == "hello from web\n"


def test_more_memory_than_the_limit_kills(node_namespace: Namespace) -> None:
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    # dd takes a buffer of the block's size and writes to all of it.
    within, beyond = (["dd", "if=/dev/zero", "of=/dev/null", f"bs={size}M", "count=1"] for size in (16, 256))
    node_namespace.pod("within", TOOLS_IMAGE, within, container=limits)
    node_namespace.pod("beyond", TOOLS_IMAGE, beyond, container=limits)
    node_namespace.wait_pod("within", "Succeeded")
    killed = node_namespace.wait_pod("beyond", "Failed")["status"]["containerStatuses"][0]["state"][
        "terminated"
    ]
    assert (killed["reason"], killed["exitCode"]) == ("OOMKilled", 137)


def test_active_deadline_seconds_ends_a_pod(node_namespace: Namespace) -> None:
    node_namespace.pod("long", TOOLS_IMAGE, ["sleep", "300"], spec={"activeDeadlineSeconds": 3})
    node_namespace.wait_pod("long")
    began = time.monotonic()
    ended = node_namespace.wait_pod("long", "Failed", seconds=40)
    assert ended["status"]["reason"] == "DeadlineExceeded"
    assert time.monotonic() - began < 30


def test_a_pod_calls_the_api_server_with_its_own_account(
    node_namespace: Namespace, kube_node: Cluster
) -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    node_namespace.pod("caller", TOOLS_IMAGE, ["sh", "-c", f"cat {folder}/token; echo; sleep 300"])
    node_namespace.wait_pod("caller")
    token = waiting.until(
        "the token", lambda: node_namespace.logs("caller"), lambda text: text.startswith("ey")
    )
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {"name": "x"}}
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    seen = node_namespace.admin.request("POST", path, {**review, "spec": {"token": token}})["status"]
    assert seen["user"]["username"] == f"system:serviceaccount:{node_namespace.name}:default"


def test_a_job_runs_to_its_end(node_namespace: Namespace) -> None:
    container = {"name": "main", "image": TOOLS_IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["true"]}
    template = {"spec": {"containers": [container], "restartPolicy": "Never"}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}}
    node_namespace.create({**job, "spec": {"completions": 3, "parallelism": 3, "template": template}})
    path = node_namespace.path("jobs", "job", group="batch/v1")
    waiting.until(
        "three completions",
        lambda: node_namespace.admin.get(path)["status"],
        lambda s: s.get("succeeded") == 3,
    )
