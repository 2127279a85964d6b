"""Runs in each Dask worker before it connects (a Dask preload).

Why it exists: a worker must not outlive its head, whatever it is busy with, and it must be able to
import what the user's process could.

What it must not do: import anything heavy, for it runs at every worker's start.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from shoal.environment import VERSIONS, versions
from shoal.head.packages import PACKAGES_PATH
from shoal.homes.local.launch import CLIENT_PATH
from shoal.homes.local.processes import die_with_parent


def _versions(_worker: Any) -> dict[str, str]:
    return versions()


def dask_setup(worker: Any) -> None:
    die_with_parent()
    worker.startup_information[VERSIONS] = _versions
    if PACKAGES_PATH in os.environ:
        sys.path.insert(0, os.environ[PACKAGES_PATH])  # asked for: before what is installed
    for entry in json.loads(os.environ.get(CLIENT_PATH, "[]")):
        if entry not in sys.path:
            sys.path.append(entry)  # at the end: nothing of the user's may shadow the standard library
