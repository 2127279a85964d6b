"""Files of users' modules that came from other machines, where they are imported: on a scheduler and on its workers.

Why it exists: each process has them in its own folder, by the machine that they came from and their path there. What
came is spoken of by a name that is the same for all (``sent:``, machine, path); each process knows where that lies.

What it must not do: write outside of its folder, whatever a client says.
"""

from __future__ import annotations

import importlib.util
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from shoal.errors import UsageError
from shoal.machine.importing import at_hand
from shoal.machine.modules import Code
from shoal.machine.packing import ALL, FILES, digest

ROOM = 4 * ALL  # bytes of all that came
_SENT = "sent:"
_HOST = re.compile("[0-9a-f]{12}")
_LONGEST = 1_000  # characters of a path


def named(host: str, path: str) -> str:
    """What a file of that machine is called here.

    Raises:
        UsageError: it is not an absolute path, or leads elsewhere.
    """
    plain = os.path.isabs(path) and os.path.normpath(path) == path and not path.startswith("//")
    if not _HOST.fullmatch(host) or not plain or "\0" in path or len(path) > _LONGEST:
        raise UsageError(f"not a file of a client: {path[:200]!r} of {host[:20]!r}")
    return f"{_SENT}{host}{path}"


def with_their_paths(text: str, base: Path) -> str:
    """A sentence in the words of whoever sent the files: with the paths that they know."""
    return re.sub(rf"({re.escape(_SENT)}|{re.escape(str(base))}/)[0-9a-f]{{12}}(?=/)", "", text)


class Unpacked:
    """What has come to this process. ``base``: its folder for it."""

    def __init__(self, base: Path | None = None) -> None:
        self.base = base or Path(tempfile.gettempdir(), "shoal-code")
        self.files: dict[str, str] = {}  # digests, by name
        self._sizes: dict[str, int] = {}

    @property
    def size(self) -> int:
        """Of all that is here."""
        return sum(self._sizes.values())

    def lacks(self, files: Mapping[str, str]) -> list[str]:
        """Names of those that are not here as they are meant. What another process left here counts."""
        return [
            name for name, its in files.items() if self.files.get(name) != its and not self._left(name, its)
        ]

    def put(self, name: str, content: bytes) -> None:
        """Keep it, in place of what was here by that name. OSError: it cannot be written."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_bytes(content)
        fresh.replace(path)
        if path.suffix == ".py":
            # By its time in whole seconds and its size, what was compiled could be taken for the new one's.
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        self._note(name, content)

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """What these hold; what is not here is left out."""
        found = {}
        for name in names:
            with suppress(OSError):
                if name in self.files:
                    found[name] = self._path(name).read_bytes()
        return found

    def keep(self, names: Collection[str]) -> None:
        """Remove all others."""
        for name in [name for name in self.files if name not in names]:
            with suppress(OSError):
                self._path(name).unlink()
            del self.files[name], self._sizes[name]

    def placed(self, code: Code) -> Code:
        """The same with the paths that its files have in this process."""
        return replace(
            code,
            front=tuple(map(self._place, code.front)),
            back=tuple(map(self._place, code.back)),
            versions={name: its._replace(file=self._place(its.file)) for name, its in code.versions.items()},
        )

    def _place(self, path: str) -> str:
        return str(self._path(path)) if path.startswith(_SENT) else path

    def _path(self, name: str) -> Path:
        return self.base / name.removeprefix(_SENT)

    def _left(self, name: str, its: str) -> bool:
        try:
            content = self._path(name).read_bytes()
        except OSError:
            return False
        self._note(name, content)
        return self.files[name] == its

    def _note(self, name: str, content: bytes) -> None:
        self.files[name], self._sizes[name] = digest(content), len(content)


def arrived(code: Code, host: str, files: Mapping[str, str]) -> tuple[Code, list[str]]:
    """What a client can import as it is called here, with what came of it; names of modules that cannot be had.

    What did not come counts where the same file is here too, as in an image.
    """
    if len(files) > FILES:
        raise UsageError(f"{len(files)} files are more than the {FILES} that a client may send")
    came = {
        name: its for name, its in code.versions.items() if any(each in files for each in _above(its.file))
    }
    rest = replace(code, versions={name: its for name, its in code.versions.items() if name not in came})
    kept, missing = at_hand(rest)
    versions = {name: its._replace(file=named(host, its.file)) for name, its in came.items()} | dict(
        kept.versions
    )
    folders = {folder for path in files for folder in _above(path)}

    def entries(theirs: Iterable[str], here: Collection[str]) -> tuple[str, ...]:
        found = []
        for entry in theirs:
            found += [named(host, entry)] if entry in folders else []
            found += [entry] if entry in here else []
        return tuple(found)

    front, back = entries(code.front, kept.front), entries(code.back, kept.back)
    loose = tuple(name for name in code.loose if any(f"{each}.".startswith(f"{name}.") for each in versions))
    first = {name.partition(".")[0] for name in came}
    return Code(front, back, versions, loose), [name for name in missing if name not in first]


def _above(path: str) -> Iterable[str]:
    """The path itself, which may be an archive, and the folders that it lies in."""
    yield path
    while path != (path := os.path.dirname(path)):
        yield path
