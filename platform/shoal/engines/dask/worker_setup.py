"""Runs in each Dask worker before it connects (a Dask preload).

Why it exists: a worker must not outlive its head, whatever it is busy with, and it has what ``packages=`` asked
for. What its users can import comes with what their clients tell (``code``).

What it must not do: import anything heavy, for it runs at every worker's start.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from shoal.engines.dask import resting, worker_calls, worker_usage
from shoal.engines.dask.dashboard import Guard
from shoal.machine.environment import VERSIONS, versions
from shoal.machine.importing import PACKAGES_PATH
from shoal.machine.logs import set_up
from shoal.machine.pages import secret_of
from shoal.machine.processes import MARK, die_with_parent


def _versions(_worker: Any) -> dict[str, str]:
    return versions()


def dask_setup(worker: Any) -> None:
    die_with_parent()
    if not logging.getLogger("shoal").handlers:  # it was spawned; a forked one has its head's
        set_up(sys.stdout)
    Guard(worker, secret_of(worker.security.tls_worker_key), "distributed.dashboard.worker")
    worker.startup_information[VERSIONS] = _versions
    worker_calls.of_worker(worker)
    resting.of_worker(worker)
    if root := os.environ.get(worker_usage.ROOT):
        worker_usage.of_worker(worker, int(root), os.environ[MARK])
    if PACKAGES_PATH in os.environ:
        sys.path.insert(0, os.environ[PACKAGES_PATH])  # asked for: before what is installed
