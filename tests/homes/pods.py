"""Worker programs on this machine as pods run them: with nothing to write to but their scratch folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import shoal
from shoal.machine.certificate import make_certificate


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pods:
    """Worker programs of one cluster, each with what its pod would give it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.certificate = make_certificate("trial.shoal.internal")
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.cluster = "trial"
        self.handle: Any = None
        self.keys(folder / "certificate", *self.certificate)

    @staticmethod
    def keys(folder: Path, certificate: str, key: str) -> Path:
        folder.mkdir(parents=True)
        (folder / "tls.crt").write_text(certificate)
        (folder / "tls.key").write_text(key)
        return folder

    def start(self, name: str, **more: str) -> subprocess.Popen[bytes]:
        told = {
            "SHOAL_CLUSTER": self.cluster,
            "SHOAL_SCHEDULER": f"tls://127.0.0.1:{self.port}",
            "SHOAL_WORKER_NAME": name,
            "SHOAL_WORKER_CORES": "1",
            "SHOAL_WORKER_MEMORY": "500000000",
            "SHOAL_CERTIFICATE": str(self.folder / "certificate"),
            "SHOAL_SCRATCH": str(self.folder / name),
            "HOME": "/proc",  # nobody can write there, root included
        }
        kept = {key: os.environ[key] for key in ("PATH", "SHOAL_DATA")}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-P", "-m", "shoal.engines.dask.worker"],
                cwd="/proc",
                env=kept | told | more,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.running[name]

    def up(self, project: Path, *names: str, packages: Sequence[str] = (), **more: str) -> Any:
        """A cluster whose workers are started once it has a head, as its home does."""
        heads = Path(os.environ["GUEST_STORE"]) / "heads"

        def start() -> None:
            deadline = time.monotonic() + 30
            while not (found := [each.name for each in heads.glob("*")]) and time.monotonic() < deadline:
                time.sleep(0.05)
            (self.cluster,) = found
            for name in names:
                self.start(name, **more)

        with ThreadPoolExecutor(1) as pool:
            started = pool.submit(start)
            self.handle = shoal.up(
                "small",
                engine="dask",
                workers=len(names),
                packages=packages,
                name="one",
                project=project,
                quiet=True,
            )
            started.result(30)
        return self.handle

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def said(self, name: str) -> str:
        """Its own last line, which says why it ended."""
        return [line for line in self.log(name).splitlines() if " - shoal.engines - " in line][-1]

    def end(self) -> None:
        if self.handle is not None:
            self.handle.close()
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
            process.wait(10)
