"""What the API server refuses of pods in users' namespaces, whoever asks.

Why it exists: quotas count pods, and each of these ways passes by what they count, or by who is to end it: each was
seen to, with the quotas and Pod Security alone. Operators and controllers act for users, so they are held as well.

What it must not do: speak to a server, or repeat what quotas, Pod Security and rights hold.
"""

from __future__ import annotations

from shoal.homes.kubernetes.names import GROUP, OF_CLUSTER, POD_HASH
from shoal.homes.kubernetes.native import Concern, among, everywhere, governs, text
from shoal.model.workload import Via
from shoal.project.targets import Cloud

GRACE = 120  # s that whoever deletes a pod may give it at most
TOKEN = 86_400  # s that a token of a service account lives at most
RESOURCES = ("cpu", "memory", "ephemeral-storage", "nvidia.com/gpu")  # all that quotas count
# What Kubernetes itself adds to pods.
_STANDS = (
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/memory-pressure",
)
_FINALIZERS = ("batch.kubernetes.io/job-tracking", "foregroundDeletion", "orphan")
_CREATE, _UPDATE, _DELETE = "CREATE", "UPDATE", "DELETE"
_PART = {"part": "request.?subResource.orValue('')"}


def concerns(system: str, cloud: Cloud) -> list[Concern]:
    """All of them, as a target has them."""
    its = {"governs": governs(system, anybody=not cloud.governor.deployed)}
    return [
        _marks(its, cloud.via),
        _nodes(its, cloud),
        _priority(its),
        _amounts(),
        _ends(cloud.via),
        _parts(),
        _access(),
    ]


def _marks(its: dict[str, str], via: Via) -> Concern:
    """Which pods are a cluster's is said by who makes clusters' pods."""
    ours = text(f"{GROUP}/")
    names = dict(its)
    for name, field in (("labels", "labels"), ("notes", "annotations")):
        names[name] = f"object.metadata.?{field}.orValue({{}})"
        names[f"{name}Before"] = f"oldObject == null ? {{}} : oldObject.metadata.?{field}.orValue({{}})"
    owners = f"metadata.?ownerReferences.orValue([]).filter(o, o.apiVersion.startsWith({ours})).map(o, o.uid)"
    names["owners"] = f"object.{owners}"
    names["ownersBefore"] = f"oldObject == null ? [] : oldObject.{owners}"
    may = "variables.governs"
    if via is Via.OPERATOR:  # its Deployments' pods are made by Kubernetes' own controllers
        names["controls"] = (
            "request.userInfo.username == 'system:kube-controller-manager' || "
            "request.userInfo.?groups.orValue([]).exists(g, g == 'system:serviceaccounts:kube-system')"
        )
        may += f" || (variables.controls && {text(POD_HASH)} in variables.labels)"
    same = " && ".join(
        f"variables.{name}.all(k, !k.startsWith({ours}) || (k in variables.{name}Before && "
        f"variables.{name}Before[k] == variables.{name}[k])) && "
        f"variables.{name}Before.all(k, !k.startsWith({ours}) || k in variables.{name})"
        for name in ("labels", "notes")
    )
    wrong = f"which pods are a cluster's ({GROUP}/… and their owner) is said by Shoal's governor alone: ask for a "
    wrong += "cluster with `shoal up`, or leave these labels, annotations and owners out"
    expression = f"{may} || ({same} && variables.owners == variables.ownersBefore)"
    return Concern("marks", (("", "pods", (_CREATE, _UPDATE)),), ((expression, wrong),), names)


def _nodes(its: dict[str, str], cloud: Cloud) -> Concern:
    """Where a pod goes is decided by the scheduler."""
    said = [each.key for nodes in (cloud.spot, cloud.gpu) if nodes is not None for each in nodes.tolerations]
    if cloud.pod is not None:
        said += [str(each.get("key", "")) for each in cloud.pod.spec.tolerations]
    known = among((*_STANDS, "nvidia.com/gpu", *said))
    was = "oldObject.spec.?tolerations.orValue([]).exists(o, o.?key.orValue('') == t.?key.orValue(''))"
    stands = (
        "variables.governs || object.spec.?tolerations.orValue([])"
        f".all(t, t.?key.orValue('') in {known} || (oldObject != null && {was}))"
    )
    return Concern(
        "nodes",
        (("", "pods", (_CREATE, _UPDATE)),),
        (
            (
                f"request.operation != '{_CREATE}' || object.spec.?nodeName.orValue('') == ''",
                "a pod with a nodeName passes by the scheduler: leave it out",
            ),
            (
                stands,
                "a pod here tolerates the taints that shoal.yaml names (spot, gpu, pod), and no others: leave these "
                "tolerations out, or ask an administrator",
            ),
        ),
        its,
    )


def _priority(its: dict[str, str]) -> Concern:
    """Held against each priority class there is: which one pods have that name none is the place's to say."""
    fits = "object.spec.?priorityClassName.orValue('') != params.metadata.name || params.?globalDefault.orValue(false)"
    return Concern(
        "priority",
        (("", "pods", (_CREATE,)),),
        (
            (
                f"variables.governs || {fits}",
                "'a pod here has no priority class of its own, and would end others as ' + params.metadata.name + "
                "': leave priorityClassName out'",
            ),
        ),
        its,
        ("scheduling.k8s.io/v1", "PriorityClass"),
    )


def _amounts() -> Concern:
    known = among(RESOURCES)
    fits = " && ".join(
        f"c.?resources.?{part}.orValue({{}}).all(r, r in {known})" for part in ("requests", "limits")
    )
    whole = fits.replace("c.?resources", "object.spec.?resources")
    containers = "(object.spec.containers + object.spec.?initContainers.orValue([]))"
    said = f"no quota counts other resources than {', '.join(RESOURCES)}: ask for these alone"
    return Concern(
        "amounts",
        (("", "pods", (_CREATE,)),),
        (
            (f"{containers}.all(c, {fits}) && {whole}", said),
            ("object.spec.?resourceClaims.orValue([]).size() == 0", f"{said}, without resourceClaims"),
        ),
    )


def _ends(via: Via) -> Concern:
    """That a pod goes when it is to."""
    made = f"(request.operation != '{_CREATE}' || variables.part != '')"
    held = "(oldObject != null && f in oldObject.metadata.?finalizers.orValue([]))"
    grace = f"at most {GRACE} s are given to a pod that is to end"
    says = [
        (
            f"request.operation == '{_DELETE}' || variables.part != '' || object.metadata.?finalizers.orValue([])"
            f".all(f, f in {among(_FINALIZERS)} || {held})",
            "a finalizer keeps a pod that is to end: leave it out",
        ),
        (
            f"{made} || object.spec.?terminationGracePeriodSeconds.orValue(30) <= {GRACE}",
            f"{grace}: lower terminationGracePeriodSeconds",
        ),
        (
            f"request.operation != '{_DELETE}' || request.?options.?gracePeriodSeconds.orValue(0) <= {GRACE}",
            f"{grace}: lower gracePeriodSeconds",
        ),
        (
            f"variables.part != 'eviction' || object.?deleteOptions.?gracePeriodSeconds.orValue(0) <= {GRACE}",
            f"{grace}: lower deleteOptions.gracePeriodSeconds",
        ),
    ]
    if via is Via.PODS:
        cluster = f"{text(OF_CLUSTER)} in object.metadata.?labels.orValue({{}})"
        says.append(
            (
                f"{made} || !({cluster}) || has(object.spec.activeDeadlineSeconds)",
                "a cluster's pod has a deadline (activeDeadlineSeconds), by which Kubernetes itself ends it",
            )
        )
    on = (("", "pods", (_CREATE, _UPDATE, _DELETE)), ("", "pods/eviction", (_CREATE,)))
    return Concern("ends", on, tuple(says), _PART)


def _parts() -> Concern:
    """What schedulers, nodes and administrators do with a pod that is there."""
    on = (
        ("", "pods/binding", (_CREATE,)),
        ("", "bindings", (_CREATE,)),
        ("", "pods/ephemeralcontainers", (_UPDATE,)),
        ("", "pods/status", (_UPDATE,)),
    )
    may = f"request.operation == '{_CREATE}' ? ({everywhere('create')}) : "
    may += f"({everywhere('update')} || {everywhere('patch')})"
    said = "'pods/' + variables.part + ' passes by the scheduler or by quotas: here it is for those who may do it in "
    said += "every namespace'"
    return Concern("parts", on, ((may, said),), _PART)


def _access() -> Concern:
    """By what a pod is reached, and for how long its account is lent."""
    service = "request.resource.resource != 'services'"
    return Concern(
        "access",
        (("", "services", (_CREATE, _UPDATE)), ("", "serviceaccounts/token", (_CREATE,))),
        (
            (
                f"{service} || object.spec.?type.orValue('') != 'ExternalName'",
                "a Service of type ExternalName leads away from this namespace under a name of it: take the other name",
            ),
            (
                f"{service} || object.spec.?externalIPs.orValue([]).size() == 0",
                "externalIPs of a Service take what is sent to other machines: leave them out",
            ),
            (
                f"variables.part != 'token' || object.spec.?expirationSeconds.orValue(3600) <= {TOKEN}",
                f"a token of a service account lives for at most {TOKEN // 3600} h: ask for less",
            ),
        ),
        _PART,
    )
