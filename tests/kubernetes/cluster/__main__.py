"""The command line behind `make kube`, `make kube-status`, `make kube-down` and their kin."""

from __future__ import annotations

import argparse
import sys
import time

from . import binaries, clusters, images, needs
from .errors import ClusterError


def _up(given: argparse.Namespace) -> None:
    name = given.name or given.shape
    if name in {running for running, _, _ in clusters.running()}:
        cluster = clusters.find(name)
        print(f"{name} runs already.")
    else:
        needs.check(given.shape)
        binaries.ensure(binaries.OF_SHAPE[given.shape])
        began = time.monotonic()
        cluster = clusters.start(given.shape, name, nodes=given.nodes, audit=given.audit)
        print(f"{name} ({given.shape}) is up after {time.monotonic() - began:.1f} s.")
    kubectl = cluster.kubectl()[0]
    print(f"  export KUBECONFIG={cluster.kubeconfig}")
    print(f"  {kubectl} get nodes        as alice: --kubeconfig={cluster.kubeconfig_of('alice')}")
    if cluster.folder is not None:
        print(f"  logs: {cluster.folder}/logs")
    print(f"  tests on it: SHOAL_TEST_KUBECONFIG={cluster.kubeconfig}; end it: make kube-down NAME={name}")


def _status(given: argparse.Namespace) -> None:
    for shape in ("node", "fleet", "images"):
        faults = needs.lacking(shape)
        print(f"{shape}: {'can run here' if not faults else 'lacks'}")
        for fault in faults:
            print(f"  {fault}")
    for shape in binaries.OF_SHAPE:
        absent = binaries.missing(shape)
        print(f"programs of {shape}: {'compiled' if not absent else 'to be compiled: ' + ', '.join(absent)}")
    found = clusters.running()
    print(f"running: {len(found) or 'none'}")
    for name, shape, owner in found:
        cluster = clusters.find(name)
        print(
            f"  {name} ({shape}) of {f'process {owner}' if owner else 'nobody: stays until make kube-down'}"
        )
        print(f"    export KUBECONFIG={cluster.kubeconfig}")


def _down(given: argparse.Namespace) -> None:
    # Clusters with an owner belong to a test run that goes on: only a name ends them.
    names = [given.name] if given.name else [name for name, _, owner in clusters.running() if owner is None]
    for name in names:
        clusters.stop(name)
        print(f"{name} is gone.")
    for name in clusters.sweep():
        print(f"{name}, whose keeper had been killed, is cleaned up.")
    if not names:
        print("Nothing runs that `make kube` started.")


def _build(given: argparse.Namespace) -> None:
    programs = binaries.ensure(program for module in binaries.MODULES for program in module.packages)
    for name, path in programs.items():
        print(f"{name}: {path}")


def _images(given: argparse.Namespace) -> None:
    for name, archive in images.ensure().items():
        print(f"{name}: {archive} ({archive.stat().st_size / 1e6:.0f} MB)")
        for running, shape, _ in clusters.running():
            if shape == "node":
                clusters.load(clusters.find(running), archive)
                print(f"  loaded into {running} as {images.REFERENCE.format(name)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="cluster", description="A real Kubernetes for the tests.")
    commands = parser.add_subparsers(required=True)
    up = commands.add_parser("up", help="start a cluster that stays until `down`")
    up.add_argument("--shape", choices=("node", "fleet"), default="node")
    up.add_argument("--name", default="", help="default: the shape's name")
    up.add_argument("--nodes", type=int, default=20, help="simulated nodes of a fleet")
    up.add_argument("--audit", action="store_true", help="log every change to logs/audit.log")
    up.set_defaults(run=_up)
    status = commands.add_parser("status", help="what can run here, what runs")
    status.set_defaults(run=_status)
    down = commands.add_parser("down", help="end what `up` started")
    down.add_argument("--name", default="", help="this cluster alone, also one of a test run")
    down.set_defaults(run=_down)
    build = commands.add_parser("build", help="compile all programs now")
    build.set_defaults(run=_build)
    build_images = commands.add_parser("images", help="build the project's images; load them into what runs")
    build_images.set_defaults(run=_images)
    given = parser.parse_args()
    try:
        given.run(given)
    except ClusterError as reason:
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
