"""The package as a whole: its names, what importing it costs, and what the wheel ships."""

from __future__ import annotations

import subprocess
import sys

import shoal

_HEAVY = {"dask", "distributed", "pandas", "pyarrow", "pyiceberg", "pyspark", "prefect", "kr8s", "sqlalchemy"}


def test_every_public_name_is_there_and_nothing_else() -> None:
    assert sorted(shoal.__all__) == shoal.__all__
    for name in shoal.__all__:
        assert getattr(shoal, name).__module__.startswith("shoal."), name
    assert set(shoal._HOME_OF) == set(shoal.__all__)
    assert set(dir(shoal)) >= set(shoal.__all__)


def test_importing_it_pulls_in_no_engine() -> None:
    code = "import sys, shoal; print(*{name.partition('.')[0] for name in sys.modules})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not _HEAVY & set(answer.stdout.split())


def test_planning_pulls_in_no_engine_either() -> None:
    code = "import sys, shoal; shoal.plan; print(*{name.partition('.')[0] for name in sys.modules})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not (_HEAVY - {"sqlalchemy"}) & set(answer.stdout.split())
