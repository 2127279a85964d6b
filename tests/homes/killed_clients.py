"""Clients that are told to die: ``python killed_clients.py POINT ENGINE PROJECT AT_ONCE NAME...``

One process per name, ``AT_ONCE`` at a time. They are forked from one that has imported everything: what a kill
leaves behind does not depend on who paid for the imports. How each ended is written as a line of JSON.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
import traceback
import warnings
from contextlib import closing
from pathlib import Path

import distributed  # noqa: F401 - imported before the forks, as are the next
import pyspark.sql.connect.session  # noqa: F401

import shoal
import shoal.client.clusters
from shoal.machine.crash import AT

# The client dies, and nobody comes back: its cluster is to notice soon. Else it is to wait for its client.
GONE = ("client-after-launch", "client-ready")


def client(point: str, engine: str, project: str, name: str) -> None:
    os.environ[AT] = point
    warnings.simplefilter("error", ResourceWarning)
    start = shoal.dask if engine == "dask" else shoal.spark
    no_client = "2 s" if point in GONE else "2 min"
    with start("small", workers=1, name=name, no_client=no_client, project=project, quiet=True) as cluster:
        until = time.monotonic() + (60 if point == "head-serving" else 1)
        while time.monotonic() < until and not cluster.record.state.ended:
            time.sleep(0.1)  # a head that serves dies at its own next look, not before the client has gone


def living() -> int:
    """How many clusters have not ended, as the ledger's file says it: nothing of ours is opened before forks."""
    file = Path(os.environ["SHOAL_DATA"]) / "ledger.db"
    with closing(sqlite3.connect(file, timeout=30)) as ledger:
        return int(ledger.execute("select count(*) from shoal_clusters where ended_at is null").fetchone()[0])


def main() -> None:
    point, engine, project, at_once, *names = sys.argv[1:]
    running: dict[int, str] = {}
    first = True
    while names or running:
        while point in GONE and not first and living() >= int(at_once):
            time.sleep(0.2)  # clients die at once, their clusters later: not all of them are to run together
        first = False
        while names and len(running) < int(at_once):
            name = names.pop(0)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    client(point, engine, project, name)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            running[pid] = name
        pid, status = os.wait()
        if pid in running:
            print(json.dumps([running.pop(pid), os.waitstatus_to_exitcode(status)]), flush=True)


if __name__ == "__main__":
    main()
