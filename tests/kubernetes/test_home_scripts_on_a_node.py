"""Commands of a person that stay, on a real kubelet: a submitted script, and the way to Dask's own pages."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

import shoal
from shoal.client.clusters import open_project
from shoal.homes.choose import open_home

from ..homes.pages import get, lives
from .on_a_node import World, governed, listening, world

__all__ = ["governed", "world"]  # fixtures
pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(600)]
SUBMITTED = """
import sys, time, shoal, helpers
cluster = shoal.dask()
if "stopped" in sys.argv:
    import tide
    assert cluster.client.submit(lambda: __import__("tide").VERSION).result() == tide.VERSION == "1"
print(*sys.argv[1:], cluster.client.submit(helpers.double, 21).result(), flush=True)
while not cluster.record.plan.timeouts.max > 3600: time.sleep(0.1)
if "large" in sys.argv: taken = [bytearray(b"1" * 10**8) for _ in range(100)]
print("last words")
sys.exit(7)
"""


def begin(*words: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "shoal", *words]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hears_of_terminals
    )


def hears_of_terminals() -> None:
    """Also where the tests themselves run under ``nohup``."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_a_script_runs_beside_its_cluster_and_outlives_its_terminal(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_PROJECT", str(world.project))
    (tmp_path / "work").mkdir()
    (tmp_path / "work/job.py").write_text(SUBMITTED)
    (tmp_path / "work/helpers.py").write_text("def double(x): return 2 * x\n")
    how = ("submit", "work/job.py", "--template", "small", "--engine", "dask", "--workers", "1", "--yes")
    for name, code, last in (("seven", 7, "last words\n"), ("large", 137, "")):
        terminal = begin(*how, "--name", name, "--", name)
        assert terminal.stdout is not None
        assert terminal.stdout.readline() == f"{name} 42\n", terminal.communicate(timeout=60)
        terminal.send_signal(signal.SIGHUP)
        terminal.communicate(timeout=60)
        follows, waits = begin("logs", name, "--follow"), begin("wait", name)
        begin("extend", name, "+1 h").communicate(timeout=60)
        out, err = waits.communicate(timeout=120)
        assert (terminal.returncode, waits.returncode) == (129, code), (out, err)
        assert follows.communicate(timeout=60)[0] == f"{name} 42\n{last}"
    # What it wrote until it was interrupted is kept. It and its workers have the packages that it asked for.
    terminal = begin(*how, "--name", "stopped", "--package", "tide", "--", "stopped")
    assert terminal.stdout is not None
    assert terminal.stdout.readline() == "stopped 42\n", terminal.communicate(timeout=60)
    terminal.send_signal(signal.SIGINT)
    terminal.communicate(timeout=120)
    assert terminal.returncode == 130
    assert begin("logs", "stopped").communicate(timeout=60)[0] == "stopped 42\n"
    found = open_home(open_project(world.project)).find("large", "alice")
    assert found is not None
    assert found.message == "its script failed: exit code 137 (it took more than the 700 MB that it had)"


ASK = r"""
for page in "" status info/main/workers.html metrics x/status proxy/1/127.0.0.1/status; do
    exec 3<>/dev/tcp/127.0.0.1/$0
    printf 'GET /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' "$page" >&3
    head -n 1 <&3
done
"""


def test_dasks_pages_come_through_a_tunnel_to_whoever_has_the_link(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_PROJECT", str(world.project))
    with shoal.dask("small", workers=1, name="shown", project=world.project, quiet=True) as cluster:
        before = listening()
        assert "127.0.0.1" not in "".join(begin("why", "shown").communicate(timeout=60)), (
            "it would be dead by now"
        )
        link = cluster.dashboard
        assert cluster.client.dashboard_link == link
        port = urlsplit(link).port
        assert listening() - before == {port}, "one way there, opened when it was asked for"
        assert link in cluster._repr_html_()
        assert lives(link)
        page = urljoin(link, "info/main/workers.html")
        [there] = re.findall(r'href="([^"]*proxy[^"]*)"', get(page)[1])
        assert lives(urljoin(page, there)), "a worker's pages, whose pod has no address out here"
        # The tunnel's local end is open to every user of the machine.
        asked = ["bash", "-c", ASK, str(port)]
        other = subprocess.run(asked, user=65534, capture_output=True, text=True, timeout=120, check=False)
        assert other.stdout.splitlines() == ["HTTP/1.1 404 Not Found"] * 6, other.stderr
        holds = begin("dashboard", "shown")
        assert holds.stdout is not None
        shown = holds.stdout.readline().strip()
        assert lives(shown)
        holds.send_signal(signal.SIGINT)
        _, said = holds.communicate(timeout=60)
        secret = urlsplit(link).path.split("/")[1]
        assert (holds.returncode, secret in shown, secret in said) == (130, True, False), said
        ends = begin("dashboard", "shown", "-o", "json")
        assert ends.stdout is not None
        ends.stdout.readline()
        assert secret not in f"{cluster!r} {cluster.client!r} {cluster.logs(10_000)}"
    assert "shown ended: StoppedByUser" in ends.communicate(timeout=60)[1]
    assert ends.returncode == 0
