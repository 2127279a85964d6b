"""A cgroup for each cluster, where this machine lets its user make one: whatever its processes start stays in it.

Why it exists: a process that left its parent and cleared its environment is found by its cluster's guard alone. Where
that was killed, too, only the kernel still knows whose it is.

What it must not do: be needed, or limit anything. Most sessions of Linux let nobody but root make one.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

_TRIES = 5  # another head may just be removing what is empty
_NAME = re.compile(r"shoal-(?P<cluster>[A-Za-z0-9_-]+)\.(?P<ledger>[0-9a-f]{8})")


class Member(NamedTuple):
    """Whose cgroup a process is in: the cluster's id, and a short form of the ledger that knows it."""

    cluster: str
    ledger: str


def member(cluster_id: str, ledger: str) -> Member:
    """``ledger``: its URL, which may hold a password and so is not itself part of a name."""
    return Member(cluster_id, sha256(ledger.encode()).hexdigest()[:8])


def folder_of(mounts: str, cgroup: str) -> Path | None:
    """The folder in which clusters have theirs, from ``/proc/self/mountinfo`` and ``/proc/self/cgroup``.

    It is the process's own, or, of one inside a cluster's, the one around. None without a cgroup hierarchy of version
    2, or where the process's own cgroup is outside of what is mounted.
    """
    own = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::/")), None)
    for line in mounts.splitlines():
        fields, _, kind = line.partition(" - ")
        if own is None or not kind.startswith("cgroup2 "):
            continue
        root, mounted = fields.split()[3:5]
        with suppress(ValueError):  # it is not below this root
            parts = Path(own).relative_to(root).parts
            outside = takewhile(lambda each: not _NAME.fullmatch(each), parts)
            if ".." not in parts:
                return Path(mounted, *outside)
    return None


def _folder() -> Path | None:
    try:
        return folder_of(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    except OSError:
        return None


def join(its: Member) -> bool:
    """From now on this process, and whatever it starts, is in its cluster's cgroup. False where there can be none."""
    if (folder := _folder()) is None:
        return False
    own = folder / f"shoal-{its.cluster}.{its.ledger}"
    for _ in range(_TRIES):
        try:
            own.mkdir(exist_ok=True)
            (own / "cgroup.procs").write_text(str(os.getpid()))
        except FileNotFoundError:
            continue
        except OSError:
            with suppress(OSError):
                own.rmdir()
            return False
        _sweep(folder)
        return True
    return False


def _sweep(folder: Path) -> None:
    """Remove those of clusters that are gone: nobody can remove the one that it is in."""
    with suppress(OSError):
        for each in folder.iterdir():
            if _NAME.fullmatch(each.name):
                with suppress(OSError):  # the kernel keeps those that somebody is in
                    each.rmdir()


def of(pid: int) -> Member | None:
    """In whose cgroup this process is; None in that of no cluster."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return None
    found = _NAME.search(text.rpartition("0::")[2])
    return Member(found["cluster"], found["ledger"]) if found else None
