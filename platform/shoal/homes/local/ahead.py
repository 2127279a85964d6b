"""Starts a head's process before anything is decided: it imports while the client still imports and decides.

Why it exists: most of a start is importing, in the client and in the head. Done at the same time it takes half
as long.

What it must not do: count. Until it is told to go on, the process owns nothing, writes nothing and has no
children; it ends with its request if that is refused, and by itself if whoever started it is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shoal.homes.local.periods import LOCAL
from shoal.machine import paths
from shoal.machine.crash import CrashPoint, reached
from shoal.machine.processes import AHEAD, FORKS_WORKERS, LEDGER, MARK
from shoal.model.homes import HomeKind
from shoal.project.folders import FILE, find

# What cannot be told later: who looks for a cluster's processes reads what they were started with.
_FIXED = (MARK, LEDGER, "SHOAL_DATA")
# One worker is one process with its own threads: libraries must not start more under them.
_EVERY_HEAD = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class _Early:
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]


# By the id that their cluster would have. Kept until they are told to go on, or are not needed.
_waiting: dict[str, _Early] = {}


def settings(engine: str) -> dict[str, str]:
    """What the environment of a head of this engine has to say from its first moment on."""
    return _EVERY_HEAD | (FORKS_WORKERS if engine == "dask" else {})


def command(cluster_id: str, engine: str, *more: str) -> list[str]:
    """How a head is started; nothing in its folder can be imported (``-P``)."""
    return [sys.executable, "-P", "-m", "shoal.head", cluster_id, engine, "local", *more]


@contextmanager
def ahead(
    engine: str, project: str | Path | None = None, target: str | None = None, cluster_id: str | None = None
) -> Iterator[str]:
    """Inside the block a head's process is there for the cluster whose id this gives.

    A hint: where none can be started (another target, no memory) the id is all there is, and the head starts
    after the decision. With ``cluster_id`` this was done before, and that id is given again.
    """
    if cluster_id is not None:
        yield cluster_id
        return
    cluster_id = secrets.token_hex(6)
    try:
        if _is_this_machine(project, target):
            _start(cluster_id, engine)
        yield cluster_id
    finally:
        discard(cluster_id)


def take(
    cluster_id: str, environment: Mapping[str, str], folder: Path, log: str
) -> subprocess.Popen[bytes] | None:
    """Tell the process that waits for this cluster to go on; None when there is none that fits."""
    early = _waiting.get(cluster_id)
    if early is None:
        return None
    said = {"environment": dict(environment), "folder": str(folder), "log": log}
    order = json.dumps(said).encode() + b"\n"
    fits = all(early.environment.get(name) == environment.get(name) for name in _FIXED)
    try:
        assert early.process.stdin is not None
        if not fits or early.process.poll() is not None:
            raise BrokenPipeError
        early.process.stdin.write(order)
        early.process.stdin.close()
    except OSError:  # it ended: the head is started as if there had never been one
        discard(cluster_id)
        return None
    del _waiting[cluster_id]
    return early.process


def discard(cluster_id: str) -> None:
    """End the process that waits for this cluster, if there is one; afterwards it is gone."""
    early = _waiting.pop(cluster_id, None)
    if early is None:
        return
    early.process.kill()
    with contextlib.suppress(OSError):
        assert early.process.stdin is not None
        early.process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        early.process.wait(LOCAL.dying)


def _start(cluster_id: str, engine: str) -> None:
    data = paths.data_folder().absolute()
    fixed = {MARK: cluster_id, LEDGER: f"sqlite:///{data / 'ledger.db'}", "SHOAL_DATA": str(data)}
    environment = dict(os.environ) | settings(engine) | fixed | {AHEAD: str(os.getpid())}
    try:
        process = subprocess.Popen(
            command(cluster_id, engine, "ahead"),
            cwd="/",
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return  # the start after the decision says why
    _waiting[cluster_id] = _Early(process, environment)
    reached(CrashPoint.CLIENT_AHEAD)


def _is_this_machine(project: str | Path | None, target: str | None) -> bool:
    """Whether the request is for this machine and its own ledger, by a glance at the file."""
    import yaml

    try:
        folder = Path(project) if project is not None else find()
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        said = yaml.load((folder / FILE).read_bytes(), Loader=loader)  # noqa: S506 - a safe loader
        chosen = said["targets"][target or os.environ.get("SHOAL_TARGET") or said["default_target"]]
        return bool(chosen["home"] == HomeKind.LOCAL and not chosen.get("store"))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, yaml.YAMLError):
        return False  # whatever is wrong is told when the files are checked
