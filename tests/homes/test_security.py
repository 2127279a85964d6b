"""Several people on one machine: what listens on its loopback address tells a stranger nothing."""

from __future__ import annotations

import ast
import os
import socket
import socketserver
import ssl
import stat
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import shoal
from shoal.homes.local import endpoints
from shoal.machine import paths
from shoal.machine.loopback import get_json, spare

PACKAGE = Path(shoal.__file__).parent
Eventually = Callable[..., Any]


class _Listener:
    """Somebody who listens where a client might call by mistake, and writes down what they are sent."""

    def __init__(self, host: str, port: int = 0) -> None:
        self.heard: list[bytes] = []
        heard = self.heard

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.settimeout(2)
                try:
                    heard.append(self.request.recv(65536))
                    self.request.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                except OSError:
                    heard.append(b"")

        class Server(socketserver.ThreadingTCPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server((host, port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@contextmanager
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Listener]:
    """A company's proxy in every variable that clients know."""
    with closing(_Listener("127.0.0.1")) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
            for variable in (name, name.upper()):
                monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        for variable in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        yield proxy


def temporary_of(cluster_id: str) -> Path:
    return (paths.run_folder(cluster_id) / "tmp").readlink()


def listening(pids: Iterator[int] | set[int]) -> dict[int, str]:
    """Port -> the address that it listens at, of all these processes."""
    found = {}
    for pid in pids:
        for each in psutil.Process(pid).net_connections("inet"):
            if each.status == psutil.CONN_LISTEN:
                found[each.laddr.port] = each.laddr.ip
    return found


# -- proxies -------------------------------------------------------------------------------------------


def test_a_dask_cluster_behind_a_company_proxy_tells_its_status_and_the_proxy_hears_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(monkeypatch) as proxy:
        with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
            status = cluster._home.status(cluster.id)
            assert status is not None, "the head was asked directly"
            assert status.workers == 1
            said = cluster.client.submit(lambda: os.environ["no_proxy"]).result()
            assert "127.0.0.1" in said.split(","), (
                "the user's code on a worker reaches its own machine as well"
            )
        assert proxy.heard == []


def test_the_token_goes_to_no_other_machine() -> None:
    for url in ("http://192.0.2.1:80/v1/status", "https://127.0.0.1/", "http:///v1/status"):
        with pytest.raises(ValueError, match="loopback"):
            get_json(url, "secret", 1)


def test_what_was_spared_from_proxies_before_still_is() -> None:
    environment = {"no_proxy": "intranet, ::1"}
    spare(environment)
    assert environment["no_proxy"] == "intranet, ::1,127.0.0.1,localhost,::1"
    spare(environment)
    assert environment["no_proxy"].count("127.0.0.1") == 1
    assert environment["NO_PROXY"] == "127.0.0.1,localhost,::1"


def test_only_one_module_makes_http_calls() -> None:
    """Whoever calls in another way obeys ``http_proxy``; a call to this machine must not."""
    callers = {"urllib.request", "http.client", "httpx", "httpx2", "requests", "aiohttp", "urllib3"}
    users = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if found := callers & {
                *names,
                *(f"{n}.{a.name}" for n in names for a in getattr(node, "names", ())),
            }:
                users.setdefault(str(file.relative_to(PACKAGE)), set()).update(found)
    # An API server is asked by a client that is told its proxy: of the environment only by kubectl's rules.
    assert users.pop("homes/kubernetes/api.py") == {"httpx2"}
    assert "trust_env=False" in (PACKAGE / "homes/kubernetes/api.py").read_text()
    # The others only name types: what signs a request of that client, errors of PyIceberg's and Prefect's calls.
    assert users == {
        "machine/loopback.py": {"http.client"},
        "demo.py": {"httpx"},
        "homes/kubernetes/credentials.py": {"httpx2"},
        "tables/writing/commit.py": {"requests"},
        "tables/pyiceberg_rest.py": {"requests"},
        "tables/catalogs/reaching.py": {"requests"},
    }
    for file in users.keys() - {"machine/loopback.py"}:
        text = (PACKAGE / file).read_text()
        for module in ("httpx", "httpx2", "requests"):
            for call in ("get", "post", "put", "delete", "request", "Client", "Session", "stream"):
                assert f"{module}.{call}(" not in text, f"{file} calls {module}.{call}"


# -- Spark ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spark_home(
    tmp_path_factory: pytest.TempPathFactory, small_project: Callable[[Path], Path]
) -> Iterator[Path]:
    """One server for all of these tests: a start costs some ten seconds."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("spark-security")
        for name in list(os.environ):
            if name.startswith("SHOAL_") and name != "SHOAL_CACHE":
                patch.delenv(name)
        patch.setenv("SHOAL_DATA", str(folder / "home"))
        patch.setenv("SHOAL_CATALOG_URI", f"sqlite:///{folder / 'home' / 'catalog.db'}")
        patch.setenv("SHOAL_USER", "alice")
        yield small_project(folder / "project")


@pytest.fixture(scope="module")
def spark(spark_home: Path) -> Iterator[shoal.SparkCluster]:
    with shoal.spark("small", workers=2, project=spark_home, quiet=True) as cluster:
        assert cluster.sql("select 1 as one").collect()[0].one == 1
        yield cluster
        temporary = temporary_of(cluster.id)
    assert not temporary.exists(), "nothing temporary stays"


def hung_up(connection: socket.socket) -> bool:
    """Whether the other side ends it, after an alert of TLS at most."""
    try:
        while said := connection.recv(4096):
            assert said[:1] == b"\x15", said
    except ConnectionError:
        pass
    return True


def endpoint_of(cluster: Any) -> Any:
    endpoint = endpoints.read(paths.run_folder(cluster.id))
    assert endpoint is not None
    return endpoint


@pytest.mark.spark
@pytest.mark.slow
def test_who_listens_at_the_other_loopback_address_gets_no_spark_token(
    spark: shoal.SparkCluster, spark_home: Path
) -> None:
    """``localhost`` is ``::1`` as well: another user who listens there is never called."""
    port = int(endpoint_of(spark).address.rpartition(":")[2])
    with closing(_Listener("::1", port)) as thief:
        with shoal.connect(spark.name, project=spark_home) as again:
            assert again.sql("select 2 as two").collect()[0].two == 2
        assert thief.heard == []


@pytest.mark.spark
@pytest.mark.slow
def test_who_takes_the_port_of_a_spark_server_gets_no_token(spark: shoal.SparkCluster) -> None:
    """The server has to show the cluster's certificate before the client says anything."""
    import dataclasses

    from shoal.client.channel import spark_session

    before = spark.session
    with closing(_Listener("127.0.0.1")) as thief:
        real = endpoint_of(spark)
        session = spark_session(dataclasses.replace(real, address=f"sc://127.0.0.1:{thief.port}"))
        try:
            session.client.set_retry_policies([])
            with pytest.raises(Exception, match=r"(?i)unavailable|handshake|ssl"):
                _ = session.version
        finally:
            type(session)._set_default_and_active_session(before)
        assert thief.heard, "it was called"
        assert all(real.token.encode() not in heard for heard in thief.heard)
        assert all(heard[:1] in (b"\x16", b"") for heard in thief.heard), "and saw the hello of TLS, no more"


@pytest.mark.spark
@pytest.mark.slow
def test_who_cannot_show_the_key_is_no_client_of_spark(
    spark: shoal.SparkCluster, eventually: Eventually
) -> None:
    """A stranger's connections, open or knocking, keep no cluster alive."""
    spark._disconnect()
    home = spark._home
    eventually(lambda: home.status(spark.id).clients == 0, 20, "its client is seen to leave")
    port = int(endpoint_of(spark).address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)) as rude:
        rude.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        rude.settimeout(20)
        assert hung_up(rude), "who does not speak TLS is not listened to"
        eventually(lambda: not home.status(spark.id).busy, 20, "what strangers send is no work")
        assert home.status(spark.id).clients == 0
    assert spark.sql("select 3 as three").collect()[0].three == 3
    eventually(lambda: home.status(spark.id).clients == 1, 20, "who has the key is one")


@pytest.mark.spark
@pytest.mark.slow
def test_spark_behind_a_company_proxy_connects_and_the_proxy_hears_nothing(
    spark: shoal.SparkCluster, spark_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(monkeypatch) as proxy:
        with shoal.connect(spark.name, project=spark_home) as again:
            assert again.sql("select 4 as four").collect()[0].four == 4
        assert proxy.heard == []


@pytest.mark.spark
@pytest.mark.slow
def test_what_spark_keeps_is_in_a_private_folder(spark: shoal.SparkCluster, tmp_path: Path) -> None:
    """What a user uploads, native libraries, shuffle files: nobody else can so much as list them."""
    artifact = tmp_path / "secret_numbers.txt"
    artifact.write_text("42")
    spark.session.addArtifacts(str(artifact), file=True)
    kept = temporary_of(spark.id)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    found = [path for path in kept.rglob("*") if path.name == artifact.name]
    assert found, "the server keeps it there"
    total = spark.sql("select sum(id) as s from range(10)").collect()[0].s
    assert total == 45, "a task fetches it from the driver, as it did before that asked for a key"
    java = next(p for p in psutil.process_iter() if p.pid == spark._home.status(spark.id).worker_pids[0])
    shared = Path(tempfile.gettempdir())
    outside = [
        path
        for path in (f.path for f in java.open_files())
        if Path(path).is_relative_to(shared)
        and not Path(path).is_relative_to(paths.data_folder())
        and not Path(path).is_relative_to(kept)
    ]
    assert outside == []
    assert not (shared / f"hsperfdata_{java.username()}" / str(java.pid)).exists()


@pytest.mark.spark
@pytest.mark.slow
def test_nothing_of_the_jvm_listens_to_the_network(spark: shoal.SparkCluster) -> None:
    pids = set(spark._home.status(spark.id).worker_pids) | {spark.record.head["pid"]}
    found = listening(pids)
    assert len(found) >= 4, "status, relay, Connect, driver RPC"
    assert {address.removeprefix("::ffff:") for address in found.values()} == {"127.0.0.1"}


def streamed(port: int, name: str, context: ssl.SSLContext | None) -> bytes:
    """What Spark's file server sends to who asks for a file in its own protocol."""
    asked = bytes([6]) + struct.pack(">i", len(name)) + name.encode()
    answer = b""
    try:
        with ExitStack() as stack:
            there = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            if context is not None:
                there = stack.enter_context(context.wrap_socket(there))
            there.settimeout(5)
            there.sendall(struct.pack(">q", 8 + len(asked)) + asked)
            while part := there.recv(65536):
                answer += part
    except OSError:  # refused, or nothing more comes
        pass
    return answer


@pytest.mark.spark
@pytest.mark.slow
def test_spark_hands_none_of_its_users_files_to_a_stranger(spark: shoal.SparkCluster, tmp_path: Path) -> None:
    """Spark's driver serves any file that its user may read, and did so to every user of the machine.

    Also with ``spark.authenticate``: its file server answers before that is asked for.
    """
    from shoal.machine.certificate import make_certificate

    secret = tmp_path / "id_ed25519"
    secret.write_text("PRIVATE")
    spark.sql("select 5 as five").collect()
    wanted = f"/artifacts/../../../../../../..{secret}"
    [java] = spark._home.status(spark.id).worker_pids

    def context(certificate: str = "", key: str = "") -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        if key:
            pem = tmp_path / "shown.pem"
            pem.write_text(certificate + key)
            made.load_cert_chain(pem)
        return made

    own = endpoint_of(spark).security
    answers = {
        who: [streamed(port, wanted, how) for port in listening({java})]
        for who, how in {
            "plain": None,
            "tls": context(),
            "a stranger's key": context(*make_certificate("bob")),
            "the cluster's own key": context(own["tls_client_cert"], own["tls_client_key"]),
        }.items()
    }
    assert any(b"PRIVATE" in answer for answer in answers.pop("the cluster's own key")), (
        "this is how it is asked"
    )
    assert not any(b"PRIVATE" in answer for said in answers.values() for answer in said)
    assert [answer for who in ("tls", "a stranger's key") for answer in answers[who] if answer] == []
    assert secret.name.encode() not in b"".join(answers["plain"]).replace(wanted.encode(), b"")
    kept = paths.run_folder(spark.id) / "spark.p12"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
