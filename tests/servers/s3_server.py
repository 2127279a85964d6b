"""A real S3 server on loopback for tests, one per test run: versitygw over a folder."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cluster import binaries
from cluster.errors import Unavailable
from s3_proxy import S3Proxy

_START = 60.0  # s that it may take to answer


@dataclass
class S3Server:
    """``properties`` are what a catalog needs to use it; a bucket is a folder below ``folder``."""

    folder: Path
    port: int
    program: Path
    key: str = "lake"
    secret: str = field(default_factory=lambda: f"hidden-{secrets.token_hex(8)}", repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def properties(self) -> dict[str, str]:
        return {
            "s3.endpoint": f"http://127.0.0.1:{self.port}",
            "s3.access-key-id": self.key,
            "s3.secret-access-key": self.secret,
            "s3.region": "us-east-1",
        }

    def bucket(self, name: str) -> Path:
        (self.folder / name).mkdir(exist_ok=True)
        return self.folder / name

    def account(self, name: str, bucket: str) -> dict[str, str]:
        """Make a user with a bucket of their own, which nobody else but the server's owner may enter; what a
        catalog needs to be this user."""
        secret = f"hidden-{secrets.token_hex(8)}"
        self._admin("create-user", "--access", name, "--secret", secret, "--role", "user")
        self.own(bucket, name)
        return {**self.properties, "s3.access-key-id": name, "s3.secret-access-key": secret}

    def own(self, bucket: str, name: str) -> None:
        """Give a bucket to a user."""
        self.bucket(bucket)
        self._admin("change-bucket-owner", "--bucket", bucket, "--owner", name)

    def remove_account(self, name: str) -> None:
        self._admin("delete-user", "--access", name)

    def _admin(self, *command: str) -> None:
        login = [
            "--access",
            self.key,
            "--secret",
            self.secret,
            "--endpoint-url",
            f"http://127.0.0.1:{self.port}",
        ]
        subprocess.run(
            [str(self.program), "admin", *login, *command], check=True, capture_output=True, timeout=60
        )

    def objects(self, bucket: str) -> set[str]:
        """The keys of all objects in a bucket."""
        root = self.folder / bucket
        return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}

    def start(self) -> None:
        """Start it, and wait until it answers."""
        environment = {"ROOT_ACCESS_KEY": self.key, "ROOT_SECRET_KEY": self.secret, "HOME": str(self.folder)}
        accounts = self.folder.with_name(f"{self.folder.name}-accounts").absolute()
        accounts.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [
                *(str(self.program), "--port", f"127.0.0.1:{self.port}", "-q"),
                *("--iam-dir", str(accounts), "--iam-cache-disable"),
                *("posix", str(self.folder)),
            ],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            try:
                opener.open(f"http://127.0.0.1:{self.port}/", timeout=5).close()
                return
            except urllib.error.HTTPError:
                return  # it wants a signature: it is there
            except OSError:
                assert self._process.poll() is None, "the S3 server ended while it started"
                time.sleep(0.05)
        raise TimeoutError(f"the S3 server did not answer on port {self.port} within {_START:.0f} s")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    try:
        program = binaries.ensure(["versitygw"])["versitygw"]
    except Unavailable as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must skip nothing, but: {reason}")
        pytest.skip(str(reason))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = S3Server(tmp_path_factory.mktemp("s3"), port, program)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[S3Proxy]:
    """A proxy in front of the server, for one test."""
    proxy = S3Proxy(s3)
    proxy.start()
    yield proxy
    proxy.stop()
