"""Tests run in lanes beside each other, and a run says how many minutes each folder used of those it may.

A lane is a process of pytest-xdist. What shares a heavy server (Spark of the tables, Kubernetes, Prefect) stays
in one lane, in files' order; each other file goes as a whole to the lane that is free next. The longest come
first, so that no lane is left alone with one of them at the end.
"""

from __future__ import annotations

import os
import pickle
import time
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
OVER_BUDGET = 64  # exit code of a run that took too long as a whole; none of pytest's own
BUDGET = TESTS / "budget.toml"
SLOWEST = 1.25  # a machine that is slower than that does not get more minutes


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    groups = budget()["groups"]
    rank = {group: at for at, group in enumerate(groups)}
    items.sort(key=lambda item: rank.get(group_of(item.nodeid, groups), len(groups)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """xdist's scheduler of whole scopes, with our groups for scopes, in our order; another where one is asked for."""
    from xdist.scheduler import LoadScopeScheduling

    if config.option.dist != "loadscope":
        return None
    groups = budget()["groups"]

    class InLanes(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid, groups)

    config.option.loadscopereorder = False
    return InLanes(config, log)


def piece_of_work() -> float:
    """The CPU seconds of a fixed piece of work, as Python's programs do it: how fast the machine is."""
    began = time.process_time()
    table: dict[str, int] = {}
    for number in range(150_000):
        key = str(number * 7919 % 100_003)
        table[key] = table.get(key, 0) + number
    pickle.loads(pickle.dumps(sorted(table.items())))
    return time.process_time() - began


def may_take(whole: dict[str, float], seconds: float) -> float:
    """The minutes of the whole on a machine that does the piece of work in ``seconds`` of CPU."""
    return whole["minutes"] * min(max(seconds / whole["piece_of_work"], 1.0), SLOWEST)


class Minutes:
    """Adds up what tests took, and tells it beside the budget at the end of a whole run."""

    def __init__(self, whole: bool) -> None:
        self.whole = whole  # a part of the tests says nothing about the whole
        # The quickest of a few, which something else on the machine disturbed least.
        seconds = min(piece_of_work() for _ in range(5)) if whole else 0.0
        self.may_take = may_take(budget()["whole"], seconds)
        self.began = time.monotonic()
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: list[tuple[str, list[str]]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[folder_of(report.nodeid)] += report.duration
        if report.when == "teardown":  # the last report has all properties
            self.counts += [
                (report.nodeid, value) for key, value in report.user_properties if key == "counts"
            ]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if (time.monotonic() - self.began) / 60 > self.may_take:
            session.exitstatus = OVER_BUDGET

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for name, lines in self.counts:
            terminalreporter.section(f"counts of {name}")
            for line in lines:
                terminalreporter.line(line)
        if not self.whole:
            return
        terminalreporter.section("minutes of tests, used and allowed (tests/budget.toml)")
        took = (time.monotonic() - self.began) / 60
        for line in told(self.seconds, budget()["minutes"], took, self.may_take):
            terminalreporter.line(line)


def told(seconds: dict[str, float], allowed: dict[str, float], took: float, limit: float) -> list[str]:
    """One line per folder and one for the whole, loud where it takes more than its budget; all in minutes."""
    lines = [
        _line(folder, seconds.get(folder, 0.0) / 60, allowed.get(folder, 0.0))
        for folder in sorted({*seconds, *allowed})
    ]
    lines.append(_line("one by one", sum(seconds.values()) / 60, sum(allowed.values())))
    return [*lines, _line("in lanes", took, limit)]


def _line(name: str, used: float, may: float) -> str:
    return f"{name:12} {used:6.1f} of {may:5.1f}" + ("   OVER ITS BUDGET" if used > may else "")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # a lane; it is told of a terminal of 80 columns that is not there
        for name in ("LINES", "COLUMNS"):
            os.environ.pop(name, None)
    else:
        whole = config.args == config.getini("testpaths")
        config.pluginmanager.register(Minutes(whole), "minutes")
