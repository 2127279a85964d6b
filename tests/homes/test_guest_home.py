"""A home that an installed package brings, written against the ports alone, whose heads may only report.

Whoever writes a home, Shoal's own for Kubernetes first, changes nothing above the ports: handles and commands work
on it as they are. ``test_behaviour.py`` runs on it as well.
"""

from __future__ import annotations

import inspect
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import shoal
from shoal.client.clusters import open_project
from shoal.errors import ClusterEndedError, ConfigError, UsageError
from shoal.homes import base
from shoal.homes.choose import open_desk, open_home
from shoal.homes.fake import FakeHome
from shoal.homes.local.desk import LocalDesk
from shoal.homes.local.home import LocalHome
from shoal.model.cluster import Reason, State

Eventually = Callable[..., Any]
Marked = Callable[[], dict[int, str]]


def command(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "shoal", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return done.stdout


def heads(marked: Marked) -> list[psutil.Process]:
    """The heads that run, each without its guard and what it forks."""
    every = [psutil.Process(pid) for pid in marked()]
    return [each for each in every if "guard.py" in str(each.parent() and each.parent().cmdline())]


def signatures(kind: type) -> dict[str, list[str] | None]:
    """The public methods of a class with their parameters; None for what is no method."""
    found: dict[str, list[str] | None] = {}
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        member = getattr(member, "__func__", member)
        if not name.startswith("_"):
            its = inspect.signature(member).parameters if inspect.isfunction(member) else None
            found[name] = None if its is None else [each for each in its if each != "self"]
    return found


def test_every_home_has_what_the_ports_say(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUEST_HEAD", str(guest))
    homes = [type(open_home(open_project(guest))), LocalHome, FakeHome]
    desks = [type(open_desk("guest", "c")), LocalDesk]
    for port, kinds in ((base.Home, homes), (base.Desk, desks)):
        asked = {name: parameters for name, parameters in signatures(port).items() if parameters is not None}
        assert len(asked) > 10
        for kind in kinds:
            has = signatures(kind)
            assert {name: has[name] for name in asked} == asked, kind


def test_shoal_dask_and_its_handle_work_on_it(guest: Path, marked: Marked, eventually: Eventually) -> None:
    with shoal.dask("small", workers=1, name="one", project=guest, quiet=True) as cluster:
        assert cluster.record.project == str(guest)
        assert cluster.client.submit(sum, [1, 2]).result(60) == 3
        (head,) = heads(marked)
        assert "GUEST_STORE" not in head.environ(), "it does not even know where records are"
        assert "SHOAL_LEDGER" not in head.environ()
        cluster.scale(3, timeout=240)
        assert len(cluster.client.scheduler_info()["workers"]) == 3
        assert cluster.extend("2 h").record.plan.timeouts.max == 7200
        eventually(lambda: cluster._home.status(cluster.id).ends_in is not None, 30)
        again = pickle.loads(pickle.dumps(cluster))
        assert (again.owns, again.record.id) == (False, cluster.id)
        assert "the head is running" in cluster.logs()
        assert shoal.connect("one", project=guest).record.id == cluster.id
        assert "one" in cluster._repr_html_()
    assert (cluster.record.state, cluster.record.reason) == (State.STOPPED, Reason.STOPPED_BY_USER)
    report = cluster.report()
    assert "Ready" in report.phases
    assert report.worker_hours >= 0


def test_a_head_asks_to_grow_gives_back_and_asks_for_its_end(
    guest: Path, eventually: Eventually, marked: Marked
) -> None:
    """None of it is written by the head: it reports, and the home does what the life of a cluster says."""
    cluster = shoal.up(
        "small", engine="dask", workers=(1, 3), name="two", idle="4 s", detach=True, project=guest, quiet=True
    )
    client = cluster.open() or cluster.client
    work = client.map(lambda n: __import__("time").sleep(1) or n, range(12), pure=False)
    eventually(lambda: cluster.record.plan.workers > 1, 60, "it was granted more")
    assert sorted(client.gather(work)) == list(range(12))
    del work
    eventually(lambda: cluster.record.state.ended, 120, "it ended as it was idle")
    assert (cluster.record.state, cluster.record.reason) == (State.STOPPED, Reason.IDLE)
    assert "4 s" in cluster.record.message
    eventually(lambda: not marked(), 20, "nothing is left")
    assert cluster._home.held("alice").admitted == {}
    cluster.close()


def test_a_head_that_is_killed_is_noticed_by_its_home(
    guest: Path, marked: Marked, eventually: Eventually
) -> None:
    cluster = shoal.up("small", engine="dask", workers=1, name="three", project=guest, quiet=True)
    (head,) = heads(marked)
    head.kill()
    eventually(lambda: cluster.record.state.ended, 60, "its home noticed")
    assert (cluster.record.state, cluster.record.reason) == (State.FAILED, Reason.HEAD_CRASHED)
    with pytest.raises(ClusterEndedError, match="exited unexpectedly"):
        cluster.raise_if_ended()
    eventually(lambda: not marked(), 20, "nothing is left")
    cluster.close()


def test_every_command_works_on_it(
    guest: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.chdir(guest)
    assert json.loads(command("plan", "small", "-e", "dask", "-o", "json"))["admission"]["fits"] is True
    assert "is Ready" in command("up", "small", "-e", "dask", "--workers", "1", "--name", "four", "--detach")
    (row,) = json.loads(command("ls", "-o", "json"))
    assert (row["name"], row["state"], row["workers"]) == ("four", "Ready", 1)
    assert row["dashboard"]
    assert "four" in command("top", "--once")
    why = json.loads(command("why", "four", "-o", "json"))
    assert not [step for step in why["steps"] if step["outcome"] == "failed"]
    assert "2 h" in command("extend", "four", "2h")
    assert "2 workers" in command("scale", "four", "2")
    assert "four" in command("quota")
    assert "the head is running" in command("logs", "four", "--head")
    checks = {each["check"]: each["result"] for each in json.loads(command("doctor", "-o", "json"))["checks"]}
    assert checks["guest's folder"] == "ok"
    assert "ledger" not in checks, "that is another home's"
    (guest / "job.py").write_text(
        "import shoal, sys\nwith shoal.dask() as c:\n    print(c.client.submit(sum, [20, 1]).result())\nsys.exit(7)\n"
    )
    assert "21" in command(
        "submit", "job.py", "-t", "small", "-e", "dask", "-w", "1", "--name", "job", code=7
    )
    assert "exit code 7" in command("report", "job") + command("why", "job")
    command("wait", "job", code=7)
    assert "Stopped" in command("down", "four") + command("ls", "--all")
    proved = json.loads(command("validate", "-e", "dask", "-t", "small", "-o", "json"))
    assert proved["ok"], proved
    assert json.loads(command("ls", "-o", "json")) == []
    assert json.loads(command("usage", "-o", "json"))["total"]["runs"] == 3


def test_a_home_that_nobody_brings_is_told_with_those_that_are_there(guest: Path) -> None:
    file = guest / "shoal.yaml"
    file.write_text(file.read_text().replace("home: guest", "home: gest"))
    with pytest.raises(
        ConfigError, match=r"'gest' is not one of them; write 'local', 'kubernetes' or 'guest'"
    ):
        open_project(guest)
    with pytest.raises(UsageError, match="gest"):
        open_desk("gest", "some-id")
