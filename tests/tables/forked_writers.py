"""Processes that write into a table, forked from one that has imported all, and that die at a given moment."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

ROWS = 40  # of each write

ZYGOTE = textwrap.dedent(
    """
    # Imports once, then forks a client per job: a fresh interpreter takes seconds, a fork milliseconds.
    import json, os, signal, sys, traceback
    import numpy as np, pyarrow as pa, pandas as pd
    import dask, dask.dataframe as dd
    import shoal, shoal.tables.writing.write, shoal.tables.reading.read, shoal.tables.reading.expression
    from shoal.tables.writing import points

    def lose_an_answer():
        # The change is made, and the client is told of an error.
        from sqlalchemy.exc import OperationalError
        from sqlalchemy.orm import Session
        commit, lost = Session.commit, []
        def lossy(self):
            commit(self)
            if not lost and sys._getframe(1).f_code.co_name == "commit_table":
                lost.append(True)
                raise OperationalError("lost", None, Exception("connection reset by peer"))
        Session.commit = lossy

    def part(i, start, batch):
        return pd.DataFrame({"id": np.arange(start + i * 10, start + (i + 1) * 10), "batch": batch})

    def die_in_the_swap():
        # The metadata is written, the catalog not yet changed; and changed, its own call not yet over.
        from sqlalchemy.orm import Session
        commit = Session.commit
        def deadly(self):
            swap = sys._getframe(1).f_code.co_name == "commit_table"
            if swap and job["kill"] == "in the swap, before":
                os.kill(os.getpid(), signal.SIGKILL)
            commit(self)
            if swap and job["kill"] == "in the swap, after":
                os.kill(os.getpid(), signal.SIGKILL)
        Session.commit = deadly

    def client(job, pipe):
        met = []
        def die(point):
            if point.name == job["kill"]:
                met.append(point)
                if len(met) == job["nth"]:
                    os.kill(os.getpid(), signal.SIGKILL)
        points.hook = die
        if job["lose"]:
            lose_an_answer()
        if "swap" in job["kill"]:
            die_in_the_swap()
        meta = part(0, 0, 0).iloc[:0]
        df = dd.from_map(part, range(4), args=(job["number"] * job["step"], job["number"]), meta=meta)
        how = {"mode": "upsert", "keys": "id"} if job["step"] < 40 else {}
        with dask.config.set(scheduler="sync"):
            result = shoal.write_table(df, job["table"], run_key=f"run-{job['number']}", **how)
        answer = {"snapshot": result.snapshot_id, "replayed": result.replayed}
        os.write(pipe, (json.dumps(answer) + "\\n").encode())

    # What is imported or built at a first use is then there in every child.
    with dask.config.set(scheduler="sync"):
        for how in ({}, {"run_key": "again"}, {"mode": "upsert", "keys": "id"}):
            shoal.write_table(pa.table({"id": [1, 2]}), "warm.t", **how)
            shoal.write_table(pa.table({"id": [1]}), "warm.t", **how)

    for line in sys.stdin:
        job = json.loads(line)
        read, write = os.pipe()
        children = []
        for _ in range(job["racers"]):
            pid = os.fork()
            if pid == 0:
                os.close(read)
                code = 1
                try:
                    client(job, write)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                    sys.stderr.flush()
                finally:
                    os._exit(code)
            children.append(pid)
        os.close(write)
        with os.fdopen(read) as answers:
            told = [json.loads(text) for text in answers]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(json.dumps({"answers": told, "codes": codes}), flush=True)
    """
)


class Clients:
    """Client processes; each writes one numbered batch into a table and may be killed at a moment."""

    def __init__(self) -> None:
        # Python warns of forking with threads about; the children use none that the parent had.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", ZYGOTE]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def write(
        self,
        table: str,
        number: int,
        *,
        step: int = ROWS,
        kill: str = "",
        nth: int = 1,
        lose: bool = False,
        racers: int = 1,
    ) -> tuple[list[Any], list[int]]:
        """What the clients answered, and their exit codes.

        ``step``: by how many ids the batches are apart. 40, their size: they are appended; less: each is
        upserted, and replaces part of the one before. ``nth``: which time that the moment to die at is met.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        job = {"table": table, "number": number, "step": step, "kill": kill, "nth": nth}
        self.process.stdin.write(json.dumps({**job, "lose": lose, "racers": racers}) + "\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        return told["answers"], told["codes"]
