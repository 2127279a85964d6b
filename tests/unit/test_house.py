"""What stands around the code: `make test-fast`, the site, and the files that a visitor of the repository expects."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import shoal

ROOT = Path(__file__).parents[2]


def load(script: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(Path(script).stem, ROOT / "tests" / script)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fast() -> ModuleType:
    return load("lanes/fast.py")


def test_fast_selects_tests_of_each_of_its_files(fast: ModuleType) -> None:
    asked = [part for part in fast.command("--collect-only", "-n", "0") if part]
    listed = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stdout
    for name in fast.TESTS:
        assert re.search(rf"^{name}[/:]", listed.stdout, re.MULTILINE), f"nothing of {name} is fast"


@pytest.mark.parametrize("where", ["PATH", "JAVA_HOME"])
def test_fast_fails_where_a_test_starts_a_java(fast: ModuleType, tmp_path: Path, where: str) -> None:
    by = {"PATH": "'java'", "JAVA_HOME": "os.environ['JAVA_HOME'] + '/bin/java'"}[where]
    guilty = tmp_path / "test_guilty.py"
    guilty.write_text(f"import os, subprocess\ndef test_it():\n    subprocess.run([{by}, '-version'])\n")
    assert fast.run("-n", "0", "-p", "no:cacheprovider", tests=(str(guilty),)) == 1
    guilty.write_text("def test_it():\n    pass\n")
    assert fast.run("-n", "0", "-p", "no:cacheprovider", tests=(str(guilty),)) == 0


def test_what_has_the_mark_soak_waits_for_the_soak() -> None:
    def collected(*words: str) -> set[str]:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *words]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
        return {line for line in listed.splitlines() if "::" in line}

    file = "tests/kubernetes/test_builders.py"
    usual, more = collected(file), collected(file, "-m", "soak")
    assert {len(usual), len(more)} == {1, 2}
    assert not usual & more
    name = min(more)
    assert collected(name) == {name}, "as `make test` runs one that failed again"


def test_what_other_versions_run_needs_no_client_of_kubernetes() -> None:
    """`make versions` takes minutes, and its environments lack that extra."""
    script = (
        "import sys, pytest; sys.modules.update(dict.fromkeys(('kr8s', 'httpx2'))); "
        "sys.exit(pytest.main(['-q', '-n0', '-p', 'no:cacheprovider', '--collect-only', *sys.argv[1:]]))"
    )
    command = [
        sys.executable,
        "-c",
        script,
        *runpy.run_path(str(ROOT / "tests" / "versions" / "run.py"))["UNIT"],
    ]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stdout[-3000:]


def test_no_file_that_is_to_be_ignored_is_kept() -> None:
    """What tools leave (here: .coverage) tells where it was made, and is nobody's source."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    kept = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert kept == []


def targets_of_make() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_contributing_says_how_long_each_target_of_make_takes() -> None:
    rows = re.findall(r"^\| (`make.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    said = {name for row in rows for name in re.findall(r"`make ([a-z-]+)`", row)}
    parts = {name for name in targets_of_make() if name.startswith("soak-")}  # one row tells of all
    assert said == targets_of_make() - parts - {"help"}


def test_the_docs_say_what_each_folder_of_tests_is_for() -> None:
    told = re.findall(
        r"`tests/(\w+)`", (ROOT / "docs/contributing.md").read_text().split("## Where a test lies")[1]
    )
    there = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert there <= set(told)
    budget = tomllib.loads((ROOT / "tests/budget.toml").read_text())["minutes"]
    assert set(budget) == {name for name in there if any((ROOT / "tests" / name).glob("test_*.py"))}


def test_a_part_of_the_soak_tells_its_length(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    soak = load("surface/write_soak.py")
    monkeypatch.setattr(soak, "RESULTS", tmp_path)
    monkeypatch.setenv("SHOAL_SOAK_KILLS", "7")
    monkeypatch.setenv("SHOAL_DATA", "/not/a/length")
    trial = tmp_path / "test_trial.py"
    trial.write_text("def test_it(record_property):\n    record_property('n', 7)\n")
    plain = ("-c", "/dev/null", "-p", "no:cacheprovider", "-q")
    assert soak.run("kills", [*plain, str(trial)]) == 0
    told = soak.section("kills", [json.loads((tmp_path / "kills.json").read_text())])
    assert re.search(r"1 tests, 0 failed, in \d+ min, ", told)
    assert "SHOAL_SOAK_KILLS=7" in told
    assert "/not/a/length" not in told
    assert "| it | 7 | none |" in told
    assert soak.run("kills", [*plain, str(tmp_path / "nothing.py")]) == 4
    told = soak.section("kills", [json.loads((tmp_path / "kills.json").read_text())])
    assert "not all of them ran" in told


def test_a_run_of_the_soak_with_another_seed_adds_to_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    soak = load("surface/write_soak.py")
    for name, where in (("RESULTS", tmp_path), ("PAGE", tmp_path / "soak.md")):
        monkeypatch.setattr(soak, name, where)
    trial = tmp_path / "test_trial.py"
    trial.write_text("def test_it(record_property):\n    record_property('n', 7)\n")
    for seed in ("", "1", "2", "2"):
        if seed:
            monkeypatch.setenv("SHOAL_USAGE_SEED", seed)
        assert soak.run("usage", ["-c", "/dev/null", "-p", "no:cacheprovider", "-q", str(trial)]) == 0
    soak.write()
    page = (tmp_path / "soak.md").read_text()
    assert page.count("## Usage") == 1
    assert "n is 21 in all." in page
    assert page.count("Commit ") == page.count("| it | 7 | none |") == 3


def test_every_target_of_make_that_writes_the_page_has_a_section_of_its_own() -> None:
    called = re.findall(r"\$\(SOAK\) ([a-z-]+)", (ROOT / "Makefile").read_text())
    assert len(called) == len(set(called))
    assert set(called) == set(load("surface/write_soak.py").PARTS)


def test_the_site_has_every_page_and_every_public_name() -> None:
    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [page for part in parts for page in pages(part)]

    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    shown = pages(settings["nav"])
    docs = ROOT / "docs"
    assert sorted(shown) == sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))
    told = re.findall(r"^::: shoal\.(\w+)$", (docs / "reference.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted([*shoal.__all__, "flows", "prefect"])


def test_a_broken_link_fails_the_site() -> None:
    """With --quiet, MkDocs counts no warnings, and --strict fails for none."""
    (build,) = (line for line in (ROOT / "Makefile").read_text().splitlines() if "mkdocs build" in line)
    assert "--strict" in build
    assert not re.search(r"\s(--quiet|-q)\b", build)
    links = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["validation"]["links"]
    assert {"not_found": "warn", "anchors": "warn"}.items() <= links.items()


def test_the_page_on_installing_says_what_each_extra_is_for() -> None:
    written = re.findall(r"^\|[^|]+\| `(\w+)` \|", (ROOT / "docs/install.md").read_text(), re.MULTILINE)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert sorted(written) == sorted(known)


def test_the_licence_is_the_one_that_the_package_names() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_names_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert version in headings


def test_hooks_are_local_and_use_the_tools_of_make_venv() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"], "nothing is cloned"
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")


def test_forms_and_the_container_for_editors_can_be_read() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert {form.name for form in forms} >= {"bug.yml", "idea.yml"}
    for form in forms:
        assert yaml.safe_load(form.read_text())
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).is_file()
    assert container["postCreateCommand"] == "make venv"


def test_no_lock_names_a_package_index() -> None:
    for lock in ROOT.rglob("*.lock"):
        if ".venv" not in lock.parts:
            assert not re.search(r"https?://|--(extra-)?index-url|--find-links", lock.read_text()), lock
