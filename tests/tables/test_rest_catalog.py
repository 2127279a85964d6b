"""A REST catalog: Iceberg's own server on loopback, which wants a token, and alone knows the keys of S3."""

from __future__ import annotations

import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cloudpickle
import pandas as pd
import pytest
from s3_proxy import Fault, S3Proxy

import shoal
from shoal.tables import keys
from shoal.tables.catalogs.names import table_names
from shoal.tables.catalogs.opening import CatalogSettings, catalog, is_secret
from shoal.tables.errors import CatalogRefusedError, CatalogUnavailableError, TableNotFoundError
from shoal.tables.keys import hold_secrets
from shoal.tables.spark_conf import ICEBERG_AWS, spark_conf, spark_packages
from shoal.tables.trial import prove

_count = itertools.count()
ROWS = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})


@pytest.fixture
def lake(rest_server: Any) -> CatalogSettings:
    """As somebody names it who has no keys of the storage."""
    storage = {"s3.endpoint": rest_server.storage["s3.endpoint"], "s3.region": "us-east-1"}
    return CatalogSettings(uri=rest_server.uri, properties={"credential": rest_server.owner, **storage})


@pytest.fixture
def name() -> str:
    return f"rest.t{next(_count)}"


@pytest.fixture
def proxied(lake: CatalogSettings, rest_server: Any) -> Iterator[tuple[CatalogSettings, S3Proxy]]:
    """The catalog by way of a proxy that may fail."""
    proxy = S3Proxy(rest_server)
    proxy.start()
    yield replace(lake, uri=f"http://127.0.0.1:{proxy.port}"), proxy
    proxy.stop()


def write(name: str, lake: CatalogSettings, rows: pd.DataFrame = ROWS, **options: Any) -> Any:
    return shoal.write_table(rows, name, catalog=lake, **options)


def read(name: str, lake: CatalogSettings) -> list[int]:
    return sorted(shoal.read_table(name, catalog=lake).a.compute(scheduler="threads"))


def as_(lake: CatalogSettings, **properties: str | None) -> CatalogSettings:
    """These settings with other properties; None takes one out."""
    both = {**lake.properties, **properties}
    return replace(lake, properties={key: value for key, value in both.items() if value is not None})


def test_what_is_written_comes_back_in_every_mode(lake: CatalogSettings, name: str) -> None:
    write(name, lake, partition_by="b")
    write(name, lake)
    assert read(name, lake) == [1, 1, 2, 2, 3, 3]
    write(name, lake, mode="overwrite")
    write(name, lake, pd.DataFrame({"a": [3, 4], "b": ["q", "r"]}), mode="upsert", keys="a")
    assert read(name, lake) == [1, 2, 3, 4]
    assert shoal.read_table(name, catalog=lake, filters="a = 4").b.compute().tolist() == ["r"]
    with pytest.raises(TableNotFoundError, match=f"{name}x"):
        read(f"{name}x", lake)
    prove(lake)
    assert not [each for each in table_names(catalog(lake)) if "shoal_doctor" in each]


def test_maintenance_runs_there(lake: CatalogSettings, name: str, s3: Any) -> None:
    """Each step once; nothing is left in the bucket that the table does not need."""
    for _ in range(3):
        write(name, lake)
    assert shoal.compact(name, sort_by="a", catalog=lake).files_written == 1
    shoal.branch(name, "audit", catalog=lake)
    write(name, lake, branch="audit")
    assert len(read(name, lake)) == 9
    shoal.publish(name, "audit", catalog=lake)
    assert shoal.rewrite_manifests(name, catalog=lake).manifests_after == 1
    assert shoal.expire_snapshots(name, older_than="0s", catalog=lake).left == 0
    assert shoal.remove_orphans(name, catalog=lake).paths == ()
    folder = catalog(lake).load_table(name).location().removeprefix("s3://rest/")
    kept = [key for key in s3.objects("rest") if key.startswith(folder) and key.endswith(".parquet")]
    assert len(kept) == 2
    assert read(name, lake) == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]


def test_no_secret_travels(lake: CatalogSettings, name: str, rest_server: Any) -> None:
    """Neither the client's own nor those that it was given, nor what it made of them to log in."""
    write(name, lake)
    frame = shoal.read_table(name, catalog=lake)
    held = {**catalog(lake).load_table(name).io.properties}
    assert rest_server.storage["s3.secret-access-key"] in held.values(), "else nothing was given"
    assert any(not isinstance(value, str) for value in held.values()), "else this would find no login"
    shown = repr(lake) + repr(frame) + repr(frame.expr) + json.dumps(hold_secrets(held))
    for secret in (rest_server.owner.partition(":")[2], rest_server.storage["s3.secret-access-key"]):
        assert secret not in shown
        for sent in (frame, frame.optimize().__dask_graph__()):
            assert secret.encode() not in cloudpickle.dumps(sent)


@pytest.mark.parametrize(
    "key", ["header.Authorization", "header.X-Api-Key", "credential", "token", "auth.manager"]
)
def test_what_logs_in_is_a_secret(key: str) -> None:
    assert is_secret(key)
    assert "hidden" not in repr(CatalogSettings(uri="https://c.example", properties={key: "hidden"}))


def test_workers_are_given_keys_by_the_catalog(
    lake: CatalogSettings, name: str, rest_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that know the catalog alone, as a cluster's workers do; also for a table that is just being made."""
    import dask
    import dask.dataframe as dd

    monkeypatch.setenv("SHOAL_CATALOG_URI", lake.uri)
    monkeypatch.setenv("SHOAL_CATALOG_PROPERTIES", json.dumps(dict(lake.properties)))
    with dask.config.set(scheduler="processes", num_workers=2):
        shoal.write_table(dd.from_pandas(ROWS, npartitions=2), name)
        assert sorted(shoal.read_table(name).a.compute()) == [1, 2, 3]


def test_keys_that_were_given_are_asked_for_again_before_they_expire(
    proxied: tuple[CatalogSettings, S3Proxy], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, proxy = proxied
    write(name, lake)
    location = catalog(lake).load_table(name).location()
    proxy.forget()
    for _ in range(3):
        assert keys._given(name, location, lake)["s3.access-key-id"]
    assert len(proxy.of()) == 1
    monkeypatch.setattr(keys.time, "time", lambda: time.monotonic() + 1e10)
    assert keys._given(name, location, lake)["s3.access-key-id"]
    assert len(proxy.of()) == 2
    assert keys._until({}, 0.0) == 600.0
    assert keys._until({"s3.session-token-expires-at-ms": "300000"}, 0.0) == 240.0
    assert keys._until({"s3.session-token-expires-at-ms": "3600000"}, 0.0) == 600.0


REFUSED: dict[str, tuple[dict[str, str | None], str, str]] = {
    "a client that it does not know": ({"credential": "nobody:hidden"}, "unknown client", "credential"),
    "no login": ({"credential": None}, "not a token", "credential"),
    "a token that it does not know": ({"credential": None, "token": "hidden"}, "not a token", "token"),
    "another address for tokens": ({"oauth2-server-uri": "{uri}/nothing"}, "401", "before /v1/config"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_login_that_fails_is_told_at_once(lake: CatalogSettings, name: str, case: str) -> None:
    changed, said, hint = REFUSED[case]
    filled = {key: value and value.replace("{uri}", lake.uri) for key, value in changed.items()}
    with pytest.raises(CatalogRefusedError, match=said) as told:
        write(name, as_(lake, **filled))
    assert hint in told.value.hint
    assert "hidden" not in str(told.value)


def test_who_may_read_and_not_write_is_told_so_and_leaves_nothing(
    lake: CatalogSettings, name: str, rest_server: Any, s3: Any
) -> None:
    write(name, lake)
    write(name, lake)
    reader = as_(lake, credential=rest_server.reader)
    assert len(read(name, reader)) == 6
    before = s3.objects("rest")
    for refused in (
        lambda: write(name, reader),
        lambda: write(f"other.t{name[-1]}", reader),
        lambda: shoal.create_table(f"{name}y", ROWS, catalog=reader),
        lambda: shoal.branch(name, "b", catalog=reader),
        lambda: shoal.compact(name, sort_by="a", catalog=reader),
        lambda: shoal.expire_snapshots(name, older_than="0s", catalog=reader),
    ):
        with pytest.raises(CatalogRefusedError, match="a reader changes nothing") as told:
            refused()
        assert "administrator" in told.value.hint
    assert s3.objects("rest") == before
    assert len(read(name, lake)) == 6


@pytest.fixture
def page() -> Iterator[str]:
    """The address of something that answers everything with a page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>welcome</html>")

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_address_that_is_no_rest_catalog_is_told(lake: CatalogSettings, name: str, page: str) -> None:
    for uri in (page, lake.properties["s3.endpoint"]):
        with pytest.raises(CatalogRefusedError) as told:
            read(name, replace(as_(lake, credential=None), uri=uri))
        assert "address of an Iceberg REST catalog" in told.value.hint


def test_a_certificate_that_is_not_trusted_is_told_at_once(
    lake: CatalogSettings, name: str, rest_server: Any
) -> None:
    """Or where there is none at all: waiting changes neither."""
    begin = time.monotonic()
    with pytest.raises(CatalogRefusedError, match="SSL") as told:
        read(name, replace(lake, uri=rest_server.uri.replace("http:", "https:")))
    assert time.monotonic() - begin < lake.timeout / 2
    assert "REQUESTS_CA_BUNDLE" in told.value.hint


def test_a_server_that_never_answers_is_told_after_the_timeout(lake: CatalogSettings, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(CatalogUnavailableError, match="did not answer for") as told:
            read(name, replace(lake, uri=uri, timeout=1.0))
    assert time.monotonic() - begin < 20
    assert not isinstance(told.value, CatalogRefusedError)
    assert "Pool(" not in str(told.value), "a library's names say nothing to a reader"


def test_a_server_that_is_down_is_waited_for(lake: CatalogSettings, name: str, rest_server: Any) -> None:
    write(name, lake)
    rest_server.stop()
    with pytest.raises(CatalogUnavailableError, match=r"did not answer for .* \(.*Connection refused\)"):
        write(name, replace(lake, timeout=0.5))
    back = threading.Timer(1.0, rest_server.start)
    back.start()
    try:
        write(name, lake)
    finally:
        back.join()
    assert len(read(name, lake)) == 6


FAULTS: dict[str, dict[str, Any]] = {
    "it fails": {"answer": (500, "Broken"), "times": 2},
    "it is busy": {"answer": (503, "Busy"), "times": 2},
    "its answer is lost": {"cut": "answer", "times": 1},  # it landed: there is no second try
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_commit_whose_outcome_is_unknown_lands_once(
    proxied: tuple[CatalogSettings, S3Proxy], name: str, case: str
) -> None:
    lake, proxy = proxied
    write(name, lake)
    commits = re.compile(r"namespaces/\w+/tables/\w+")
    fault = Fault(lambda a: a.method == "POST" and bool(commits.fullmatch(a.key)), **FAULTS[case])
    with proxy.failing(fault):
        write(name, lake, pd.DataFrame({"a": [9], "b": ["once"]}))
    assert fault.done == fault.times
    assert read(name, lake) == [1, 2, 3, 9]


def test_writers_at_once_lose_nothing(lake: CatalogSettings, name: str) -> None:
    write(name, lake)

    def append(number: int) -> None:
        for step in range(3):
            write(name, lake, pd.DataFrame({"a": [100 + number * 10 + step], "b": ["race"]}))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(4)))
    assert read(name, lake) == [1, 2, 3, *sorted(100 + n * 10 + s for n in range(4) for s in range(3))]


def test_spark_is_told_how_to_log_in_and_brings_what_s3_needs(lake: CatalogSettings) -> None:
    conf = spark_conf(as_(lake, scope="PRINCIPAL_ROLE:ALL", **{"header.X-Team": "growth"}))
    prefix = "spark.sql.catalog.shoal."
    said = {key.removeprefix(prefix): value for key, value in conf.items() if key.startswith(prefix)}
    assert said["credential"] == lake.properties["credential"]
    assert said["scope"] == "PRINCIPAL_ROLE:ALL"
    assert said["header.X-Team"] == "growth"
    assert said["oauth2-server-uri"] == f"{lake.uri}/v1/oauth/tokens"
    assert said["header.X-Iceberg-Access-Delegation"] == "vended-credentials"
    assert said["s3.endpoint"] == lake.properties["s3.endpoint"]
    assert ICEBERG_AWS in spark_packages(lake)
    assert ICEBERG_AWS not in spark_packages(replace(lake, warehouse="file:///srv/lake"))
