"""The how-to's examples, run in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shoal.tables.catalogs.opening import CatalogSettings

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


def test_every_example_runs(lake: CatalogSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_CATALOG_URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setenv("SHOAL_CATALOG_WAREHOUSE", f"{tmp_path}/warehouse")
    text = PAGE.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) > 8
    scope: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(PAGE), "exec"), scope)
