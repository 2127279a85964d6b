"""Which lines of a log are shown: by level, and by who wrote them. Pure.

Why it exists: an engine that did nothing still writes some fifty lines, and a person looks for the others.

What it must not do: drop what has no level; prints of the user's own code have none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_NAMES = {
    "TRACE": 5,
    "DEBUG": 10,
    "INFO": 20,
    "WARN": 30,
    "WARNING": 30,
    "ERROR": 40,
    "CRITICAL": 50,
    "FATAL": 50,
}
_DASK = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ - (?P<logger>[\w.]+) - (?P<level>[A-Z]+) - ")
_SPARK = re.compile(r"\d\d/\d\d/\d\d [\d:]+ (?P<level>[A-Z]+) (?P<logger>[\w.]+)")
_OF_WORKERS = ("distributed.worker", "distributed.nanny", "distributed.preloading", "distributed.utils_perf")
_POD = re.compile(r"[a-z0-9-]+-(?P<role>head|w-\d+) \| ")  # which pod wrote the rest of the line
_OURS = "shoal."
_BEFORE = "shoal head:"  # how heads of older releases begin a line


class Level(StrEnum):
    """The least level of a line that is shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Filter:
    """What is shown of an engine's log.

    ``head``, ``workers``: only what these wrote, where lines tell (Dask's do, and those of pods); neither, or both:
    everything.
    """

    level: Level = Level.WARNING
    head: bool = False
    workers: bool = False

    def shows(self, line: str) -> bool:
        """Whether a line is shown."""
        one, pod = self.head != self.workers, _POD.match(line)
        if pod is not None:
            if one and (pod["role"] == "head") is not self.head:
                return False
            one, line = False, line[pod.end() :]
        if line.startswith(_BEFORE):
            return self.head or not one
        found = _DASK.match(line) or _SPARK.match(line)
        if found is not None and found["logger"].startswith(
            _OURS
        ):  # few, and each says what became of the cluster
            said = _NAMES.get(found["level"], 20) >= min(_LEVELS[self.level], _LEVELS["info"])
            return said and (self.head or not one)
        if one:
            of_workers = found is None or found["logger"].startswith(_OF_WORKERS)
            if _DASK.match(line) is not None and of_workers != self.workers:
                return False
            if found is None and self.head:
                return False
        return found is None or _NAMES.get(found["level"], 20) >= _LEVELS[self.level]

    def kept(self, lines: Iterable[str]) -> list[str]:
        """Those lines that are shown."""
        return [line for line in lines if self.shows(line)]
