"""Which module may touch what; import-linter sees an outside package only as a whole."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import shoal

PACKAGE = Path(shoal.__file__).parent


def imports(source: str) -> Iterator[tuple[str, str]]:
    """Each import of a module's source as (module, name); name is empty for ``import module``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def uses_dask_expr(source: str) -> bool:
    return any(
        f"{module}.{name}".startswith("dask.dataframe.dask_expr")
        or module.startswith("dask.dataframe.dask_expr")
        for module, name in imports(source)
    )


def uses_private_pyiceberg(source: str) -> bool:
    found = [f"{module}.{name}" for module, name in imports(source) if module.split(".")[0] == "pyiceberg"]
    return any(part.startswith("_") for path in found for part in path.split("."))


@pytest.mark.parametrize(
    ("test", "home"),
    [
        (uses_dask_expr, "tables/reading/expression.py"),
        (uses_private_pyiceberg, "tables/pyiceberg_private.py"),
    ],
)
def test_private_parts_are_touched_by_one_module(test: object, home: str) -> None:
    assert callable(test)
    users = [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if test(path.read_text())]
    assert users == [home]


@pytest.mark.parametrize(
    "source",
    [
        "import dask.dataframe.dask_expr",
        "from dask.dataframe import dask_expr",
        "from dask.dataframe.dask_expr import new_collection",
        "def f():\n    from dask.dataframe.dask_expr._expr import Expr",
    ],
)
def test_every_way_of_importing_is_caught(source: str) -> None:
    assert uses_dask_expr(source)
    assert not uses_dask_expr("import dask.dataframe as dd")


def test_private_pyiceberg_is_caught() -> None:
    assert uses_private_pyiceberg("from pyiceberg.io.pyarrow import _read_deletes")
    assert not uses_private_pyiceberg("from pyiceberg.io.pyarrow import PyArrowFileIO")


def test_no_file_is_long() -> None:
    long = {
        p.name: n for p in (PACKAGE / "tables").glob("*.py") if (n := len(p.read_text().splitlines())) > 400
    }
    assert long == {}
