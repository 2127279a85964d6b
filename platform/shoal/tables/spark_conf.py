"""The same catalog, as Spark has to be told of it.

Why it exists: Spark and PyIceberg spell the same things differently, and two of the settings lose data or
lock the catalog when they are forgotten. What it must not do: start Spark or import PySpark.
"""

from __future__ import annotations

from urllib.parse import quote

from sqlalchemy.engine import make_url

from shoal.tables.catalogs.opening import CatalogSettings, for_rest, settings
from shoal.tables.credentials import current_keys, on_s3

ICEBERG_VERSION = "1.11.0"
ICEBERG_RUNTIME = f"org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:{ICEBERG_VERSION}"
SQLITE_JDBC = "org.xerial:sqlite-jdbc:3.50.3.0"
POSTGRESQL_JDBC = "org.postgresql:postgresql:42.7.8"
ICEBERG_AWS = f"org.apache.iceberg:iceberg-aws-bundle:{ICEBERG_VERSION}"

_REST = ("credential", "token", "scope", "audience", "resource", "oauth2-server-uri", "prefix")
_REST_PREFIXES = ("header.", "rest.")
# As PyIceberg asks where nobody says otherwise.
_DELEGATION = {"header.X-Iceberg-Access-Delegation": "vended-credentials"}

SPARK_PACKAGES = (ICEBERG_RUNTIME, SQLITE_JDBC)
"""The jars of the default catalog for Spark 4.1.3 (Scala 2.13), as Maven coordinates."""


def spark_packages(given: CatalogSettings | None = None) -> tuple[str, ...]:
    """The jars that a Spark 4.1.3 session needs for this catalog and its warehouse, as Maven coordinates."""
    settled = settings(given)
    drivers = {"sqlite": (SQLITE_JDBC,), "postgresql": (POSTGRESQL_JDBC,)}.get(settled.kind, ())
    aws = (ICEBERG_AWS,) if _may_be_on_s3(settled) else ()
    return (ICEBERG_RUNTIME, *drivers, *aws)


def spark_conf(given: CatalogSettings | None = None, *, packages: bool = False) -> dict[str, str]:
    """Everything that a Spark 4.1.3 session needs to see the catalog under its name.

    ``packages=True`` adds ``spark.jars.packages``, for a Spark that fetches the jars itself. The values may
    hold secrets (a database password, storage keys): hand them over in a file or environment, never in a
    command line.
    """
    settled = settings(given)
    prefix = f"spark.sql.catalog.{settled.name}"
    conf = {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        prefix: "org.apache.iceberg.spark.SparkCatalog",
        # With its cache on, Spark misses what other engines commit.
        f"{prefix}.cache-enabled": "false",
        # Both engines then mean the same instant by the same text, and the same day by the same instant.
        "spark.sql.session.timeZone": "UTC",
        **{f"{prefix}.{k}": v for k, v in _connection(settled).items()},
        **{f"{prefix}.{k}": v for k, v in _storage(settled).items()},
    }
    if settled.warehouse:
        conf[f"{prefix}.warehouse"] = settled.warehouse
    if packages:
        conf["spark.jars.packages"] = ",".join(spark_packages(settled))
    return conf


def _connection(settled: CatalogSettings) -> dict[str, str]:
    if settled.kind == "hive":
        return {"type": "hive", "uri": settled.uri}
    if settled.kind == "rest":
        login = {k: v for k, v in settled.properties.items() if k in _REST or k.startswith(_REST_PREFIXES)}
        return {"type": "rest", "uri": settled.uri, **_DELEGATION, **for_rest(settled), **login}
    common = {
        "type": "jdbc",
        # PyIceberg has made the tables, in this version. A Spark that makes or upgrades them keeps a read
        # transaction open on SQLite: "database is locked", or stale reads.
        "jdbc.init-catalog-tables": "false",
        "jdbc.schema-version": "V1",
    }
    url = make_url(settled.uri)
    if settled.kind == "sqlite":
        wait_ms = str(int(settled.timeout * 1000))
        return {**common, "uri": f"jdbc:sqlite:{url.database}", "jdbc.busy_timeout": wait_ms}
    host = f"{url.host or 'localhost'}{f':{url.port}' if url.port else ''}"
    query = "&".join(f"{quote(k)}={quote(str(v))}" for k, v in url.query.items())
    uri = f"jdbc:postgresql://{host}/{url.database or ''}{f'?{query}' if query else ''}"
    user = {"jdbc.user": url.username} if url.username else {}
    password = {"jdbc.password": str(url.password)} if url.password is not None else {}
    return {**common, "uri": uri, **user, **password}


def _may_be_on_s3(settled: CatalogSettings) -> bool:
    """Whether tables of this catalog may lie on S3. A REST catalog says of each table where it is."""
    return on_s3(settled.warehouse) or (settled.kind == "rest" and not settled.warehouse.startswith("file:"))


def _storage(settled: CatalogSettings) -> dict[str, str]:
    """S3: endpoint and credentials are spelled alike on both sides, region and path style are not."""
    if not _may_be_on_s3(settled):
        return {}
    given = {**settled.properties, **current_keys(settled.for_storage)}
    same = {
        k: v for k, v in given.items() if k in ("s3.endpoint", "s3.access-key-id", "s3.secret-access-key")
    }
    same |= {"s3.session-token": given["s3.session-token"]} if "s3.session-token" in given else {}
    if settled.kind == "rest" and not on_s3(settled.warehouse):
        # Where its tables are is told by the catalog, and may be elsewhere.
        same |= {"io-impl": "org.apache.iceberg.io.ResolvingFileIO"}
    # Without a region Spark fails late, at its first write.
    return {
        "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "s3.path-style-access": str(
            given.get("s3.force-virtual-addressing", "false").lower() != "true"
        ).lower(),
        "client.region": given.get("s3.region", "us-east-1"),
        **same,
    }
