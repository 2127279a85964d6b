"""The fleet shape: a control plane on loopback, and kwok, which plays any number of nodes and their pods."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

from . import control_plane, paths
from .plan import Plan, Process

PODS_PER_NODE = 1000
STAGES = paths.HERE / "stages"


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has now; held together, so that no two are the same."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def plan(name: str, folder: Path, programs: dict[str, Path], owner: int | None, audit: bool) -> Plan:
    """Writes the cluster's files into `folder`; the nodes are made once the API server answers."""
    own, server, etcd, peer, controllers, scheduler = free_ports(6)
    addresses = control_plane.Addresses(
        "127.0.0.1", server, etcd, peer, controllers, scheduler, "10.96.0.0/16", "10.96.0.1"
    )
    control_plane.write_credentials(folder, name, addresses, node=None)
    stages = folder / "stages.yaml"
    stages.write_text("\n---\n".join(file.read_text() for file in sorted(STAGES.glob("*.yaml"))))
    kwok = [
        str(programs["kwok"]), f"--kubeconfig={folder}/kubeconfigs/admin", f"--config={stages}",
        "--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        "--node-ip=10.0.0.1", "--cidr=10.0.0.0/8", "--node-lease-duration-seconds=40",
        f"--server-address=127.0.0.1:{own}",
    ]  # fmt: skip
    phases = control_plane.phases(folder, programs, addresses, many=True, audit=audit)
    phases[-1].append(Process("kwok", kwok))
    return Plan(name, "fleet", owner, phases)


def nodes(count: int) -> list[dict[str, object]]:
    """`count` simulated machines of 64 cores and 256 GiB."""
    size = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": str(PODS_PER_NODE)}
    return [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": f"node-{number:04d}",
                "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {"kubernetes.io/hostname": f"node-{number:04d}", "type": "kwok"},
            },
            "status": {"capacity": size, "allocatable": size},
        }
        for number in range(count)
    ]
