"""The governor as a Deployment: one pod with the rights of its own account, that Kubernetes starts again when it dies.

Why it exists: somebody has to govern, also when nobody is looking, and one image is enough for all of Shoal's pods.

What it must not do: import a client.
"""

from __future__ import annotations

from shoal.homes.kubernetes.dressing import merged
from shoal.homes.kubernetes.names import DEPLOYMENT, GOVERNOR, ROLE, Object
from shoal.homes.kubernetes.pods import CONTAINER_SECURITY, POD_SECURITY, SCRATCH
from shoal.homes.kubernetes.quantities import spelled
from shoal.machine.addresses import POD_IP
from shoal.project.targets import Cloud, Target
from shoal.project.yamlfile import Fault, raise_faults
from shoal.words import did_you_mean

_TEMPORARY = "64Mi"
# Of an administrator's patch: what is of a user's namespace cannot be had here.
_NOT_HERE = {"spec": {"containers", "volumes"}}


def governor(target: Target) -> Object:
    """The Deployment.

    Raises:
        ConfigError: its image is not one of the target's.
    """
    cloud = target.kubernetes or Cloud()
    said, labels = cloud.governor, {ROLE: "governor"}
    if said.image not in target.images:
        wrong, right = f"there is no image {said.image!r}", did_you_mean(said.image, target.images)
        raise_faults(
            [Fault("shoal.yaml", 1, f"targets.{target.name}.kubernetes.governor.image", wrong, right)]
        )
    template: Object = {"metadata": {"labels": dict(labels)}, "spec": _pod(cloud, target.images[said.image])}
    if cloud.pod is not None:
        template = merged(template, cloud.pod.model_dump(exclude_unset=True, exclude=_NOT_HERE))
    return {
        "apiVersion": DEPLOYMENT.group_version,
        "kind": DEPLOYMENT.name,
        "metadata": {"name": GOVERNOR, "namespace": cloud.system, "labels": labels},
        "spec": {
            "replicas": 1,
            # Two at once do no harm, but have each other look again: an upgrade ends the old one first. Recreate is not
            # taken for a Deployment of an older Shoal, to which the API server added how it rolls out.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": dict(labels)},
            "template": template,
        },
    }


def _pod(cloud: Cloud, image: str) -> Object:
    said = cloud.governor
    where = ["--system", cloud.system, *(word for name in cloud.namespaces for word in ("--namespace", name))]
    command = ["python3", "-P", "-m", "shoal", "governor", "--target", "kubernetes"]
    amounts = {
        "cpu": spelled(said.cores),
        "memory": spelled(said.memory),
        "ephemeral-storage": _TEMPORARY,
    }
    container = {
        "name": "governor",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [*command, "--health", str(said.port), *where],
        "env": [
            {"name": "HOME", "value": SCRATCH},
            {"name": "TMPDIR", "value": SCRATCH},
            {"name": POD_IP, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
        ],
        "ports": [{"name": "health", "containerPort": said.port}],
        # A first round may have much to do, on a node that has, too.
        "startupProbe": _asks("/healthz", periodSeconds=2, failureThreshold=90),
        "livenessProbe": _asks("/healthz", periodSeconds=20, failureThreshold=3),
        "readinessProbe": _asks("/readyz", periodSeconds=5, failureThreshold=1),
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}],
    }
    return {
        "serviceAccountName": GOVERNOR,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": _TEMPORARY}}],
    }


def _asks(path: str, **times: int) -> Object:
    return {"httpGet": {"path": path, "port": "health"}, "timeoutSeconds": 5, **times}
