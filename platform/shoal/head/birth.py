"""The birth of a head: it waits until its cluster is admitted, is imported, gets a guard, and lives.

Why it exists: everything that has to be done before a thread runs or a socket is open, in one place; and a
detached request is admitted with no command running and nobody looking, so a head waits in the queue itself.

What it must not do: import an engine, the pure core or an ORM before it is admitted: a hundred may wait on one
machine. Nor know a home: it is handed its desk (``homes.choose``).
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from shoal.homes.choose import open_desk

if TYPE_CHECKING:
    from shoal.homes.base import Desk


def main(cluster_id: str, engine: str, home: str) -> None:
    """A head that is started after the decision."""
    _forgive()
    desk = open_desk(home, cluster_id)
    if desk.wait():
        import_early(engine, desk)
        live(engine, desk)


def import_early(engine: str, desk: Desk) -> None:
    """Everything that its life will need, before anything is decided or forked."""
    from shoal.engines.dask.forking import preload

    def rest() -> None:
        import shoal.head.life  # noqa: F401

        desk.prepare()

    preload(engine, rest)


class _Log:
    """Where a head writes. What cannot be written is lost: a full disk must not end a cluster."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _forgive() -> None:
    from shoal.machine.logs import set_up

    sys.stdout, sys.stderr = _Log(sys.stdout), _Log(sys.stderr)
    set_up(sys.stdout)


def _keep_temporary_files_private(folder: Path) -> Path:
    """For this process and all that it starts: the machine's own folder is open to all its users."""
    import tempfile

    from shoal.machine import paths

    private = paths.temporary(folder)
    os.environ["TMPDIR"] = str(private)
    tempfile.tempdir = None  # whoever asked before asks again
    return private


def _keep_off_proxies() -> None:
    """Nothing that is meant for this machine leaves it, also not from the user's code on workers."""
    from shoal.machine.loopback import spare

    spare()


def live(engine: str, desk: Desk) -> None:
    """From its admission to its end; does not return."""
    import shutil

    from shoal.machine import cgroups
    from shoal.machine.guard import stand_guard
    from shoal.machine.processes import LEDGER

    if ledger := os.environ.get(LEDGER):  # at home local; in a pod there is nothing else
        cgroups.join(cgroups.member(desk.id, ledger))
    guard = stand_guard()
    _forgive()
    private = _keep_temporary_files_private(desk.folder)
    _keep_off_proxies()
    if engine == "dask" and desk.stand.own_workers:
        from shoal.engines.dask.forking import serve_forks

        serve_forks()  # before a thread runs, or a file or socket is open that no worker should have
    from shoal.head.life import Head

    try:
        code = Head(desk, guard).run()
    finally:  # also where the data folder is gone by now, and with it the only way to find this one
        shutil.rmtree(private, ignore_errors=True)
    sys.stdout.flush()
    # Not sys.exit: a thread of an engine that does not end must not keep the head alive.
    os._exit(code)
