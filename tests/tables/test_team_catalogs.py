"""A team's catalog: PostgreSQL for the tables' names, S3 for their files; both real, on loopback."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pandas as pd
import pytest
import yaml

import shoal
from shoal.errors import UsageError
from shoal.tables.catalogs.names import table_names
from shoal.tables.catalogs.opening import CatalogSettings, catalog, pyiceberg_properties
from shoal.tables.errors import CatalogRefusedError, CatalogUnavailableError, StorageError
from shoal.tables.keys import file_io, hold_secrets
from shoal.tables.trial import prove

_count = itertools.count()
ROWS = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})


@pytest.fixture(scope="module")
def team(postgresql: Any, s3: Any) -> CatalogSettings:
    """Settings of a catalog that nobody else uses."""
    s3.bucket("team")
    return CatalogSettings(
        uri=postgresql.database("team"),
        warehouse="s3://team/warehouse",
        properties=s3.properties,
        timeout=180.0,
    )


@pytest.fixture
def name() -> str:
    return f"team.t{next(_count)}"


def write(name: str, team: CatalogSettings, **options: Any) -> Any:
    return shoal.write_table(ROWS, name, catalog=team, **options)


def read(name: str, team: CatalogSettings) -> pd.DataFrame:
    frame: pd.DataFrame = shoal.read_table(name, catalog=team).compute(scheduler="threads")
    return frame.sort_values("a").reset_index(drop=True)


def test_what_is_written_comes_back_in_every_mode(team: CatalogSettings, name: str, s3: Any) -> None:
    write(name, team, partition_by="b")
    write(name, team)
    assert read(name, team).a.tolist() == [1, 1, 2, 2, 3, 3]
    write(name, team, mode="overwrite")
    shoal.write_table(pd.DataFrame({"a": [3, 4], "b": ["q", "r"]}), name, "upsert", keys="a", catalog=team)
    assert read(name, team).b.tolist() == ["x", "y", "q", "r"]
    assert shoal.read_table(name, catalog=team, filters="a = 4").b.compute().tolist() == ["r"]
    assert any(key.endswith(".parquet") for key in s3.objects("team"))


def test_maintenance_runs_there(team: CatalogSettings, name: str, s3: Any) -> None:
    """Each step once; nothing is left in the bucket that the table does not need."""
    for _ in range(3):
        write(name, team)
    compacted = shoal.compact(name, sort_by="a", catalog=team)
    assert (compacted.files, compacted.files_written, compacted.rows) == (3, 1, 9)
    shoal.branch(name, "audit", catalog=team)
    write(name, team, branch="audit")
    shoal.publish(name, "audit", catalog=team)
    assert shoal.rewrite_manifests(name, catalog=team).manifests_after == 1
    folder = s3.folder / "team" / catalog(team).load_table(name).location().removeprefix("s3://team/")
    lost = folder / "data" / "lost.parquet"
    lost.write_bytes(b"lost")
    os.utime(lost, (0, 0))
    assert [path.rpartition("/")[2] for path in shoal.remove_orphans(name, catalog=team).paths] == [
        "lost.parquet"
    ]
    assert shoal.remove_orphans(name, dry_run=False, catalog=team).left == 0
    assert shoal.expire_snapshots(name, older_than="0s", catalog=team).left == 0
    assert len(list(folder.rglob("*.parquet"))) == 2
    assert read(name, team).a.tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]


def test_the_keys_of_a_catalog_that_is_given_are_used(team: CatalogSettings, name: str) -> None:
    assert "SHOAL_CATALOG_PROPERTIES" not in os.environ, "else the keys could come from there"
    write(name, team)
    assert len(read(name, team)) == 3


def test_two_catalogs_on_one_server_each_use_their_own_keys(
    team: CatalogSettings, name: str, s3: Any
) -> None:
    write(name, team)
    s3.bucket("other")
    other = replace(
        team, warehouse="s3://other/w", properties={**team.properties, "s3.secret-access-key": "wrong"}
    )
    with pytest.raises(StorageError):
        write(f"{name}_other", other)
    assert len(read(name, team)) == 3, "the other catalog's key was not taken for this one's"


def test_a_key_that_was_replaced_is_taken_up() -> None:
    sent = {"s3.endpoint": "http://127.0.0.1:1", "uri": "sqlite:///x", "warehouse": "s3://bucket/w"}
    shipped = hold_secrets({**sent, "s3.secret-access-key": "old"})
    assert file_io("s3://bucket/w", shipped).properties["s3.secret-access-key"] == "old"
    hold_secrets({**sent, "s3.secret-access-key": "new"})
    assert file_io("s3://bucket/w", shipped).properties["s3.secret-access-key"] == "new"


def test_no_secret_travels(team: CatalogSettings, name: str) -> None:
    write(name, team)
    frame = shoal.read_table(name, catalog=team)
    password = team.uri.split(":")[2].split("@")[0]
    for secret in (team.properties["s3.secret-access-key"], password):
        assert secret in pickle.dumps(team).decode("latin-1"), "else this would find it nowhere"
        for sent in (frame, frame.optimize().__dask_graph__()):
            assert secret.encode() not in cloudpickle.dumps(sent)
        assert secret not in repr(team) + repr(frame) + repr(shoal.read_table(name, catalog=team).expr)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_the_usual_spellings_of_its_uri_find_an_installed_driver(team: CatalogSettings, scheme: str) -> None:
    uri = f"{scheme}://{team.uri.partition('://')[2]}"
    assert pyiceberg_properties(replace(team, uri=uri))["uri"].startswith("postgresql+psycopg")
    assert isinstance(table_names(catalog(replace(team, uri=uri))), list)


@pytest.mark.parametrize(
    ("before", "after", "hint"),
    [
        ("hidden-", "wrong-", "password"),
        ("/team", "/nowhere", "Create the database"),
        ("//shoal:", "//nobody:", "password"),
    ],
    ids=["password", "database", "user"],
)
def test_a_catalog_that_says_no_is_told_at_once(
    team: CatalogSettings, name: str, before: str, after: str, hint: str
) -> None:
    assert before in team.uri
    with pytest.raises(CatalogRefusedError) as told:
        write(name, replace(team, uri=team.uri.replace(before, after)))
    assert told.value.values["tried_for"] < team.timeout / 2
    assert hint in told.value.hint
    assert "hidden-" not in str(told.value)
    assert "wrong-" not in str(told.value)


def test_a_server_that_is_down_is_waited_for(team: CatalogSettings, name: str, postgresql: Any) -> None:
    write(name, team)
    postgresql.stop("immediate")
    back = threading.Timer(2.0, postgresql.start)
    back.start()
    try:
        write(name, team)
    finally:
        back.join()
    assert len(read(name, team)) == 6


def test_a_server_that_stays_down_is_told_after_the_timeout(team: CatalogSettings, name: str) -> None:
    away = replace(team, uri="postgresql://shoal:hidden@127.0.0.1:1/team", timeout=0.5)
    with pytest.raises(CatalogUnavailableError, match="did not answer for") as told:
        write(name, away)
    assert not isinstance(told.value, CatalogRefusedError)
    assert "Is its server running" in told.value.hint
    assert "hidden" not in str(told.value)


def _nobody(uri: str) -> str:
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", uri)


_DOCTOR: dict[str, tuple[dict[str, str], str | None, Any, str]] = {
    "all is well": ({}, None, str, "a table was made, written, read and dropped"),
    "a wrong secret": ({"s3.secret-access-key": "wrong"}, None, str, "refused these keys"),
    "no such bucket": ({}, "s3://no-such-bucket/w", str, "no such bucket"),
    "storage that nobody serves": ({"s3.endpoint": "http://127.0.0.1:1"}, None, str, "did not answer"),
    "a database that nobody serves": ({}, None, _nobody, "did not answer for"),
}


@pytest.mark.parametrize("case", _DOCTOR)
def test_doctor_proves_the_catalog_and_its_storage(
    team: CatalogSettings, tmp_path: Path, s3: Any, case: str
) -> None:
    """As a person runs it, in a project folder that names the catalog."""
    properties, warehouse, changed, said = _DOCTOR[case]
    block = {
        "uri": changed(team.uri),
        "warehouse": warehouse or "s3://team/doctor",
        "properties": {**team.properties, **properties},
        "timeout": "2 s",
    }
    target = {"home": "local", "machine": "auto", "catalog": block}
    (tmp_path / "shoal.yaml").write_text(
        yaml.safe_dump({"default_target": "local", "targets": {"local": target}})
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SHOAL_")}
    before = s3.objects("team"), catalog(team).list_namespaces()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("shoal")), "doctor", "-o", "json"],
        cwd=tmp_path,
        env={**environment, "SHOAL_DATA": str(tmp_path / "data"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    (found,) = [c for c in json.loads(done.stdout)["checks"] if c["check"] == "catalog"]
    assert said in found["said"], found
    assert found["result"] == ("ok" if case == "all is well" else "failed")
    assert "hidden-" not in done.stdout + done.stderr
    assert (s3.objects("team"), catalog(team).list_namespaces()) == before


_BAD_STORAGE = {
    "a wrong secret": ({"s3.secret-access-key": "wrong"}, None, "refused these keys"),
    "a wrong key": ({"s3.access-key-id": "wrong"}, None, "refused these keys"),
    "no such bucket": ({}, "s3://no-such-bucket/w", "no such bucket"),
    "a server that is down": ({"s3.endpoint": "http://127.0.0.1:1"}, None, "did not answer"),
}


@pytest.mark.parametrize("case", _BAD_STORAGE)
def test_storage_that_fails_says_why_and_leaves_nothing(
    team: CatalogSettings, name: str, s3: Any, case: str
) -> None:
    changed, warehouse, said = _BAD_STORAGE[case]
    bad = replace(
        team, properties={**team.properties, **changed}, warehouse=warehouse or "s3://team/bad", timeout=2.0
    )
    before = s3.objects("team"), table_names(catalog(team))
    with pytest.raises(StorageError, match=said) as told:
        write(name, bad)
    assert told.value.hint
    assert "hidden-" not in str(told.value)
    assert (s3.objects("team"), table_names(catalog(team))) == before


def test_an_endpoint_without_a_scheme_is_refused(team: CatalogSettings, name: str) -> None:
    bad = replace(team, properties={**team.properties, "s3.endpoint": "127.0.0.1:9000"})
    with pytest.raises(UsageError, match="without http"):
        write(name, bad)


def test_writers_at_once_lose_nothing(team: CatalogSettings, name: str) -> None:
    write(name, team)

    def append(number: int) -> None:
        for step in range(3):
            rows = pd.DataFrame({"a": [100 + number * 10 + step], "b": ["race"]})
            shoal.write_table(rows, name, catalog=team)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(4)))
    assert sorted(read(name, team).a) == [
        1,
        2,
        3,
        *sorted(100 + n * 10 + s for n in range(4) for s in range(3)),
    ]


def test_the_proof_of_a_catalog_leaves_nothing(team: CatalogSettings, s3: Any) -> None:
    opened = catalog(team)
    before = s3.objects("team"), opened.list_namespaces()
    prove(team)
    assert (s3.objects("team"), opened.list_namespaces()) == before
    with pytest.raises(StorageError, match="no such bucket"):
        prove(replace(team, warehouse="s3://no-such-bucket/w"))
    assert opened.list_namespaces() == before[1]
