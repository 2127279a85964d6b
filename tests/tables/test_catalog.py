"""Which catalog is in force, and what is never shown."""

from __future__ import annotations

import pickle
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy

import shoal
from shoal.errors import UsageError
from shoal.tables.catalogs import names
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings, identifier, is_secret, settings
from shoal.tables.errors import CatalogUnavailableError, TableNotFoundError
from shoal.tables.spark_conf import SPARK_PACKAGES, spark_conf, spark_packages


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("SHOAL_CATALOG_URI", "SHOAL_CATALOG_WAREHOUSE", "SHOAL_CATALOG_PROPERTIES"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(catalogs, "_hook", None)


def test_default_is_a_file_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    found = settings()
    assert found.uri == f"sqlite:///{tmp_path}/shoal/catalog.db"
    assert found.warehouse == f"file://{tmp_path}/shoal/warehouse"
    assert found.kind == "sqlite"


def test_nearer_sources_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    catalogs.use(CatalogSettings(uri="sqlite:////hook/c.db", warehouse="/hook/w", properties={"a": "1"}))
    assert settings().uri == "sqlite:////hook/c.db"
    assert settings().warehouse == "file:///hook/w"
    monkeypatch.setenv("SHOAL_CATALOG_URI", "sqlite:////env/c.db")
    # A URI from the environment is not joined with the project's warehouse.
    assert settings().warehouse == "file:///env/warehouse"
    monkeypatch.setenv("SHOAL_CATALOG_WAREHOUSE", "s3://lake/w")
    monkeypatch.setenv("SHOAL_CATALOG_PROPERTIES", '{"s3.endpoint": "http://127.0.0.1:1"}')
    assert settings().properties == {"a": "1", "s3.endpoint": "http://127.0.0.1:1"}
    assert settings(uri="sqlite:////arg/c.db").uri == "sqlite:////arg/c.db"
    explicit = CatalogSettings(uri="sqlite:////explicit/c.db")
    assert settings(explicit).warehouse == "file:///explicit/warehouse"


def test_hook_may_be_asked_each_time() -> None:
    answers = [CatalogSettings(uri="sqlite:////one/c.db"), None]
    catalogs.use(lambda: answers.pop(0))
    assert settings().uri == "sqlite:////one/c.db"
    assert "one" not in settings().uri


def test_a_server_needs_a_warehouse() -> None:
    with pytest.raises(UsageError, match="does not say where the tables' files go"):
        settings(uri="postgresql+psycopg2://u@h/db")
    with pytest.raises(UsageError, match="not a supported kind of catalog"):
        settings(uri="mysql://h/db")


def test_secrets_are_not_shown() -> None:
    found = CatalogSettings(
        uri="postgresql+psycopg2://u:hunter2@h/db",
        warehouse="s3://lake",
        properties={"s3.secret-access-key": "hunter3", "token": "hunter4", "s3.endpoint": "http://e"},
    )
    for shown in (repr(found), str(found), found.shown_uri):
        assert "hunter" not in shown
    assert "http://e" in repr(found)
    assert is_secret("s3.access-key-id")
    assert not is_secret("s3.region")


def test_folders_are_for_their_owner_alone(tmp_path: Path) -> None:
    shoal.catalog(CatalogSettings(uri=f"sqlite:///{tmp_path}/a/b/catalog.db"))
    for folder in ("a", "a/b", "a/b/warehouse"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700
    with sqlite3.connect(tmp_path / "a/b/catalog.db") as db:
        tables = {row[0] for row in db.execute("select name from sqlite_master where type = 'table'")}
    db.close()
    assert {"iceberg_tables", "iceberg_namespace_properties"} <= tables


def test_many_processes_may_be_the_first(tmp_path: Path) -> None:
    program = f"import shoal.tables.catalogs.opening as c; c.catalog(c.CatalogSettings(uri='sqlite:///{tmp_path}/x/c.db'))"
    running = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) for _ in range(4)]
    errors = [process.communicate(timeout=60)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0] * 4, errors


def test_names() -> None:
    given = CatalogSettings(name="shoal")
    assert identifier("nyc.flights", given) == ("nyc", "flights")
    assert identifier("shoal.nyc.flights", given) == ("nyc", "flights")
    assert identifier("a.b.c", given) == ("a", "b", "c")
    for bad in ("flights", "nyc.", "", ".x", "nyc. flights", None):
        with pytest.raises(UsageError, match="is not a table name"):
            identifier(bad, given)  # type: ignore[arg-type]


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    given = CatalogSettings(uri=f"sqlite:///{tmp_path}/c.db")
    with pytest.raises(TableNotFoundError, match="holds no tables yet"):
        shoal.read_table("nyc.flights", catalog=given)
    import pyarrow as pa

    shoal.create_table("nyc.flights", {"a": pa.int64()}, catalog=given)
    with pytest.raises(TableNotFoundError, match=r"Did you mean nyc\.flights") as caught:
        shoal.read_table("nyc.flihgts", catalog=given)
    assert caught.value.values["similar"] == ["nyc.flights"]


def test_a_table_is_made_and_a_name_is_looked_for_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyIceberg asks three times for each namespace: with 300 of them every new table took a second, and a typing
    error three."""
    given = CatalogSettings(uri=f"sqlite:///{tmp_path}/c.db", warehouse=str(tmp_path / "w"))
    for name in ("nyc.flights", "nyc.delays", "trips.all"):
        with monkeypatch.context() as patch:
            patch.setattr(names, "table_names", lambda _: pytest.fail("it looked at all the others"))
            shoal.write_table(pa.table({"id": [1]}), name, catalog=given)
    opened, asked = catalogs.catalog(given), []
    shoal.create_table("empty.t", {"id": pa.int64()}, catalog=given)
    opened.drop_table("empty.t")
    sqlalchemy.event.listen(opened.engine, "before_execute", lambda *_: asked.append(1))  # type: ignore[attr-defined]
    found = names.table_names(opened)
    assert (found, len(asked)) == (["nyc.delays", "nyc.flights", "trips.all"], 1)
    monkeypatch.setattr(names, "_names_in_sql", lambda _: None)
    assert names.table_names(opened) == found, "as the catalog itself tells"


def test_a_locked_catalog_says_how_long_it_was_tried(tmp_path: Path) -> None:
    given = CatalogSettings(uri=f"sqlite:///{tmp_path}/c.db", timeout=0.6)
    shoal.catalog(given)
    holder = sqlite3.connect(tmp_path / "c.db", isolation_level=None)
    holder.execute("begin exclusive")
    with pytest.raises(
        CatalogUnavailableError, match=r"did not answer for \d.* s \(database is locked\)"
    ) as caught:
        shoal.read_table("nyc.flights", catalog=given)
    holder.execute("rollback")
    holder.close()
    assert 0.3 < caught.value.values["tried_for"] < 5
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.values == caught.value.values


def test_a_catalog_that_is_down() -> None:
    down = CatalogSettings(
        uri="postgresql+psycopg2://u:hunter2@127.0.0.1:1/db", warehouse="s3://lake/w", timeout=0.3
    )
    with pytest.raises(CatalogUnavailableError, match="Connection refused") as caught:
        shoal.read_table("nyc.flights", catalog=down)
    assert "hunter2" not in str(caught.value)


def test_what_spark_is_told() -> None:
    conf = spark_conf(CatalogSettings(uri="sqlite:////d/c.db", warehouse="/d/w", timeout=7), packages=True)
    assert conf["spark.sql.catalog.shoal"] == "org.apache.iceberg.spark.SparkCatalog"
    assert conf["spark.sql.catalog.shoal.uri"] == "jdbc:sqlite:/d/c.db"
    assert conf["spark.sql.catalog.shoal.warehouse"] == "file:///d/w"
    assert conf["spark.sql.catalog.shoal.cache-enabled"] == "false"
    assert conf["spark.sql.catalog.shoal.jdbc.init-catalog-tables"] == "false"
    assert conf["spark.sql.catalog.shoal.jdbc.schema-version"] == "V1"
    assert conf["spark.jars.packages"] == ",".join(SPARK_PACKAGES)
    server = CatalogSettings(uri="postgresql+psycopg2://u:p%40ss@h:5433/db", warehouse="s3://lake/w")
    conf = spark_conf(server)
    assert conf["spark.sql.catalog.shoal.uri"] == "jdbc:postgresql://h:5433/db"
    assert conf["spark.sql.catalog.shoal.jdbc.user"] == "u"
    assert conf["spark.sql.catalog.shoal.jdbc.password"] == "p@ss"
    assert conf["spark.sql.catalog.shoal.client.region"] == "us-east-1"
    assert "spark.jars.packages" not in conf
    assert any("postgresql" in package for package in spark_packages(server))
    rest = spark_conf(CatalogSettings(uri="https://rest.example/api", warehouse="lake"))
    assert rest["spark.sql.catalog.shoal.type"] == "rest"
