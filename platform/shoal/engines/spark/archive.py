"""A class archive for Spark's JVM: its classes as one file that is mapped.

Why it exists: most of what a JVM does until Spark's first answer is to find 15,000 classes in 300 jars, to parse and to
verify them. Java keeps the result in a file if it is asked to (JEP 350, https://openjdk.org/jeps/350), and checks
itself whether a file fits: another Java or a changed jar, and it reads the jars as ever.

What it must not do: be needed. Where it cannot be made or read, a start takes longer.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from shoal.machine.java import Java

_log = logging.getLogger("shoal.engines")
_KEPT = 4  # archives, of some 200 MB each: catalogs of other kinds have other jars
_AGAIN = 24 * 3600.0  # s after which what could not be made is tried again
_TRIES = 3  # before that: a JVM may just have been killed, or the machine been busy
_WRITTEN = 3600.0  # s after which one that is still being written is so no more
MAKING = 45.0
"""s that a JVM may take at its end to write one: 20 s of CPU, and less than a home gives a head to end."""


class ClassArchive:
    """The archive for one Java and one class path, in ``folder``, which is the user's alone."""

    def __init__(self, folder: Path, java: Java, class_path: Iterable[Path]) -> None:
        said = [_looks(java.command.resolve()), *map(_looks, class_path)]
        self._file = folder / f"classes-{hashlib.sha256(repr(said).encode()).hexdigest()[:16]}.jsa"
        self._failed = self._file.with_suffix(".failed")
        self._new = self._file.with_suffix(f".{secrets.token_hex(4)}")  # while it is written
        self.missing = not self._file.is_file() and not self._tried()
        """Whether this JVM is to write it at its end."""

    @property
    def options(self) -> str:
        """For Java's command line: to read it, or to write it at the end."""
        if self.missing:
            return f'"-XX:ArchiveClassesAtExit={self._new}"'
        if self._file.is_file():
            with contextlib.suppress(OSError):
                os.utime(self._file)  # the least used goes first
            return f'"-XX:SharedArchiveFile={self._file}"'
        return ""

    def keep(self) -> None:
        """Once the JVM that was to write it has ended: from now on it is read. Nothing when there was none to write."""
        if not self.missing:
            return
        self.missing = False
        try:
            if self._new.is_file():
                self._new.replace(self._file)
                self._tidy()
            else:
                self._failed.write_bytes(b"." * (self._tries() + 1))
        except OSError as error:
            _log.info("the class archive was not kept, so starts of Spark take longer: %s", error)

    def _tidy(self) -> None:
        """The least used go, and what JVMs that were killed had begun to write."""
        looked = sorted((each.stat().st_mtime, each) for each in self._file.parent.glob("classes-*"))
        kept = [each for _, each in looked if each.suffix == ".jsa"][-_KEPT:]
        for at, each in looked:
            unused = each.suffix == ".jsa" and each not in kept
            half = each.suffix not in (".jsa", ".failed") and time.time() - at > _WRITTEN
            if unused or half:
                each.unlink()

    def _tried(self) -> bool:
        return self._tries() >= _TRIES

    def _tries(self) -> int:
        """How often it could not be made of late: a byte for each."""
        try:
            found = self._failed.stat()
        except OSError:
            return 0
        return found.st_size if time.time() - found.st_mtime < _AGAIN else 0


def _looks(path: Path) -> tuple[str, int, int]:
    """By what a file is told from another."""
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), found.st_size, found.st_mtime_ns
