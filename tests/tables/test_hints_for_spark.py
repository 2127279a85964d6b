"""What errors tell people to run in Spark, run as it stands: afterwards the table can be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import shoal
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.errors import NotSupportedError


def follow(refused: Callable[[], Any], name: str, sql: Callable[[str], Any]) -> None:
    """Run the statements of the hint, word for word."""
    with pytest.raises(NotSupportedError) as caught:
        refused()
    assert name in caught.value.hint
    said = caught.value.hint.split("Spark: ", 1)[1].removesuffix(".")
    for statement in said.split("; "):
        sql(statement)


def test_files_of_an_earlier_partitioning(name: str, sql: Callable[[str], Any]) -> None:
    shoal.write_table(pa.table({"id": [1, 2], "dt": ["a", "b"]}), name)
    with catalogs.load(name).update_spec() as spec:
        spec.add_identity("dt")

    def replace() -> Any:
        return shoal.write_table(pa.table({"id": [9], "dt": ["a"]}), name, mode="overwrite_partitions")

    follow(replace, name, sql)
    replace()
    assert sorted(shoal.read_table(name).id.compute()) == [2, 9]


@pytest.mark.parametrize("kind", ["orc", "avro"])
def test_files_that_are_not_parquet(kind: str, name: str, sql: Callable[[str], Any]) -> None:
    shoal.create_table(name, {"id": pa.int64()}, properties={"write.format.default": kind})
    sql(f"INSERT INTO shoal.{name} VALUES 1, 2")

    def read() -> Any:
        return sorted(shoal.read_table(name).id.compute())

    follow(read, name, sql)
    assert read() == [1, 2]
