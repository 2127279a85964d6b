"""The user's own modules: which they are, where they lie, and what of them is not as it was.

Why it exists: what a function needs at home it needs on the workers, as it is here now: a module is found there
where it was found here, and one that was edited and reloaded here is executed again there.

What it must not do: know an engine, send anything, or let a file of the user stand in for a module of Python's
standard library or of an installed package.
"""

from __future__ import annotations

import os
import site
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

_NOT_THE_USERS = {"__main__", "__mp_main__", "shoal"}  # by the first part of their names
_STAT_EVERY = 1.0  # s between looks whether files were edited


class UserModuleWarning(UserWarning):
    """A module of the user is on a cluster not as it is in the user's process. The text says which and why."""


class Version(NamedTuple):
    """What a module was loaded from: a file, its time of modification in ns, its size in bytes."""

    file: str
    mtime: int
    size: int


@dataclass(frozen=True)
class Code:
    """What a process can import of its user's own.

    ``front`` are folders and archives that come before installed packages, ``back`` those after. ``versions``
    tells of each module of the user that is loaded here, by name. ``loose`` names those of them that no path
    leads to, with their packages: they were loaded from a file under a name of somebody's choice.
    """

    front: tuple[str, ...] = ()
    back: tuple[str, ...] = ()
    versions: Mapping[str, Version] = field(default_factory=dict)
    loose: tuple[str, ...] = ()

    def written(self) -> dict[str, Any]:
        """As plain values, which any wire takes."""
        return {
            "front": list(self.front),
            "back": list(self.back),
            "versions": {name: list(version) for name, version in self.versions.items()},
            "loose": list(self.loose),
        }

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Code:
        """From :meth:`written`; what a newer one says besides is passed over."""
        return cls(
            tuple(said.get("front", ())),
            tuple(said.get("back", ())),
            {str(name): Version(*version) for name, version in said.get("versions", {}).items()},
            tuple(said.get("loose", ())),
        )


class Installed(NamedTuple):
    """Folders of an interpreter: what comes with it, and what is installed into it."""

    library: tuple[str, ...]
    packages: tuple[str, ...]

    def has(self, path: str) -> bool:
        """Whether this file or folder came with the interpreter or was installed into it."""
        return under(path, self.library) or under(path, self.packages)


@lru_cache(maxsize=1)
def installed() -> Installed:
    """Those of this interpreter."""
    # Not by sysconfig, which reads how Python was built: tens of milliseconds in every process.
    number = f"{sys.version_info[0]}.{sys.version_info[1]}"
    library = {
        os.path.dirname(os.__file__),
        os.path.join(sys.base_exec_prefix, sys.platlibdir, f"python{number}"),
    }
    archive = f"python{number.replace('.', '')}.zip"
    library |= {os.path.join(os.path.dirname(folder), archive) for folder in library}
    # Where this package is there may be all others beside it, as in our images, which have them on PYTHONPATH.
    beside = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    packages = {*site.getsitepackages(), site.getusersitepackages(), beside}
    return Installed(_with_real(library), _with_real(packages))


def paths(entries: Sequence[object], folder: str, own: Installed) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The user's entries of a ``sys.path``, absolute: those before installed packages, and those after.

    ``folder`` is the working directory, which the empty entry stands for.
    """
    front: list[str] = []
    back: list[str] = []
    found = front
    for entry in entries:
        if not isinstance(entry, str):
            continue
        path = os.path.abspath(os.path.join(folder, entry))
        real = os.path.realpath(path)
        if under(path, own.packages) or under(real, own.packages):
            found = back
        elif not own.has(path) and not own.has(real) and path not in front and path not in back:
            found.append(path)
    return tuple(front), tuple(back)


def file_of(module: ModuleType) -> str | None:
    """What a module was loaded from; None for what has no file."""
    file = vars(module).get("__file__")  # not getattr: some modules import when they are asked
    if not isinstance(file, str):
        return None
    return file if os.path.isabs(file) else os.path.abspath(file)


def is_users(name: str, file: str | None, own: Installed) -> bool:
    """Whether the user may edit it: it is neither Python's, nor installed, nor of this package."""
    if file is None or name.partition(".")[0] in _NOT_THE_USERS:
        return False
    return not own.has(file) and not own.has(os.path.realpath(file))


def version_of(file: str) -> Version:
    """Of a file as it is now; of the archive that it lies in; zeros when there is neither."""
    path = file
    while True:
        try:
            there = os.stat(path)
        except NotADirectoryError:
            path = os.path.dirname(path)
        except OSError:
            return Version(file, 0, 0)
        else:
            return Version(file, there.st_mtime_ns, there.st_size)


def found_by(name: str, file: str, entries: Iterable[str]) -> bool:
    """Whether an import of this name can lead to this file through these folders and archives."""
    up = os.path.splitext(file)[0]
    if os.path.basename(up) == "__init__":
        up = os.path.dirname(up)
    for part in reversed(name.split(".")):
        if os.path.basename(up).partition(".")[0] != part:  # `fast.cpython-311-x86_64-linux-gnu.so`
            return False
        up = os.path.dirname(up)
    return up in entries


def merged(codes: Iterable[Code]) -> Code:
    """What a place can import for several processes; where two differ, the first of them counts."""
    front: dict[str, None] = {}
    back: dict[str, None] = {}
    versions: dict[str, Version] = {}
    loose: dict[str, None] = {}
    for code in codes:
        front |= dict.fromkeys(code.front)
        back |= dict.fromkeys(code.back)
        loose |= dict.fromkeys(code.loose)
        for name, version in code.versions.items():
            known = versions.setdefault(name, version)
            if known.file == version.file and known.mtime < version.mtime:
                versions[name] = version
    return Code(tuple(front), tuple(back), versions, tuple(loose))


class ModuleWatch:
    """Looks at this process's path and modules, cheaply enough for every submit."""

    def __init__(self) -> None:
        self._code = Code()
        self._known: Code | None = None
        self._entries: list[object] | None = None
        self._folder = ""
        self._marks: dict[str, object] = {}
        self._not_theirs: set[str] = set()
        self._versions: dict[str, Version] = {}
        self._modules = -1
        self._stat_at = 0.0
        self._edited: dict[str, Version] = {}

    def look(self) -> Code | None:
        """What there is now, unless it is what :meth:`acknowledged` was called with last."""
        moved = self._look_at_path()
        if self._look_at_modules() or moved:
            loose = [
                name
                for name, version in self._versions.items()
                if not found_by(name, version.file, (*self._code.front, *self._code.back))
                and not found_by(name, version.file, installed().packages)
            ]
            self._code = Code(self._code.front, self._code.back, dict(self._versions), _with_parents(loose))
        return None if self._code is self._known else self._code

    def acknowledged(self, code: Code | None) -> None:
        """The other side knows this one; None: it is to be told again."""
        self._known = code

    def edited(self) -> list[str]:
        """Modules whose file was edited after they were loaded here, each edit once; looks once a second."""
        now = time.monotonic()
        if now < self._stat_at:
            return []
        self._stat_at = now + _STAT_EVERY
        found = []
        for name, version in self._versions.items():
            there = version_of(version.file)
            if there != version and there != self._edited.get(name) and there.mtime:
                self._edited[name] = there
                found.append(name)
        return found

    def _look_at_path(self) -> bool:
        """Take note of ``sys.path``; whether the user's part of it is another."""
        try:
            folder = os.getcwd()
        except OSError:
            folder = self._folder or "/"  # it was removed
        if self._entries == sys.path and self._folder == folder:
            return False
        self._entries, self._folder = list(sys.path), folder
        front, back = paths(self._entries, folder, installed())
        if (front, back) == (self._code.front, self._code.back):
            return False
        self._code = Code(front, back, self._code.versions, self._code.loose)
        return True

    def _look_at_modules(self) -> bool:
        """Take note of modules that are new or were loaded again; whether there are any."""
        changed = False
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            own = installed()
            for name, module in list(sys.modules.items()):
                if name in self._marks or name in self._not_theirs:
                    continue
                file = file_of(module) if isinstance(module, ModuleType) else None
                if is_users(name, file, own):
                    self._marks[name] = None  # it counts as loaded again
                else:
                    self._not_theirs.add(name)
        edits = _edits_of_ipython()
        for name, mark in self._marks.items():
            loaded = sys.modules.get(name)
            if not isinstance(loaded, ModuleType):
                continue  # forgotten here; there it may still be of use
            # A reload gives a module another spec, also a failed one. IPython patches some without a reload.
            now = (vars(loaded).get("__spec__") or loaded, edits.get(name))
            if isinstance(mark, tuple) and mark[0] is now[0] and mark[1] == now[1]:
                continue
            self._marks[name] = now
            file = file_of(loaded)
            if file is not None:
                self._versions[name] = version_of(file)
                changed = True
        return changed


def _edits_of_ipython() -> Mapping[str, float]:
    """By module, the time of the edit that ``%autoreload`` has followed last; empty where it is not on."""
    if "IPython.extensions.autoreload" not in sys.modules:
        return {}
    try:
        magics = sys.modules["IPython"].get_ipython().magics_manager.registry["AutoreloadMagics"]
        found = dict(magics._reloader.modules_mtimes)
    except (AttributeError, KeyError, TypeError):
        return {}
    return found


def _with_parents(names: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        found |= dict.fromkeys(".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return tuple(found)


def _with_real(folders: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*folders, *(os.path.realpath(folder) for folder in folders)}))


def under(path: str, folders: Iterable[str]) -> bool:
    """Whether this path is, or lies in, one of the folders."""
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)


def warn(said: Iterable[str]) -> None:
    """A UserModuleWarning for each of these."""
    for text in said:
        warnings.warn(text, UserModuleWarning, stacklevel=4)


def edits(names: Iterable[str]) -> list[str]:
    """What to say of modules that were edited and not reloaded."""
    return [
        f"{name} was edited after it was loaded here: this process has the old code, and workers that load it "
        f"from now on have the new one. `importlib.reload({name})` brings the new one to all of them."
        for name in names
    ]
