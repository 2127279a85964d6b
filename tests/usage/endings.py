"""How a person changes clusters, looks at them, kills and ends them, and what has to be true afterwards."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from .machine import Usage, use
from .model import MINE
from .usages import compute, same, start, told, uses_a_client_in_a_task

# -- sizes and times ---------------------------------------------------------------------------------------


@use("dask", dask=2)
def scales(m: Usage, detail: int) -> None:
    cluster = m.one("dask", detail)
    cluster.workers = 1 + (cluster.workers + detail % 2) % 3
    m.run(f"{cluster.name}.scale({cluster.workers}).record.workers")


@use("dask", dask=1)
def retires_a_worker(m: Usage, detail: int) -> None:
    """What the user takes away is brought back: the cluster has what it counts with."""
    cluster = m.one("dask", detail)
    name = cluster.name
    workers = f"list({name}.client.scheduler_info(n_workers=-1)['workers'])"
    # Dask keeps a worker whose results nobody else can hold, as until it has noticed that they are forgotten.
    retired = f"any({name}.client.retire_workers([gone]) or time.sleep(0.1) for _ in range(100))"
    gone = m.run(f"gone = {workers}[0]\n{retired}\ngone")
    m.until(workers, lambda there: gone not in there and len(there) == cluster.workers)
    compute(m, cluster, detail)


@use("dask", dask=1)
def kills_a_worker(m: Usage, detail: int) -> None:
    cluster = m.one("dask", detail)
    workers = f"list({cluster.name}.client.scheduler_info(n_workers=-1)['workers'])"
    gone, pid = m.run(f"min({cluster.name}.client.run(os.getpid).items())")
    m.from_outside(f"kill -9 {pid} (a worker of {cluster.name})")
    os.kill(pid, signal.SIGKILL)
    # Not asked before: a call to a worker that is not known to be dead waits as long as a connection may take.
    m.until(workers, lambda there: gone not in there and len(there) == cluster.workers)
    same(pid in m.run(f"list({cluster.name}.client.run(os.getpid).values())"), False)
    compute(m, cluster, detail)


@use("any", dask=2, spark=2)
def extends(m: Usage, detail: int) -> None:
    cluster = m.one("any", detail)
    cell = f'shoal.connect("{cluster.name}", project=HERE).extend("+1 h").plan.timeouts.max'
    if cluster.hours < 4:
        cluster.hours += 1
        same(m.run(f"float({cell})"), cluster.hours * 3600)
    else:
        m.refused(cell, "NeverFitsError")


@use("", dask=1, spark=1)
def sets_the_clock(m: Usage, detail: int) -> None:
    """The person's process has another time than the heads, as after a sleep or a jump of the clock."""
    m.run(f"set_clock({(0, 3, -3)[detail % 3]})")


# -- looking ------------------------------------------------------------------------------------------------


@use("", dask=3, spark=3)
def looks(m: Usage, detail: int) -> None:
    """``ls``, ``why`` and ``quota`` in a terminal say what the ledger has."""
    m.agree()
    rows = {its_id: row for its_id, row in m.rows().items() if not row.ended}
    match detail % 3:
        case 0:
            listed = {each["id"]: (each["state"], each["workers"]) for each in m.shell("ls")}
            same(listed, {its_id: (row.state, row.workers) for its_id, row in rows.items()})
        case 1:
            quota = m.shell("quota")
            held = {row["what"]: row["held"] for row in quota["totals"]}
            same({each["id"] for each in quota["clusters"]}, set(rows))
            same(held["memory"], sum(row.memory for row in rows.values()))
        case 2 if rows:
            row = list(rows.values())[detail % len(rows)]
            why = m.shell("why", row.name)
            same((why["id"], why["state"]), (row.id, row.state))
            same(why["history"][-1]["state"], row.state)


# -- kills and ends -----------------------------------------------------------------------------------------


@use("mine", dask=1, spark=1)
def kills_the_head(m: Usage, detail: int) -> None:
    cluster = m.one("mine", detail)
    head = m.rows()[cluster.id].head
    m.from_outside(f"kill -9 {head} (the head of {cluster.name})")
    os.kill(head, signal.SIGKILL)
    m.model.ended(cluster, "HeadCrashed")
    m.agree()
    told(m, cluster, "HeadCrashed")


@use("mine", dask=1, spark=1)
def stops_the_head_for_a_while(m: Usage, detail: int) -> None:
    cluster = m.one("mine", detail)
    head = m.rows()[cluster.id].head
    m.from_outside(f"kill -STOP {head} (the head of {cluster.name}), and -CONT two seconds later")
    os.kill(head, signal.SIGSTOP)
    try:
        assert cluster.id in {each["id"] for each in m.shell("ls")}
        time.sleep(1)
    finally:
        os.kill(head, signal.SIGCONT)
    compute(m, cluster, detail)


@use("", dask=1, spark=1)
def stops_the_person_for_a_while(m: Usage, detail: int) -> None:
    """As Ctrl-Z does. What it holds lives; others go on."""
    pid = m.me.pid
    m.from_outside("kill -STOP the person's process, and -CONT a second later")
    with ThreadPoolExecutor(1) as aside:
        os.kill(pid, signal.SIGSTOP)
        try:
            # Not waited for: on a busy machine it may take longer than a suspended client may be away.
            looked = aside.submit(m.shell, "ls")
            time.sleep(1)
        finally:
            os.kill(pid, signal.SIGCONT)
        looked.result()


@use("mine", dask=1, spark=1)
def kills_the_person(m: Usage, detail: int) -> None:
    """What it held ends for want of a client; what it had detached lives."""
    if detail % 2 and m.fit("dask"):
        uses_a_client_in_a_task(m, detail)
    m.from_outside("kill -9 the person's process")
    m.me.kill()
    for cluster in m.model.live(MINE):
        m.model.ended(cluster, "ClientGone")
    m.model.handles.clear()
    m.me = m.person("me")


@use("any", dask=1, spark=1)
def says_down(m: Usage, detail: int) -> None:
    cluster = m.one("any", detail)
    [ended] = m.shell("down", cluster.name)
    same((ended["id"], ended["state"], ended["reason"]), (cluster.id, "Stopped", "StoppedByUser"))
    m.model.ended(cluster, "StoppedByUser")
    told(m, cluster, "StoppedByUser")


@use("mine", dask=1)
def says_down_to_a_head_that_is_stopped(m: Usage, detail: int) -> None:
    cluster = m.one("mine", detail)
    head = m.rows()[cluster.id].head
    m.from_outside(f"kill -STOP {head} (the head of {cluster.name})")
    os.kill(head, signal.SIGSTOP)
    m.shell("down", cluster.name)
    m.model.ended(cluster, "StoppedByUser")
    told(m, cluster, "StoppedByUser")


@use("dask", dask=1)
def shuts_the_client_down(m: Usage, detail: int) -> None:
    """``client.shutdown()`` is how Dask's own pages end a cluster."""
    cluster = m.one("dask", detail)
    m.run(f"{cluster.name}.client.shutdown()")
    m.model.ended(cluster, "StoppedByUser")
    m.agree()
    told(m, cluster, "StoppedByUser", used=False)  # by Dask, their own client is closed


@use("room", dask=1)
def leaves_one_idle(m: Usage, detail: int) -> None:
    cluster = start(m, m.free_name(detail), more=', idle="2 s"')
    m.model.ended(cluster, "Idle")
    m.agree()
    told(m, cluster, "Idle")
