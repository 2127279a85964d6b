"""How long a real Kubernetes takes to start, what its parts need, and how large the project's images are.

Run by `make bench`, with the programs compiled and the images' base made (`make kube-build kube-images`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from harness import Bench, Result, versions_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kubernetes"))

from cluster import binaries, clusters, fixtures, images, needs, waiting
from cluster.clusters import Cluster

PROMISED = 15.0  # s from the asking to a cluster that takes pods, once compiled
ROUNDS = 3
KUBERNETES = Path(__file__).resolve().parents[1] / "kubernetes"


def first_pod(cluster: Cluster, image: str) -> None:
    """Makes a pod and waits until it runs."""
    container = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}
    item = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "first"},
        "spec": {"containers": [container]},
    }
    admin = cluster.admin
    admin.create(item)
    path = "/api/v1/namespaces/default/pods/first"
    waiting.until("runs", lambda: admin.get(path)["status"].get("phase"), lambda p: p == "Running", 60, 0.02)
    admin.close()


def started(shape: str) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds until each stage, and the resident MiB of each program with one pod running."""
    begin = time.perf_counter()
    cluster = clusters.start(shape, owner=os.getpid())
    up = time.perf_counter() - begin
    try:
        if shape == "node":
            clusters.load(cluster, fixtures.tools_archive())
        first_pod(cluster, fixtures.TOOLS_IMAGE)
        pod = time.perf_counter() - begin
        memory: dict[str, float] = {}
        for process in psutil.process_iter(["name", "cmdline", "memory_info"]):
            line = " ".join(process.info["cmdline"] or [])
            if str(cluster.folder) in line and process.info["memory_info"]:
                name = "keeper" if "cluster.keeper" in line else process.info["name"]
                memory[name] = memory.get(name, 0.0) + process.info["memory_info"].rss / 2**20
        return {"up": up, "first pod": pod}, memory
    finally:
        clusters.stop(cluster.name)


def images_from_nothing() -> dict[str, float]:
    """Seconds to each image with an empty cache: base by mmdebstrap, packages and jars downloaded."""
    with tempfile.TemporaryDirectory(prefix="shoal-cold-") as cold:
        environment = {**os.environ, "XDG_CACHE_HOME": cold, "SHOAL_KUBE_CACHE": f"{cold}/kubernetes"}
        code = "import sys; from cluster import images; images.ensure((sys.argv[1],))"
        taken = {}
        for name in ("shoal-dask", "shoal-spark"):
            begin = time.perf_counter()
            command = [sys.executable, "-c", code, name]
            subprocess.run(command, env={**environment, "PYTHONPATH": str(KUBERNETES)}, check=True)
            taken[name] = time.perf_counter() - begin
        return taken


def add(bench: Bench, name: str, unit: str, values: dict[str, list[float]], **more: Any) -> None:
    """Figures of our own, side by side, with no peer."""
    bench._add(
        Result(
            name,
            unit,
            values,
            next(iter(values)),
            None,
            more.get("target", ""),
            more.get("met"),
            more.get("note", ""),
        )
    )


def main() -> None:
    bench = Bench(
        "kube",
        "A real Kubernetes for the tests",
        "Everything is started on this machine from programs compiled once; nothing is pulled. Memory is the sum "
        "of resident memory by program, with one pod running.",
        versions={
            **{m.folder: m.version for m in binaries.MODULES if m.version},
            **versions_of("dask", "distributed"),
        },
    )
    for module in binaries.MODULES:
        seconds = module.folder_in_cache / "seconds"
        if seconds.exists():
            taken = {", ".join(module.packages): [float(seconds.read_text())]}
            add(
                bench,
                f"compiled once: {module.folder} {module.version}".strip(),
                "s",
                taken,
                note="niced, when it was first needed",
            )
    for shape in ("fleet", "node"):
        if needs.lacking(shape) or binaries.missing(shape):
            bench.skip(f"the {shape} shape: {'; '.join(needs.lacking(shape)) or 'run make kube-build'}")
            continue
        rounds = [started(shape) for _ in range(ROUNDS)]
        up = [times["up"] for times, _ in rounds]
        target = f"at most {PROMISED:g} s"
        add(bench, f"the {shape} shape is up", "s", {shape: up}, target=target, met=max(up) <= PROMISED)
        add(bench, f"its first pod runs ({shape})", "s", {shape: [times["first pod"] for times, _ in rounds]})
        for program in sorted(rounds[0][1]):
            values = [memory.get(program, 0.0) for _, memory in rounds]
            add(bench, f"memory of {program} ({shape})", "MiB", {program: values})
    if needs.lacking("images"):
        bench.skip(f"images: {'; '.join(needs.lacking('images'))}")
    else:
        for name, seconds in images_from_nothing().items():
            second = "; base and shared packages are there then" if name == "shoal-spark" else ""
            add(
                bench,
                f"{name} built from nothing",
                "s",
                {name: [seconds]},
                note=f"nothing in any cache{second}",
            )
        begin = time.perf_counter()
        images.ensure()
        add(
            bench,
            "images made ready",
            "s",
            {"both": [time.perf_counter() - begin]},
            note="after a change, or checked",
        )
        begin = time.perf_counter()
        archives = images.ensure()
        add(bench, "images found unchanged", "s", {"both": [time.perf_counter() - begin]})
        for name, archive in archives.items():
            add(
                bench,
                f"size of {name}",
                "MB",
                {name: [archive.stat().st_size / 1e6]},
                note="uncompressed, with its base",
            )
    print(bench.save())


if __name__ == "__main__":
    main()
