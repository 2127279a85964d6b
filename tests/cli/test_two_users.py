"""Two people of one machine, each with a user id of their own: what is one's is not the other's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
ALICE, BOB = 54321, 54322  # ids without an entry in the user database, as in many containers


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
    namespaces.need_root("setpriv")
    stash = tmp_path / "stash"
    stash.mkdir()
    needed = [Path(sys.base_prefix), Path(sys.prefix), ROOT]
    made_reachable = namespaces.reachable(needed)
    namespace = namespaces.Namespace(
        f'stash="{stash}"; mount -t tmpfs -o size=1m shoal-test "$stash"\n{made_reachable}'
    )
    both = Path(tempfile.mkdtemp(prefix="shoal-people-"))
    both.chmod(0o755)
    found = []
    for name, uid in (("alice", ALICE), ("bob", BOB)):
        home = both / name
        shutil.copytree(small.folder, home)
        for path in (home, *home.rglob("*")):
            os.chown(path, uid, uid)
        found.append(Person(uid, home, namespaces.run_in, namespace))
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
