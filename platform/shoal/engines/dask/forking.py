"""A server that forks Dask's workers from a process that has imported everything they need.

Why it exists: a worker that is spawned imports Dask again, for half a second of a core each; a forked one is
there in hundredths, also when it is restarted or added, and shares what was imported with the others.

It is Python's own fork server (``multiprocessing``). Only that the server is itself a fork of the head, instead
of one more interpreter that imports everything again, is not in its public interface: where that is not as
expected, or a fork is not safe, workers are spawned, which works alike. A server that was killed is replaced by
one that Python starts: then a worker that is stuck in native code may outlive a killed head until the next look.

What it must not do: run in a process that has threads, or that has files open which no worker should hold.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

_log = logging.getLogger("shoal.engines")
_SOCKET = "scratch/fork"  # in the head's folder
_LONGEST = 100  # bytes of a socket's path: Linux takes 107, macOS 103
_SERVER = ("_forkserver_address", "_forkserver_alive_fd", "_forkserver_pid")
# What a head and its workers import by themselves sooner or later, besides their routes. Nothing here may hold
# state that each worker should have for itself, as NumPy does (its generator's).
_DASK = (
    "distributed",
    "distributed.nanny",
    "cryptography.x509",
    "shoal.engines.dask.dashboard",
    "shoal.engines.dask.worker_setup",
    "shoal.engines.dask.code",
    "shoal.engines.dask.host",
)
_SPARK = ("cryptography.x509", "shoal.engines.spark.host")


def preload(engine: str, more: Callable[[], None] = lambda: None) -> None:
    """Import what a head of this engine will need, and ``more``. What is missing is told where it is needed."""
    gc.disable()  # nothing of an import is garbage: looking for it takes a sixth of the time
    try:
        _import(engine)
        with contextlib.suppress(ImportError):
            more()
    finally:
        gc.enable()
        gc.freeze()  # else a collection in a worker copies all that it shares with the others


def _import(engine: str) -> None:
    for module in _DASK if engine == "dask" else _SPARK:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    if "distributed" in sys.modules:
        import dask

        for side in ("scheduler", "worker"):
            for module in dask.config.get(f"distributed.{side}.http.routes", []):
                with contextlib.suppress(ImportError):
                    importlib.import_module(module)


def serve_forks() -> None:
    """From now on Dask's nannies in this process fork their workers, where that is safe; else they spawn them."""
    import dask
    import distributed.utils

    method = "distributed.worker.multiprocessing-method"
    asked = dask.config.get(method)
    if sys.platform != "linux":
        why = f"forking is only known to be safe on Linux, this is {sys.platform}"
    elif (threads := threading.active_count()) > 1:
        why = f"{threads} threads run already"
    elif asked != "spawn":
        why = f"Dask's own configuration says {method}: {asked}"
    elif not _settings_hold():
        why = "the environment is not what distributed.nanny.pre-spawn-environ wants"
    else:
        why = _fork_server()
    if why:
        _log.info("no fork server here, workers take longer to start: %s", why)
        return
    multiprocessing.set_forkserver_preload(list(_DASK))  # should Python have to start another one
    distributed.utils._forkserver_preload_set = True  # else Dask has that import pandas as well
    dask.config.set({method: "forkserver"})


def _settings_hold() -> bool:
    """Whether this process was started with what Dask sets only while it spawns a worker."""
    import dask

    wanted = dask.config.get("distributed.nanny.pre-spawn-environ") or {}
    return all(os.environ.get(name) == str(value) for name, value in wanted.items())


def _fork_server() -> str:
    """Make a fork of this process the server that ``multiprocessing`` would start; why not, where it cannot be."""
    server = getattr(forkserver, "_forkserver", None)
    if sys.version_info >= (3, 14) or any(not hasattr(server, name) for name in _SERVER):
        return f"the internals of multiprocessing in Python {sys.version.split()[0]} are not known"
    if any(getattr(server, name) is not None for name in _SERVER):
        return "there is one already, and it is not this head's"
    address = str(Path.cwd() / _SOCKET)
    if len(os.fsencode(address)) > _LONGEST:
        address = _SOCKET  # the head's working directory is its folder
    resource_tracker.ensure_running()
    alive_r, alive_w = os.pipe()
    head = os.getpid()
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            Path(_SOCKET).parent.mkdir(mode=0o700, exist_ok=True)
            listener.bind(address)
            listener.listen()
        except OSError as error:
            os.close(alive_r)
            os.close(alive_w)
            return f"it cannot listen at {_SOCKET}: {error}"
        pid = os.fork()
        if pid == 0:
            _serve(head, listener, alive_r, alive_w)
    os.close(alive_r)
    for name, value in zip(_SERVER, (address, alive_w, pid), strict=True):
        setattr(server, name, value)
    return ""


def _serve(head: int, listener: socket.socket, alive_r: int, alive_w: int) -> None:
    """The server's whole life. It ends with the head, or with the last who holds the other end of ``alive_r``."""
    from shoal.machine.processes import die_with_parent

    code = 1
    try:
        die_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how its parent takes it is not how a worker does
        os.close(alive_w)
        if os.getppid() != head:
            os._exit(0)  # it was gone before the kernel was asked
        forkserver.main(listener.detach(), alive_r, [])
    except SystemExit:
        code = 0
    finally:
        os._exit(code)
