"""Scripts that run in the background: which, since when, how they exited, and what they write.

Why it exists: a detached script may end before it has a cluster, and its exit code and output are asked for
later, by another command.

What it must not do: start scripts, or know clusters (the record of a script's cluster has its exit code too).
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from shoal.machine import paths
from shoal.machine.processes import identity, is_alive, signal_process

_KEEP = 100  # scripts whose notes and logs are kept


@dataclass(frozen=True)
class Script:
    """One detached script. Times are seconds since the epoch; ``exit_code`` is None until it ended."""

    name: str
    user: str
    begun: float
    process: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    ended: float | None = None

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.exit_code is None and is_alive(self.process) is True

    def end(self) -> None:
        """Ask it to end, with whatever cluster it has."""
        signal_process(self.process, signal.SIGTERM)


class Scripts:
    """Those of one place of clusters: the same name may be in use at another. ``place``: :attr:`Target.place`."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.folder = paths.data_folder() / "scripts" / place

    def log_of(self, name: str) -> Path:
        """What the last script of that name wrote."""
        return self.folder / f"{name}.log"

    def begin(self, name: str, user: str) -> None:
        """Make room for a script of that name: what the one before wrote is forgotten."""
        paths.make_private(self.folder)
        self._exit_of(name).unlink(missing_ok=True)
        os.close(os.open(self.log_of(name), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
        _write(self._note_of(name), asdict(Script(name, user, time.time())))
        self._prune()

    def running_as(self, name: str, user: str, pid: int) -> None:
        """Note the process that runs it."""
        known = self.find(name, user)
        if known is not None:
            _write(self._note_of(name), asdict(replace(known, process=identity(pid))))

    def ended(self, name: str, exit_code: int) -> None:
        """Note how it exited: by itself, into a file of its own, for whoever started it writes the other."""
        _write(self._exit_of(name), {"exit_code": exit_code, "ended": time.time()})

    def find(self, name: str, user: str) -> Script | None:
        """The user's last script of that name; None where there is none (or its note cannot be read)."""
        if os.sep in name:
            return None
        try:
            known = json.loads(self._note_of(name).read_text())
            if (end := self._exit_of(name)).is_file():
                known |= json.loads(end.read_text())
            script = Script(**{key: known[key] for key in Script.__dataclass_fields__ if key in known})
        except (OSError, ValueError, TypeError):
            return None
        return script if script.user == user else None

    def _note_of(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _exit_of(self, name: str) -> Path:
        return self.folder / f"{name}.exit"

    def _prune(self) -> None:
        """Remove the oldest, all but so many."""
        notes = sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        for note in notes[_KEEP:]:
            for suffix in (".json", ".exit", ".log"):
                note.with_suffix(suffix).unlink(missing_ok=True)


def _write(file: Path, values: dict[str, Any]) -> None:
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(values, stream)
    fresh.replace(file)
