"""What counts as a client, as work and as a worker: Dask clusters as people use them, with short times."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.model.cluster import Reason, State

Eventually = Callable[..., Any]

# A person's process: it connects, its tasks use clients of their own, and one starts a process with one.
CLIENT = """
    import json, subprocess, sys
    import dask, shoal
    from distributed import Event, Lock, Queue, Variable, get_client, worker_client

    def inner():
        return get_client().submit(sum, [1, 2]).result()

    def borrowed():
        with worker_client() as client:
            return client.submit(sum, [3, 4]).result()

    def meeting():
        Queue("q").put(1)
        Event("e").set()
        Variable("v").set(5)
        with Lock("l"):
            return Queue("q").get()

    def nested():
        return dask.delayed(sum)([5, 6]).compute()

    def another_process(address, security):
        code = (
            "import json, sys, time\\n"
            "from distributed import Client, Security\\n"
            "address, security = json.load(sys.stdin)\\n"
            "client = Client(address, security=Security(require_encryption=True, **security))\\n"
            "print(client.id, flush=True)\\n"
            "time.sleep(600)\\n"
        )
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        child = subprocess.Popen([sys.executable, "-c", code], env={}, start_new_session=True, **pipes)
        child.stdin.write(json.dumps([address, security]))
        child.stdin.close()
        return child.stdout.readline()

    with shoal.connect(sys.argv[1], project=sys.argv[2]) as cluster:
        submit = lambda *call: cluster.client.submit(*call, pure=False).result()
        assert [submit(each) for each in (inner, borrowed, meeting, nested)] == [3, 7, 1, 11]
        endpoint = cluster._home.endpoint(cluster.id)
        assert submit(another_process, endpoint.address, dict(endpoint.security)).startswith("Client")
        count = cluster.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.clients))
        print(count, flush=True)
        sys.stdin.read()
"""


def test_only_processes_outside_the_cluster_are_its_clients_and_only_while_they_run(
    project: Path, eventually: Eventually, tmp_path: Path
) -> None:
    """Tasks used get_client, worker_client, Queue, ...; then the person's process is suspended, and killed."""
    handle = shoal.up("small", engine="dask", workers=2, no_client="15 s", project=project, quiet=True)
    script = tmp_path / "client.py"
    script.write_text(textwrap.dedent(CLIENT))
    with subprocess.Popen(
        [sys.executable, str(script), handle.name, str(project)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as person:

        def clients() -> int:
            status = handle._home.status(handle.id)
            return -1 if status is None else status.clients

        assert person.stdout is not None
        assert int(person.stdout.readline()) >= 4, "Dask knows of clients in workers and their children"
        eventually(lambda: clients() == 1, 10, "one process outside is connected")
        person.send_signal(signal.SIGSTOP)
        eventually(lambda: clients() == 0, 10, "a suspended process does not count")
        person.send_signal(signal.SIGCONT)
        eventually(lambda: clients() == 1, 10, "until it goes on")
        person.kill()
    eventually(lambda: handle.record.state.ended, 60, "the cluster ended")
    assert handle.record.reason is Reason.CLIENT_GONE
    handle.close()


def waiting_actor() -> type:
    class Waits:  # nested: the workers do not have this module
        def wait(self, seconds: float) -> float:
            import time

            time.sleep(seconds)
            return seconds

    return Waits


def leave_a_thread(seconds: float) -> None:
    import threading
    import time

    def spin() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    threading.Thread(target=spin, daemon=True).start()


def test_work_that_no_scheduler_sees_is_work_and_rest_with_an_open_client_is_not(
    project: Path, eventually: Eventually
) -> None:
    """An actor's method that waits, client.run, a thread that a task left, a tiny task now and then."""
    leave = leave_a_thread
    leave.__module__ = "__main__"  # by value: the workers do not have this module
    idle, longer = 3.0, 5.0
    with shoal.dask("small", workers=1, idle=f"{idle:.0f} s", project=project, quiet=True) as cluster:
        client = cluster.client
        actor: Any = client.submit(waiting_actor(), actor=True).result()
        assert actor.wait(longer).result() == longer
        assert cluster.record.state is State.READY, "an actor's method"
        client.run(time.sleep, longer)
        assert cluster.record.state is State.READY, "client.run"
        client.submit(leave, longer, pure=False).result()
        time.sleep(longer)
        assert cluster.record.state is State.READY, "a thread that a task left"
        for _ in range(int(longer * 2)):
            client.submit(sum, [1], pure=False).result()
            time.sleep(0.5)
        assert cluster.record.state is State.READY, "tiny tasks"
        eventually(lambda: cluster.record.state.ended, 60, "it ends once it rests")
        assert cluster.record.reason is Reason.IDLE


def test_workers_that_left_are_replaced_and_scale_counts_what_there_is(
    project: Path, eventually: Eventually
) -> None:
    """The user retires workers, one is killed, all are retired, and scale() says how many there are to be."""
    with shoal.dask("small", workers=3, project=project, quiet=True) as cluster:
        client = cluster.client

        def workers() -> dict[str, Any]:
            return dict(client.scheduler_info(n_workers=-1)["workers"])

        before = set(workers())
        client.retire_workers(list(before)[:2])
        eventually(lambda: len(workers()) == 3 and len(set(workers()) & before) == 1, 60, "two are replaced")
        assert cluster.record.plan.workers == 3, "what is held is there"
        told = [entry.message for entry in cluster._home.history(cluster.id)]
        assert any("takes its place" in each for each in told), told
        victim = next(iter(client.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: f"{victim}" in cluster.record.message, 60, "the death is told")
        eventually(lambda: len(workers()) == 3, 60, "it is back")
        client.retire_workers(list(workers()))
        cluster.scale(1, timeout=60)
        eventually(lambda: len(workers()) == 1, 60, "exactly one")
        assert client.submit(sum, [1, 2], pure=False).result(timeout=60) == 3
        eventually(lambda: cluster.record.plan.workers == 1, 30, "and one is held")
        cluster.scale(2, timeout=60)
        assert len(workers()) == 2
        assert cluster.record.state is State.READY


def test_workers_that_die_at_once_are_not_started_without_end(project: Path, eventually: Eventually) -> None:
    """A plugin of the user's ends each worker at its start: pauses grow, and why it is so is told."""
    from distributed import WorkerPlugin

    class Ends(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            import os

            os._exit(1)

    Ends.__module__ = "__main__"
    with shoal.dask("small", workers=1, project=project, quiet=True) as cluster:
        client = cluster.client

        async def plant(dask_scheduler: Any, plugin: bytes) -> None:
            await dask_scheduler.register_worker_plugin(None, plugin=plugin, name="ends", idempotent=False)

        from distributed.protocol.pickle import dumps

        with pytest.raises(Exception):  # noqa: B017, PT011 - the worker that is asked dies
            client.run_on_scheduler(plant, plugin=dumps(Ends()), wait=True)
        eventually(lambda: "trying again in" in cluster.record.message, 120, "the pause is told")
        assert cluster.report().restarts < 30
        assert cluster.record.state is State.READY
