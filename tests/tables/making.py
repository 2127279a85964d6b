"""Drawn tables made real: each file by its writer, all of a table registered in one commit.

Why by hand and not by as many appends: a commit of each writer's own takes longer than hundred filters. The files
and their statistics are the writers' own; Spark writes those of all tables in one statement into a table beside,
and in every :data:`DIRECT` -th table by an ``INSERT`` of its own, so that partitions are Spark's too.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.table import Transaction

import shoal
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.keys import hold_secrets
from shoal.tables.pyiceberg_private import DataFile, DataFileContent, FileFormat, Record, make_data_file
from shoal.tables.reading.plan import pack_metadata
from shoal.tables.types.partitioning import split
from shoal.tables.writing.create import staged
from shoal.tables.writing.files import WriteContext, write_partition

BLOCK = 8
"""Ids from one file's first to the next's: as many as it has rows at most. Spark's files are told apart by them."""
DIRECT = 25
NO_IDS = {"polars"}
"""Writers whose files know nothing of Iceberg: a mapping of names says which column is which."""
LEFT_OUT: tuple[tuple[str, ...], ...] = (
    *((),) * 8,
    ("nan_value_counts",),
    ("null_value_counts", "nan_value_counts"),
    ("value_counts", "null_value_counts"),
    ("lower_bounds",),
    ("upper_bounds",),
    ("value_counts", "null_value_counts", "nan_value_counts", "lower_bounds", "upper_bounds"),
)
"""What other writers leave out of a manifest: all of it is optional."""


@dataclass
class Made:
    """A table, its rows as they were drawn, and what is still to be registered."""

    drawn: Any
    name: str
    transaction: Transaction
    first: int
    """The first of its ids; that of the next table is above all of its own."""
    last: int = 0
    rows: list[pa.Table] = field(default_factory=list)
    files: list[DataFile] = field(default_factory=list)
    inserted: list[pa.Table] = field(default_factory=list)
    """Rows that Spark inserts by itself."""

    @property
    def table(self) -> pa.Table:
        return pa.concat_tables(self.rows)


def make_all(tables: Sequence[Any], kinds: dict[str, Any], spark: Any, namespace: str) -> list[Made]:
    """Make the tables ``namespace.t0``, ``.t1``, ... and ``namespace.everything``, which has all of their rows."""
    wide = pa.schema([("id", pa.int64()), *((name, kind.arrow) for name, kind in kinds.items())])
    settled = catalogs.settings()
    made: list[Made] = []
    later: dict[str, list[tuple[Made, Record, pa.Table]]] = defaultdict(list)
    begin = 0
    for number, table in enumerate(tables):
        name = f"{namespace}.t{number}"
        transaction = staged(name, wide, table.partition_by, (), table.properties, settled)()
        one = Made(table, name, transaction, begin)
        made.append(one)
        dice = random.Random(f"{table.seed} files")
        for writer, data in table.files:
            data = _widened(data, wide)
            if writer == "spark" and number % DIRECT == 0:
                parts: Iterator[Any] = iter([(None, data)])
            elif writer in ("spark", "polars"):
                metadata = one.transaction.table_metadata
                parts = split(data, metadata.spec(), metadata.schema(), ())
            else:
                parts = iter([(None, data)])
            for record, part in parts:
                part = part.set_column(0, "id", pa.array(range(begin, begin + part.num_rows), pa.int64()))
                begin += BLOCK
                one.rows.append(part)
                if writer == "spark" and record is None:
                    one.inserted.append(part)
                elif writer == "spark":
                    later[table.metrics].append((one, record, part))
                else:
                    one.files += (
                        _again(f, f.partition, dice) for f in _written(writer, one, record, part, dice)
                    )
        one.last = begin
    for number, (metrics, parts_of) in enumerate(later.items()):
        by_id = _by_spark(f"{namespace}.spark{number}", metrics, [p for _, _, p in parts_of], wide, spark)
        for one, record, part in parts_of:
            dice = random.Random(f"{one.drawn.seed} spark {len(one.files)}")
            one.files.append(_again(by_id[part["id"][0].as_py()], record, dice))
    for one in made:
        _commit(one.transaction, one.files)
        for part in one.inserted:
            _insert(one.name, part, spark)
    everything = staged(f"{namespace}.everything", wide, (), (), {}, settled)()
    _commit(
        everything,
        [
            _again(f, Record())
            for one in made
            for f in (
                [task.file for task in catalogs.load(one.name).scan().plan_files()]
                if one.inserted
                else one.files
            )
        ],
    )
    return made


def _widened(data: pa.Table, wide: pa.Schema) -> pa.Table:
    columns = [data[f.name] if f.name in data.column_names else pa.nulls(data.num_rows, f.type) for f in wide]
    return pa.table(columns, wide)


def _commit(transaction: Transaction, files: Sequence[DataFile]) -> None:
    names = transaction.table_metadata.schema().name_mapping.model_dump_json()
    transaction.set_properties({"schema.name-mapping.default": names})
    if files:
        with transaction.update_snapshot().fast_append() as append:
            for file in files:
                append.append_data_file(file)
    transaction.commit_transaction()


def _written(writer: str, one: Made, record: Any, data: pa.Table, dice: random.Random) -> list[DataFile]:
    metadata, io = one.transaction.table_metadata, one.transaction._table.io
    folder = f"{metadata.location}/data"
    if writer == "pyiceberg" and not _beyond_pyiceberg(one.drawn.partition_by, data):
        return list(_dataframe_to_data_files(metadata, data, io))
    if writer == "polars":
        import polars

        path = f"{folder}/polars-{data['id'][0]}.parquet"
        with io.new_output(path).create() as sink:
            polars.from_arrow(data).write_parquet(
                sink,
                row_group_size=dice.choice((None, 2, 3)),
                statistics=dice.choice((True, True, "full", False)),
            )
        from pyarrow import parquet as pq

        with io.new_input(path).open() as stream:
            found = pq.read_metadata(stream)
        size = len(io.new_input(path))
        return [make_data_file(path, size, found, record, metadata, metadata.schema(), {})]
    # Shoal's, and what PyIceberg cannot write.
    context = WriteContext(
        metadata=pack_metadata(metadata, metadata.current_schema_id),
        table=one.name,
        data_path=folder,
        io_properties=hold_secrets(dict(io.properties)),
    )
    return [w.data_file for w in write_partition(data, context)]


def _beyond_pyiceberg(partition_by: Sequence[str], data: pa.Table) -> bool:
    """It rounds the bound of some texts up to half a character, and looks in vain for a partition of NaN."""
    if any("\ud7ff" in str(text) for text in data["s"].to_pylist()):
        return True
    return any(v != v for c in partition_by if c in ("f", "d") for v in data[c].to_pylist())


def _again(file: DataFile, partition: Record, dice: random.Random | None = None) -> DataFile:
    """The entry of a file for another table's manifest; of its statistics perhaps not all."""
    known = (
        "file_path",
        "record_count",
        "file_size_in_bytes",
        "column_sizes",
        "value_counts",
        "null_value_counts",
        "nan_value_counts",
        "lower_bounds",
        "upper_bounds",
        "split_offsets",
    )
    left_out = dice.choice(LEFT_OUT) if dice is not None else ()
    values = {name: None if name in left_out else getattr(file, name) for name in known}
    again = DataFile.from_args(
        content=DataFileContent.DATA,
        file_format=FileFormat.PARQUET,
        partition=partition,
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
        **values,
    )
    again.spec_id = 0
    return again


def _insert(name: str, data: pa.Table, spark: Any) -> None:
    spark.createDataFrame(data).createOrReplaceTempView("drawn_rows")
    spark.sql(f"INSERT INTO shoal.{name} SELECT * FROM drawn_rows").collect()


def _by_spark(
    name: str, metrics: str, parts: Sequence[pa.Table], wide: pa.Schema, spark: Any
) -> dict[int, DataFile]:
    """Spark's files of these parts, by their first ids."""
    shoal.create_table(
        name,
        wide,
        partition_by=f"truncate({BLOCK}, id)",
        properties={"write.metadata.metrics.default": metrics},
    )
    _insert(name, pa.concat_tables(parts), spark)
    return {task.file.partition[0]: task.file for task in catalogs.load(name).scan().plan_files()}


def ask_spark(
    made: Sequence[Made], filters: Sequence[Sequence[str]], namespace: str, spark: Any
) -> list[list[int]]:
    """Which rows of each table pass each of its filters in Spark's SQL, as bits by id from the table's first on.

    Spark reads all tables in one scan, and answers all filters of a table in one query over what it read: statistics
    and partitions play no part.
    """
    # Sorted here: Spark would read all once more, to see how the ids are spread.
    rows = spark.sql(f"SELECT * FROM shoal.{namespace}.everything").toArrow().sort_by("id")
    drawn = pa.concat_tables([one.table for one in made]).sort_by("id")
    assert str(rows.to_pylist()) == str(drawn.to_pylist()), "Spark reads what was drawn"
    answers = []
    at = 0
    for one, texts in zip(made, filters, strict=True):
        own = rows.slice(at, one.table.num_rows)
        at += own.num_rows
        marks = ", ".join(f"IF({text}, '1', '0')" for text in texts)
        # Not toArrow(), which has the query analysed once more, for its schema: as long as the answer takes.
        found = spark.createDataFrame(own).selectExpr("id", f"concat({marks}) passed").toPandas()
        ids, passed = found.id.tolist(), found.passed.tolist()
        answers.append(
            [
                sum(1 << (i - one.first) for i, marked in zip(ids, passed, strict=True) if marked[n] == "1")
                for n in range(len(texts))
            ]
        )
    return answers
