"""What a place adds to Shoal's pods, and what its administrator may not change of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoal.errors import ConfigError
from shoal.homes.kubernetes.dressing import dressed
from shoal.homes.kubernetes.pods import head_pod, worker_pod
from shoal.homes.kubernetes.tending import Slot
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.workload import Engine, Workload
from shoal.planning.asking import ask
from shoal.planning.sizing import plan
from shoal.project.loading import Project, load

Folder = Callable[..., Path]
OWNER = {"metadata": {"name": "nightly", "namespace": "shoal-alice", "uid": "u-1"}}
SETTINGS = """
default_target: there
targets:
  there:
    home: kubernetes
    kubernetes:
      secrets: [s3-keys]
      pod:
        metadata:
          annotations: {iam.example.com/role: reader}
        spec:
          imagePullSecrets: [{name: registry}]
          nodeSelector: {pool: batch}
          volumes: [{name: ca, configMap: {name: company-ca}}]
          containers:
            - env: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]
              volumeMounts: [{name: ca, mountPath: /etc/ca}]
mounts:
  models: {path: /models, claim: models-claim}
  scratchpad: {path: /pad, read_only: false, claim: pad}
"""
TEMPLATE = """
workers: {min: 1, max: 1, cores: 1, memory: 1 GB}
mounts: [models, scratchpad]
secrets: [s3-keys, tokens]
"""


def pods_of(project: Project) -> list[dict[str, Any]]:
    limits = project.policy.limits_of("somebody")
    its = plan(ask("mine"), project.template("mine"), limits, project.target)
    cluster = Cluster(
        "u-1", "nightly", "alice", None, Workload("mine", Engine.DASK), its, State.READY, Reason.SERVING, "", 5.0, 1.0
    )  # fmt: skip
    made = [head_pod(cluster, OWNER), worker_pod(cluster, OWNER, Slot(0, "default"))]
    found = [dressed(pod, its, project.target.kubernetes, project.mounts) for pod in made]
    bare = dressed(made[1], replace(its, mounts=(), secrets=()), None, {})
    assert bare == made[1], "where nothing is said nothing is changed"
    return found


def test_head_and_workers_get_what_the_place_adds(folder: Folder) -> None:
    for pod in pods_of(load(folder(shoal=SETTINGS, mine=TEMPLATE))):
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert pod["metadata"]["annotations"]["iam.example.com/role"] == "reader"
        assert pod["metadata"]["annotations"]["shoal.dev/owner"] == "alice"
        assert (spec["imagePullSecrets"], spec["nodeSelector"]) == ([{"name": "registry"}], {"pool": "batch"})
        assert [volume["name"] for volume in spec["volumes"]] == [
            "scratch",
            "access",
            "mount-0",
            "mount-1",
            "ca",
        ]
        assert spec["volumes"][2]["persistentVolumeClaim"] == {"claimName": "models-claim", "readOnly": True}
        seen = {each["mountPath"]: each.get("readOnly", False) for each in container["volumeMounts"]}
        assert (seen["/models"], seen["/pad"], seen["/etc/ca"]) == (True, False, False)
        assert container["envFrom"] == [{"secretRef": {"name": "s3-keys"}}, {"secretRef": {"name": "tokens"}}]
        environment = {each["name"]: each.get("value") for each in container["env"]}
        assert environment["HTTPS_PROXY"] == "http://proxy:3128"
        assert environment["SHOAL_CLUSTER"] == "u-1"
        assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("spec: {activeDeadlineSeconds: 9}", "spec.activeDeadlineSeconds: is set by Shoal alone; leave it out: how"),
        ("spec: {securityContext: {}}", "spec.securityContext: is set by Shoal alone"),
        ("spec: {serviceAccountName: root}", "spec.serviceAccountName: is set by Shoal alone"),
        ("spec: {priorityClassName: high}", "spec.priorityClassName: is set by Shoal alone"),
        ("spec: {initContainers: []}", "spec.initContainers: is set by Shoal alone"),
        ("spec: {containers: [{image: mine}]}", "spec.containers[0].image: is set by Shoal alone"),
        ("spec: {containers: [{resources: {}}]}", "spec.containers[0].resources: is set by Shoal alone"),
        ("spec: {containers: [{env: [{name: SHOAL_CLUSTER}]}]}", "containers[0].env[0].name: SHOAL_CLUSTER is set by"),
        ("spec: {containers: [{env: []}, {env: []}]}", "spec.containers"),
        ("spec: {volumes: [{name: access}]}", "spec.volumes[0].name: 'access' is a volume of Shoal's own"),
        ("metadata: {labels: {shoal.dev/cluster: u-2}}", "metadata.labels.shoal.dev/cluster: is set by Shoal alone"),
        ("metadata: {ownerReferences: []}", "metadata.ownerReferences: is set by Shoal alone"),
        ("spec: {tolerationz: []}", "spec.tolerationz: is not a known key; did you mean 'tolerations'"),
    ],
)  # fmt: skip
def test_what_shoal_answers_for_is_refused_with_line_and_field(folder: Folder, wrong: str, said: str) -> None:
    text = SETTINGS.replace("        metadata:\n", f"        {wrong}\n", 1)
    text = text[: text.index(wrong) + len(wrong)] + "\n" + text[text.index("mounts:\n") :]
    with pytest.raises(ConfigError) as caught:
        load(folder(shoal=text))
    assert f"shoal.yaml:9: targets.there.kubernetes.pod.{said}" in str(caught.value).replace(
        "pod.spec.containers[0].env", "pod.containers[0].env"
    )


def test_a_mount_without_a_claim_is_none_on_kubernetes(folder: Folder) -> None:
    text = SETTINGS.replace(", claim: models-claim", "")
    with pytest.raises(ConfigError, match="the mount 'models', which has no claim") as caught:
        load(folder(shoal=text, mine=TEMPLATE)).template("mine")
    assert "Add 'claim: NAME' to mounts: models:" in caught.value.hint
