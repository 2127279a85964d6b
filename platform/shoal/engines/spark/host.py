"""Spark inside the head: a Spark Connect server as a child that dies with it, behind a counting relay.

Why it exists: one server per cluster, guarded by a key and a token, on free ports, with the shared catalog
already configured. What else listens in its JVM (driver RPC, block manager) asks for the same key: Spark's own
secret (``spark.authenticate``) is not enough, for its file server answers before it is asked for, with any file.

What it must not do: decide when to end (its head does, by ``governor.ends``), or know the home.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from shoal.engines.peers import Connection, Peers
from shoal.engines.port import Sample, Say, Site
from shoal.engines.spark import jars
from shoal.engines.spark.archive import MAKING, ClassArchive
from shoal.engines.spark.proxy import CountingProxy, only_for
from shoal.engines.spark.tls import asking_jar
from shoal.errors import DeadlineError, InfrastructureError
from shoal.machine import measure
from shoal.machine.java import find_java
from shoal.machine.measure import Tree
from shoal.machine.paths import SPARK_KEYS, cache_folder, make_private
from shoal.machine.processes import die_with_parent
from shoal.model.cluster import Reason
from shoal.model.endpoint import Endpoint
from shoal.tables.catalogs.opening import catalog, settings
from shoal.tables.spark_conf import spark_conf, spark_packages
from shoal.words import count

_log = logging.getLogger("shoal.engines")
_SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
_LONGEST_SOCKET_FOLDER = 60  # bytes: Spark adds some 42, and macOS takes 103 in all
_LOOK_BELOW = 1.0  # s between looks at the JVM's children and threads
_STREAM = "stream "  # "stream execution thread for ...", of which the kernel keeps 15 letters or less
_PORTS_TRIED = 50
_ATTEMPTS = 3  # starts, when another process takes the chosen port first


class SparkHost:
    """One Spark Connect server, ``local[k]``, with the plan's cores; the plan's ``conf`` sets its heap."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._log = site.folder / "spark.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._proxy: CountingProxy | None = None
        self._archive: ClassArchive | None = None
        self._password = ""
        self._peak = 0
        self._cpu = 0.0
        self._peers = Peers(site.cluster_id, site.tree())
        self._python = 0
        self._looked = 0.0
        self._streams = False
        group = site.plan.groups[0]
        self._slots = max(1, int(group.maximum * group.there.cores))
        head = site.plan.head_there or site.plan.head
        self._memory = int(group.maximum * group.there.memory + head.memory)

    def start(self, say: Say, deadline: float) -> Endpoint:
        self._java = find_java()
        security, context, name = self._certificate()
        for attempt in range(1, _ATTEMPTS + 1):
            port = _free_port()
            conf = self._conf(port)
            what = "fetching the Iceberg jars, then starting" if "spark.jars.packages" in conf else "starting"
            say(Reason.HEAD_STARTING, f"{what} Spark Connect with {count(self._slots, 'core')}")
            self._server = self._launch(conf)
            # Made by us while the JVM starts: a Spark that has to make them locks an SQLite catalog.
            catalog()
            if self._wait_for(port, deadline):
                break
            tail = self._tail()
            if "BindException" not in tail or attempt == _ATTEMPTS:
                raise InfrastructureError(
                    f"Spark Connect ended with exit code {self._server.returncode} while starting:\n{tail}",
                    hint=f"The whole log is {self._log}.",
                )
        self._proxy = CountingProxy(port, context, lambda: self._listens(port))
        address = f"sc://127.0.0.1:{self._proxy.start()}"
        files = str((self._site.folder / "scratch").absolute())
        return Endpoint(address, self._site.token, security=security, name=name, files=files)

    def observe(self) -> Sample | None:
        if self._server is None or self._proxy is None:
            return None
        pid, proxy = self._server.pid, self._proxy
        if time.monotonic() - self._looked > _LOOK_BELOW:
            self._looked = time.monotonic()
            self._look_below(pid)
        self._peak = max(self._peak, measure.peak_resident(pid) + self._python)
        return Sample(
            clients=self._peers.clients([Connection(proxy.port, port) for port in proxy.peers]),
            busy=proxy.busy or self._streams,
            workers=self._site.plan.groups[0].maximum,
            memory=measure.resident(pid) + self._python,
            peak_memory=self._peak,
            limit=self._memory,
            cpu_seconds=self._cpu,
            worker_pids=(pid,),
        )

    def _look_below(self, server: int) -> None:
        """At Spark's Python workers, which are processes of their own, and at its streaming queries."""
        below = Tree(self._site.cluster_id, server).look()
        self._python = sum(map(measure.own_resident, below))
        cpu = measure.cpu_seconds(server) + sum(usage.cpu for usage in below.values())
        self._cpu = max(self._cpu, cpu)
        # A query that waits for its trigger sends nothing and takes no CPU, but has its thread.
        self._streams = any(name.startswith(_STREAM) for name in measure.threads(server))

    def failure(self) -> str | None:
        if self._server is None or self._server.poll() is None:
            return None
        code = self._server.returncode
        _log.error("Spark's JVM ended with %s; the end of its log:\n%s", code, self._tail())
        return (
            f"Spark's JVM was killed (signal {-code})" if code < 0 else f"Spark's JVM exited with code {code}"
        )

    def closed(self) -> str | None:
        """Never: a client of Spark Connect can end its session alone."""
        return None

    def scale(self, workers: int, group: str = "") -> None:
        """Nothing to do: local[k] holds its maximum from the start."""

    def desired(self) -> int | None:
        """Unknown: local[k] holds its maximum from the start."""
        return None

    def stop(self) -> None:
        if self._proxy is not None:
            self._proxy.close()
        if self._server is not None and self._server.poll() is None:
            self._server.terminate()
            try:
                self._server.wait(MAKING if self._archive is not None and self._archive.missing else 5)
            except subprocess.TimeoutExpired:
                self._server.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._server.wait(5)
            if self._archive is not None:
                self._archive.keep()

    def _certificate(self) -> tuple[dict[str, str], ssl.SSLContext, str]:
        """What a client takes, what the relay takes, and the name in it; the JVM finds the same in a file."""
        from shoal.machine.certificate import keystore, make_certificate, name_of

        name = name_of(self._site.cluster_id)
        certificate, key = make_certificate(name)
        security = {"tls_ca_file": certificate, "tls_client_cert": certificate, "tls_client_key": key}
        self._password = secrets.token_urlsafe(32)
        _write_private(self._site.folder / SPARK_KEYS, keystore(certificate, key, self._password))
        return security, only_for(certificate, key), name

    def _conf(self, port: int) -> dict[str, str]:
        scratch = self._site.folder / "scratch"
        scratch.mkdir(exist_ok=True, mode=0o700)
        ours = {
            "spark.app.name": f"shoal-{self._site.cluster_id}",
            "spark.sql.warehouse.dir": str(scratch / "warehouse"),
            "spark.sql.session.timeZone": "UTC",
            # A session that rests lives as long as its cluster.
            "spark.connect.session.manager.defaultSessionTimeout": f"{int(self._site.plan.timeouts.max)}s",
            # An error in SQL is told in its one message, without the server's own frames.
            "spark.sql.connect.serverStacktrace.enabled": "false",
            # For clients that do not say which Python runs their functions (spark_code).
            "spark.sql.execution.pyspark.python": sys.executable,
            **jars.jar_conf(spark_packages()),
            "spark.sql.defaultCatalog": settings().name,  # nyc.flights is the same table as shoal.nyc.flights
            **spark_conf(settings()),
            **self._site.plan.conf,
        }
        ours["spark.shoal.python.version"] = _version_of(ours["spark.sql.execution.pyspark.python"])
        closed = self._closed(port, scratch) | {"spark.master": f"local[{self._slots}]"}
        if given := sorted(key for key in closed if ours.get(key, closed[key]) != closed[key]):
            _log.warning("kept as Shoal needs them, not as the template says: %s", ", ".join(given))
        import pyspark

        spark, cache = Path(pyspark.__file__).parent, _own_folder(cache_folder() / "spark")
        # Before Spark's own classes; what a template puts there comes after.
        asking = asking_jar(spark, cache)
        path = [str(asking), *filter(None, ours.get("spark.driver.extraClassPath", "").split(":"))]
        if "spark.jars.packages" not in ours:  # else its class path is another one next time
            self._archive = ClassArchive(
                cache, self._java, [*map(Path, path), *sorted((spark / "jars").iterdir())]
            )
            closed["spark.driver.defaultJavaOptions"] += f" {self._archive.options}"
        return ours | closed | {"spark.driver.extraClassPath": ":".join(path)}

    def _closed(self, port: int, scratch: Path) -> dict[str, str]:
        """What keeps other users of the machine out; no template changes it."""
        temporary = tempfile.gettempdir()
        keys = str(self._site.folder.absolute() / SPARK_KEYS)
        conf = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.connect.grpc.binding.address": "127.0.0.1",
            "spark.connect.grpc.binding.port": str(port),
            "spark.connect.grpc.port.maxRetries": "0",  # a port that is taken ends it, and another is chosen
            # With a master of local[k] Spark makes this secret itself, in memory alone.
            "spark.authenticate": "true",
            "spark.ssl.rpc.enabled": "true",  # it asks both sides for a certificate
            "spark.ssl.rpc.protocol": "TLSv1.3",
            **{
                f"spark.ssl.rpc.{what}{part}": value
                for what in ("keyStore", "trustStore")
                for part, value in (("", keys), ("Password", self._password), ("Type", "PKCS12"))
            },
            "spark.ssl.rpc.keyPassword": self._password,
            "spark.ui.enabled": "false",  # it has no login
            "spark.local.dir": str(scratch),
            # No file below the machine's own /tmp; the JVM's counters would be one (hsperfdata).
            "spark.driver.defaultJavaOptions": f'-XX:-UsePerfData "-Djava.io.tmpdir={temporary}"',
        }
        if len(temporary) <= _LONGEST_SOCKET_FOLDER:
            conf["spark.python.unix.domain.socket.enabled"] = (
                "true"  # else its Python workers listen on ports
            )
            conf["spark.python.unix.domain.socket.dir"] = temporary
        return conf

    def _launch(self, conf: dict[str, str]) -> subprocess.Popen[bytes]:
        import pyspark

        home = Path(pyspark.__file__).parent
        # Settings go by file: a command line is readable by every user of the machine.
        properties = self._site.folder / "spark.conf"
        _write_private(
            properties, "".join(f"{key} {_escaped(value)}\n" for key, value in conf.items()).encode()
        )
        environment = dict(os.environ)
        environment.update(
            JAVA_HOME=str(self._java.home),
            SPARK_HOME=str(home),
            SPARK_CONNECT_AUTHENTICATE_TOKEN=self._site.token,
            SPARK_LOCAL_IP="127.0.0.1",
            PYSPARK_PYTHON=conf["spark.sql.execution.pyspark.python"],  # foreachBatch reads nothing else
            SPARK_LAUNCHER_OPTS="-XX:-UsePerfData",
        )
        environment.pop("SPARK_REMOTE", None)
        command = [str(home / "bin" / "spark-submit"), "--properties-file", str(properties)]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--class", _SERVER, "spark-internal"],
                cwd=self._site.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_prepare_child,  # noqa: PLW1509 - the head starts it before any other thread of ours
            )

    def _wait_for(self, port: int, deadline: float) -> bool:
        """Until the port answers (True) or the server ended (False); DeadlineError."""
        started = time.monotonic()
        while time.monotonic() < deadline:
            if self._server is not None and self._server.poll() is not None:
                return False
            if self._listens(port):
                return True
            time.sleep(0.1)
        raise DeadlineError(
            f"Spark Connect did not answer within {time.monotonic() - started:.0f} s:\n{self._tail()}",
            hint=f"The whole log is {self._log}.",
        )

    def _listens(self, port: int) -> bool:
        """Whether it is our JVM that listens there, and not whoever took the port."""
        if self._server is None or self._server.poll() is not None:
            return False
        try:
            sockets = psutil.Process(self._server.pid).net_connections("tcp")
        except (psutil.Error, OSError):
            return False
        return any(each.status == psutil.CONN_LISTEN and each.laddr[1] == port for each in sockets)

    def _tail(self, lines: int = 15) -> str:
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(it wrote no log)"


def _own_folder(folder: Path) -> Path:
    """Where code is kept that a JVM runs: nobody else may write there.

    Raises:
        InfrastructureError: it is somebody else's.
    """
    make_private(folder)
    if folder.stat().st_uid != os.getuid():
        raise InfrastructureError(
            f"{folder} belongs to somebody else", hint="Point SHOAL_CACHE at a folder of your own."
        )
    folder.chmod(0o700)
    return folder


def _prepare_child() -> None:
    """In the child, before exec: die with the head, and hear signals again."""
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _version_of(python: str) -> str:
    """Of this Python; of another one what it says; empty where it says nothing."""
    if python == sys.executable:
        return platform.python_version()
    ask = [python, "-c", "import platform; print(platform.python_version())"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _write_private(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def _free_port() -> int:
    """One that nobody gets who asks for any: else the JVM's own other services may take it before the server does."""
    for _ in range(_PORTS_TRIED):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", secrets.choice(_chosen_ports())))
            return int(probe.getsockname()[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _chosen_ports() -> range:
    """Ports that are given to those alone who ask for them (``net.ipv4.ip_local_port_range`` has the others)."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        first = 32_768
    return range(10_000, first) if first > 11_000 else range(10_000, 60_000)


def _escaped(value: str) -> str:
    """A value as java.util.Properties reads it back."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")
