"""The guest home once more, which runs submitted scripts itself: the runner's program, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from guest_home import GuestHome, _started

from shoal.governor.actions import Seen
from shoal.governor.ends import Exit
from shoal.governor.ports import Sight, Snapshot
from shoal.machine.processes import MARK, identity, is_alive
from shoal.model.cluster import Cluster
from shoal.model.codec import plain

_SHELL = '"$@"; echo $? > exit.new; mv exit.new exit'


class ScriptHome(GuestHome):
    """``Request.run`` is taken. What its process wrote and how it ended is in the cluster's folder."""

    def snapshot(self) -> Snapshot:
        found = super().snapshot()
        sights = {
            key: self._with_script(found.clusters[key][0], sight) for key, sight in found.sights.items()
        }
        return replace(found, sights=sights)

    def _with_script(self, cluster: Cluster, sight: Sight) -> Sight:
        if cluster.run is None:
            return sight
        folder = self._of(cluster.id)
        if (folder / "exit").exists():
            return replace(sight, script=Seen.GONE, exit=Exit(int((folder / "exit").read_text())))
        return replace(sight, script=Seen.ALIVE if (folder / "script").exists() else Seen.NEVER)

    def start_script(self, cluster_id: str) -> None:
        cluster, endpoint, folder = (
            self.get_record(cluster_id),
            self.endpoint(cluster_id),
            self._of(cluster_id),
        )
        if (folder / "script").exists():
            return
        (folder / "pass").mkdir(exist_ok=True)
        (folder / "pass" / "tls.crt").write_text(endpoint.security["tls_client_cert"])
        (folder / "pass" / "tls.key").write_text(endpoint.security["tls_client_key"])
        settings = {
            MARK: cluster_id,
            "SHOAL_RUN": json.dumps(plain(cluster.run)),
            "SHOAL_ATTACH": cluster.name,
            "SHOAL_SCHEDULER": endpoint.address,
            "SHOAL_CERTIFICATE": str(folder / "pass"),
            "SHOAL_SCRATCH": str(folder),
            "SHOAL_POD_UID": "script",
            "PYTHONUNBUFFERED": "1",
        }
        words = ["sh", "-c", _SHELL, "sh", sys.executable, "-P", "-m", "shoal.engines.dask.runner"]
        with (folder / "script.log").open("ab") as log:
            process = subprocess.Popen(
                words, cwd=folder, env=os.environ | settings, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        _started.append(process)
        (folder / "script").write_text(json.dumps(identity(process.pid)))

    def get_record(self, cluster_id: str) -> Cluster:
        with self._kept() as kept:
            return kept.get(cluster_id)

    def endpoint(self, cluster_id: str):  # type: ignore[no-untyped-def]
        from shoal.model.endpoint import Endpoint

        file = self._of(cluster_id) / "endpoint"
        return Endpoint(**json.loads(file.read_text())) if file.exists() else super().endpoint(cluster_id)

    def stop_head(self, cluster_id: str) -> None:
        file = self._of(cluster_id) / "script"
        if file.exists() and not (self._of(cluster_id) / "exit").exists():
            shell = json.loads(file.read_text())
            if is_alive(shell):
                os.killpg(shell["pid"], signal.SIGTERM)
        super().stop_head(cluster_id)

    def output(self, cluster_id: str, *, follow: bool = False) -> Iterator[str]:
        log, at = self._of(cluster_id) / "script.log", 0
        while True:
            over = self.get(cluster_id).state.ended
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            yield from lines[at:]
            at = len(lines)
            if over or not follow:
                return
            time.sleep(0.1)
