"""Files as parts of a Dask frame: how they are cut, and how a task reads its piece.

Why it exists: a batch has one set of columns, or its rows would mean different things by the file; so the first file
says what they are, each piece is held against that where it is read, and what differs is told by the file's name.

What it must not do: know tables, or what was done already.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.json as pjson
import pyarrow.parquet as pq

from shoal.errors import UsageError
from shoal.flows.errors import EmptyInputError, InputChangedError
from shoal.flows.inputs import File, filesystem
from shoal.tables.storage import told
from shoal.tables.types.dtypes import to_pandas
from shoal.units import Bytes
from shoal.words import listed

PIECE = 64 * 2**20
"""Bytes of a piece of text, or of row groups of Parquet, about."""
_SAMPLE = 2**20  # bytes of text from which columns are known
_LOOKED_AT = 16  # files, for a column that is empty in those before
ROWS = 200
"""Rows that are shown to the user's function first, for the columns that it gives."""


@dataclass(frozen=True)
class InputPiece:
    """A part of a file that one task reads."""

    file: File
    start: int = 0
    end: int = 0
    """Of text: lines that begin from ``start`` to before ``end``; 0: all."""
    groups: tuple[int, ...] = ()
    """Of Parquet: these row groups; none: all."""


@dataclass(frozen=True)
class InputReader:
    """How pieces of one batch are read. Holds no secret."""

    location: str
    properties: Mapping[str, str]
    schema: pa.Schema | None = None
    """What every file has to have."""
    first: str = ""
    """The file that says so."""

    def __call__(self, piece: InputPiece) -> pd.DataFrame:
        """The rows of a piece, with Arrow-backed columns."""
        assert self.schema is not None
        return to_pandas(self._read(piece, self.schema), "pyarrow")

    def sample(self, file: File) -> pd.DataFrame:
        """The first rows of a file."""
        assert self.schema is not None
        end = min(file.size, _SAMPLE) if file.kind != "parquet" and not _packed(file) else 0
        groups = (0,) if file.kind == "parquet" and self._parquet(file).num_row_groups else ()
        return to_pandas(self._read(InputPiece(file, 0, end, groups), self.schema).slice(0, ROWS), "pyarrow")

    def schema_of(self, file: File, types: Mapping[str, pa.DataType]) -> pa.Schema:
        """The columns of a file, by its first rows; those in ``types`` as they say. One without a value there: null."""
        if file.kind == "parquet":
            known = self._parquet(file).schema_arrow
        else:
            # Only whole lines: what follows the last one is not of a value's type.
            whole = self._text(file, 0, 0 if _packed(file) else min(file.size, _SAMPLE))
            with self._told(file):
                known = self._parse(file, whole, None, types).schema
        return pa.schema([f.with_type(types.get(f.name, f.type)) for f in known.remove_metadata()])

    def cut(self, files: Sequence[File]) -> list[InputPiece]:
        """The pieces of these files."""
        found: list[InputPiece] = []
        for file in files:
            if file.size <= PIECE or _packed(file):
                found.append(InputPiece(file))
            elif file.kind == "parquet":
                found += [InputPiece(file, groups=groups) for groups in _groups(self._parquet(file).metadata)]
            else:
                found += [
                    InputPiece(file, at, min(at + PIECE, file.size)) for at in range(0, file.size, PIECE)
                ]
        return found

    def _read(self, piece: InputPiece, schema: pa.Schema) -> pa.Table:
        file = piece.file
        if file.kind == "parquet":
            opened = self._parquet(file)
            self._compare(file, opened.schema_arrow.names, schema)
            with self._told(file):
                groups = list(piece.groups or range(opened.num_row_groups))
                return opened.read_row_groups(groups, columns=schema.names).select(schema.names).cast(schema)
        text = self._text(file, piece.start, piece.end)
        with self._told(file):
            table = self._parse(file, text, schema, {})
        self._compare(file, table.column_names, schema)
        with self._told(file):
            return table.select(schema.names).cast(schema)

    def _compare(self, file: File, names: Sequence[str], schema: pa.Schema) -> None:
        """A column of JSON may be left out by a row, hence by a file; nothing else may."""
        new = [name for name in names if name not in schema.names]
        gone = [name for name in schema.names if name not in names]
        if new or gone:
            said = [*(f"{name!r} is new" for name in new), *(f"{name!r} is missing" for name in gone)]
            raise InputChangedError(
                f"the columns of {file.name} are not those of {self.first}: {listed(said)}",
                hint="Files of one run have the same columns. Correct it, or give such files an input of their own.",
                file=file.name,
            )

    def _parse(
        self, file: File, text: bytes, schema: pa.Schema | None, types: Mapping[str, pa.DataType]
    ) -> pa.Table:
        if file.kind == "json":
            explicit = schema if schema is not None else pa.schema(list(types.items()))
            options = pjson.ParseOptions(explicit_schema=explicit)
            if not text.strip():
                return pa.schema([] if schema is None else schema).empty_table()
            return pjson.read_json(pa.BufferReader(text), parse_options=options)
        known = dict(types) if schema is None else {f.name: f.type for f in schema}
        return csv.read_csv(
            pa.BufferReader(text),
            parse_options=csv.ParseOptions(delimiter="\t" if file.kind == "tsv" else ","),
            convert_options=csv.ConvertOptions(column_types=known, strings_can_be_null=True),
        )

    def _text(self, file: File, start: int, end: int) -> bytes:
        """The lines of a piece; of CSV with the line of names before them."""
        with (
            self._access(file),
            filesystem(self.location, self.properties).open_input_file(file.path) as source,
        ):
            if not source.size():
                raise EmptyInputError(
                    f"{file.name} is empty: it has not even a line of names"
                    if file.kind != "json"
                    else f"{file.name} is empty",
                    hint="Was it still being written? Delete it, or put it there whole.",
                    file=file.name,
                )
            if _packed(file):
                with pa.CompressedInputStream(source, "gzip") as unpacked:
                    return bytes(unpacked.read())
            head = b"" if start == 0 or file.kind == "json" else _line(source, 0)
            # A line belongs to the piece that it begins in.
            begin = start if start == 0 else start - 1 + len(_line(source, start - 1))
            stop = source.size()
            if end and end < stop:
                stop = end - 1 + len(_line(source, end - 1))
            source.seek(begin)
            return head + bytes(source.read(max(0, stop - begin)))

    def _parquet(self, file: File) -> pq.ParquetFile:
        with self._access(file), self._told(file):
            return pq.ParquetFile(filesystem(self.location, self.properties).open_input_file(file.path))

    @contextmanager
    def _access(self, file: File) -> Iterator[None]:
        with told(f"{file.name} could not be read", self.location):
            yield

    @contextmanager
    def _told(self, file: File) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            by = f" as in {self.first}" if self.first and self.first != file.name else ""
            raise InputChangedError(
                f"{file.name} cannot be read{by}: {error}",
                hint="The first file's first rows say which type a column has; types={'COLUMN': 'string'} says it for "
                "all. JSON is one object a line.",
                file=file.name,
            ) from error


def types_of(given: Mapping[str, Any] | None) -> dict[str, pa.DataType]:
    """Types by column, as Arrow's or by their names there (``"int64"``, ``"timestamp[us]"``); UsageError."""
    found = {}
    for name, kind in (given or {}).items():
        try:
            found[name] = kind if isinstance(kind, pa.DataType) else pa.type_for_alias(str(kind))
        except ValueError:
            raise UsageError(
                f"types= says {kind!r} of the column {name!r}, which is not a type",
                hint="For example 'int64', 'double', 'string', 'date32', 'timestamp[us]', or one of PyArrow's.",
            ) from None
    return found


def reader_of(
    files: Sequence[File],
    location: str,
    properties: Mapping[str, str],
    types: Mapping[str, pa.DataType],
    otherwise: Mapping[str, pa.DataType],
) -> InputReader:
    """How the files of a batch are read; the first one says the columns.

    A column without a value there is what the next files make of it, else what ``otherwise`` says, else text.

    Raises EmptyInputError, InputChangedError, StorageError.
    """
    first = files[0]
    reader = InputReader(location, properties)
    schema = reader.schema_of(first, types)
    for other in files[1:_LOOKED_AT]:
        if not any(pa.types.is_null(field.type) for field in schema):
            break
        seen = {field.name: field.type for field in reader.schema_of(other, types)}
        schema = _filled(schema, seen)
    schema = _filled(_filled(schema, otherwise), dict.fromkeys(schema.names, pa.string()))
    if unknown := [name for name in types if name not in schema.names]:
        raise UsageError(
            f"types= names {listed(map(repr, unknown))}, which {first.name} does not have",
            hint=f"Its columns: {', '.join(schema.names)}",
        )
    return InputReader(location, properties, schema, first.name)


def _filled(schema: pa.Schema, types: Mapping[str, pa.DataType]) -> pa.Schema:
    """The types of columns of which no value was seen."""
    return pa.schema(
        [f.with_type(types.get(f.name, f.type)) if pa.types.is_null(f.type) else f for f in schema]
    )


def frame_of(reader: InputReader, files: Sequence[File]) -> dd.DataFrame:
    """The files' rows, one partition for a piece."""
    assert reader.schema is not None
    meta = to_pandas(reader.schema.empty_table(), "pyarrow")
    return dd.from_map(reader, reader.cut(files), meta=meta, enforce_metadata=False)


def size_of(files: Sequence[File]) -> Bytes:
    """Of all of them."""
    return Bytes(sum(file.size for file in files))


def _packed(file: File) -> bool:
    return file.name.lower().endswith(".gz")


def _line(source: Any, at: int) -> bytes:
    """From a place to the end of its line, that included."""
    source.seek(at)
    found = io.BytesIO()
    while block := source.read(64 * 1024):
        end = block.find(b"\n")
        found.write(block if end < 0 else block[: end + 1])
        if end >= 0:
            break
    return found.getvalue()


def _groups(metadata: Any) -> list[tuple[int, ...]]:
    """Row groups that follow each other, together about the size of a piece."""
    found: list[tuple[int, ...]] = []
    pending: list[int] = []
    size = 0
    for number in range(metadata.num_row_groups):
        pending.append(number)
        size += metadata.row_group(number).total_byte_size
        if size >= PIECE:
            found.append(tuple(pending))
            pending, size = [], 0
    return [*found, tuple(pending)] if pending or not found else found
