"""Dask's own pages: they work, for whoever has the link, and for nobody else."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import dask
import psutil
import pytest

import shoal
from shoal.homes.base import dashboard_of
from shoal.homes.local import endpoints
from shoal.machine import paths
from shoal.machine.pages import by_proxy, link, secret_of

from .pages import get, lives, session_of

PAGES = ("status", "workers", "info/main/workers.html", "json/identity.json", "metrics", "health")


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, small_project: Callable[[Path], Path]
) -> Iterator[shoal.DaskCluster]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("dashboard")
        for name in list(os.environ):
            if name.startswith("SHOAL_"):
                patch.delenv(name)
        patch.setenv("SHOAL_DATA", str(folder / "home"))
        patch.setenv("SHOAL_CATALOG_URI", f"sqlite:///{folder / 'home' / 'catalog.db'}")
        patch.setenv("SHOAL_USER", "alice")
        project = small_project(folder / "project")
        with shoal.dask("small", workers=1, name="shown", project=project, quiet=True) as made:
            yield made


def worker_port(cluster: shoal.DaskCluster) -> int:
    [worker] = cluster.client.scheduler_info(n_workers=-1)["workers"].values()
    return int(worker["services"]["dashboard"])


def looks(server: Any) -> dict[str, float]:
    """In ms, how often it looks at its loop, and at what its threads run."""
    found = server.periodic_callbacks
    return {name: found[name].callback_time for name in ("tick", "profile") if name in found}


def test_an_idle_cluster_rests_and_what_runs_is_profiled_as_ever(
    cluster: shoal.DaskCluster, eventually: Callable[..., object], tmp_path: Path
) -> None:
    def of_worker() -> object:
        return list(cluster.client.run(lambda dask_worker: looks(dask_worker)).values())

    def runs(until: Path) -> None:
        while not until.exists():
            time.sleep(0.05)

    assert cluster.client.run_on_scheduler(lambda dask_scheduler: looks(dask_scheduler)) == {"tick": 100}
    eventually(lambda: of_worker() == [{"tick": 100, "profile": 100}], 30)
    running = cluster.client.submit(runs, tmp_path / "end")
    eventually(lambda: of_worker() == [{"tick": 100, "profile": 10}], 30)
    (tmp_path / "end").touch()
    running.result(timeout=60)


def test_the_link_leads_to_pages_whose_links_and_pictures_work(cluster: shoal.DaskCluster) -> None:
    for page in PAGES:
        code, text, _ = get(urljoin(cluster.dashboard, page))
        assert code == 200, (page, text)
    _, text, _ = get(cluster.dashboard)
    links = re.findall(r'(?:href|src)="([^"]+)"', text)
    ours = [each for each in links if not each.startswith(("http", "javascript"))]
    assert len(ours) > 10
    assert not [each for each in ours if each.startswith("/")], (
        "relative: they hold below a proxy's prefix too"
    )
    for each in ours:
        found = urljoin(cluster.dashboard, each)
        code, _, to = get(found)
        if code == 302:  # Dask's own, from /info to its first page
            found = urljoin(found, to)
            code = get(found)[0]
        assert code == 200, found
    for start in (cluster.dashboard.rpartition("/")[0], cluster.dashboard.rpartition("/")[0] + "/"):
        code, _, to = get(start)
        assert (code, urljoin(start, to)) == (302, cluster.dashboard)


def test_the_pages_are_live_and_only_with_the_secret(cluster: shoal.DaskCluster) -> None:
    assert lives(cluster.dashboard)
    session, live = session_of(cluster.dashboard), cluster.dashboard + "/ws"
    stranger = HTTPConnection("127.0.0.1", urlsplit(live).port or 0, timeout=60)
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    upgrade |= {
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol": f"bokeh, {session}",
    }
    stranger.request("GET", "/status/ws", headers=upgrade)
    assert stranger.getresponse().status == 404
    stranger.close()


def test_without_the_secret_scheduler_and_worker_say_nothing(cluster: shoal.DaskCluster) -> None:
    """Also after the owner has looked, from the same machine: there is no cookie that another page could use."""
    assert get(cluster.dashboard)[0] == 200
    port = urlsplit(cluster.dashboard).port
    for each in (port, worker_port(cluster)):
        for page in ("", *PAGES, "sitemap.json", "x/status", "statics/css/base.css", "%2e%2e/status"):
            code, text, _ = get(f"http://127.0.0.1:{each}/{page}")
            assert (code, text) == (404, "Not Found\n"), (each, page)


def test_a_worker_has_pages_too_which_come_by_way_of_the_schedulers(cluster: shoal.DaskCluster) -> None:
    """A browser may have a way to the scheduler alone: from outside of Kubernetes, or behind a proxy."""
    page = urljoin(cluster.dashboard, "info/main/workers.html")
    [there] = re.findall(r'href="([^"]*proxy[^"]*)"', get(page)[1])
    status = urljoin(page, there)
    assert urlsplit(status).port == urlsplit(cluster.dashboard).port
    assert lives(status)
    assert "dask_worker_" in get(urljoin(status, "metrics"))[1]
    _, text, _ = get(status)
    files = [
        each
        for each in re.findall(r'(?:href|src)="([^"]+)"', text)
        if not each.startswith(("http", "javascript"))
    ]
    assert files
    assert {get(urljoin(status, each))[0] for each in files} == {200}
    # The secret goes only to a worker of the cluster.
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0)
        page = f"proxy/{other.getsockname()[1]}/127.0.0.1/status"
        assert get(urljoin(cluster.dashboard, page))[0] == 404
        with pytest.raises(BlockingIOError):
            other.accept()


def test_the_link_is_shown_to_the_owner_wherever_the_cluster_is(
    cluster: shoal.DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = cluster.dashboard
    assert cluster.client.dashboard_link == url
    assert url in cluster._repr_html_()
    project = Path(os.environ["SHOAL_DATA"]).parent / "project"
    said = {}
    for command in (["ls"], ["why", "shown"], ["ls", "-o", "json"], ["why", "shown", "-o", "json"]):
        for user in ("alice", "bob"):
            answer = subprocess.run(
                [sys.executable, "-m", "shoal", *command],
                cwd=project, env=os.environ | {"SHOAL_USER": user}, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            said[(*command, user)] = answer.stdout
    assert [key for key, text in said.items() if url in text] == [key for key in said if key[-1] == "alice"]
    secret = urlsplit(url).path.split("/")[1]
    assert not [key for key, text in said.items() if secret in text and key[-1] == "bob"]
    monkeypatch.setattr(cluster._home, "user", lambda: "bob")
    assert dashboard_of(cluster._home, cluster.record) == ""


def test_the_secret_is_nowhere_but_in_the_private_endpoint(cluster: shoal.DaskCluster) -> None:
    secret = urlsplit(cluster.dashboard).path.split("/")[1]
    assert len(secret) == 24
    endpoint = endpoints.read(paths.run_folder(cluster.id))
    assert endpoint is not None
    assert secret not in repr(endpoint)
    holders = [
        file.name
        for file in paths.data_folder().rglob("*")
        if file.is_file() and secret.encode() in file.read_bytes()
    ]
    assert holders == ["endpoint.json"]
    assert (paths.run_folder(cluster.id) / "endpoint.json").stat().st_mode & 0o077 == 0
    for process in psutil.process_iter():
        try:
            said = " ".join(process.cmdline()) + " ".join(process.environ().values())
        except psutil.Error:
            continue
        assert secret not in said


def test_secrets_of_two_keys_differ_and_a_link_holds_its_own() -> None:
    assert secret_of("one") != secret_of("two")
    assert link(1, secret_of("one")) == f"http://127.0.0.1:1/{secret_of('one')}/status"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("{scheme}://{host}:{port}/status", "http://h:1/secret/status"),
        ("{HUB}proxy/{port}/status", "/user/alice/proxy/1/secret/status"),
        (
            "https://hub.example.com{HUB}proxy/{host}:{port}",
            "https://hub.example.com/user/alice/proxy/h:1/secret/status",
        ),
        ("{NO_SUCH}/proxy/{port}/status", "http://h:1/secret/status"),
    ],
)
def test_behind_a_proxy_the_link_is_as_dasks_own_setting_says(
    said: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB", "/user/alice/")
    with dask.config.set({"distributed.dashboard.link": said}):
        assert by_proxy(link(1, "secret", "h")) == shown
        assert by_proxy("") == ""


def test_the_command_prints_the_link_alone_and_opens_nothing(cluster: shoal.DaskCluster) -> None:
    project = Path(os.environ["SHOAL_DATA"]).parent / "project"
    command = [sys.executable, "-m", "shoal", "dashboard", "shown"]
    for more, read in (([], str.strip), (["-o", "json"], lambda text: json.loads(text)["dashboard"])):
        done = subprocess.run([*command, *more], cwd=project, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr, read(done.stdout)) == (0, "", cluster.dashboard)
