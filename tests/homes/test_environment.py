"""Client and workers are compared at connect, and what differs is said."""

from __future__ import annotations

from pathlib import Path

import pytest

import shoal
from shoal.machine.environment import EnvironmentMismatchWarning, differences, versions

OTHER_NUMPY = """
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "numpy-0.0.1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        info = "numpy-0.0.1.dist-info"
        about = "Metadata-Version: 2.1\\nName: numpy\\nVersion: 0.0.1\\n"
        wheel.writestr(f"{info}/METADATA", about)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


def test_what_is_the_same_is_not_mentioned() -> None:
    mine = versions()
    assert {"Python", "dask", "distributed", "cloudpickle", "numpy", "pandas", "pyarrow"} <= set(mine)
    assert differences(mine, {"s-0": dict(mine)}) == []
    assert differences({"Python": "3.11.7"}, {"s-0": {"Python": "3.11.9"}}) == []


def test_each_difference_names_both_versions_and_the_workers() -> None:
    mine = {"pandas": "2.3.3", "Python": "3.11.7"}
    theirs = {"s-0": {"pandas": "2.2.0", "Python": "3.12.1"}, "s-1": {"pandas": "2.3.3", "Python": "3.12.1"}}
    assert differences(mine, theirs) == [
        "Python 3.11.7 here, 3.12.1 on the workers",
        "pandas 2.3.3 here, 2.2.0 on worker s-0",
    ]
    assert differences({"pandas": "2"}, {"s-0": {}}) == ["pandas 2 here, not installed on the workers"]


def test_another_package_on_the_workers_is_told_at_connect(project: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "back"\nbackend-path = ["."]\n'
        '[project]\nname = "numpy"\nversion = "0.0.1"\n'
    )
    (package / "back.py").write_text(OTHER_NUMPY)
    packages = [f"numpy @ file://{package}"]
    handle = shoal.up("small", engine="dask", workers=1, packages=packages, project=project, quiet=True)
    said = r"numpy .* here, 0\.0\.1 on the workers"
    with pytest.warns(EnvironmentMismatchWarning, match=said), handle:
        handle.open()
