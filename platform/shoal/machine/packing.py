"""Which files of a user's own modules travel to a cluster that does not share this machine's folders.

Why it exists: in pods nothing of the user's is at hand. What is loaded here goes first, then what an import inside a
task may ask for: modules and packages in the folders of ``sys.path``, as far as the limits let them.

What it must not do: send anything, or take what Python or a package brought.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import stat
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from shoal.machine.modules import Code, installed
from shoal.words import count

FILES = 2_000  # that travel at most
ONE = 4_000_000  # bytes of one at most
ALL = 16_000_000  # bytes of all of them
_LOOKED = 20_000  # entries of folders that are looked at for them
_NEVER_USED = {"shoal", "__main__", "__pycache__"} | set(sys.stdlib_module_names)  # see ``importing``
_INSTEAD = "import it here to send it first, run from a smaller folder, or put it into the cluster's image"


class Packed(NamedTuple):
    """``files``: digests of what travels, by path here. ``left``: sentences on what does not fit."""

    files: dict[str, str]
    left: tuple[str, ...]


class Packing:
    """Of one client. Files that were read once are read again when they changed."""

    def __init__(self) -> None:
        self.host = host()
        self.arrived: dict[str, str] = {}  # digests of what the cluster surely has
        self._known: dict[str, tuple[int, int, str]] = {}

    def gather(self, code: Code) -> Packed:
        """What of this code's files travels, as they are now."""
        files: dict[str, str] = {}
        large: list[tuple[str, int]] = []
        beyond: list[str] = []
        total = 0
        looked = _Looked()
        for path in dict.fromkeys([*_loaded(code), *_on_path(code, looked)]):
            try:
                there = os.stat(path)
            except OSError:
                continue
            if not stat.S_ISREG(there.st_mode):
                continue
            if there.st_size > ONE:
                large.append((path, there.st_size))
            elif len(files) >= FILES or total + there.st_size > ALL:
                beyond.append(path)
            elif (digest := self._digest(path, there)) is not None:
                files[path] = digest
                total += there.st_size
        return Packed(files, tuple(_left(large, beyond, looked)))

    def contents(self, paths: Iterable[str]) -> dict[str, bytes]:
        """What these files hold; those that cannot be read any more are left out."""
        found = {}
        for path in paths:
            try:
                with open(path, "rb") as file:
                    found[path] = file.read(ONE + 1)
            except OSError:
                self._known.pop(path, None)
        return found

    def written(self, packed: Packed, contents: Mapping[str, bytes]) -> dict[str, Any]:
        """As plain values, beside those of ``Code.written``."""
        return {"host": self.host, "files": packed.files, "contents": dict(contents)}

    def fresh(self, packed: Packed) -> list[str]:
        """Those of the files that the cluster may not have."""
        return [path for path, digest in packed.files.items() if self.arrived.get(path) != digest]

    def _digest(self, path: str, there: os.stat_result) -> str | None:
        now = there.st_mtime_ns, there.st_size
        if (known := self._known.get(path)) is None or known[:2] != now:
            try:
                with open(path, "rb") as file:
                    known = (*now, digest(file.read(ONE + 1)))
            except OSError:
                return None
            self._known[path] = known
        return known[2]


def digest(content: bytes) -> str:
    """By which both sides know a file's content."""
    return hashlib.sha256(content).hexdigest()[:32]


def host() -> str:
    """Tells this machine and account from others, whose files may have the same paths."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in pods
        user = str(os.getuid())
    return hashlib.sha256(f"{user}@{socket.gethostname()}".encode()).hexdigest()[:12]


class _Looked:
    def __init__(self) -> None:
        self.entries = 0
        self.stopped_at = ""


def _loaded(code: Code) -> Iterator[str]:
    """Sources of what is loaded, and the archives that some of it was loaded from."""
    for version in code.versions.values():
        if not version.mtime:
            continue
        path = version.file
        while path != os.path.dirname(path) and not os.path.exists(path):
            path = os.path.dirname(path)  # inside of an archive
        if path == version.file and not path.endswith(".py"):
            continue  # compiled: no use to another Python or another system
        yield path


def _on_path(code: Code, looked: _Looked) -> Iterator[str]:
    """What an import may find: modules and packages, those nearest to the folders of the path first."""
    within = set()  # a folder without an ``__init__.py`` is a package where something of it is loaded
    packages = set()
    for name, version in code.versions.items():
        folder = os.path.dirname(version.file)
        if name in code.loose and os.path.basename(version.file) == "__init__.py":
            packages.add(folder)
        while folder not in within and folder != os.path.dirname(folder):
            within.add(folder)
            folder = os.path.dirname(folder)
    queue = deque((folder, True) for folder in (*code.front, *code.back))
    queue.extend((folder, False) for folder in sorted(packages))
    seen = set()
    while queue:
        folder, top = queue.popleft()
        if folder in seen:
            continue
        seen.add(folder)
        if os.path.isfile(folder):
            if not folder.endswith(".jar"):  # Spark puts its own on the path
                yield folder  # an archive
            continue
        try:
            entries = sorted(os.scandir(folder), key=lambda each: each.name)
        except OSError:
            continue
        looked.entries += len(entries)
        if looked.entries > _LOOKED:
            looked.stopped_at = folder
            return
        for entry in entries:
            name = entry.name.removesuffix(".py")
            if not name.isidentifier() or name == "__pycache__" or (top and name in _NEVER_USED):
                continue
            if name != entry.name:
                yield entry.path
            elif _is_package(entry, within) and not installed().has(entry.path):
                queue.append((entry.path, False))


def _is_package(entry: os.DirEntry[str], within: set[str]) -> bool:
    try:
        if not entry.is_dir():
            return False
    except OSError:
        return False
    return entry.path in within or os.path.exists(os.path.join(entry.path, "__init__.py"))


def _left(large: list[tuple[str, int]], beyond: list[str], looked: _Looked) -> Iterator[str]:
    for path, size in large:
        yield (
            f"{path} was not sent to the cluster: it has {size / 1e6:.1f} MB, and files of at most {ONE / 1e6:.0f} MB "
            "are sent. What imports it there fails; put it into the cluster's image."
        )
    if beyond:
        more = "" if len(beyond) == 1 else f" and {count(len(beyond) - 1, 'more file')}"
        yield (
            f"{beyond[0]}{more} of your modules' folders did not fit and stayed here: at most {FILES:,} files with "
            f"{ALL / 1e6:.0f} MB are sent. Where a task needs one, {_INSTEAD}."
        )
    if looked.stopped_at:
        yield (
            f"not all folders of your sys.path were looked at for modules: there are more than {_LOOKED:,} entries "
            f"up to {looked.stopped_at}. Where a task needs a module beyond it, {_INSTEAD}."
        )
