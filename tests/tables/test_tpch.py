"""TPC-H Q1-Q10 on Dask over Iceberg tables, against Spark's answers on the very same tables."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shoal

pytestmark = [pytest.mark.spark, pytest.mark.slow]

SCALE = os.environ.get("SHOAL_TPCH_SCALE", "0.02")  # 1 in `make soak-tables`


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tpch_queries", Path(__file__).with_name("tpch.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tpch = _load()


def row_group(number: int, path: str) -> pd.DataFrame:
    """One row group; the generator marks text as views, which Dask's own reader refuses."""
    table = pq.ParquetFile(path).read_row_group(number)
    views = pa.schema(
        [f.with_type(pa.large_string()) if f.type == pa.string_view() else f for f in table.schema]
    )
    frame: pd.DataFrame = table.cast(views).to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    return frame


@pytest.fixture(scope="module")
def tables(lake: Any, client: Any, spark: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tpch")
    generator = Path(sys.executable).with_name("tpchgen-cli")
    subprocess.run(
        [generator, "parquet", "-s", SCALE, "--output-dir", folder], check=True, capture_output=True
    )
    found = {}
    with client.as_current():
        for name in tpch.TABLES:
            path = str(folder / f"{name}.parquet")
            groups = range(pq.ParquetFile(path).num_row_groups)
            meta = row_group(0, path).head(0)
            shoal.write_table(dd.from_map(row_group, groups, args=(path,), meta=meta), f"tpch.{name}")
            (folder / f"{name}.parquet").unlink()
            read = shoal.read_table(f"tpch.{name}", partition_size="64 MiB")
            # Arithmetic in doubles, as the queries' Dask side is written; Spark's side stays decimal.
            decimals = [column for column, kind in read.dtypes.items() if "decimal" in str(kind)]
            found[name] = read.astype(dict.fromkeys(decimals, "float64"))
            spark.sql(f"create or replace temporary view {name} as select * from shoal.tpch.{name}").collect()
    return found


@pytest.mark.parametrize("query", tpch.DASK)
def test_query(query: str, tables: dict[str, Any], client: Any, spark: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PySpark's own, of its conversion
        theirs = [list(row.values()) for row in renamed(spark.sql(tpch.SQL[query]).toArrow())]
    with client.as_current():
        ours = tpch.DASK[query](tables).astype(object).to_numpy().tolist()
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(sorted(map(key, ours)), sorted(map(key, theirs)), strict=True):
        for one, two in zip(mine, other, strict=True):
            assert one == (pytest.approx(two, rel=1e-6, abs=1e-6) if isinstance(two, float) else two)


def renamed(table: Any) -> list[dict[str, Any]]:
    return table.rename_columns([f"c{i}" for i in range(table.num_columns)]).to_pylist()


def key(row: list[Any]) -> list[Any]:
    """A row with texts first, so that rows sort by what is exact, and with every number a float."""
    plain = [float(v) if hasattr(v, "__float__") else str(v) for v in row]
    return [*(v for v in plain if isinstance(v, str)), *(v for v in plain if isinstance(v, float))]
