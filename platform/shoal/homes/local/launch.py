"""Starts head processes.

Why it exists: a head belongs to nobody's terminal. It runs in a session of its own, knows its cluster by
its arguments and its mark, and outlives the command that asked for it.

What it must not do: wait for it, or touch the ledger.
"""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from shoal.errors import InfrastructureError
from shoal.homes.local import ahead
from shoal.machine import paths
from shoal.machine.processes import MARK, identity

_log = logging.getLogger("shoal.homes")
LOG = "head.log"
SPARK_LOG = "spark.log"

# Heads started by this process: kept, so that an ended one is reaped instead of staying a zombie.
_started: list[subprocess.Popen[bytes]] = []


def launch(cluster_id: str, engine: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Start the head of a cluster, or let go on the one that was started ahead; returns its identity.

    InfrastructureError when it cannot be started.
    """
    reap()
    folder = paths.make_private(paths.run_folder(cluster_id))
    ours = {MARK: cluster_id} | ahead.settings(engine) | dict(environment)
    if (process := ahead.take(cluster_id, ours, folder, LOG)) is not None:
        _log.debug("%s: its head is process %s, started ahead", cluster_id, process.pid)
        return _known(process)
    try:
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                ahead.command(cluster_id, engine),
                cwd=folder,
                env=dict(os.environ) | ours,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        raise InfrastructureError(
            f"the head of {cluster_id} could not be started: {error}", hint="Check the machine's limits."
        ) from error
    _log.debug("%s: its head is process %s", cluster_id, process.pid)
    return _known(process)


def _known(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Its identity, also of one that has died already: first, since another thread may reap it then."""
    found = identity(process.pid)
    _started.append(process)
    return found


@atexit.register
def _let_go() -> None:
    """Heads outlive who started them: Python need not warn of them when it ends."""
    for process in _started:
        if process.poll() is None:
            process.returncode = 0


def reap() -> None:
    """Take note of heads that have ended."""
    _started[:] = [process for process in _started if process.poll() is None]
