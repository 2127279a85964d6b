"""Folders of the local home.

Why it exists: one place says where things are kept and makes them private (mode 0700).

What it must not do: keep anything itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path

import platformdirs

from shoal.errors import InfrastructureError

TOKEN = "token.json"  # noqa: S105 - a file name, in a live cluster's folder
SPARK_CONF = "spark.conf"  # may hold the catalog's password
SPARK_KEYS = "spark.p12"
_TEMPORARY = "tmp"  # in a cluster's folder: a link to where its temporary files are
_OWNER = ".shoal.json"  # there: whose they are


def data_folder() -> Path:
    """Where the ledger and run folders are: ``SHOAL_DATA``, else the user's data folder."""
    chosen = os.environ.get("SHOAL_DATA")
    return Path(chosen) if chosen else platformdirs.user_data_path("shoal")


def cache_folder() -> Path:
    """What can be fetched again: ``SHOAL_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("SHOAL_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("shoal")


def run_folder(cluster_id: str) -> Path:
    """One cluster's own folder: its logs, its token, its scratch space."""
    return data_folder() / "run" / cluster_id


def temporary(folder: Path) -> Path:
    """A cluster's own folder for temporary files (0700), where the machine keeps such; :func:`tidy` removes it.

    Not below ``folder``, whose path may be too long for the sockets that programs put there, and its disk slow.
    """
    link = folder / _TEMPORARY
    if not link.is_symlink():
        # The link first: whoever tidies up after a kill finds what it points to.
        link.symlink_to(Path(tempfile.gettempdir()) / f"shoal-{secrets.token_hex(8)}")
    found = link.readlink()
    found.mkdir(mode=0o700, exist_ok=True)
    if found.stat().st_uid != os.getuid():
        raise InfrastructureError(f"{found} belongs to somebody else", hint="Try again.", folder=str(found))
    with open(found / _OWNER, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        json.dump(_me() | {"folder": str(link.absolute())}, file)
    return found


def tidy(folder: Path) -> None:
    """Remove from an ended cluster's folder all that takes room; its logs stay."""
    for name in ("scratch", "packages"):
        shutil.rmtree(folder / name, ignore_errors=True)
    link = folder / _TEMPORARY
    if link.is_symlink():
        kept = link.readlink()
        shutil.rmtree(kept, ignore_errors=True)
        if not kept.exists():  # else something still writes there: who comes later has to find it
            link.unlink(missing_ok=True)


def _me() -> dict[str, object]:
    from shoal.machine.processes import identity, process_space

    return identity() | {"space": process_space()}


def sweep() -> None:
    """Remove temporary files of this user's clusters whose process is proved gone and whose own folder is, too.

    Else nobody would: the way to them was in that folder.
    """
    from shoal.machine.processes import is_alive, process_space

    for entry in os.scandir(tempfile.gettempdir()):
        if not re.fullmatch("shoal-[0-9a-f]{16}", entry.name):
            continue
        with contextlib.suppress(OSError, ValueError, KeyError):
            if entry.is_symlink() or entry.stat().st_uid != os.getuid():
                continue
            owner = json.loads(Path(entry.path, _OWNER).read_text())
            if (
                Path(owner["folder"]).is_symlink()
                or owner["space"] != process_space()
                or is_alive(owner) is not False
            ):
                continue
            for name in sorted(
                os.listdir(entry.path), key=_OWNER.__eq__
            ):  # the owner last: it may be interrupted
                path = Path(entry.path, name)
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            os.rmdir(entry.path)


def prune(keep: int = 100) -> None:
    """Remove the folders of the oldest ended clusters (those without a token), all but ``keep``; :func:`sweep`."""
    sweep()
    root = data_folder() / "run"
    if not root.is_dir():
        return
    folders = [(entry.stat().st_mtime, entry.path) for entry in os.scandir(root) if entry.is_dir()]
    for _, path in sorted(folders, reverse=True)[keep:]:
        if not (Path(path) / TOKEN).exists():
            tidy(Path(path))  # whoever was to do so may have been killed as well
            shutil.rmtree(path, ignore_errors=True)


def make_private(folder: Path) -> Path:
    """Make a folder that only its owner can enter, and so each folder above it that is not there yet.

    Raises:
        InfrastructureError: it cannot be written.
    """
    try:
        # Not by parents=True: whatever is asked for, that lets others into those above.
        for each in reversed([path for path in (folder, *folder.parents) if not os.path.exists(path)]):
            each.mkdir(mode=0o700, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"shoal")
        probe.unlink()
    except OSError as error:
        free = ""
        # Unlike Path's, this says no of what is in a folder that may not be entered.
        existing = next((p for p in (folder, *folder.parents) if os.path.exists(p)), None)
        if existing is not None:
            free = f"; {shutil.disk_usage(existing).free / 1e9:.1f} GB free there"
        raise InfrastructureError(
            f"cannot write in {folder}: {error.strerror}{free}",
            hint="Free some space or fix the permissions there, or point SHOAL_DATA at another folder.",
            folder=str(folder),
        ) from error
    return folder


def replace_file(file: Path, data: bytes) -> None:
    """All of the new content, or all of the old one. Who may read a file that is there stays as it is. OSError."""
    file = file.resolve()
    made = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with made.open("xb") as out:
            out.write(data)
        if file.exists():
            made.chmod(file.stat().st_mode & 0o777)
        made.replace(file)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
