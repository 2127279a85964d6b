"""How an API server is reached, and what is shown to it: proxies, other names, certificates of programs."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from shoal.errors import InfrastructureError, UsageError
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.clock import OFF
from shoal.homes.kubernetes.errors import RightsError
from shoal.homes.kubernetes.forwarding import opened
from shoal.machine.certificate import make_certificate

from ..servers.connect_proxy import connect_proxy

POD_AND_VERSION = {
    "gitVersion": "v1.34.4",
    "metadata": {},
    "items": [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u"}}],
}
NAME, HOUR = "kubernetes.internal", 3600.0


class Server(ThreadingHTTPServer):
    """Answers whoever shows the certificate of ``taken``; all others have to log in again."""

    daemon_threads = True
    taken = "new"
    seen: list[str]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        connection = self.connection
        assert isinstance(connection, ssl.SSLSocket)
        shown = dict(pair for each in (connection.getpeercert() or {}).get("subject", ()) for pair in each)  # type: ignore[misc]
        whom = str(shown.get("commonName") or self.headers.get("Authorization"))
        self.server.seen.append(whom)
        body = json.dumps({"whom": whom, "message": "Unauthorized"} | POD_AND_VERSION).encode()
        self.send_response(200 if whom == self.server.taken else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() + HOUR, usegmt=True)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """By TLS, under a name that it is not reached by."""
    made = {name: make_certificate(name) for name in (NAME, "old", "new")}
    for name, (certificate, key) in made.items():
        (tmp_path / f"{name}.pem").write_text(certificate + key)
        status = {"clientCertificateData": certificate, "clientKeyData": key}
        (tmp_path / f"{name}.json").write_text(json.dumps({"kind": "ExecCredential", "status": status}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / f"{NAME}.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=made["old"][0] + made["new"][0])
    its = Server(("127.0.0.1", 0), Handler)
    its.seen = []
    its.socket = context.wrap_socket(its.socket, server_side=True)
    threading.Thread(target=its.serve_forever, daemon=True).start()
    yield its
    its.shutdown()
    its.server_close()


@pytest.fixture
def connected(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    files = iter(range(100))

    def by(cluster: dict[str, Any], user: dict[str, Any]) -> Api:
        authority = base64.b64encode((tmp_path / f"{NAME}.pem").read_bytes()).decode()
        its = {
            "server": f"https://127.0.0.1:{server.server_address[1]}",
            "certificate-authority-data": authority,
        }
        said = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
            "clusters": [{"name": "c", "cluster": its | cluster}],
            "users": [{"name": "c", "user": user}],
        }
        file = tmp_path / f"config-{next(files)}"
        file.write_text(yaml.safe_dump(said))
        monkeypatch.setenv("KUBECONFIG", str(file))
        return Api.of()

    return by


def program(script: str) -> dict[str, Any]:
    said = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script]}
    return {"exec": said}


def test_a_server_behind_a_proxy_is_known_by_the_name_that_is_expected(
    server: Server, connected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = "127.0.0.1", int(server.server_address[1])
    server.taken = "Bearer secret"
    away = {"server": "https://only-there.invalid:6443", "tls-server-name": NAME}
    with connect_proxy(host, port) as proxy:
        api = connected(away | {"proxy-url": proxy.url}, {"token": "secret"})
        assert api.get("/x")["whom"] == "Bearer secret"
        api.close()
        again = api.again()
        assert again.get("/x")["whom"] == "Bearer secret"
        again.close()
        assert proxy.asked == 2 * ["only-there.invalid:6443"]
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        environments = connected(away, {"token": "secret"})
        assert environments.get("/x")["whom"] == "Bearer secret"
        environments.close()
        assert len(proxy.asked) == 3
        wrong = connected(away | {"proxy-url": proxy.url, "tls-server-name": "other"}, {"token": "secret"})
        with pytest.raises(InfrastructureError, match=r"is not who the kubeconfig expects.*other"):
            wrong.get("/x")
        wrong.close()
    direct = connected({"tls-server-name": NAME}, {"token": "secret"})
    assert direct.get("/x")["whom"] == "Bearer secret"
    assert abs(direct.clock.now() - time.time() - HOUR) <= OFF, "its answers tell what time it is there"
    direct.close()
    with pytest.raises(UsageError, match="context 'c' cannot be used"):
        connected({"proxy-url": "ftp://127.0.0.1:1"}, {})


def test_a_proxy_that_is_away_is_told_as_the_server_that_does_not_answer(
    connected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setattr("shoal.homes.kubernetes.api._TRIES", 0.2)
    api = connected({"proxy-url": f"http://127.0.0.1:{port}"}, {"token": "secret"})
    with pytest.raises(InfrastructureError, match="did not answer"):
        api.get("/x")
    api.close()


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_certificate_of_a_program_is_shown_and_a_new_one_once_it_has_expired(
    server: Server, connected: Any, tmp_path: Path, there: Path
) -> None:
    """Also where connections are kept, which show for good what they were made with; no key stays in a file."""
    (tmp_path / "now").write_text((tmp_path / "old.json").read_text())
    api = connected({"tls-server-name": NAME}, program(f"echo asked >> {tmp_path}/asked; cat {tmp_path}/now"))
    server.taken = "old"
    many = threading.Barrier(4)

    def ask() -> None:
        many.wait()
        api.get("/x")

    together = [threading.Thread(target=ask) for _ in range(4)]
    for each in together:
        each.start()
    for each in together:
        each.join()
    assert set(server.seen) == {"old"}
    assert (tmp_path / "asked").read_text().count("asked") == 1, "once for all of them"
    server.taken = "new"
    (tmp_path / "now").write_text((tmp_path / "new.json").read_text())
    assert api.get("/x")["whom"] == "new"
    assert api.get("/x")["whom"] == "new"
    assert (tmp_path / "asked").read_text().count("asked") == 2
    server.taken = "nobody"
    with pytest.raises(RightsError, match="does not take the kubeconfig's credentials"):
        api.get("/x")
    api.close()
    assert list(there.iterdir()) == []


@pytest.mark.parametrize("wants", [True, False])
def test_a_program_is_told_for_which_server_where_the_kubeconfig_says_so(
    server: Server, connected: Any, tmp_path: Path, wants: bool
) -> None:
    server.taken = "Bearer secret"
    answer = json.dumps({"kind": "ExecCredential", "status": {"token": "secret"}})
    script = f"echo \"$KUBERNETES_EXEC_INFO\" > {tmp_path}/told; echo '{answer}'"
    its = program(script)
    its["exec"]["provideClusterInfo"] = wants
    authority = {"certificate-authority-data": None, "certificate-authority": str(tmp_path / f"{NAME}.pem")}
    api = connected({"tls-server-name": NAME} | authority, its)
    assert api.get("/x")["whom"] == "Bearer secret"
    api.close()
    told = json.loads((tmp_path / "told").read_text())["spec"].get("cluster")
    assert (told is not None) is wants
    if wants:
        assert told["server"] == f"https://127.0.0.1:{server.server_address[1]}"
        assert told["tls-server-name"] == NAME
        assert base64.b64decode(told["certificate-authority-data"]) == (tmp_path / f"{NAME}.pem").read_bytes()


def test_a_tunnel_goes_the_same_way_and_shows_the_same(
    server: Server, connected: Any, tmp_path: Path, there: Path
) -> None:
    (tmp_path / "now").write_text((tmp_path / "old.json").read_text())
    script = f"cat {tmp_path}/now; cp {tmp_path}/new.json {tmp_path}/now"

    async def open_one() -> int:
        tunnel = await opened(None, "n", "p", 8786)
        port = tunnel.local_port
        await tunnel.close()
        await tunnel._resource.api._session.aclose()
        return int(port)

    with connect_proxy("127.0.0.1", int(server.server_address[1])) as proxy:
        away = {"server": "https://only-there.invalid:6443", "tls-server-name": NAME, "proxy-url": proxy.url}
        connected(away, program(script)).close()
        assert asyncio.run(open_one())
        assert set(proxy.asked) == {"only-there.invalid:6443"}
    assert server.seen[0] == "old"
    assert set(server.seen[1:]) == {"new"}, "one that has expired is asked for again"
    assert list(there.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, "its answer has no token, and no certificate with its key"),
        ({"clientCertificateData": "x"}, "its answer has no token, and no certificate with its key"),
        ({"clientCertificateData": "no", "clientKeyData": "none"}, "its certificate is none"),
    ],
)
def test_what_is_no_credential_is_told(connected: Any, status: dict[str, str], said: str) -> None:
    answer = json.dumps({"kind": "ExecCredential", "status": status})
    with pytest.raises(RightsError, match=said):
        connected({}, program(f"echo '{answer}'")).get("/x")
