"""Dask's own pages: they work, for whoever has the link, and for nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import psutil
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

import shoal
from shoal.engines.dask.dashboard import link, secret_of
from shoal.homes.base import dashboard_of
from shoal.homes.local import endpoints
from shoal.machine import paths

PAGES = ("status", "workers", "info/main/workers.html", "json/identity.json", "metrics", "health")


def get(url: str) -> tuple[int, str, str]:
    """Status, text, and where it sends the browser."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = HTTPConnection(parts.hostname, parts.port, timeout=120)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace"), answer.headers.get("Location", "")
    finally:
        connection.close()


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
    _, text, _ = get(cluster.dashboard)
    session = re.search(r'"token":"([^"]+)"', text)
    assert session is not None
    live = cluster.dashboard.replace("http", "ws", 1) + "/ws"

    async def first(url: str) -> str:
        asked = HTTPRequest(
            url, connect_timeout=120, request_timeout=120
        )  # the first page takes long to draw
        connection = await websocket_connect(asked, subprotocols=["bokeh", session[1]])
        try:
            return str(await asyncio.wait_for(connection.read_message(), 60))
        finally:
            connection.close()
            while await connection.read_message() is not None:
                pass

    assert json.loads(asyncio.run(first(live)))["msgtype"] == "ACK"
    stranger = HTTPConnection("127.0.0.1", urlsplit(live).port or 0, timeout=60)
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    upgrade |= {
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol": f"bokeh, {session[1]}",
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


def test_a_worker_has_pages_too_and_the_schedulers_lead_there(cluster: shoal.DaskCluster) -> None:
    page = urljoin(cluster.dashboard, "info/main/workers.html")
    [there] = re.findall(r'href="([^"]*proxy[^"]*)"', get(page)[1])
    code, _, to = get(urljoin(page, there))
    assert (code, urlsplit(to).port) == (302, worker_port(cluster))
    assert get(to)[0] == 200
    assert get(urljoin(to, "metrics"))[0] == 200
    # The secret goes only to a worker of the cluster.
    assert get(urljoin(cluster.dashboard, "proxy/1/127.0.0.1/status"))[2] == ""
    assert get(urljoin(cluster.dashboard, f"proxy/{worker_port(cluster)}/192.0.2.1/status"))[2] == ""


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
