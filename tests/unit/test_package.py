"""The package as a whole: its names, what importing it costs, and what the wheel ships."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import shoal

_HEAVY = {"dask", "distributed", "pandas", "pyarrow", "pyiceberg", "pyspark", "prefect", "kr8s", "sqlalchemy"}


def test_every_public_name_is_there_and_nothing_else() -> None:
    assert sorted(shoal.__all__) == shoal.__all__
    for name in shoal.__all__:
        assert getattr(shoal, name).__module__.startswith("shoal."), name
    assert set(shoal._HOME_OF) == set(shoal.__all__)
    assert set(dir(shoal)) >= set(shoal.__all__)


def loaded_after(code: str) -> set[str]:
    """The packages that a fresh process has imported after some code."""
    code = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(answer.stdout.splitlines()[-1].split())


def test_importing_it_pulls_in_no_engine() -> None:
    assert not _HEAVY & loaded_after("import shoal")


def test_planning_pulls_in_no_engine_either() -> None:
    assert not _HEAVY & loaded_after("import shoal; shoal.plan()")


def test_a_heads_process_is_started_before_what_decides_is_imported() -> None:
    assert not (_HEAVY | {"pydantic"}) & loaded_after("import shoal; shoal.dask")


def test_a_head_starts_without_what_only_decisions_need() -> None:
    unneeded = {"pydantic", "pandas", "pyarrow", "sqlalchemy", "typer", "rich"}
    desk = "from shoal.head import birth; desk = birth.open_desk('local', 'c')"
    assert not unneeded & loaded_after(f"{desk}; birth.import_early('dask', desk)")
    light = unneeded | {"dask", "distributed", "numpy", "multiprocessing"}
    assert not light & loaded_after(f"{desk}; import shoal.homes.local.waiting"), (
        "a hundred may wait on one machine"
    )


def test_the_wheel_ships_the_default_project_folder(tmp_path: Path) -> None:
    root = Path(shoal.__file__).parents[2]
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    subprocess.run([*build, "--wheel-dir", str(tmp_path)], cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("shoal-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = "from shoal.project.loading import load; p = load(); print(p.folder, *sorted(p.templates))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    defaults = site / "shoal" / "_defaults"
    assert answer.stdout.split() == [str(defaults), "analytics", "etl", "ml-training", "workbench"]
    assert (defaults / "flows" / "nyc_flights.py").is_file()
    assert (defaults / "flows" / "upkeep.py").is_file()
    assert (defaults / "prefect.yaml").is_file()


# Clients of Kubernetes, and the one package that may know each.
_ONLY_IN = {
    "kubernetes": "homes/kubernetes/",
    "kr8s": "homes/kubernetes/",
}


def _imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize(("private", "home"), _ONLY_IN.items())
def test_only_one_package_knows_a_client_of_kubernetes(private: str, home: str) -> None:
    package = Path(shoal.__file__).parent
    knowing = [
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if any(name == private or name.startswith(f"{private}.") for name in _imports(file))
    ]
    assert [name for name in knowing if not name.startswith(home)] == []
