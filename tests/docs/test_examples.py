"""Every example of the documentation is executed: its files are written, its Python and its commands run.

How a block is read, by the word after its fence: ``python`` is run as a script (with ``title="NAME"`` it is only
saved); ``console`` lines after ``$`` are run one after the other, and exit 0 unless ``# exits N`` follows;
``yaml`` whose first line is ``# PATH`` is written there; ``toml`` is parsed, and its entry points are looked up.
``text`` shows what is seen, and is not run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {  # run by a test of its own, with what it needs
    "docs/how-to/prefect.md": "tests/flows/test_guide.py",
    "docs/how-to/flows.md": "tests/flows/test_flows_guide.py",
    "docs/how-to/kubernetes.md": "tests/kubernetes/test_home_guide.py",
    "docs/contributing.md": "tests/kubernetes/test_node.py",
    "docs/tables.md": "tests/tables/test_docs.py",
    "docs/how-to/upkeep.md": "tests/tables/test_docs.py",
}
IN_A_KERNEL = {"README.md": "tests/surface/test_notebook.py"}  # its Python; its commands are run here
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<kind>\w+)(?P<more>[^\n]*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    kind: str
    more: str
    body: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text()
    for found in _FENCE.finditer(text):
        body = re.sub(rf"^{found['indent']}", "", found["body"], flags=re.MULTILINE)
        yield Block(found["kind"], found["more"].strip(), body, text.count("\n", 0, found.start()) + 1)


def pages() -> list[str]:
    return ["README.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md")))]


def runnable() -> list[object]:
    found: list[object] = []
    for page in pages():
        if page in ELSEWHERE or not any(block.kind in ("python", "console") for block in blocks(page)):
            continue
        text = "".join(block.body for block in blocks(page) if block.kind in ("python", "console"))
        spark = page not in IN_A_KERNEL and ("shoal.spark" in text or "shoal validate" in text)
        found.append(pytest.param(page, marks=[pytest.mark.slow, *([pytest.mark.spark] if spark else [])]))
    return found


def test_every_page_is_run_somewhere() -> None:
    assert "docs/quick-start.md" in pages()
    for page, test in {**ELSEWHERE, **IN_A_KERNEL}.items():
        if (ROOT / page).exists():
            assert (ROOT / test).exists(), f"{page} is run by {test}, which is not there"
    kinds = {block.kind for page in pages() for block in blocks(page)}
    assert kinds <= {"python", "console", "yaml", "toml", "text", "sh", "bash"}, kinds


def test_the_entry_points_that_pages_show_are_those_that_are_looked_for() -> None:
    shown = [tomllib.loads(block.body) for page in pages() for block in blocks(page) if block.kind == "toml"]
    assert shown
    for block in shown:
        for group in block["project"]["entry-points"]:
            source = (ROOT / "platform/shoal/homes/choose.py").read_text()
            assert f'"{group}"' in source, f"nothing looks for entry points in the group {group}"


def test_blocks_are_of_the_one_form_that_the_site_shows_too() -> None:
    for page in pages():
        for block in blocks(page):
            assert re.fullmatch(r'(title="\S+")?', block.more), f"{page}:{block.line} {block.more}"


def anchors(page: Path) -> set[str]:
    """What a link may name after ``#``: the page's headings, as the site and code hosts spell them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*pages(), "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]:
        for target, anchor in re.findall(
            r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", (ROOT / page).read_text()
        ):
            file = (ROOT / page).parent.joinpath(target) if target else ROOT / page
            assert file.exists(), f"{page} links to {target}"
            assert not anchor or anchor in anchors(file), f"{page} links to {target}#{anchor}"


@pytest.mark.parametrize("page", runnable())
def test_the_examples_run(
    page: str, empty_home: Path, tmp_path: Path, marked: Callable[[], dict[int, str]]
) -> None:
    run_page(page, tmp_path / "project", dict(os.environ))
    assert not marked(), "what the examples started has ended"


if os.environ.get("SHOAL_SOAK_QUICK_START"):  # `make soak-quick-start`: it fetches Spark's jars anew

    @pytest.mark.slow
    @pytest.mark.spark
    def test_the_quick_start_from_an_empty_home(
        tmp_path: Path,
        record_property: Callable[[str, object], None],
        monkeypatch: pytest.MonkeyPatch,
        marked: Callable[[], dict[int, str]],
    ) -> None:
        home = tmp_path / "home"
        home.mkdir()
        for name in [name for name in os.environ if name.startswith(("SHOAL_", "XDG_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(home))
        took = run_page("docs/quick-start.md", tmp_path / "project", dict(os.environ))
        for number, (what, seconds) in enumerate(took, start=1):
            record_property(f"step {number:02}", f"{seconds:.1f} {what}")
        assert not marked(), "what the examples started has ended"


def run_page(page: str, folder: Path, environment: dict[str, str]) -> list[tuple[str, float]]:
    """Run all of a page in a new folder; what was run, and how long each took in seconds."""
    folder.mkdir()
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment.pop("COLUMNS", None)
    took = []

    def run(command: list[str], where: str, expected: int, what: str) -> None:
        begin = time.monotonic()
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
        )
        took.append((what, time.monotonic() - begin))
        assert done.returncode == expected, f"{where}: {command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{where}\n{done.stderr}"

    if page != "docs/quick-start.md":  # which makes its own
        run(["shoal", "init"], page, 0, "shoal init")
    for number, block in enumerate(blocks(page)):
        where = f"{page}:{block.line}"
        if block.kind == "yaml" and (name := re.match(r"# (\S+\.yaml)\n", block.body)):
            (folder / name[1]).write_text(block.body)
        elif block.kind == "python" and page not in IN_A_KERNEL:
            saved = re.fullmatch(r'title="(\S+)"', block.more)
            file = folder / (saved[1] if saved else f"block_{number}.py")
            file.write_text(block.body)
            if not saved:
                strict = [sys.executable, "-W", "error::ResourceWarning", str(file)]
                run(strict, where, 0, f"the Python at line {block.line}")
        elif block.kind == "console":
            for line in block.body.splitlines():
                if not line.startswith("$ "):
                    continue
                expected = re.search(r"#\s*exits (\d+)", line)
                code = int(expected[1]) if expected else 0
                run(["bash", "-c", line[2:]], f"{where}: {line}", code, line[2:].partition("#")[0].strip())
    return took
