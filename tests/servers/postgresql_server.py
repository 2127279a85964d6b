"""A real PostgreSQL on loopback for tests, one per test run; it can be stopped and started."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class PostgreSQL:
    """A server of its own on loopback, with a password; ``url`` is that of an empty database."""

    port: int
    password: str = field(repr=False)
    binaries: str
    folder: Path
    run: dict[str, Any] = field(repr=False)

    @property
    def url(self) -> str:
        return self._url("postgres")

    def database(self, name: str) -> str:
        """Make a database; its URL."""
        command = [f"{self.binaries}/createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "shoal", name]
        subprocess.run(command, env={**os.environ, "PGPASSWORD": self.password}, **self.run)
        return self._url(name)

    def start(self) -> None:
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 "
            f"-c unix_socket_directories={self.folder} -c fsync=off"
        )
        command = [*self._control, "-l", f"{self.folder}/log", "-o", options, "start"]
        # After a crash its last processes still hold its shared memory for a moment, and it refuses to start.
        for _ in range(20):
            if subprocess.run(command, **{**self.run, "check": False}).returncode == 0:
                return
            time.sleep(0.5)
        raise AssertionError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self, mode: str = "fast") -> None:
        """``immediate``: as if it had crashed."""
        subprocess.run([*self._control, "-m", mode, "stop"], **self.run)

    @property
    def _control(self) -> list[str]:
        return [f"{self.binaries}/pg_ctl", "-D", f"{self.folder}/db", "-w", "-t", "240"]

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg2://shoal:{self.password}@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    binaries = str(found[-1].parent) if found else os.path.dirname(shutil.which("initdb") or "")
    if not binaries:
        reason = "no PostgreSQL: apt install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must skip nothing, but: {reason}")
        pytest.skip(reason)
    # Not below pytest's own folder: each pytest that starts closes that to other users.
    folder = Path(tempfile.mkdtemp(prefix="shoal-postgresql-"))
    password = f"hidden-{secrets.token_hex(8)}"
    (folder / "password").write_text(password)
    as_user: dict[str, object] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        import pwd

        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        os.chown(folder / "password", user.pw_uid, user.pw_gid)
        as_user = {"user": user.pw_uid, "group": user.pw_gid}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    run: dict[str, Any] = {"check": True, "cwd": folder, "timeout": 300, **quiet, **as_user}
    login = ["-A", "scram-sha-256", "-U", "shoal", "--pwfile", f"{folder}/password"]
    subprocess.run([f"{binaries}/initdb", "-D", f"{folder}/db", *login], **run)
    server = PostgreSQL(port, password, binaries, folder, run)
    server.start()
    yield server
    subprocess.run([*server._control, "-m", "immediate", "stop"], **{**run, "check": False})
    shutil.rmtree(folder, ignore_errors=True)
