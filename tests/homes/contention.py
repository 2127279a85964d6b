"""Processes that ask the ledger for a slot, hold it for a moment, and give it back, again and again.

A script, run by ``test_contention``: ``contention.py PROJECT SECONDS LOG``. It says "ready" and begins at a
line of standard input, so that all begin together. Each event is appended to LOG in one write inside the
transaction that made it so: the log is in the order in which things happened.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from shoal.client.clusters import open_home, open_project, prepare
from shoal.governor.ends import End
from shoal.homes.base import Request
from shoal.homes.local.steps import ended
from shoal.machine.processes import identity
from shoal.model.cluster import Reason, State


def main(project: Path, seconds: float, log: Path) -> None:
    asked = prepare("small", engine="dask", workers=1, project=project)
    home = open_home(open_project(project))
    governing, ledger, me = home._governing, home.ledger, identity()
    events = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    decisions, longest, number = 0, 0.0, 0
    print("ready", flush=True)
    sys.stdin.readline()
    used, end = time.process_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        number += 1
        begin = time.monotonic()
        with ledger.write() as tx:
            longest = max(longest, time.monotonic() - begin)
            governing.settle(tx)
            ask = Request(f"{os.getpid()}-{number}", asked.user, asked.workload, asked.plan)
            cluster, _ = governing.request(tx, ask)
            tx.update(cluster.id, head=me)
            if cluster.state is State.ADMITTED:
                os.write(events, b"+")
        decisions += 1
        if cluster.state is not State.ADMITTED:
            continue
        begin = time.monotonic()
        with ledger.write() as tx:
            longest = max(longest, time.monotonic() - begin)
            ended(tx, replace(cluster, head=me), End(Reason.STOPPED_BY_USER, "done"))
            os.write(events, b"-")
        decisions += 1
    used = time.process_time() - used
    print(json.dumps({"decisions": decisions, "longest": longest, "cpu": used}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
