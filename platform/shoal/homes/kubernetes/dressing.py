"""What a place adds to Shoal's pods: its nodes, its shared folders, its Secrets, and its administrator's patch.

Why it exists: what a pod of ours is stands in ``pods``; this is what differs from place to place. The patch comes last,
and was refused before where it would change what Shoal answers for (``project.patch``).

What it must not do: import a client.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from shoal.homes.kubernetes.names import CAPACITY, Object
from shoal.homes.kubernetes.tending import On
from shoal.model.workload import Plan
from shoal.project.targets import Cloud, Mount, Nodes


def dressed(pod: Object, plan: Plan, cloud: Cloud | None, mounts: Mapping[str, Mount]) -> Object:
    """The pod with all that its place adds. ``mounts``: the shared folders of the project, by name.

    Args:
        pod: one of ours, with one container.
        plan: of its cluster.
        cloud: what the target says of Kubernetes.
        mounts: those that the project knows; one that it does not know any more is left out.
    """
    made, cloud = copy.deepcopy(pod), cloud or Cloud()
    spec = made["spec"]
    (container,) = spec["containers"]
    on_spot = made["metadata"]["labels"].get(CAPACITY) == On.SPOT
    with_gpus = "nvidia.com/gpu" in container["resources"]["requests"]
    _place(spec, [cloud.spot if on_spot else None, cloud.gpu if with_gpus else None])
    for name in dict.fromkeys((*cloud.secrets, *plan.secrets)):
        container.setdefault("envFrom", []).append({"secretRef": {"name": name}})
    for index, name in enumerate(plan.mounts):
        if (mount := mounts.get(name)) is not None and mount.claim is not None:
            volume, claim = f"mount-{index}", {"claimName": mount.claim, "readOnly": mount.read_only}
            spec["volumes"].append({"name": volume, "persistentVolumeClaim": claim})
            seen = {"name": volume, "mountPath": mount.path, "readOnly": mount.read_only}
            container["volumeMounts"].append(seen)
    if cloud.pod is not None:
        patched: Object = merged(made, cloud.pod.model_dump(exclude_unset=True))
        return patched
    return made


def _place(spec: Object, nodes: Iterable[Nodes | None]) -> None:
    """Let it go on such nodes alone, and on those with their taints."""
    for each in nodes:
        if each is not None:
            stands = [taint.model_dump(exclude_none=True) for taint in each.tolerations]
            spec["nodeSelector"] = spec.get("nodeSelector", {}) | each.selector
            spec["tolerations"] = [*spec.get("tolerations", []), *stands]


def merged(ours: Any, more: Any, at: str = "") -> Any:
    """What is there with what is added: mappings key by key, lists after each other, all else as added."""
    if isinstance(ours, Mapping) and isinstance(more, Mapping):
        return {**ours, **{key: merged(ours.get(key), its, key) for key, its in more.items()}}
    if at == "containers":  # there is one, and what is added is added to it
        return [merged(one, each) for one, each in zip(ours, more, strict=False)] or ours
    if isinstance(more, (list, tuple)):
        return [*(ours or []), *(merged(None, each) for each in more)]
    return more
