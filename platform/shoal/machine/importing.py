"""Makes what a user's process can import importable in this one, and as new as there.

Why it exists: Dask's scheduler and workers and Spark's Python workers unpickle functions by the name of their
module, in processes that started elsewhere and keep running while that module is edited.

What it must not do: replace a module of Python's or an installed one, whatever the user's files are called.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import linecache
import logging
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from types import CodeType, ModuleType

from shoal.machine.logs import set_up
from shoal.machine.modules import Code, Version, file_of, installed, is_users, under, version_of

PACKAGES_PATH = "SHOAL_PACKAGES_PATH"  # in the environment: the folder of what ``packages=`` asked for

_BORN = time.time_ns()
_lock = threading.RLock()
_ours: set[str] = set()  # entries of sys.path that were put there here
_seen: dict[str, Version] = {}  # the last that was told of each module
_last: Code | None = None  # per process, as the path and the modules are


def bring(code: Code) -> list[str]:
    """Make this process import what ``code`` says; what cannot be so, as sentences. May be called again."""
    global _last
    with _lock:
        if code == _last:
            return []
        _last = code
        _set_path(code.front, code.back)
        _Loose.know(code)
        importlib.invalidate_caches()
        said, again = [], {}
        for name, version in code.versions.items():
            before, _seen[name] = _seen.get(name), version
            if reason := _not_to_have(name):
                if before != version:
                    said.append(f"{name} on the cluster is {reason}, not your {version.file}: rename yours.")
                continue
            loaded = sys.modules.get(name)
            if not isinstance(loaded, ModuleType):
                continue
            if file_of(loaded) != version.file:
                _forget(name)
            elif before != version and (before is not None or version.mtime >= _BORN):
                again[name] = version
        return said + _load_again(again)


def at_hand(code: Code) -> tuple[Code, list[str]]:
    """Of what another machine's process has, what has its files here too; and the names of those modules (the
    first part of each) that cannot be imported here at all, as they are not installed either."""
    there = {}
    for name, version in code.versions.items():
        if version_of(version.file).mtime or name.partition(".")[0] in sys.stdlib_module_names:
            there[name] = version
    known = tuple(f"{name}." for name in there)
    kept = Code(
        tuple(filter(os.path.exists, code.front)),
        tuple(filter(os.path.exists, code.back)),
        there,
        tuple(name for name in code.loose if any(each.startswith(f"{name}.") for each in known)),
    )
    gone = {name.partition(".")[0] for name in code.versions if name not in there}
    return kept, sorted(name for name in gone if not _is_installed(name))


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # it was loaded in a way that leaves no trace of where it came from
        return True


def opened(code: str, command: bytes) -> object:
    """What a pickle holds, once what it needs can be imported (``spark_code``)."""
    if (packages := os.environ.get(PACKAGES_PATH)) and packages not in sys.path:
        sys.path.insert(0, packages)
    for said in bring(Code.read(json.loads(code))):
        _logger().warning(said)
    return pickle.loads(command)  # noqa: S301 - as Spark's worker does with what it is sent


def _logger() -> logging.Logger:
    """In a process of Spark's nobody else sets up logging."""
    logger = logging.getLogger("shoal.machine")
    if not logger.hasHandlers():
        set_up(sys.stderr)
    return logger


def _set_path(front: Sequence[str], back: Sequence[str]) -> None:
    """Python's own library first, then the user's, then the rest, as it is in the user's process."""
    rest = [entry for entry in sys.path if entry not in _ours]
    library = [entry for entry in rest if _is_library(entry)]
    rest = [entry for entry in rest if not _is_library(entry) and entry not in front]
    last = [entry for entry in back if entry not in rest and entry not in front]
    _ours.update(front, last)
    sys.path[:] = [*library, *front, *rest, *last]


def _is_library(entry: str) -> bool:
    own = installed()
    return under(entry, own.library) and not under(entry, own.packages)


def _not_to_have(name: str) -> str:
    """What a module of the user with this name would stand in for; empty for none."""
    first = name.partition(".")[0]
    if first in sys.stdlib_module_names:
        return "that of Python's standard library"
    loaded = sys.modules.get(name)
    file = file_of(loaded) if isinstance(loaded, ModuleType) else None
    if file is not None and not is_users(name, file, installed()):
        return f"the installed {file}"
    return ""


def _forget(name: str) -> None:
    """It was loaded from elsewhere: the next import loads it, and what is in it, from where it is to be."""
    for module in [module for module in sys.modules if module == name or module.startswith(name + ".")]:
        del sys.modules[module]


def _load_again(versions: Mapping[str, Version]) -> list[str]:
    """Execute these again, in place, each after those of them that it imports; what failed, as sentences."""
    old = {name: sys.modules[name] for name in versions}
    finder = _Again({name: (old[name], version.file) for name, version in versions.items()})
    said = []
    sys.meta_path.insert(0, finder)
    try:
        for name in old:
            del sys.modules[name]
        for name, version in versions.items():
            linecache.checkcache(version.file)
            try:
                importlib.import_module(name)
            except (Exception, SystemExit) as error:  # whatever a module does when it is executed
                said.append(
                    f"{name} was edited, and the cluster keeps it as it was: executing {version.file} again "
                    f"failed there with {type(error).__name__}: {error}"
                )
    finally:
        sys.meta_path.remove(finder)
        for name, module in old.items():
            sys.modules.setdefault(name, module)
    return said


class _Again(importlib.abc.MetaPathFinder):
    """Finds modules that are to be executed again: an import of one executes it into the object it was."""

    def __init__(self, modules: Mapping[str, tuple[ModuleType, str]]) -> None:
        self._modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._modules:
            return None
        module, file = self._modules[name]
        return importlib.util.spec_from_file_location(name, file, loader=_Into(name, file, module))


class _Into(importlib.machinery.SourceFileLoader):
    """Loads a source file into a module that is there. Compiled files are not read: theirs are old times."""

    def __init__(self, name: str, file: str, module: ModuleType) -> None:
        super().__init__(name, file)
        self._module = module

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return self._module

    def get_code(self, fullname: str) -> CodeType | None:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


class _Loose(importlib.abc.MetaPathFinder):
    """Finds what no path leads to by the file that it was loaded from elsewhere. Everybody else is asked first."""

    files: dict[str, str | None]  # None: a package that has no file

    def __init__(self) -> None:
        self.files = {}

    @classmethod
    def know(cls, code: Code) -> None:
        if not code.loose:
            return
        for finder in sys.meta_path:
            if isinstance(finder, cls):
                break
        else:
            finder = cls()
            sys.meta_path.append(finder)
        for name in code.loose:
            finder.files[name] = code.versions[name].file if name in code.versions else None

    def find_spec(
        self, name: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self.files:
            return None
        file = self.files[name]
        if file is not None:
            return importlib.util.spec_from_file_location(name, file)
        return importlib.machinery.ModuleSpec(name, None, is_package=True)
