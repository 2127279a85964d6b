"""What docs/security.md says is held is shown by a test; a claim without one is not written down."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
_CLAIM = re.compile(r"^- (?P<said>.+?) `(?P<file>tests/[\w/]+\.py)::(?P<name>test_\w+)`$")


def claims() -> list[str]:
    held = PAGE.split("## What is protected\n")[1].split("\n## ")[0]
    return [line for line in held.splitlines() if line.startswith("- ")]


def test_each_claim_names_a_test_that_exists() -> None:
    assert len(claims()) >= 15
    for claim in claims():
        found = _CLAIM.match(claim)
        assert found is not None, f"no test at its end: {claim}"
        file = ROOT / found["file"]
        assert file.is_file(), claim
        tests = {
            node.name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert found["name"] in tests, claim


def test_each_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) > len(claims()) + 15
    for file, name in named:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"


def test_what_is_not_held_is_said() -> None:
    not_held = PAGE.split("## What is not protected\n")[1]
    for word in ("root", "same Unix user", "Quotas are cooperation", "nuisance"):
        assert word in not_held
