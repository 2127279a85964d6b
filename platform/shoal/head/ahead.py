"""A head before its request is decided: it imports what its engine needs, and waits to be told to go on.

Why it exists: see ``homes.choose.ahead``, which starts it.

What it must not do: write, listen or start anything; and outlive whoever started it without an order.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

from shoal.head.birth import import_early, live
from shoal.homes.choose import open_desk
from shoal.machine.crash import CrashPoint, reached
from shoal.machine.processes import AHEAD

_LIMIT = 120.0  # s without an order after which it ends; a decision waits 30 s for its turn at most
_LOOK = 0.5  # s between looks whether it is still wanted


def main(cluster_id: str, engine: str, home: str) -> None:
    """It is told on standard input to go on: with which environment, in which folder, with which log there."""
    reached(CrashPoint.HEAD_AHEAD)
    desk = open_desk(home, cluster_id)
    import_early(engine, desk)
    order = _order()
    if order is None:
        os._exit(0)
    os.environ.update(order["environment"])
    os.environ.pop(AHEAD, None)
    folder = Path(order["folder"])
    os.chdir(folder)
    log = os.open(folder / order["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for mine, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(mine, standard)
    os.close(log)
    os.close(nothing)
    live(engine, desk)


def _order() -> dict[str, Any] | None:
    """What it is told on standard input, one line of JSON; None when nothing more can come."""
    parent, deadline, said = int(os.environ[AHEAD]), time.monotonic() + _LIMIT, b""
    while not said.endswith(b"\n"):
        if not select.select([sys.stdin.fileno()], [], [], _LOOK)[0]:
            if os.getppid() != parent or time.monotonic() > deadline:
                return None
            continue
        part = os.read(sys.stdin.fileno(), 65536)
        if not part:
            return None
        said += part
    return dict(json.loads(said))
