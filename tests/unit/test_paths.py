"""Folders that hold tokens, records and what scripts wrote let nobody else in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from shoal.cli.scripts import Scripts
from shoal.machine.paths import make_private


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


@pytest.mark.parametrize("first", ["a script", "a cluster"])
def test_whatever_is_made_first_in_the_data_folder_lets_nobody_in(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "share" / "shoal"
    monkeypatch.setenv("SHOAL_DATA", str(data))
    tmp_path.chmod(0o755)
    before = os.umask(0o022)
    try:
        Scripts("").begin("nightly", "ann") if first == "a script" else make_private(data / "run" / "abc")
    finally:
        os.umask(before)
    made = [data.parent, *(folder for folder in (data, *data.rglob("*")) if folder.is_dir())]
    assert len(made) >= 3
    assert {mode(folder) for folder in made} == {0o700}
    assert mode(tmp_path) == 0o755, "a folder that was there stays as it is"
