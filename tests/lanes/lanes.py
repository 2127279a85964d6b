"""Tests run in lanes beside each other, and a run says how many minutes each folder used of those it may.

A lane is a process of pytest-xdist. What shares a heavy server (Spark of the tables, Kubernetes, Prefect) stays
in one lane, in files' order; each other file goes as a whole to the lane that is free next. The longest come
first, so that no lane is left alone with one of them at the end.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
BUDGET = TESTS / "budget.toml"


def folder_of(nodeid: str) -> str:
    """The folder below tests/ that a test lies in."""
    parts = nodeid.split("::", 1)[0].split("/")
    return parts[1] if len(parts) > 2 else "."


def budget() -> dict[str, Any]:
    """What tests/budget.toml says: minutes per folder and of the whole, and the groups that stay together."""
    return tomllib.loads(BUDGET.read_text())


def group_of(nodeid: str, groups: list[str]) -> str:
    """The group of a test: its folder or file, if that is one of ``groups``; else its file."""
    file = nodeid.split("::", 1)[0].removeprefix("tests/")
    return next((group for group in groups if file == group or file.startswith(f"{group}/")), file)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    groups = budget()["groups"]
    rank = {group: at for at, group in enumerate(groups)}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item.nodeid, groups)))
    items.sort(key=lambda item: rank.get(group_of(item.nodeid, groups), len(groups)))


class Minutes:
    """Adds up what tests took, and tells it beside the budget at the end of a whole run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: list[tuple[str, list[str]]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[folder_of(report.nodeid)] += report.duration
        if report.when == "teardown":  # the last report has all properties
            name = report.nodeid.split("@")[0]
            self.counts += [(name, value) for key, value in report.user_properties if key == "counts"]

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        for name, lines in self.counts:
            terminalreporter.section(f"counts of {name}")
            for line in lines:
                terminalreporter.line(line)
        if config.args != config.getini("testpaths"):
            return  # a part of the tests says nothing about the whole
        terminalreporter.section("minutes of tests, used and allowed (tests/budget.toml)")
        for line in told(self.seconds, budget()["minutes"]):
            terminalreporter.line(line)


def told(seconds: dict[str, float], allowed: dict[str, float]) -> list[str]:
    """One line per folder, loud where it takes more than its budget."""
    lines = []
    for folder in sorted({*seconds, *allowed}):
        used, may = seconds.get(folder, 0.0) / 60, allowed.get(folder, 0.0)
        lines.append(f"{folder:12} {used:6.1f} of {may:5.1f}" + ("   OVER ITS BUDGET" if used > may else ""))
    total = sum(seconds.values()) / 60
    lines.append(f"{'together':12} {total:6.1f} of {sum(allowed.values()):5.1f}, in lanes beside each other")
    return lines


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that the lanes report to
        config.pluginmanager.register(Minutes(), "minutes")
