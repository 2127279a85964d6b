"""The node shape: a control plane and one real kubelet, alone in namespaces of their own.

Everything in here describes; the keeper does. Pods get a cable each (CNI plugin `ptp`), because a bridge
would let answers past the address translation of Services where br_netfilter is not loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from . import control_plane, needs
from .plan import Network, Plan, Process

NODE = "node-0"
SANDBOX_IMAGE = "shoal.test/pause:1"
_CONTAINERD = "/run/containerd/containerd.sock"
# What the kubelet would otherwise write for the whole machine, and leave written.
KERNEL_VALUES = {
    "/proc/sys/vm/overcommit_memory": "1",
    "/proc/sys/vm/panic_on_oom": "0",
    "/proc/sys/kernel/panic": "10",
    "/proc/sys/kernel/panic_on_oops": "1",
    "/proc/sys/kernel/keys/root_maxkeys": "1000000",
    "/proc/sys/kernel/keys/root_maxbytes": "25000000",
}
MOUNTS = [
    ("/run", "tmpfs"),
    ("/var/log", "tmpfs"),
    ("/var/lib", "tmpfs"),
    ("/var/log/pods", "pods-logs"),
    ("/var/lib/containerd", "containerd"),
    ("/var/lib/kubelet", "kubelet"),
]


def _containerd_config(folder: Path) -> str:
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{_CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{SANDBOX_IMAGE}"
# Where CAP_SYS_RESOURCE is missing, a lower score is refused and no pod would start.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{needs.cni_folder()}"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def _cni(network: Network) -> dict[str, Any]:
    ranges = [[{"subnet": network.pods}]]
    ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    return {
        "cniVersion": "0.4.0",
        "name": "shoal",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": ipam},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _kubelet_config(folder: Path, network: Network, cgroup: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{folder}/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{folder}/pki/kubelet.crt",
        "tlsPrivateKeyFile": f"{folder}/pki/kubelet.key",
        "address": network.node,
        "healthzPort": 0,
        "containerRuntimeEndpoint": f"unix://{_CONTAINERD}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "clusterDNS": [network.node],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{folder}/resolv.conf",
        "volumePluginDir": f"{folder}/volume-plugins",
        "staticPodPath": "",
        # Else the kubelet deletes images that no pod uses once the machine's disk is 85 % full.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "maxPods": 110,
        "shutdownGracePeriod": "0s",
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "registryPullQPS": 0,
        "serializeImagePulls": False,
    }


def _proxy_config(folder: Path, network: Network) -> dict[str, Any]:
    untouched = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{folder}/kubeconfigs/proxy"},
        "mode": "iptables",
        "hostnameOverride": NODE,
        "clusterCIDR": network.pods,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        "conntrack": untouched,
        "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
    }


def _corefile(folder: Path, network: Network) -> str:
    return f"""\
.:53 {{
    bind {network.node}
    errors
    ready {network.node}:8181
    hosts {{
        {network.host} host.shoal.test
        fallthrough
    }}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {folder}/kubeconfigs/dns
        ttl 1
    }}
}}
"""


def plan(
    name: str, folder: Path, programs: dict[str, Path], owner: int | None, audit: bool, network: Network
) -> Plan:
    """Writes the cluster's files into `folder`."""
    addresses = control_plane.Addresses(
        network.node, 6443, 2379, 2380, 10257, 10259, network.services, network.first_service, network.pods
    )  # fmt: skip
    control_plane.write_credentials(folder, name, addresses, NODE)
    for made in ("cni", "volume-plugins"):
        (folder / made).mkdir()
    (folder / "cni" / "10-shoal.conflist").write_text(json.dumps(_cni(network)))
    (folder / "containerd.toml").write_text(_containerd_config(folder))
    (folder / "resolv.conf").write_text(f"nameserver {network.node}\n")
    (folder / "Corefile").write_text(_corefile(folder, network))
    cgroup = f"shoal-{name}"
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet_config(folder, network, cgroup)))
    (folder / "proxy.yaml").write_text(yaml.safe_dump(_proxy_config(folder, network)))
    kubelet = [
        str(programs["kubelet"]), f"--kubeconfig={folder}/kubeconfigs/kubelet",
        f"--config={folder}/kubelet.yaml",
        f"--node-ip={network.node}", f"--hostname-override={NODE}", "--root-dir=/var/lib/kubelet",
    ]  # fmt: skip
    phases = control_plane.phases(folder, programs, addresses, many=False, audit=audit)
    path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    containerd = [str(needs.where("containerd")), f"--config={folder}/containerd.toml"]
    phases[0].append(Process("containerd", containerd, f"unix:{_CONTAINERD}", path))
    dns = [str(programs["coredns"]), f"-conf={folder}/Corefile"]
    phases[-1] += [
        Process("kubelet", kubelet, environment=path),
        Process(
            "kube-proxy", [str(programs["kube-proxy"]), f"--config={folder}/proxy.yaml"], environment=path
        ),
        Process("coredns", dns),
    ]
    return Plan(name, "node", owner, phases, network, MOUNTS, KERNEL_VALUES)


def objects() -> list[dict[str, Any]]:
    """What a node shape needs on its server: the right for CoreDNS to look."""
    watched = {"verbs": ["list", "watch"]}
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], **watched},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], **watched},
    ]
    rbac = "rbac.authorization.k8s.io"
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": "shoal:dns"}
    user = {"apiGroup": rbac, "kind": "User", "name": "shoal:dns"}
    meta = {"metadata": {"name": "shoal:dns"}}
    return [
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", **meta, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            **meta,
            "roleRef": role,
            "subjects": [user],
        },
    ]
