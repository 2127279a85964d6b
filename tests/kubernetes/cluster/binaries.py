"""Finds or compiles the programs of a test cluster. Nothing is downloaded but Go modules, checked by go.sum.

`KUBEBUILDER_ASSETS`, the field's name for a folder with etcd, kube-apiserver and kubectl, comes first,
program by program; what it lacks is compiled once and kept by the state of its lock files.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import paths
from .errors import ClusterError, Unavailable

GO_MODULES = paths.HERE / "go"


@dataclass(frozen=True)
class Module:
    """One Go module with a lock of its own, and the programs that come out of it."""

    folder: str
    requires: str
    packages: dict[str, str]

    @property
    def path(self) -> Path:
        return GO_MODULES / self.folder

    @property
    def version(self) -> str:
        """The version of the module that matters, as go.mod pins it ("v1.34.4"); "" for our own code."""
        if not self.requires:
            return ""
        found = re.search(rf"^(?:require )?\s*{re.escape(self.requires)} (v\S+)", self.text("go.mod"), re.M)
        if found is None:
            raise ClusterError(
                f"{self.path}/go.mod does not require {self.requires}: run `go mod tidy` there"
            )
        return found.group(1)

    def text(self, name: str) -> str:
        file = self.path / name
        return file.read_text() if file.exists() else ""

    @property
    def linker_flags(self) -> str:
        if self.folder != "kubernetes":
            return "-s -w"
        # Without these the server says it is v0.0.0, which clients refuse or misread.
        major, minor, _ = self.version.removeprefix("v").split(".", 2)
        values = {"gitVersion": self.version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{k}={v}" for k, v in values.items())

    @property
    def folder_in_cache(self) -> Path:
        digest = hashlib.sha256(self.linker_flags.encode())
        for file in sorted(self.path.rglob("*.*")):
            digest.update(str(file.relative_to(self.path)).encode() + b"\0" + file.read_bytes() + b"\0")
        return paths.binaries() / f"{self.folder}-{self.version or 'own'}-{digest.hexdigest()[:12]}"


_KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kube-proxy",
)
MODULES = (
    Module("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Module("pause", "", {"pause": ".", "fetch": "./fetch"}),
    Module("kwok", "sigs.k8s.io/kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
    Module("coredns", "github.com/coredns/coredns", {"coredns": "."}),
    Module(
        "versitygw",
        "github.com/versity/versitygw",
        {"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
    ),
    Module(
        "kubernetes", "k8s.io/kubernetes", {name: f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES}
    ),
)
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
OF_SHAPE = {
    "fleet": (*CONTROL_PLANE, "kwok"),
    "node": (*CONTROL_PLANE, "kubelet", "kube-proxy", "coredns", "pause", "fetch"),
}


def module_of(program: str) -> Module:
    for module in MODULES:
        if program in module.packages:
            return module
    raise KeyError(program)


def find(program: str) -> Path | None:
    """Where `program` is, or None if it still has to be compiled."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    for folder in ([Path(assets)] if assets else []) + [module_of(program).folder_in_cache]:
        if os.access(folder / program, os.X_OK):
            return folder / program
    return None


def missing(shape: str) -> list[str]:
    return [program for program in OF_SHAPE[shape] if find(program) is None]


def ensure(programs: Iterable[str], say: bool = True) -> dict[str, Path]:
    """Paths of all `programs`, compiling what is not there: some ten minutes on two cores the first time.

    Raises Unavailable without a Go compiler, ClusterError with the compiler's words when it fails.
    """
    programs = tuple(programs)
    for module in MODULES:
        if any(find(program) is None for program in programs if program in module.packages):
            with locked(paths.binaries() / f"{module.folder}.lock"):
                if any(find(program) is None for program in module.packages):
                    _compile(module, say)
    return {program: _found(program) for program in programs}


def _found(program: str) -> Path:
    path = find(program)
    if path is None:
        raise ClusterError(f"{program} was compiled but is not in {module_of(program).folder_in_cache}")
    return path


def _compile(module: Module, say: bool) -> None:
    go = shutil.which("go")
    if go is None:
        raise Unavailable(
            f"{', '.join(module.packages)} must be compiled, and there is no Go compiler here.\n"
            "  Install Go 1.24 or later (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with them."
        )
    target = module.folder_in_cache
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    if say:
        names = ", ".join(module.packages)
        print(f"Compiling {names} {module.version} (once, kept in {target})", file=sys.stderr, flush=True)
    began = time.monotonic()
    command = [go, "build", "-trimpath", "-ldflags", module.linker_flags, "-o", f"{unfinished}/"]
    if len(module.packages) == 1:  # go would name it after its folder, or after its version
        command[-1] = str(unfinished / next(iter(module.packages)))
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOWORK": "off",
    }
    done = subprocess.run(
        [*_nice(), *command, *module.packages.values()],
        cwd=module.path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise ClusterError(f"compiling {module.folder} {module.version} failed ({done.returncode}):\n{tail}")
    (unfinished / "seconds").write_text(f"{time.monotonic() - began:.1f}\n")
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)


def _nice() -> list[str]:
    nice = shutil.which("nice")
    return [nice, "-n", "10"] if nice else []


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds `file` against other processes, so that two runs neither compile nor choose addresses at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
