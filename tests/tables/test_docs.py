"""The examples of the pages about tables, run in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shoal.tables.catalogs.opening import CatalogSettings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("page", "at_least"), [("tables.md", 8), ("how-to/upkeep.md", 5)])
def test_every_example_runs(
    lake: CatalogSettings, page: str, at_least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_CATALOG_URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setenv("SHOAL_CATALOG_WAREHOUSE", f"{tmp_path}/warehouse")
    text = (DOCS / page).read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) >= at_least
    scope: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(DOCS / page), "exec"), scope)
