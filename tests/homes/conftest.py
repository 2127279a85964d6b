"""Fixtures of the homes' tests: a real PostgreSQL that can be stopped and started, a home that a module shares."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class PostgreSQL:
    """A server of its own on loopback; ``url`` is that of an empty database."""

    url: str
    control: tuple[str, ...]
    options: str
    run: dict[str, Any]

    def start(self) -> None:
        subprocess.run([*self.control, "-o", self.options, "start"], **self.run)

    def stop(self, mode: str = "fast") -> None:
        """``immediate``: as if it had crashed."""
        subprocess.run([*self.control, "-m", mode, "stop"], **self.run)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    binaries = str(found[-1].parent) if found else os.path.dirname(shutil.which("initdb") or "")
    if not binaries:
        reason = "no PostgreSQL: apt install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must skip nothing, but: {reason}")
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("postgresql")
    as_user: dict[str, object] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        import pwd

        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        for parent in folder.parents:
            if parent == Path("/tmp"):
                break
            parent.chmod(parent.stat().st_mode | 0o011)
        as_user = {"user": user.pw_uid, "group": user.pw_gid}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    run = {"check": True, "cwd": folder, "timeout": 120, **quiet, **as_user}
    subprocess.run([f"{binaries}/initdb", "-D", f"{folder}/db", "-A", "trust", "-U", "shoal"], **run)  # type: ignore[call-overload]
    server = PostgreSQL(
        f"postgresql+psycopg2://shoal@127.0.0.1:{port}/postgres",
        (f"{binaries}/pg_ctl", "-D", f"{folder}/db", "-w", "-l", f"{folder}/log"),
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off",
        run,
    )
    server.start()
    yield server
    subprocess.run([*server.control, "-m", "immediate", "stop"], **{**run, "check": False})  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def shared_project(
    tmp_path_factory: pytest.TempPathFactory,
    small_project: Callable[[Path], Path],
    marked: Callable[[], dict[int, str]],
) -> Iterator[Path]:
    """The small project in a home of the module's own; afterwards no process of its clusters is there."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("SHOAL_") and name not in ("SHOAL_CACHE",):
                patch.delenv(name)
        patch.setenv("SHOAL_DATA", str(folder / "home"))
        patch.setenv("SHOAL_CATALOG_URI", f"sqlite:///{folder / 'home' / 'catalog.db'}")
        patch.setenv("SHOAL_USER", "alice")
        patch.chdir(folder)
        yield small_project(folder / "project")
        deadline = time.monotonic() + 20
        while left := marked():
            assert time.monotonic() < deadline, f"left running: {left}"
            time.sleep(0.1)
