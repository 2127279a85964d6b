"""A script and what it needs of its user's files, as one archive: packed where it is submitted, unpacked where it runs.

Why it exists: where a script runs beside its cluster, nothing of the user's machine is at hand. What travels is what an
import may find in the folders of its path (``packing``), the script itself, and files that the caller names.

What it must not do: send anything, or write outside of the folder that it is given.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from shoal.errors import UsageError
from shoal.machine.modules import Code, installed, paths
from shoal.machine.packing import ALL, Packing

LARGEST = ALL + 4_000_000  # bytes of an archive
_TOLD = "shoal-run.json"  # what goes with the files: where they were
_BEGIN = (1980, 1, 1, 0, 0, 0)  # the same files give the same archive


class Parcel(NamedTuple):
    """``left``: sentences on what does not fit."""

    content: bytes
    left: tuple[str, ...]

    @property
    def digest(self) -> str:
        """By which both sides know it."""
        return digest(self.content)


@dataclass(frozen=True)
class Unfolded:
    """A parcel that was unpacked: where its parts are now. ``more``: what the sender told besides."""

    script: Path
    folder: Path
    front: tuple[str, ...]
    back: tuple[str, ...]
    more: dict[str, Any]


def digest(content: bytes) -> str:
    """Of an archive."""
    return hashlib.sha256(content).hexdigest()


def pack(script: Path, beside: Iterable[Path], **more: str) -> Parcel:
    """The script, the user's modules that its imports may find, and the files ``beside``. ``more`` goes with it.

    Raises:
        UsageError: the script cannot be read, or all together is too large.
    """
    script, folder = Path(os.path.abspath(script)), os.getcwd()
    # As Python has it for a script: its folder first, in place of what this process began with.
    entries = [str(script.parent), *(sys.path if sys.flags.safe_path else sys.path[1:])]
    front, back = paths(entries, folder, installed())
    packing = Packing()
    packed = packing.gather(Code(front, back, {}, ()))
    contents = packing.contents(packed.files)
    try:
        contents |= {
            str(path): path.read_bytes()
            for path in (script, *(Path(os.path.abspath(each)) for each in beside))
        }
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error
    manifest = {"script": str(script), "folder": folder, "front": front, "back": back, "more": more}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(_TOLD, _BEGIN), json.dumps(manifest))
        for path in sorted(contents):
            entry = zipfile.ZipInfo(path.lstrip("/"), _BEGIN)
            archive.writestr(entry, contents[path], zipfile.ZIP_DEFLATED)
    if (size := stream.tell()) > LARGEST:
        raise UsageError(
            f"{script.name} and what it needs take {size / 1e6:.0f} MB; at most {LARGEST / 1e6:.0f} MB are sent",
            hint="Put what is large into the cluster's image, or into a table.",
        )
    return Parcel(stream.getvalue(), packed.left)


def unpack(content: bytes, base: Path) -> Unfolded:
    """Write all of it below ``base``, by the paths that it had.

    Raises:
        UsageError: it is not such an archive, or leads elsewhere.
    """
    base.mkdir(mode=0o700, parents=True, exist_ok=True)

    def there(path: str) -> Path:
        found = base / path.lstrip("/")
        if not path.startswith("/") or os.path.normpath(found) != str(found):
            raise UsageError(f"no file of a script: {path[:200]!r}")
        return found

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            manifest = json.loads(archive.read(_TOLD))
            for entry in archive.infolist():
                if entry.filename != _TOLD:
                    file = there(f"/{entry.filename}")
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(archive.read(entry))
            folder = there(manifest["folder"]) if manifest["folder"] != "/" else base
            folder.mkdir(parents=True, exist_ok=True)
            front, back = (
                tuple(str(there(each)) for each in manifest[which] if each != "/")
                for which in ("front", "back")
            )
            return Unfolded(there(manifest["script"]), folder, front, back, dict(manifest["more"]))
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"no archive of a script: {error}") from error


def command(file: Path, function: str, arguments: Iterable[str]) -> list[str]:
    """What runs a script, or calls a function of it with the arguments."""
    if not function:
        return [sys.executable, str(file), *arguments]
    call = (
        "import runpy, sys; from shoal.client.traces import shorten; shorten(); "
        f"runpy.run_path(sys.argv.pop(1))[{function!r}](*sys.argv[1:])"
    )
    return [sys.executable, "-c", call, str(file), *arguments]
