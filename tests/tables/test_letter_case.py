"""Columns whose names differ by upper and lower case alone: Spark cannot read a table that has two such.

They come from joins (``id`` and ``ID``), from files of other systems, and from a frame that spells a column unlike
its table. What is new is refused; what somebody else made is read and appended to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pytest

import shoal
from shoal.errors import UsageError
from shoal.tables import errors
from shoal.tables.catalogs import opening as catalogs

BOTH = pa.table({"id": [1, 2], "v": [1.0, 2.0], "ID": [3, 4]})
PAIR = "'id' and 'ID'"


@pytest.mark.parametrize(
    "make",
    [
        lambda name: shoal.write_table(BOTH, name),
        lambda name: shoal.write_table(BOTH.to_pandas(), name),
        lambda name: shoal.write_table(dd.from_pandas(BOTH.to_pandas(), npartitions=1), name),
        lambda name: shoal.create_table(name, BOTH.schema),
        lambda name: shoal.create_table(name, {"id": pa.int64(), "ID": pa.int64()}),
    ],
    ids=["arrow", "pandas", "dask", "schema", "mapping"],
)
def test_a_new_table_is_refused(name: str, make: Callable[[str], Any]) -> None:
    with pytest.raises(UsageError, match=PAIR) as caught:
        make(name)
    assert caught.value.values["columns"] == ["id", "ID"]
    assert "df.rename(columns={'ID': 'ID_2'})" in str(caught.value)
    with pytest.raises(errors.TableNotFoundError):
        catalogs.load(name)


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("a", pa.int32()), ("A", pa.int32())]),
        pa.list_(pa.struct([("a", pa.int32()), ("A", pa.int32())])),
        pa.struct([("in", pa.struct([("a", pa.int32()), ("A", pa.int32())]))]),
    ],
    ids=["struct", "list", "inner"],
)
def test_fields_are_looked_at_too(name: str, kind: pa.DataType) -> None:
    """Spark tells fields of structs apart no better."""
    with pytest.raises(UsageError, match=r"differ by case alone"):
        shoal.create_table(name, {"s": kind})
    shoal.create_table(name, {"id": pa.int64()})
    data = pa.table({"id": pa.array([], pa.int64()), "s": pa.array([], kind)})
    with pytest.raises(errors.SchemaMismatchError, match=r"differ by case alone"):
        shoal.write_table(data, name, evolve=True)


@pytest.mark.parametrize("evolve", [False, True])
def test_a_frame_that_spells_a_column_otherwise(name: str, evolve: bool) -> None:
    """Evolving would have added ``ID`` beside ``id``."""
    shoal.write_table(pd.DataFrame({"id": [1], "v": [1.0]}), name)
    frame = pd.DataFrame({"ID": [2], "v": [2.0]})
    with pytest.raises(errors.SchemaMismatchError, match="'id' differs from it by case alone") as caught:
        shoal.write_table(frame, name, evolve=evolve)
    assert "df.rename(columns={'ID': 'id'}) spells them as the table does." in str(caught.value)
    shoal.write_table(frame.rename(columns={"ID": "id"}), name)
    assert sorted(shoal.read_table(name).id.compute()) == [1, 2]


def test_two_new_columns_alike(name: str) -> None:
    shoal.write_table(pd.DataFrame({"id": [1]}), name)
    with pytest.raises(errors.SchemaMismatchError, match="'B' differs from it by case alone"):
        shoal.write_table(pd.DataFrame({"id": [1], "b": [1], "B": [1]}), name, evolve=True)
    assert catalogs.load(name).schema().column_names == ["id"]


def test_a_foreign_table_is_read_and_appended_to(name: str, sql: Callable[[str], Any]) -> None:
    """PyIceberg makes such tables; Spark alone is what cannot read them."""
    shoal.create_table(f"{name}_beside", {"x": pa.int64()})
    catalogs.catalog().create_table(name, BOTH.schema).append(BOTH)
    with pytest.raises(Exception, match=r"AMBIGUOUS|ambiguous|duplicate"):
        sql(f"SELECT id FROM shoal.{name}")
    assert list(shoal.read_table(name, filters="ID = 3").id.compute()) == [1]
    shoal.write_table(BOTH, name)
    wide = BOTH.append_column("w", pa.array([1, 2]))
    shoal.write_table(wide, name, evolve=True)
    df = shoal.read_table(name)
    assert (len(df), sorted(df.ID.compute())) == (6, [3, 3, 3, 4, 4, 4])
