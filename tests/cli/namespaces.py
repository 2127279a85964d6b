"""Mount namespaces: a small disk that is really full, folders that really belong to somebody else.

Nothing of the machine's own mounts is touched: each namespace is private, and ends with the process that holds it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest


def need_root(*tools: str) -> None:
    """Skip without what a namespace takes; under CI that is a failure."""
    missing = [tool for tool in ("unshare", "nsenter", *tools) if shutil.which(tool) is None]
    why = f"no {', '.join(missing)}" if missing else "" if os.geteuid() == 0 else "not root"
    if why and os.environ.get("CI") == "true":
        pytest.fail(f"CI must skip nothing, but: {why}")
    if why:
        pytest.skip(f"a mount namespace needs root, unshare and nsenter: {why}")


class Namespace:
    """A private mount namespace, made by a shell script. ``enter`` is put before a command to run in it."""

    def __init__(self, script: str) -> None:
        self._process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-euc", f"{script}\necho made\nexec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "made\n":
            _, error = self._process.communicate()
            raise AssertionError(f"the namespace was not made: {error}")

    @property
    def enter(self) -> list[str]:
        return ["nsenter", f"--target={self._process.pid}", "--mount", "--"]

    def path(self, path: Path) -> Path:
        """The same path, as seen from outside."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def close(self) -> None:
        self._process.communicate()  # its standard input closes, and it ends


def run_in(namespace: Namespace, folder: Path, command: Sequence[str]) -> list[str]:
    """The command, entering the namespace first; entering changes the folder."""
    return [*namespace.enter, "env", "-C", str(folder), *command]


def reachable(paths: Sequence[Path]) -> str:
    """A script that makes ``paths`` reachable for every user in a namespace, whatever lies above them is like.

    A checkout below a home folder of mode 0700 is seen through an empty folder in its place.
    """
    closed: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(path.resolve() for path in paths):
        blocked = [above for above in reversed(path.parents) if not above.stat().st_mode & 0o001]
        if blocked:
            closed.setdefault(blocked[0], []).append(path)
    lines = []
    for number, (folder, inside) in enumerate(closed.items()):
        stash = f"$stash/{number}"
        lines.append(f'mkdir "{stash}"')
        for each, path in enumerate(inside):
            lines.append(f'mkdir "{stash}/{each}"; mount --bind "{path}" "{stash}/{each}"')
        lines.append(f'mount -t tmpfs -o size=1m,mode=755 shoal-test "{folder}"')
        for each, path in enumerate(inside):
            lines.append(f'mkdir -p "{path}"; mount --bind "{stash}/{each}" "{path}"')
    return "\n".join(lines)
