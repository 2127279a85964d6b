"""Installs the ``packages=`` of a cluster beside the environment of its processes.

Why it exists: a try with one more package must neither need a new environment nor change the user's own. What is
missing is settled once, by the head; everybody else installs just that, the same files.

What it must not do: touch the environment that the client runs in.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from shoal.errors import InfrastructureError
from shoal.machine.importing import PACKAGES_PATH

_log = logging.getLogger("shoal.engines")
# By which client and cluster speak: another version on one side would break the cluster, so it is refused.
_FIXED = ("dask", "distributed", "cloudpickle", "msgpack", "tornado")
_PIP = ("install", "--quiet", "--disable-pip-version-check", "--no-input", "--root-user-action=ignore")
_TRIED_AGAIN = re.compile(r"Retrying \(Retry\(.*?\)\) after c")  # pip's words of a connection that broke
_LINES, _LINE = 3, 150  # of pip's words, in a record


def install(packages: Sequence[str], folder: Path, deadline: float) -> tuple[str, ...]:
    """Install what ``packages`` need beyond what is here into ``folder``, and have this process and those that it
    starts find it. What is here and fits stays as it is.

    Args:
        packages: pip requirements.
        folder: for them alone; it is made.
        deadline: monotonic seconds.

    Returns:
        what was installed, as requirements of one file each, with its hash where it has one: for :func:`add`.

    Raises:
        InfrastructureError: with the last of pip's words; ``values["packages"]`` has the requirements.
    """
    with tempfile.TemporaryDirectory() as temporary:
        report, fixed = Path(temporary, "report.json"), Path(temporary, "fixed.txt")
        fixed.write_text("".join(_pinned(name) for name in _FIXED))
        # pip counts nothing as installed where it has a target, so what is missing is asked for first.
        _pip(["--dry-run", "--report", str(report), "-c", str(fixed), *packages], packages, deadline)
        locked = tuple(_one(each) for each in json.loads(report.read_text())["install"])
    add(locked, folder, deadline)
    return locked


def add(locked: Sequence[str], folder: Path, deadline: float) -> None:
    """Install exactly this, as :func:`install` told it, and have this process find it; InfrastructureError as there."""
    if not locked:
        return
    _log.info("installs %s", ", ".join(each.partition(" @ ")[0] for each in locked))
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, "locked.txt")
        file.write_text("\n".join(locked))
        _pip(["--no-deps", "--target", str(folder), "-r", str(file)], locked, deadline)
    os.environ[PACKAGES_PATH] = str(folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def _pinned(name: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return f"{name}=={metadata.version(name)}\n"
    return ""


def _one(found: Mapping[str, Any]) -> str:
    """One entry of pip's report as a requirement that means this very file."""
    origin, url = found["download_info"], str(found["download_info"]["url"])
    marks = []
    if (its := origin.get("vcs_info")) is not None:
        url = f"{its['vcs']}+{url}@{its['commit_id']}"
    for kind, value in origin.get("archive_info", {}).get("hashes", {}).items():
        marks.append(f"{kind}={value}")
    if below := origin.get("subdirectory"):
        marks.append(f"subdirectory={below}")
    return f"{found['metadata']['name']} @ {url}" + (f"#{'&'.join(marks)}" if marks else "")


def _pip(words: Sequence[str], packages: Sequence[str], deadline: float) -> None:
    seconds = max(1.0, deadline - time.monotonic())
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "pip", *_PIP, *words],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        said = f"it was not done within {seconds:.0f} s"
    else:
        if answer.returncode == 0:
            return
        said = (answer.stderr or answer.stdout).strip()
    _log.error("pip could not install %s:\n%s", ", ".join(packages), said)
    raise InfrastructureError(
        f"installing {_short(packages)} failed: {_last(said)}",
        hint="Check `packages=`, and which index pip asks; the log of the cluster has all of pip's words.",
        packages=list(packages),
    )


def _short(packages: Sequence[str]) -> str:
    said = ", ".join(each.partition(" @ ")[0] for each in packages)
    return said if len(said) <= _LINE else f"{len(packages)} packages"


def _last(said: str) -> str:
    """The end of it, in one line, with what was tried again told by its cause."""
    lines = [_TRIED_AGAIN.sub("C", line.strip()) for line in said.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("[notice]")]
    return "; ".join(line if len(line) <= _LINE else f"{line[:_LINE]}..." for line in lines[-_LINES:])
