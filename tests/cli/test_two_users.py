"""Two people of one machine, each with a user id of their own: what is one's is not the other's."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from shoal.machine import paths

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Ids without an entry in the user database, as in many containers; those of a run of their own.
ALICE = 40_000 + os.getpid() % 10_000 * 2
BOB = ALICE + 1
SHARED = ["/tmp", "/var/tmp", "/dev/shm"]


@dataclass
class Person:
    """Runs commands as somebody without rights, with a home folder that everybody may look into."""

    uid: int
    home: Path
    run_in: Callable[..., list[str]]
    namespace: Any

    @property
    def data(self) -> Path:
        return self.home / ".local" / "share" / "shoal"

    def start(self, *command: str, **changes: str) -> subprocess.Popen[str]:
        identity = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        return subprocess.Popen(
            self.run_in(self.namespace, self.home, [*identity, *command]),
            env={"HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | changes,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *command: str, **changes: str) -> tuple[int, str, str]:
        process = self.start(*command, **changes)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    def shoal(self, *arguments: str, **changes: str) -> tuple[int, str, str]:
        return self(*SHOAL, *arguments, **changes)

    def processes(self) -> list[int]:
        return [
            each.pid
            for each in psutil.process_iter(["uids", "status"])
            if each.info["uids"].real == self.uid and each.info["status"] != psutil.STATUS_ZOMBIE
        ]


SHOAL = (sys.executable, "-m", "shoal")


@pytest.fixture
def people(namespaces: Any, tmp_path: Path, small: Any) -> Iterator[tuple[Person, Person]]:
    with two_people(namespaces, tmp_path, small, "") as both:
        yield both


@pytest.fixture
def known_people(namespaces: Any, tmp_path: Path, small: Any) -> Iterator[tuple[Person, Person]]:
    """With entries in the user database, as Java wants them, and with the jars, which take long to fetch."""
    entries = "".join(
        f"{name}{uid}:x:{uid}:{uid}::/:/bin/sh\\n" for name, uid in (("alice", ALICE), ("bob", BOB))
    )
    database = (
        f'cp /etc/passwd "$stash/passwd"; printf "{entries}" >> "$stash/passwd"; '
        'mount --bind "$stash/passwd" /etc/passwd'
    )
    with two_people(namespaces, tmp_path, small, database) as both:
        alice, jars = both[0], paths.cache_folder() / "ivy" / "jars"
        if jars.is_dir():
            made = alice(sys.executable, "-c", MAKE_CACHE)
            assert made[0] == 0, made
            give(shutil.copytree(jars, Path(made[1].strip()) / "jars"), alice)
        yield both


MAKE_CACHE = """
from shoal.machine import paths
print(paths.make_private(paths.cache_folder() / "ivy"))
"""


def give(folder: Path, person: Person) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, person.uid, person.uid)


@contextmanager
def two_people(namespaces: Any, tmp_path: Path, small: Any, more: str) -> Iterator[tuple[Person, Person]]:
    namespaces.need_root("setpriv")
    stash = tmp_path / "stash"
    stash.mkdir()
    needed = [Path(sys.base_prefix), Path(sys.prefix), ROOT]
    made_reachable = namespaces.reachable(needed)
    namespace = namespaces.Namespace(
        f'stash="{stash}"; mount -t tmpfs -o size=1m shoal-test "$stash"\n{more}\n{made_reachable}'
    )
    both = Path(tempfile.mkdtemp(prefix="shoal-people-"))
    both.chmod(0o755)
    found = []
    for name, uid in (("alice", ALICE), ("bob", BOB)):
        home = both / name
        shutil.copytree(small.folder, home)
        found.append(Person(uid, home, namespaces.run_in, namespace))
        give(home, found[-1])
    yield found[0], found[1]
    for person in found:
        person.shoal("down", "--all", "--yes")
    left = [pid for person in found for pid in person.processes()]
    namespace.close()
    shutil.rmtree(both)
    assert not left, f"left running: {left}"


def test_what_is_one_persons_is_not_the_others(people: tuple[Person, Person]) -> None:
    alice, bob = people
    starts = [
        person.start(*SHOAL, "up", "small", "-w", "1", "--name", "mine", "--detach") for person in people
    ]
    for start in starts:
        out, err = start.communicate(timeout=120)
        assert start.returncode == 0, out + err
    for person in people:
        [row] = json.loads(person.shoal("ls", "-o", "json")[1])
        assert (row["name"], row["owner"], row["state"]) == ("mine", f"uid-{person.uid}", "Ready")

    # Nothing of hers can be read by him, though her home folder is open to all.
    assert alice.data.is_dir()
    code, seen, _ = bob("find", str(alice.home / ".local"), "-type", "f", "-readable")
    assert seen == "", seen
    assert code != 0, "he cannot even look into the folder"
    for head in alice.processes():
        assert bob("cat", f"/proc/{head}/environ")[1] == ""

    # Pointed at her folder, each of his commands says so, and changes nothing.
    for command in (["ls"], ["up", "small"], ["down", "mine"], ["why", "mine"], ["quota"]):
        code, out, err = bob.shoal(*command, SHOAL_DATA=str(alice.data))
        assert code == 4, (command, out, err)
        assert f"cannot write in {alice.data}: Permission denied" in err
        assert "SHOAL_DATA" in err

    # What listens, listens to its own owner alone: not to his key, not to his token.
    endpoint = json.loads(next((alice.data / "run").glob("*/endpoint.json")).read_text())
    record = json.loads(next((alice.data / "run").glob("*/record.json")).read_text())
    (bob.home / "break_in.py").write_text(textwrap.dedent(BREAK_IN))
    code, out, err = bob(sys.executable, "break_in.py", endpoint["address"], record["head"]["status_url"])
    assert (code, out) == (0, "mine: 3\nscheduler: refused\nstatus: 401\n"), out + err

    checks = {c["check"]: c for c in json.loads(bob.shoal("doctor", "-o", "json")[1])["checks"]}
    for check in ("data folder", "ledger", "catalog", "leftovers"):
        assert checks[check]["result"] == "ok", checks[check]

    assert bob.shoal("down", "--all", "--yes")[0] == 0
    assert not bob.processes()
    [row] = json.loads(alice.shoal("ls", "-o", "json")[1])
    assert row["state"] == "Ready", "hers lives"
    assert alice.shoal("down", "mine")[0] == 0


BREAK_IN = """
    import sys, urllib.error, urllib.request
    import shoal
    from distributed import Client

    address, status = sys.argv[1:]
    with shoal.connect("mine") as mine:
        print("mine:", mine.client.submit(sum, [1, 2]).result())
        token = mine._home.endpoint(mine.id).token
        try:
            Client(address, security=mine.client.security, timeout="3s", set_as_default=False)
            print("scheduler: open")
        except OSError:
            print("scheduler: refused")
        try:
            request = urllib.request.Request(status, headers={"Authorization": f"Bearer {token}"})
            print("status:", urllib.request.urlopen(request, timeout=5).status)
        except urllib.error.HTTPError as error:
            print("status:", error.code)
    """


@dataclass(frozen=True)
class Listening:
    """What a person's processes listen at: TCP ports, and Unix sockets with a name (``@`` for abstract)."""

    ports: frozenset[int]
    sockets: frozenset[str]


def listening(pids: Sequence[int]) -> Listening:
    ports, inodes = set(), set()
    for pid in pids:
        for each in psutil.Process(pid).net_connections("inet"):
            if each.status == psutil.CONN_LISTEN or each.type == socket.SOCK_DGRAM:
                assert each.type == socket.SOCK_STREAM, (pid, each)
                assert each.laddr.ip.removeprefix("::ffff:") == "127.0.0.1", (pid, each)
                ports.add(each.laddr.port)
        for opened in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                inodes.add(os.readlink(opened))
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    named = {row[7] for row in rows if len(row) == 8 and f"socket:[{row[6]}]" in inodes}
    return Listening(frozenset(ports), frozenset(named))


def try_all(bob: Person, alice: Person, found: Listening) -> Any:
    asked = {
        "ports": sorted(found.ports),
        "sockets": sorted(found.sockets),
        "uid": alice.uid,
        "folders": [str(alice.home), *filter(os.path.isdir, SHARED)],
    }
    code, out, err = bob(sys.executable, str(HERE / "stranger.py"), json.dumps(asked))
    assert code == 0, err
    return json.loads(out.splitlines()[-1])


def secrets_of(alice: Person) -> set[str]:
    """All that opens a cluster of hers: tokens, keys, passwords, secret links."""
    found = set()
    for file in alice.data.glob("run/*/*.json"):
        said = json.loads(file.read_text())
        if file.name == "token.json":
            found.add(said["token"])
        elif file.name == "endpoint.json":
            found |= {said["token"], said["security"]["tls_client_key"].splitlines()[1]}
            found |= {part for part in (said["dashboard"] or "").split("/") if len(part) > 20}
    for file in alice.data.glob("run/*/spark.conf"):
        passwords = [line.split(" ", 1)[1] for line in file.read_text().splitlines() if "assword " in line]
        found.update(passwords)
    return found


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_that_listens_and_no_file_tells_a_stranger_anything(
    known_people: tuple[Person, Person],
) -> None:
    """Every socket and file of a live Dask and a live Spark cluster in use, tried by another user.

    A process of hers that does tell is the control: each way to ask has to find it, or proves nothing.
    """
    alice, bob = known_people
    (alice.home / "use.py").write_text(textwrap.dedent(USE))
    give(alice.home / "use.py", alice)
    before = try_all(bob, alice, Listening(frozenset(), frozenset()))
    assert str(alice.home / "use.py") in before["readable"], "her project is open to all"
    assert before["writable"] == []
    starts = [
        alice.start(*SHOAL, "up", "small", "-w", "1", "--engine", engine, "--name", engine, "--detach")
        for engine in ("dask", "spark")
    ]
    for start in starts:
        out, err = start.communicate(timeout=300)
        assert start.returncode == 0, out + err
    # She uses both: what is made by the first use listens and lies there as well.
    use = alice.start(sys.executable, "-B", "use.py")
    doors = alice.start(sys.executable, "-B", str(HERE / "open_doors.py"))
    try:
        assert use.stdout is not None
        assert doors.stdout is not None
        if (line := use.stdout.readline()) != "3 3 3\n":
            pytest.fail(line + use.communicate(timeout=60)[1])
        open_doors = json.loads(doors.stdout.readline())
        pids = alice.processes()
        found = listening(pids)
        tried = try_all(bob, alice, found)
        assert listening(alice.processes()) == found, "all of it was there all the time"
        rows = {row["name"]: row for row in json.loads(alice.shoal("ls", "-o", "json")[1])}
        secrets = secrets_of(alice)
        lines = [" ".join(psutil.Process(pid).cmdline()) for pid in pids]
    finally:
        (alice.home / "stop").touch()
        ends = [each.communicate(timeout=60) for each in (use, doors)]
    assert (use.returncode, doors.returncode) == (0, 0), ends

    control, told = open_doors["folder"], dict(tried["told"])
    for port, what in open_doors["ports"].items():
        assert told.get(f"{port} {what}"), f"who tells this is not found out: {what}"
    for opened in (f"@{control}", f"{control}/socket"):
        assert told.pop(opened) == "'connected'"
    for may in ("readable", "writable"):
        assert f"{control}/diary" in tried[may]
    ports = found.ports - {int(port) for port in open_doors["ports"]}
    assert len(open_doors["ports"]) == 7
    assert len(ports) >= 9, "two heads; scheduler, nanny, worker and pages; relay, Connect, RPC"
    assert found.sockets, "the server of forks"
    assert tried["done"] == len(found.ports) * 8 + len(found.sockets)

    assert {what: said for what, said in told.items() if what.split()[0] not in open_doors["ports"]} == {}
    for may, open_to_all in (("readable", {str(each) for each in alice.data.parents}), ("writable", set())):
        fresh = set(tried[may]) - set(before[may]) - open_to_all
        assert {path for path in fresh if not path.startswith(control)} == set()
    assert {name: (row["state"], row["status"]["clients"]) for name, row in rows.items()} == {
        "dask": ("Ready", 1),
        "spark": ("Ready", 1),
    }, "she is the only client of each"
    assert len(secrets) >= 6, "a token, a key of each; a link; a password"
    assert [(line, secret) for line in lines for secret in secrets if secret in line] == []

    assert alice.shoal("down", "--all", "--yes")[0] == 0
    left = [path for each in SHARED if os.path.isdir(each) for path in Path(each).iterdir()]
    assert [path for path in left if path.lstat().st_uid == alice.uid] == [], (
        "nor is anything left in the folders that all share"
    )


USE = """
    import time
    from pathlib import Path

    import shoal

    with shoal.connect("dask") as dask, shoal.connect("spark") as spark:
        total = dask.client.submit(sum, [1, 2]).result()
        rows = spark.sql("select id % 2 as k, count(*) as n from range(3) group by k").collect()
        spark.session.addArtifacts(__file__, file=True)
        from pyspark.sql.functions import udf

        plus = udf(lambda x: x + 1, "long")
        [one] = spark.sql("select 2 as x").select(plus("x").alias("y")).collect()
        print(total, sum(row.n for row in rows), one.y, flush=True)
        while not Path("stop").exists():
            time.sleep(0.1)
    """
