"""Iceberg's own REST catalog on loopback for tests, one per test run: its tables' files on S3, its names in SQLite.

Its jars come from Maven once for each ``rest/pom.xml``, into the user's cache folder; the server is compiled there.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
import pytest

_SOURCE = Path(__file__).with_name("rest")
_START = 60.0  # s that it may take to answer
_FETCH = 900.0  # s that its jars may take to come


@dataclass
class RestServer:
    """``owner`` and ``reader`` are what `credential` is for each; a reader changes nothing."""

    folder: Path
    program: Path
    storage: dict[str, str] = field(repr=False)
    port: int = 0
    owner: str = field(default_factory=lambda: f"shoal:hidden-{secrets.token_hex(8)}", repr=False)
    reader: str = field(default_factory=lambda: f"reader:hidden-{secrets.token_hex(8)}", repr=False)
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the port that it had, and wait until it answers."""
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        properties = {
            "port": str(self.port),
            "owner": self.owner,
            "reader": self.reader,
            "catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog",
            "uri": f"jdbc:sqlite:{self.folder / 'rest.db'}",
            "jdbc.schema-version": "V1",
            "jdbc.busy_timeout": "30000",
            "warehouse": "s3://rest/warehouse",
            "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
            "s3.path-style-access": "true",
            "client.region": "us-east-1",
            "include-credentials": "true",
            **self.storage,
        }
        command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"]
        command += [
            "-cp",
            f"{self.program / 'classes'}:{self.program / 'lib'}/*",
            "org.apache.iceberg.rest.RestServer",
        ]
        with (self.folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, text=True
            )
        assert self._process.stdin is not None
        self._process.stdin.write("".join(f"{name}={value}\n" for name, value in properties.items()) + "\n")
        self._process.stdin.flush()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            try:
                opener.open(f"{self.uri}/v1/config", timeout=5).close()
            except urllib.error.HTTPError:
                return  # it wants a token: it is there
            except OSError:
                assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
                time.sleep(0.05)
        raise TimeoutError(f"the REST catalog did not answer on port {self.port} within {_START:.0f} s")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=20)
            self._process = None


def built() -> Path:
    """The folder with its jars and its class, made where there is none. RuntimeError says what is missing."""
    if absent := [program for program in ("mvn", "javac", "java") if shutil.which(program) is None]:
        raise RuntimeError(
            f"no {', '.join(absent)}, with which the REST catalog is made: install maven and openjdk-17-jdk"
        )
    files = sorted(_SOURCE.iterdir())
    key = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    cache = Path(os.environ.get("SHOAL_REST_CACHE") or platformdirs.user_cache_path("shoal") / "rest")
    there = cache / key
    if there.exists():
        return there
    scratch = cache / f"{key}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    fetch = ["mvn", "--quiet", "--batch-mode", "--file", str(_SOURCE / "pom.xml")]
    _run([*fetch, "dependency:copy-dependencies", f"-DoutputDirectory={scratch / 'lib'}"])
    _run(
        [
            *("javac", "-d", str(scratch / "classes"), "-cp", f"{scratch / 'lib'}/*"),
            str(_SOURCE / "RestServer.java"),
        ]
    )
    try:
        scratch.rename(there)
    except OSError:  # another test run was quicker
        shutil.rmtree(scratch)
    return there


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
        )


@pytest.fixture(scope="session")
def rest_server(s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestServer]:
    try:
        program = built()
    except RuntimeError as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must skip nothing, but: {reason}")
        pytest.skip(str(reason))
    s3.bucket("rest")
    server = RestServer(tmp_path_factory.mktemp("rest"), program, s3.properties)
    server.start()
    yield server
    server.stop()
