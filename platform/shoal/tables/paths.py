"""Tables that are named by where they lie: a folder of a Hadoop catalog, or one metadata file of any table.

Why it exists: whoever moves to a catalog still has such tables, and a metadata file tells a table as it was. What it
must not do: change one. A Hadoop table is safe only with a file system that renames without replacing, which S3 and
most others are not, and of a metadata file nobody knows whether it is the newest.
"""

from __future__ import annotations

import re
from pathlib import Path

from pyiceberg.exceptions import ValidationError
from pyiceberg.io import FileIO, load_file_io
from pyiceberg.table import StaticTable, Table

from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.names import is_path
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import NotSupportedError, TableNotFoundError
from shoal.tables.naming import unreadable
from shoal.tables.storage import storage_error
from shoal.tables.writing.sweep import files_under

_VERSION = re.compile(r"v(\d+)(?:\.gz)?\.metadata\.json(?:\.gz)?")
_METADATA = re.compile(r".*\.metadata\.json(?:\.gz)?")


def load(name: str, settled: CatalogSettings) -> Table:
    """A table to read, by its name or by its path.

    Raises:
        TableNotFoundError: There is none.
        NotSupportedError: A folder whose newest metadata file only its catalog knows; a format that cannot be read.
        StorageError: Its files cannot be read.
    """
    if not is_path(name):
        return catalogs.load(name, settled)
    path = _whole(name)
    properties = {**catalogs.implementation(path, settled.for_storage), **settled.for_storage}
    io = load_file_io(properties, path)
    try:
        metadata = path if _METADATA.fullmatch(path.rsplit("/", 1)[-1]) else _newest(io, path, name)
        return StaticTable.from_metadata(metadata, properties)
    except FileNotFoundError as error:
        raise _nothing(name) from error
    except OSError as error:
        raise storage_error(error, path, f"The table {name} could not be read", io=io, table=name) from error
    except (ValueError, NotImplementedError, ValidationError) as error:  # also pydantic's
        raise unreadable(name, error) from error


def _whole(name: str) -> str:
    """With its scheme, without a slash at its end."""
    if "://" in name or name.startswith("file:"):
        return name.rstrip("/")
    return f"file://{Path(name).expanduser().absolute()}"


def _newest(io: FileIO, folder: str, name: str) -> str:
    """The metadata file of the highest version. The hint beside them may be one behind, and is only a hint."""
    names = {path.rsplit("/", 1)[-1]: path for path in files_under(io, f"{folder}/metadata")}
    versions = {int(found[1]): path for each, path in names.items() if (found := _VERSION.fullmatch(each))}
    if versions:
        return versions[max(versions)]
    if others := sorted(each for each in names if _METADATA.fullmatch(each)):
        raise NotSupportedError(
            f"{name} is the folder of a catalog's table: which of its {len(others)} metadata files is the newest, only "
            "that catalog knows.",
            hint=f"Name the table as its catalog does, or one of the files: {folder}/metadata/{others[-1]}",
        )
    raise _nothing(name)


def _nothing(name: str) -> TableNotFoundError:
    return TableNotFoundError(
        f"There is no Iceberg table at {name}.",
        hint="A path is that of a table's folder, in which metadata/v1.metadata.json lies, or of a metadata file.",
        table=name,
    )
