"""Keys that expire, are replaced, are somebody else's: renewed from a file, or told by an error of their own."""

from __future__ import annotations

import itertools
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import dask.dataframe as dd
import pandas as pd
import pytest
from s3_proxy import EXPIRED, Asked, Fault, S3Proxy

import shoal
from shoal.project.loading import load as load_project
from shoal.tables.catalogs.names import table_names
from shoal.tables.catalogs.opening import CatalogSettings, catalog, settings
from shoal.tables.credentials import keys_in_file
from shoal.tables.errors import CredentialsExpiredError, StorageRefusedError
from shoal.tables.spark_conf import spark_conf
from shoal.tables.trial import prove

_count = itertools.count()
ROWS = pd.DataFrame({"a": range(100)})


class KeyFile:
    """A credentials file, as whoever renews keys writes it; and the users behind the keys."""

    def __init__(self, path: Path, s3: Any) -> None:
        self.path, self.s3 = path, s3
        self.user = ""
        self.secrets: list[str] = []

    def renew(self) -> str:
        """New keys in the place of the old; the old user's name."""
        old, self.user = self.user, f"job-{os.getpid()}-{next(_count)}"
        keys = self.s3.account(self.user, f"bucket-of-{self.user}")
        self.s3.own("renewed", self.user)
        self.secrets.append(keys["s3.secret-access-key"])
        fresh = self.path.with_suffix(".new")
        fresh.write_text(
            f"[default]\naws_access_key_id = {self.user}\naws_secret_access_key = {self.secrets[-1]}\n"
        )
        fresh.replace(self.path)
        return old


@pytest.fixture
def keys(s3: Any, tmp_path: Path) -> KeyFile:
    s3.bucket("renewed")
    keys = KeyFile(tmp_path / "credentials", s3)
    keys.renew()
    return keys


@pytest.fixture
def lake(keys: KeyFile, proxy: S3Proxy, tmp_path: Path) -> CatalogSettings:
    """A catalog whose keys stand in the file alone."""
    hidden = ("s3.access-key-id", "s3.secret-access-key")
    return CatalogSettings(
        uri=f"sqlite:///{tmp_path / 'catalog.db'}",
        warehouse=f"s3://renewed/w{next(_count)}",
        properties={k: v for k, v in proxy.properties.items() if k not in hidden},
        credentials=str(keys.path),
        timeout=20.0,
    )


@pytest.fixture
def name() -> str:
    return f"renewed.t{next(_count)}"


def expired(user: str) -> Fault:
    return Fault(lambda a: a.signed_by == user, answer=EXPIRED)


def read(name: str, lake: CatalogSettings) -> list[int]:
    return sorted(shoal.read_table(name, catalog=lake).a.compute(scheduler="threads"))


def test_keys_in_a_file_are_used_and_travel_nowhere(
    lake: CatalogSettings, name: str, keys: KeyFile, proxy: S3Proxy
) -> None:
    shoal.write_table(ROWS, name, catalog=lake)
    assert read(name, lake) == list(range(100))
    assert {a.signed_by for a in proxy.of()} == {keys.user}
    df = shoal.read_table(name, catalog=lake)
    for sent in (df, df.optimize().__dask_graph__()):
        assert keys.secrets[0].encode() not in cloudpickle.dumps(sent)
        assert str(keys.path).encode() not in cloudpickle.dumps(sent), "each process has its own"
    assert keys.secrets[0] not in repr(lake) + repr(df)


def test_a_read_goes_on_with_new_keys(
    lake: CatalogSettings, name: str, keys: KeyFile, proxy: S3Proxy
) -> None:
    shoal.write_table(dd.from_pandas(ROWS, npartitions=4), name, catalog=lake)
    df = shoal.read_table(name, catalog=lake, partition_size=1)
    assert df.npartitions == 4
    parts = df.a.to_delayed()
    first = parts[0].compute(scheduler="sync")
    with proxy.failing(expired(keys.user)):
        keys.renew()
        rest = [part.compute(scheduler="sync") for part in parts[1:]]
    assert sorted(pd.concat([first, *rest])) == list(range(100))
    assert not [a for a in proxy.of() if a.status == 400], "new keys were taken before the old were refused"


@pytest.mark.parametrize("at", ["read", "write", "commit"])
def test_keys_that_expire_are_waited_for(
    lake: CatalogSettings, name: str, keys: KeyFile, proxy: S3Proxy, s3: Any, at: str
) -> None:
    shoal.write_table(ROWS, name, catalog=lake)
    df = shoal.read_table(name, catalog=lake)
    old = keys.user

    def where(asked: Asked) -> bool:
        if asked.signed_by != old:
            return False
        return at != "commit" or (asked.method == "PUT" and asked.key.endswith(".avro"))

    fault = Fault(where, answer=EXPIRED)
    with proxy.failing(fault):
        later = threading.Timer(2.0, keys.renew)
        later.start()
        if at == "read":
            assert sorted(df.a.compute(scheduler="threads")) == list(range(100))
        elif at == "write":
            # What is known of the table is known already: it is the data that meets the old keys.
            fault.where = lambda a: a.signed_by == old and a.key.endswith(".parquet") and a.method == "PUT"
            shoal.write_table(dd.from_pandas(ROWS, npartitions=3), name, catalog=lake)
        else:
            shoal.write_table(ROWS, name, catalog=lake)
        later.join()
    assert fault.done, "the old keys were refused"
    assert read(name, lake) == sorted([*range(100)] * (1 if at == "read" else 2)), "nothing twice"


def test_a_user_who_is_removed_is_followed_by_the_next(
    lake: CatalogSettings, name: str, keys: KeyFile
) -> None:
    shoal.write_table(ROWS, name, catalog=lake)
    df = shoal.read_table(name, catalog=lake)
    keys.s3.remove_account(keys.renew())
    assert sorted(df.a.compute(scheduler="sync")) == list(range(100))
    shoal.write_table(ROWS, name, catalog=lake)


def test_keys_that_stay_expired_are_told_and_leave_nothing(
    lake: CatalogSettings, name: str, keys: KeyFile, proxy: S3Proxy, s3: Any
) -> None:
    shoal.write_table(ROWS, name, catalog=lake)
    before = s3.objects("renewed")
    patient = replace(lake, timeout=3.0)
    fault = Fault(lambda a: a.key.endswith(".parquet"), answer=EXPIRED)
    begin = time.monotonic()
    with proxy.failing(fault), pytest.raises(CredentialsExpiredError, match="have expired") as caught:
        shoal.write_table(ROWS, name, catalog=patient)
    assert 2 < time.monotonic() - begin < 20, "they were waited for, not for ever"
    assert "credentials:" in caught.value.hint
    assert s3.objects("renewed") == before
    assert read(name, lake) == list(range(100))


def test_worker_processes_take_up_new_keys(
    lake: CatalogSettings, name: str, keys: KeyFile, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from distributed import Client, LocalCluster

    monkeypatch.setenv("SHOAL_CATALOG_URI", lake.uri)
    monkeypatch.setenv("SHOAL_CATALOG_WAREHOUSE", lake.warehouse)
    monkeypatch.setenv("SHOAL_CATALOG_PROPERTIES", json.dumps(dict(lake.properties)))
    monkeypatch.setenv("SHOAL_CATALOG_CREDENTIALS", str(keys.path))
    monkeypatch.setenv("SHOAL_CATALOG_TIMEOUT", "20")
    assert settings() == lake, "the file is part of what the environment says"
    frame = dd.from_pandas(ROWS, npartitions=4)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
    ):
        shoal.write_table(frame, name)
        with proxy.failing(expired(keys.user)):
            later = threading.Timer(1.0, keys.renew)
            later.start()
            shoal.write_table(frame, name)
            later.join()
        assert sorted(shoal.read_table(name).a.compute()) == sorted([*range(100)] * 2)


def test_a_file_that_is_just_written_or_wrong(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    with pytest.raises(StorageRefusedError, match=r"cannot be used: .*No such file"):
        keys_in_file(str(file))
    for wrong in (
        "not a file of keys, hidden-1",
        "[default]\naws_access_key_id = x\n",
        "[other]\na = hidden-1",
    ):
        file.write_text(wrong)
        with pytest.raises(StorageRefusedError, match="cannot be used") as caught:
            keys_in_file(str(file))
        assert "hidden-1" not in str(caught.value)
        assert "aws_access_key_id" in caught.value.hint
    file.write_text(
        "[default]\naws_access_key_id = a\naws_secret_access_key = b%c\n\n"
        "[team]\naws_access_key_id = d\naws_secret_access_key = e\naws_session_token = f\n"
    )
    assert keys_in_file(str(file)) == {"s3.access-key-id": "a", "s3.secret-access-key": "b%c"}
    assert keys_in_file(str(file), "team")["s3.session-token"] == "f"
    file.write_text("[default]\naws_acc")
    assert keys_in_file(str(file))["s3.access-key-id"] == "a", "those from before hold while it is written"


def test_shoal_yaml_names_the_file_and_spark_gets_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shoal.client.wiring import catalog_of

    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = k\naws_secret_access_key = s\n")
    (tmp_path / "shoal.yaml").write_text(
        "default_target: local\ntargets:\n  local:\n    home: local\n    catalog:\n"
        "      uri: postgresql://shoal@127.0.0.1/catalog\n      warehouse: s3://lake/w\n"
        "      credentials: ${KEYS_OF_LAKE}\n      timeout: 2 min\n"
    )
    monkeypatch.setenv("KEYS_OF_LAKE", str(file))
    found = catalog_of(load_project(tmp_path))
    assert found is not None
    assert (found.credentials, found.timeout) == (str(file), 120.0)
    conf = spark_conf(found)
    assert conf["spark.sql.catalog.shoal.s3.access-key-id"] == "k"
    assert conf["spark.sql.catalog.shoal.s3.secret-access-key"] == "s"


@pytest.fixture(scope="module")
def teams(s3: Any, postgresql: Any) -> dict[str, CatalogSettings]:
    """Two teams with one catalog in PostgreSQL, each with keys and a bucket of its own."""
    uri = postgresql.database("teams")
    return {
        team: CatalogSettings(
            uri=uri,
            warehouse=f"s3://{team}/w",
            properties=s3.account(user, team),
            timeout=10.0,
        )
        for team, user in (("growth", "ann"), ("research", "bob"))
    }


def test_nobody_writes_into_another_teams_bucket(teams: dict[str, CatalogSettings], s3: Any) -> None:
    growth, research = teams["growth"], teams["research"]
    shoal.write_table(ROWS, "growth.t", catalog=growth)
    shoal.write_table(ROWS, "research.t", catalog=research)
    before = s3.objects("growth"), table_names(catalog(growth))
    bobs = replace(growth, properties=research.properties)
    for settled, table in ((research, "growth.t"), (bobs, "growth.t"), (bobs, "growth.new")):
        for mode in ("append", "overwrite"):
            with pytest.raises(StorageRefusedError, match="refused these keys") as caught:
                shoal.write_table(ROWS, table, mode, catalog=settled)
            assert "bucket growth" in str(caught.value), (
                "the bucket is named, also where the table is not bob's"
            )
            assert table in str(caught.value)
            assert "hidden-" not in str(caught.value)
        assert (s3.objects("growth"), table_names(catalog(growth))) == before
    with pytest.raises(StorageRefusedError, match="refused these keys"):
        shoal.create_table("growth.made", ROWS, catalog=bobs)
    with pytest.raises(StorageRefusedError, match=r"growth\.t.*bucket growth"):
        shoal.read_table("growth.t", catalog=research)
    assert (s3.objects("growth"), table_names(catalog(growth))) == before
    assert len(shoal.read_table("growth.t", catalog=growth)) == 100
    assert len(shoal.read_table("research.t", catalog=research)) == 100


def test_the_proof_of_a_catalog_names_the_bucket(teams: dict[str, CatalogSettings]) -> None:
    prove(teams["growth"])
    with pytest.raises(StorageRefusedError, match="bucket growth"):
        prove(replace(teams["growth"], properties=teams["research"].properties))
