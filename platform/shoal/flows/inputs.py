"""Where a flow's rows come from: files of a folder or a bucket, or a table.

Why it exists: a path that is not there, or a name that was meant otherwise, is told before a cluster is started.

What it must not do: read a file's content (``pieces`` does), or know what was done already (``progress`` does).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.errors import UsageError
from shoal.flows.errors import InputMissingError
from shoal.tables.catalogs.opening import pyiceberg_properties, settings
from shoal.tables.credentials import on_s3
from shoal.tables.keys import file_io, hold_secrets
from shoal.tables.storage import told
from shoal.words import count, listed

KINDS = {"csv": "csv", "tsv": "tsv", "parquet": "parquet", "json": "json", "jsonl": "json", "ndjson": "json"}
"""How a file is read, by the end of its name; text may be packed (``.gz``)."""
_TABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_WILD = re.compile(r"[*?]")
_FORMS = listed(sorted(KINDS), "or")


@dataclass(frozen=True)
class File:
    """One file of an input."""

    path: str
    """As its file system names it."""
    name: str
    """Below the folder that is read: the same when a project moves."""
    size: int
    changed: int
    """When, in ns."""

    @property
    def kind(self) -> str | None:
        """One of :data:`KINDS`; None for others."""
        return KINDS.get(self.name.lower().removesuffix(".gz").rpartition(".")[2])

    @property
    def mark(self) -> str:
        """12 digits that stand for its name."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:12]

    @property
    def state(self) -> str:
        """6 digits that stand for its content, as far as the file system tells."""
        return hashlib.sha256(f"{self.size} {self.changed}".encode()).hexdigest()[:6]


def is_table(given: str) -> bool:
    """Whether an input names a table: words with dots, the last of which is not a known end of a file's name."""
    return _TABLE.fullmatch(given) is not None and given.rpartition(".")[2].lower() not in KINDS


def check(given: object) -> str:
    """An input that can be looked for; UsageError."""
    if not isinstance(given, (str, Path)) or not str(given).strip():
        raise UsageError(
            f"input={given!r} is neither a path nor a table",
            hint="For example 'data/sales/*.csv', 's3://lake/sales/' or 'raw.sales'.",
        )
    return str(given)


def storage() -> dict[str, str]:
    """What a task has to know to open files as those of tables are opened; no secret."""
    return hold_secrets(pyiceberg_properties(settings()))


def filesystem(location: str, properties: Mapping[str, str]) -> Any:
    """PyArrow's file system for a path, in any process."""
    from pyarrow.fs import LocalFileSystem

    if not on_s3(location):
        return LocalFileSystem()
    bucket = _without_scheme(location).split("/")[0]
    opened: Any = file_io(f"s3://{bucket}", properties)
    return opened.fs_by_scheme("s3", bucket)


def find(given: str, folder: Path, properties: Mapping[str, str]) -> list[File]:
    """The files that an input names, by name.

    ``given``: a file, a folder (all files below it of known kinds) or a pattern with ``*``, ``?`` and ``**``; local
    ones are below ``folder``. Names that begin with a dot or an underscore are passed over: of those that are being
    written.

    Raises InputMissingError, UsageError for a file of no known kind, StorageError.
    """
    from pyarrow.fs import FileSelector, FileType

    if not on_s3(given):
        if "://" in given and not given.startswith("file://"):
            raise UsageError(
                f"input={given!r}: files are read from local paths and from s3://",
                hint="Copy them there, or read them into a table first.",
            )
        given = str(folder / Path(given.removeprefix("file://")).expanduser()) + "/" * given.endswith("/")
    whole = _without_scheme(given)
    parts = whole.rstrip("/").split("/")
    fixed = next((i for i, part in enumerate(parts) if _WILD.search(part)), len(parts))
    base, pattern = "/".join(parts[:fixed]), "/".join(parts[fixed:])
    where = filesystem(given, properties)
    with told(f"The input {given} could not be looked for", given, io=_io(given, properties)):
        there = where.get_file_info(base)
        if there.type == FileType.NotFound:
            raise InputMissingError(
                f"the input {given} is not there: {'no folder' if pattern else 'nothing'} {_shown(given, base)}",
                hint=_near(base) or "Correct input=, or put the files there first.",
                input=given,
            )
        if there.is_file:
            found, base = [there], base.rpartition("/")[0]
        else:
            deep = not pattern or "/" in pattern
            found = [f for f in where.get_file_info(FileSelector(base, recursive=deep)) if f.is_file]
    files = [File(f.path, f.path[len(base) :].lstrip("/"), f.size, f.mtime_ns or 0) for f in found]
    fits = re.compile(_expression(pattern) if pattern else r".*", re.DOTALL)
    chosen = sorted(
        (f for f in files if fits.fullmatch(f.name) and not re.search(r"(^|/)[._]", f.name)),
        key=lambda f: f.name,
    )
    known = [f for f in chosen if f.kind is not None]
    if not pattern and not there.is_file:
        chosen = known
    if not chosen:
        raise InputMissingError(
            f"no file fits the input {given}; of {count(len(files), 'file')} in {_shown(given, base)}",
            hint=f"Such as {listed([f.name for f in files[:3]])}." if files else f"Files end in {_FORMS}.",
            input=given,
        )
    if len(known) < len(chosen):
        odd = next(f for f in chosen if f.kind is None)
        raise UsageError(
            f"{odd.name} is of no known kind", hint=f"Names end in {_FORMS}; text also with .gz."
        )
    return known


def _io(given: str, properties: Mapping[str, str]) -> Any:
    return file_io(given, properties) if on_s3(given) else None


def _without_scheme(location: str) -> str:
    return location.partition("://")[2] if "://" in location else location


def _shown(given: str, path: str) -> str:
    return f"s3://{path}" if on_s3(given) else path


def _near(base: str) -> str:
    """What there is of a local path."""
    path = Path(base)
    there = next((parent for parent in path.parents if parent.exists()), None)
    return f"{there} exists; {path.relative_to(there).parts[0]} is not in it." if there is not None else ""


def _expression(pattern: str) -> str:
    """A pattern of a path as a regular expression: ``**/`` stands for any folders, ``*`` for part of a name."""
    tokens = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    meant = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(meant.get(token, re.escape(token)) for token in tokens)
