"""The programs and files of a control plane: etcd, API server, controllers, scheduler. Starts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from . import pki
from .plan import Process

USERS = {"alice": ("shoal:users", "team-a"), "bob": ("shoal:users", "team-b")}
ADMIN = ("admin", ("system:masters",))


@dataclass(frozen=True)
class Addresses:
    """Where the parts of one control plane listen.

    host: the API server's address for clients; services: the network of Service addresses; first_service:
    the address of the Service `kubernetes` in it.
    """

    host: str
    port: int
    etcd: int
    etcd_peer: int
    controllers: int
    scheduler: int
    services: str
    first_service: str
    pods: str = ""

    @property
    def server(self) -> str:
        return f"https://{self.host}:{self.port}"


def write_credentials(folder: Path, cluster: str, addresses: Addresses, node: str | None) -> None:
    """pki/ and kubeconfigs/: the authority, the servers' certificates, one kubeconfig for every client."""
    pki_folder, kubeconfigs = folder / "pki", folder / "kubeconfigs"
    for made in (pki_folder, kubeconfigs):
        made.mkdir(mode=0o700)
    authority = pki.Authority(f"{cluster}-authority")
    (pki_folder / "ca.crt").write_bytes(authority.certificate)
    inside = "kubernetes.default"
    names = ("kubernetes", inside, f"{inside}.svc", f"{inside}.svc.cluster.local", "localhost")
    hosts = (*names, addresses.host, addresses.first_service, "127.0.0.1")
    authority.issue("kube-apiserver", hosts=hosts).write(pki_folder, "apiserver")
    authority.issue("kube-apiserver-kubelet-client", ("system:masters",)).write(
        pki_folder, "apiserver-kubelet"
    )
    etcd_hosts = ("localhost", "127.0.0.1")
    authority.issue("etcd", hosts=etcd_hosts).write(pki_folder, "etcd")
    authority.issue("kube-apiserver-etcd-client").write(pki_folder, "apiserver-etcd")
    public, private = pki.signing_pair()
    (pki_folder / "service-accounts.pub").write_bytes(public)
    pki.write_secret(pki_folder / "service-accounts.key", private)

    clients: dict[str, tuple[str, tuple[str, ...]]] = {"admin": ADMIN}
    clients |= {user: (user, groups) for user, groups in USERS.items()}
    clients["controllers"] = ("system:kube-controller-manager", ())
    clients["scheduler"] = ("system:kube-scheduler", ())
    if node is not None:
        authority.issue(f"system:node:{node}", ("system:nodes",), hosts=(node, addresses.host)).write(
            pki_folder, "kubelet"
        )
        clients["proxy"] = ("system:kube-proxy", ())
        clients["dns"] = ("shoal:dns", ())
        clients["kubelet"] = (f"system:node:{node}", ("system:nodes",))
    for client, (name, groups) in clients.items():
        pair = authority.issue(name, groups)
        text = pki.kubeconfig(cluster, addresses.server, authority.certificate, name, pair)
        pki.write_secret(kubeconfigs / client, text.encode())


def _audit(folder: Path) -> list[str]:
    """Every request's metadata, and the whole of those that change something, but for what is secret."""
    secret = [{"group": "", "resources": ["secrets", "serviceaccounts/token"]}]
    rules = [
        {
            "level": "None",
            "verbs": ["get", "list", "watch"],
            "userGroups": ["system:masters", "system:nodes"],
        },
        {"level": "Metadata", "resources": secret},
        {"level": "RequestResponse", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "Metadata"},
    ]
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": rules,
    }
    (folder / "audit-policy.yaml").write_text(yaml.safe_dump(policy))
    return [f"--audit-policy-file={folder}/audit-policy.yaml", f"--audit-log-path={folder}/logs/audit.log"]


def phases(
    folder: Path, programs: dict[str, Path], addresses: Addresses, many: bool, audit: bool = False
) -> list[list[Process]]:
    """etcd, then the API server, then what works against it. `many` raises limits for thousands of pods."""
    p, k = folder / "pki", folder / "kubeconfigs"
    etcd = [
        str(programs["etcd"]), f"--data-dir={folder}/etcd", "--name=shoal", "--unsafe-no-fsync",
        f"--listen-client-urls=https://127.0.0.1:{addresses.etcd}",
        f"--advertise-client-urls=https://127.0.0.1:{addresses.etcd}",
        f"--listen-peer-urls=https://127.0.0.1:{addresses.etcd_peer}",
        f"--initial-advertise-peer-urls=https://127.0.0.1:{addresses.etcd_peer}",
        f"--initial-cluster=shoal=https://127.0.0.1:{addresses.etcd_peer}",
        "--client-cert-auth", f"--trusted-ca-file={p}/ca.crt",
        f"--cert-file={p}/etcd.crt", f"--key-file={p}/etcd.key",
        "--peer-client-cert-auth", f"--peer-trusted-ca-file={p}/ca.crt",
        f"--peer-cert-file={p}/etcd.crt", f"--peer-key-file={p}/etcd.key", "--quota-backend-bytes=4294967296",
    ]  # fmt: skip
    server = [
        str(programs["kube-apiserver"]),
        f"--etcd-servers=https://127.0.0.1:{addresses.etcd}", f"--etcd-cafile={p}/ca.crt",
        f"--etcd-certfile={p}/apiserver-etcd.crt", f"--etcd-keyfile={p}/apiserver-etcd.key",
        f"--bind-address={addresses.host}", f"--advertise-address={addresses.host}",
        f"--secure-port={addresses.port}",
        f"--tls-cert-file={p}/apiserver.crt", f"--tls-private-key-file={p}/apiserver.key",
        f"--client-ca-file={p}/ca.crt", "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={p}/service-accounts.pub",
        f"--service-account-signing-key-file={p}/service-accounts.key",
        f"--service-cluster-ip-range={addresses.services}",
        f"--kubelet-certificate-authority={p}/ca.crt",
        f"--kubelet-client-certificate={p}/apiserver-kubelet.crt",
        f"--kubelet-client-key={p}/apiserver-kubelet.key", "--kubelet-preferred-address-types=InternalIP",
        # MutatingAdmissionPolicy is beta and off in 1.34.
        "--feature-gates=MutatingAdmissionPolicy=true",
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
        # No endpoint may be a loopback address; without one nothing has to reach the server by its Service.
        f"--endpoint-reconciler-type={'none' if addresses.host.startswith('127.') else 'lease'}",
        *(_audit(folder) if audit else []),
    ]  # fmt: skip
    limits = ["--kube-api-qps=1000", "--kube-api-burst=1000"] if many else []
    controllers = [
        str(programs["kube-controller-manager"]), f"--kubeconfig={k}/controllers", "--leader-elect=false",
        "--bind-address=127.0.0.1", f"--secure-port={addresses.controllers}",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={p}/service-accounts.key", f"--root-ca-file={p}/ca.crt",
        *limits,
    ]  # fmt: skip
    if many:
        # One worker per kind cannot follow thousands of objects.
        controllers += [
            f"--concurrent-{kind}-syncs=20" for kind in ("deployment", "replicaset", "resource-quota")
        ]
        controllers += ["--concurrent-gc-syncs=40", "--concurrent-namespace-syncs=20"]
        server += ["--max-requests-inflight=1000", "--max-mutating-requests-inflight=500"]
    if addresses.pods:
        controllers += ["--allocate-node-cidrs=true", f"--cluster-cidr={addresses.pods}"]
    scheduler = [
        str(programs["kube-scheduler"]), f"--kubeconfig={k}/scheduler", "--leader-elect=false",
        "--bind-address=127.0.0.1", f"--secure-port={addresses.scheduler}", *limits,
    ]  # fmt: skip
    return [
        [Process("etcd", etcd, f"tcp:127.0.0.1:{addresses.etcd}")],
        [Process("kube-apiserver", server, f"{addresses.server}/readyz")],
        [Process("kube-controller-manager", controllers), Process("kube-scheduler", scheduler)],
    ]
