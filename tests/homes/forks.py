"""A process that opens a cluster and forks in every way that people do. Run by tests, never imported.

    python forks.py PROJECT

Writes one line of JSON per way: what the child said, its exit code, the state of the cluster afterwards.
"""

import atexit
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import shoal

IN_TIME = 60  # s in which a child has to be gone; one that hangs is killed, and its code tells


def leaves() -> object:
    sys.exit(0)


def leaves_at_once() -> object:
    os._exit(0)


def raises() -> object:
    raise ValueError("the child's own")


def leaves_at_exit() -> object:
    atexit.register(lambda: print("at exit", file=sys.stderr))
    sys.exit(0)


def closes() -> object:
    cluster.close()
    return "closed"


def shows() -> object:
    return [repr(cluster), cluster.record.state]


def computes() -> object:
    with cluster:
        return cluster.client.submit(sum, [1, 2]).result(30)


def computes_by_default() -> object:
    import dask

    where = [dask.delayed(os.getenv)("SHOAL_CLUSTER", pure=False).compute() for _ in range(2)]
    cluster.close()  # the child's connection alone
    return [cluster.id, *where, dask.delayed(os.getenv)("SHOAL_CLUSTER", "here", pure=False).compute()]


def square(number: int) -> int:
    return number * number


def fork(work: Callable[[], object]) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(IN_TIME)
        answer = work()
        os.write(write, json.dumps(answer).encode())
        sys.exit(0)  # through the `with` block and everything that is registered for an exit
    os.close(write)
    with os.fdopen(read) as stream:
        said = stream.read()
    tell(work.__name__, said, os.waitpid(child, 0)[1])


def tell(way: str, said: object, code: int) -> None:
    time.sleep(1)  # an end that a child asked for would be on its way
    alive = cluster.client.submit(sum, [1, 2], pure=False).result(30)
    line = {"way": way, "said": said, "code": code, "state": cluster.record.state, "answers": alive}
    print(json.dumps(line), flush=True)


with shoal.dask("small", workers=1, name="parent", project=sys.argv[1], quiet=True) as cluster:
    parent = os.getpid()
    cluster.client.submit(sum, [1, 2]).result(30)
    for work in (
        leaves,
        leaves_at_once,
        leaves_at_exit,
        raises,
        closes,
        shows,
        computes,
        computes_by_default,
    ):
        fork(work)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=square, args=(2,))
    process.start()
    process.join(IN_TIME)
    tell("process", "", -1 if process.exitcode is None else process.exitcode)
    with context.Pool(2) as pool:
        tell("pool", pool.map(square, [1, 2]), 0)
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        tell("executor", list(executor.map(square, [1, 2])), 0)
