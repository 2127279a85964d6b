"""Spark Connect on a real kubelet from the project's image: a server pod that makes its executors itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cluster import waiting
from cluster.fixtures import TOOLS_IMAGE
from cluster.namespaces import Namespace

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.spark,
    pytest.mark.slow,
    pytest.mark.soak,  # until clusters of Spark are pods: then they show it
    pytest.mark.timeout(900),
]
_RBAC = "rbac.authorization.k8s.io"
_WAREHOUSE = "/var/lib/shoal-test-warehouse"


def _may_make_executors(namespace: Namespace) -> None:
    metadata = {"metadata": {"name": "spark"}}
    kinds = ["pods", "services", "configmaps", "persistentvolumeclaims"]
    rules = [{"apiGroups": [""], "resources": kinds, "verbs": ["*"]}]
    role = {"apiGroup": _RBAC, "kind": "Role", "name": "spark"}
    subject = {"kind": "ServiceAccount", "name": "spark", "namespace": namespace.name}
    namespace.create({"apiVersion": "v1", "kind": "ServiceAccount", **metadata})
    namespace.create({"apiVersion": f"{_RBAC}/v1", "kind": "Role", **metadata, "rules": rules})
    binding = {"apiVersion": f"{_RBAC}/v1", "kind": "RoleBinding", **metadata}
    namespace.create({**binding, "roleRef": role, "subjects": [subject]})


def _server(namespace: Namespace, image: str) -> None:
    """The server's pod. The warehouse is a folder of the node, which all pods here share."""
    volume = "spark.kubernetes.executor.volumes.hostPath.warehouse"
    conf = {
        "spark.kubernetes.namespace": namespace.name,
        "spark.kubernetes.container.image": image,
        "spark.kubernetes.driver.pod.name": "server",
        "spark.kubernetes.executor.podNamePrefix": "server",
        "spark.kubernetes.executor.useDriverPodIP": "true",
        "spark.kubernetes.executor.request.cores": "100m",
        "spark.driver.host": "$(POD_IP)",
        "spark.driver.bindAddress": "$(POD_IP)",
        "spark.executor.instances": "2",
        "spark.executor.memory": "512m",
        "spark.driver.memory": "512m",
        "spark.scheduler.minRegisteredResourcesRatio": "0",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.shoal": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.shoal.type": "hadoop",
        "spark.sql.catalog.shoal.warehouse": f"file:{_WAREHOUSE}/{namespace.name}",
        f"{volume}.mount.path": _WAREHOUSE,
        f"{volume}.options.path": _WAREHOUSE,
    }
    words = ["spark-submit", "--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    words += ["--master", "k8s://https://kubernetes.default.svc:443", "--deploy-mode", "client"]
    words += [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
    mounts = [{"name": "warehouse", "mountPath": _WAREHOUSE}]
    # A folder of the node belongs to root; the server and its executors do not.
    prepare: dict[str, Any] = {"name": "prepare", "image": TOOLS_IMAGE, "imagePullPolicy": "IfNotPresent"}
    prepare |= {"command": ["sh", "-c", f"chmod 1777 {_WAREHOUSE}"], "volumeMounts": mounts}
    container = {
        "args": [*words, "spark-internal"],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {"tcpSocket": {"port": 15002}, "periodSeconds": 1, "failureThreshold": 120},
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "1536Mi"}},
        "volumeMounts": mounts,
    }
    volumes = [{"name": "warehouse", "hostPath": {"path": _WAREHOUSE, "type": "DirectoryOrCreate"}}]
    spec = {"serviceAccountName": "spark", "initContainers": [prepare], "volumes": volumes}
    namespace.pod("server", image, container=container, spec=spec)


def test_spark_connect_with_two_executors_computes_and_reads_an_iceberg_table(
    node_namespace: Namespace, kube_image: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = kube_image("shoal-spark")
    _may_make_executors(node_namespace)
    _server(node_namespace, image)
    node_namespace.wait_pod("server", seconds=150)

    def executors() -> list[str]:
        pods = node_namespace.pods("spark-role=executor")
        return [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"]

    assert len(waiting.until("two executors run", executors, lambda names: len(names) == 2, 120)) == 2
    # Without it pyspark's functions look for a JVM in this process.
    monkeypatch.setenv("SPARK_CONNECT_MODE_ENABLED", "1")
    # A local server that was started in this process left its token there, with which pyspark wants TLS.
    monkeypatch.delenv("SPARK_CONNECT_AUTHENTICATE_TOKEN", raising=False)
    from pyspark.sql.connect.session import SparkSession

    with node_namespace.forward("pod/server", 15002) as port:
        session = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").create()
        try:
            counted = session.sql("select count(*) c, sum(id) s from range(0, 1000000, 1, 8)").collect()[0]
            assert (counted.c, counted.s) == (1_000_000, 499_999_500_000)
            session.sql("create namespace shoal.db").collect()
            session.sql(
                "create table shoal.db.t using iceberg as select id, id % 7 as k from range(0, 70000, 1, 4)"
            ).collect()
            session.sql("delete from shoal.db.t where k = 6").collect()
            rows = session.sql("select k, count(*) n from shoal.db.t group by k order by k").collect()
            assert [(row.k, row.n) for row in rows] == [(k, 10000) for k in range(6)]
            snapshots = session.sql(
                "select operation from shoal.db.t.snapshots order by committed_at"
            ).collect()
            assert [row.operation for row in snapshots] == ["append", "overwrite"]
        finally:
            session.stop()
    # The executors did it: each wrote that it ran tasks.
    for name in executors():
        assert "Finished task" in node_namespace.logs(name)
