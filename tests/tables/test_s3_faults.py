"""A store that throttles, cuts connections, refuses, loses files: typed errors, nothing lost, doubled or half-made."""

from __future__ import annotations

import itertools
import json
import pickle
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from s3_proxy import ACCESS_DENIED, EXPIRED, SLOW_DOWN, Asked, Fault, S3Proxy

import shoal
from shoal.errors import ShoalError
from shoal.tables.catalogs.names import table_names
from shoal.tables.catalogs.opening import CatalogSettings, access, catalog, load
from shoal.tables.errors import (
    CredentialsExpiredError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
    TableChangedError,
)
from shoal.tables.storage import read_error, storage_error

ROWS = 40_000
_count = itertools.count()


def data_file(asked: Asked) -> bool:
    return asked.key.endswith(".parquet")


def metadata_file(asked: Asked) -> bool:
    return asked.key.endswith((".json", ".avro"))


@pytest.fixture(scope="module")
def proxy(s3: Any) -> Iterator[S3Proxy]:
    """One for all tests of this file, so that workers may know it."""
    proxy = S3Proxy(s3)
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture(scope="module")
def team(s3: Any, proxy: S3Proxy, tmp_path_factory: pytest.TempPathFactory) -> CatalogSettings:
    s3.bucket("faulty")
    folder = tmp_path_factory.mktemp("catalog")
    return CatalogSettings(
        uri=f"sqlite:///{folder / 'catalog.db'}",
        warehouse="s3://faulty/w",
        properties=proxy.properties,
        timeout=20.0,
    )


@pytest.fixture
def lake(team: CatalogSettings, proxy: S3Proxy) -> CatalogSettings:
    """The catalog, with a warehouse that no other test uses."""
    proxy.forget()
    return replace(team, warehouse=f"s3://faulty/w{next(_count)}")


@pytest.fixture
def name() -> str:
    return f"faulty.t{next(_count)}"


@pytest.fixture(scope="module")
def workers(team: CatalogSettings) -> Iterator[Any]:
    """Two worker processes, which find the catalog and its keys in their environment."""
    from distributed import Client, LocalCluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOAL_CATALOG_URI", team.uri)
        patch.setenv("SHOAL_CATALOG_WAREHOUSE", team.warehouse)
        patch.setenv("SHOAL_CATALOG_PROPERTIES", json.dumps({**team.properties, "shoal.timeout": "1"}))
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client


def frame(parts: int = 4, rows: int = ROWS) -> dd.DataFrame:
    data = pd.DataFrame({"id": range(rows), "x": np.random.default_rng(1).random(rows)})
    return dd.from_pandas(data, npartitions=parts)


def impatient(lake: CatalogSettings) -> CatalogSettings:
    return replace(lake, timeout=2.0)


def left_behind(s3: Any, lake: CatalogSettings) -> set[str]:
    """Everything below the warehouse, and what is unfinished anywhere in the bucket."""
    return {
        key
        for key in s3.objects("faulty")
        if key.startswith(lake.warehouse.removeprefix("s3://faulty/")) or "multipart" in key
    }


def test_a_store_that_throttles_is_waited_for(lake: CatalogSettings, name: str, proxy: Any) -> None:
    throttling = [
        Fault(lambda a: a.method in ("PUT", "POST"), answer=SLOW_DOWN, every=3),
        Fault(lambda a: a.method in ("GET", "HEAD"), answer=SLOW_DOWN, every=4),
    ]
    with proxy.failing(*throttling):
        shoal.write_table(frame(), name, catalog=lake)
        got = shoal.read_table(name, catalog=lake).compute(scheduler="threads")
    assert all(fault.done >= 2 for fault in throttling)
    assert sorted(got.id) == list(range(ROWS)), "no row is lost or doubled"
    assert shoal.snapshots(name, catalog=lake).total_rows.tolist() == [ROWS]


def test_connections_that_are_cut_lose_and_double_nothing(
    lake: CatalogSettings, name: str, proxy: Any, s3: Any
) -> None:
    big = pd.DataFrame({"id": range(2 * 10**6), "x": np.random.default_rng(1).random(2 * 10**6)})
    cuts = [
        Fault(lambda a: a.kind == "PUT partNumber", cut="request", times=1),
        Fault(lambda a: a.kind == "PUT partNumber", cut="answer", times=1),
        Fault(lambda a: a.method == "PUT", cut="answer", every=2, times=3),
        Fault(lambda a: a.method == "PUT" and metadata_file(a), cut="request", times=2),
        Fault(lambda a: a.method == "GET", cut="answer", every=3),
    ]
    with proxy.failing(*cuts):
        shoal.write_table(big, name, catalog=lake)
        got = shoal.read_table(name, catalog=lake).compute(scheduler="threads")
    assert all(cut.done for cut in cuts), cuts
    assert got.id.sum() == big.id.sum()
    assert len(got) == len(big)
    files = [t.file.file_path for t in load(name, lake).scan().plan_files()]
    on_disk = [key for key in left_behind(s3, lake) if key.endswith(".parquet")]
    assert sorted(on_disk) == sorted(f.removeprefix("s3://faulty/") for f in files)


FAILING: dict[str, tuple[Callable[[Asked], bool], dict[str, Any], type[Exception], str]] = {
    "throttled": (lambda a: True, {"answer": SLOW_DOWN}, StorageUnavailableError, "slow down"),
    "cut": (lambda a: True, {"cut": "request"}, StorageUnavailableError, "did not answer"),
    "refused": (lambda a: True, {"answer": ACCESS_DENIED}, StorageRefusedError, "refused these keys"),
    "expired": (lambda a: True, {"answer": EXPIRED}, CredentialsExpiredError, "have expired"),
}


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("at", ["data", "metadata"])
def test_a_write_that_fails_is_told_and_leaves_nothing(
    lake: CatalogSettings, name: str, proxy: Any, s3: Any, case: str, at: str
) -> None:
    shoal.write_table(frame(1, 10), name, catalog=lake)
    before = left_behind(s3, lake), table_names(catalog(lake))
    _, how, kind, said = FAILING[case]
    where = data_file if at == "data" else metadata_file
    # What is certain to be written: reads of the table's metadata succeed, and cleaning up does.
    fault = Fault(lambda a: where(a) and a.method in ("PUT", "POST") and a.kind != "POST delete", **how)
    begin = time.monotonic()
    with proxy.failing(fault), pytest.raises(kind, match=said) as caught:
        shoal.write_table(frame(2), name, catalog=impatient(lake))
    assert fault.done
    assert time.monotonic() - begin < 60
    assert told_well(caught.value, lake)
    assert caught.value.values["table"] == name
    assert caught.value.values["bucket"] == "faulty"
    assert (left_behind(s3, lake), table_names(catalog(lake))) == before
    assert len(shoal.read_table(name, catalog=lake)) == 10
    shoal.write_table(frame(2), name, catalog=lake)  # nothing is in the way of the next


@pytest.mark.parametrize("case", FAILING)
def test_a_read_that_fails_is_told_by_the_client(
    lake: CatalogSettings, name: str, proxy: Any, case: str
) -> None:
    shoal.write_table(frame(1, 10), name, catalog=lake)
    _, how, kind, said = FAILING[case]
    quick = impatient(lake)
    for ending in (".metadata.json", ".avro", ".parquet"):
        fault = Fault(lambda a, ending=ending: a.method != "PUT" and a.key.endswith(ending), **how)
        # What asks for the reason finds the server in the same mood.
        reason = Fault(lambda a: a.kind == "GET list-type", **how)
        with proxy.failing(fault, reason), pytest.raises(kind, match=said) as caught:
            shoal.read_table(name, catalog=quick).compute(scheduler="sync")
        assert fault.done, ending
        assert told_well(caught.value, lake)
        assert caught.value.values["bucket"] == "faulty"


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case == "throttled" else pytest.mark.soak) for case in FAILING]
)
def test_a_read_that_fails_is_told_from_inside_a_task(
    lake: CatalogSettings, name: str, proxy: Any, workers: Any, case: str
) -> None:
    _, how, kind, said = FAILING[case]
    reason = Fault(lambda a: a.kind == "GET list-type", **how)
    with workers.as_current():
        shoal.write_table(frame(2, 10), name, catalog=lake)
        df = shoal.read_table(name, catalog=lake)
        with proxy.failing(Fault(data_file, **how), reason), pytest.raises(kind, match=said) as caught:
            df.compute()
        assert told_well(caught.value, lake)
        assert caught.value.values["table"] == name
        # Other tasks: Dask forgets those that failed in its own time, and until then tells the same error.
        again = shoal.read_table(name, ["id"], catalog=lake)
        assert sorted(again.id.compute()) == list(range(10)), "and it can be run again"


def told_well(error: ShoalError, lake: CatalogSettings) -> bool:
    """It says what to do, travels between processes, and shows no key, in its traceback neither."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.values) == (type(error), str(error), error.values)
    shown = "".join(traceback.format_exception(error))
    assert lake.properties["s3.secret-access-key"] not in shown
    return bool(error.hint)


def test_a_file_that_is_gone_is_told(lake: CatalogSettings, name: str, s3: Any) -> None:
    shoal.write_table(frame(1, 10), name, catalog=lake)
    df = shoal.read_table(name, catalog=lake)
    df.compute(scheduler="sync")
    (path,) = [key for key in left_behind(s3, lake) if key.endswith(".parquet")]
    (s3.folder / "faulty" / path).unlink()
    with pytest.raises(TableChangedError, match="vanished"):
        df.compute(scheduler="sync")


def test_an_answer_that_was_cut_off_is_asked_for_again(lake: CatalogSettings, name: str, s3: Any) -> None:
    """A refusal is read into the room of the few bytes that were asked for; where it is longer its words are lost."""
    shoal.write_table(frame(1, 10), name, catalog=lake)
    io = access(lake)
    (path,) = [f"s3://faulty/{key}" for key in left_behind(s3, lake) if key.endswith(".parquet")]
    cut = OSError(
        "AWS Error INTERNAL_FAILURE during GetObject operation: Failed to flush response stream (bad: 1)"
    )
    there = read_error(cut, path, "data file", name, io)
    assert isinstance(there, StorageUnavailableError), "it is there, so that was not the reason"
    gone = read_error(cut, f"{path}.gone", "data file", name, io)
    assert isinstance(gone, TableChangedError)
    assert "vanished" in gone.message


def test_metadata_that_is_gone_is_told(lake: CatalogSettings, name: str, s3: Any) -> None:
    shoal.write_table(frame(1, 10), name, catalog=lake)
    for manifest in left_behind(s3, lake):
        if manifest.endswith(".avro"):
            (s3.folder / "faulty" / manifest).unlink()
    with pytest.raises(StorageError, match="is gone"):
        shoal.read_table(name, catalog=lake).compute(scheduler="sync")
    for metadata in left_behind(s3, lake):
        (s3.folder / "faulty" / metadata).unlink()
    with pytest.raises(StorageError, match=f"Could not load the table {name}.*is gone"):
        shoal.read_table(name, catalog=lake)


def test_a_file_that_is_damaged_is_told(lake: CatalogSettings, name: str, s3: Any) -> None:
    shoal.write_table(frame(1, 10), name, catalog=lake)
    (path,) = [key for key in left_behind(s3, lake) if key.endswith(".parquet")]
    file = s3.folder / "faulty" / path
    file.write_bytes(b"not parquet" * 1000)
    with pytest.raises(StorageError, match="is damaged, as its checksum says"):
        shoal.read_table(name, catalog=lake).compute(scheduler="sync")
    file.unlink()
    file.write_bytes(b"not parquet" * 1000)
    with pytest.raises(StorageError, match=r"is damaged: .*magic bytes"):
        shoal.read_table(name, catalog=lake).compute(scheduler="sync")


CHANGED: dict[str, tuple[dict[str, str], type[Exception], str]] = {
    "a wrong secret": ({"s3.secret-access-key": "wrong"}, StorageRefusedError, "refused these keys"),
    "a wrong key": ({"s3.access-key-id": "wrong"}, StorageRefusedError, "refused these keys"),
    "a server that is down": (
        {"s3.endpoint": "http://127.0.0.1:1"},
        StorageUnavailableError,
        "did not answer",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_settings_that_are_wrong_are_told_on_reading(lake: CatalogSettings, name: str, case: str) -> None:
    shoal.write_table(frame(1, 10), name, catalog=lake)
    changed, kind, said = CHANGED[case]
    bad = replace(impatient(lake), properties={**lake.properties, **changed})
    with pytest.raises(kind, match=said) as caught:
        shoal.read_table(name, catalog=bad)
    assert told_well(caught.value, lake)
    assert name in str(caught.value)


def test_a_bucket_that_is_gone_is_told_on_reading(
    lake: CatalogSettings, name: str, s3: Any, proxy: Any
) -> None:
    elsewhere = replace(lake, warehouse="s3://passing/w")
    s3.bucket("passing")
    shoal.write_table(frame(1, 10), name, catalog=elsewhere)
    df = shoal.read_table(name, catalog=elsewhere)
    (s3.folder / "passing").rename(s3.folder.with_name("gone"))
    try:
        with pytest.raises(StorageRefusedError, match="no such bucket") as caught:
            df.compute(scheduler="sync")
        assert caught.value.values["bucket"] == "passing"
        with pytest.raises(StorageRefusedError, match="no such bucket"):
            shoal.read_table(name, catalog=elsewhere)
    finally:
        s3.folder.with_name("gone").rename(s3.folder / "passing")


def test_what_a_path_holds_means_nothing() -> None:
    """Names of files are random: one may hold 403, and a person's table may be called AccessDenied."""
    path = "s3://b/AccessDenied/SlowDown/x-503-403.parquet"
    error = OSError(
        f"When reading information for key '{path[7:]}' in bucket 'NoSuchBucket': AWS Error NETWORK_CONNECTION"
    )
    told = storage_error(error, path, "A file could not be read")
    assert type(told) is StorageUnavailableError
    assert type(storage_error(OSError(f"{path}: odd"), path, "A file could not be read")) is StorageError
