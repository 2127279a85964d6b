"""Installs the ``packages=`` of a cluster for its workers, beside the environment they share.

Why it exists: a try with one more package must neither need a new environment nor change the user's own.

What it must not do: touch the environment that the client runs in.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from shoal.errors import InfrastructureError
from shoal.machine.importing import PACKAGES_PATH


def install(packages: Sequence[str], folder: Path, deadline: float) -> None:
    """pip-install into ``folder`` and put it on the workers' path; InfrastructureError with pip's words."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *packages]
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=max(1.0, deadline - time.monotonic()),
            check=False,
        )
        said = (answer.stderr or answer.stdout).strip()
        failed = answer.returncode != 0
    except subprocess.TimeoutExpired as error:
        said, failed = str(error), True
    if failed:
        raise InfrastructureError(
            f"installing {', '.join(packages)} for the workers failed: {said[-2000:]}",
            hint="Check the names and versions in `packages=`.",
            packages=list(packages),
        )
    os.environ[PACKAGES_PATH] = str(folder)
