"""Says all that a machine lacks for a shape, each with the command that installs it. Changes nothing."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from . import binaries
from .errors import Unavailable

EXISTING = "or use a cluster that you have: export SHOAL_TEST_KUBECONFIG=/path/to/kubeconfig"
CNI_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin")
# The Debian package of each program; also what .ci/install installs.
PACKAGES = {
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "mount": "util-linux",
    "ptp": "containernetworking-plugins",
    "busybox": "busybox-static",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
}
OF_SHAPE: dict[str, tuple[str, ...]] = {
    "fleet": (),
    "node": (
        "containerd",
        "containerd-shim-runc-v2",
        "runc",
        "iptables",
        "ip",
        "unshare",
        "mount",
        "ptp",
        "busybox",
    ),
    "images": ("buildah", "mmdebstrap"),
}


def where(program: str) -> str | None:
    """The path of `program`: CNI plugins lie in folders of their own, some others only on root's PATH."""
    if program == "ptp":
        return next((f"{folder}/ptp" for folder in CNI_FOLDERS if os.access(f"{folder}/ptp", os.X_OK)), None)
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def cni_folder() -> str:
    found = where("ptp")
    if found is None:
        raise Unavailable(
            "the CNI plugins are not installed: sudo apt-get install containernetworking-plugins"
        )
    return str(Path(found).parent)


def lacking(shape: str) -> list[str]:
    """One line for each thing that `shape` ("node", "fleet" or "images") needs and this machine has not."""
    faults: list[str] = []
    if shape != "fleet" and not sys.platform.startswith("linux"):
        faults.append(f"Linux: this is {sys.platform}, which has no kubelet")
    elif shape != "fleet" and os.geteuid() != 0:
        faults.append("root: it makes network namespaces and mounts; run the same command with sudo")
    packages = sorted({PACKAGES[program] for program in OF_SHAPE[shape] if where(program) is None})
    if packages and sys.platform.startswith("linux"):
        install = f"sudo apt-get install --no-install-recommends {' '.join(packages)}"
        faults.append(f"{', '.join(packages)}: {install}")
    if shape in binaries.OF_SHAPE:
        absent = binaries.missing(shape)
        if absent and shutil.which("go") is None:
            faults.append(
                f"{', '.join(absent)}: install Go 1.24 or later (https://go.dev/dl), then `make kube-build`"
            )
    return faults


def check(shape: str) -> None:
    """Raises Unavailable with every line of `lacking`, and the other way on."""
    faults = lacking(shape)
    if faults:
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise Unavailable(f"the {shape} shape cannot run here; it lacks{lines}\n  {EXISTING}")
