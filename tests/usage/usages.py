"""How a person opens clusters, computes on them and treats their handles, and what has to be true afterwards."""

from __future__ import annotations

from . import world
from .machine import Usage, use
from .model import NOBODYS, Expected

OPEN = (
    '{name} = shoal.{engine}("small", workers={workers}, name="{name}", project={project}, quiet=True{more})'
)
COMPUTE = {
    "dask": "{name}.client.submit(sum, [{n}, 1]).result(timeout=60)",
    "spark": '{name}.sql("select {n} + 1 as n").collect()[0].n',
}


def start(
    m: Usage, name: str, workers: int = 1, *, project: str = "HERE", engine: str | None = None, more: str = ""
) -> Expected:
    """Open one in a cell of the person's, under a variable of its name."""
    engine = engine or m.engine
    workers = workers if engine == "dask" else 1
    cell = OPEN.format(name=name, engine=engine, workers=workers, project=project, more=more)
    its_id = m.run(f"{cell}\n{name}.id")
    m.model.handles[name] = its_id
    return m.model.started(Expected(its_id, name, engine, workers))


def compute(m: Usage, cluster: Expected, n: int, person: world.Person | None = None, name: str = "") -> None:
    cell = COMPUTE[cluster.engine].format(name=name or cluster.name, n=n)
    same(m.run(cell, person), n + 1)


def same(found: object, expected: object) -> None:
    assert found == expected, f"{found!r}, not {expected!r}"


def told(m: Usage, cluster: Expected, reason: str, *, used: bool = True) -> None:
    """Whoever asks for it, or uses it, after its end is told why, and may close it."""
    if m.model.handles.get(cluster.name) == cluster.id:
        using = COMPUTE[cluster.engine].format(name=cluster.name, n=1)
        for cell in (f"{cluster.name}.raise_if_ended()", *([using] if used else [])):
            said = m.refused(cell, "ClusterEndedError")
            assert reason in said, said
        m.run(f"{cluster.name}.close()")


# -- opening and using -------------------------------------------------------------------------------------


@use("room", dask=4, spark=2)
def opens(m: Usage, detail: int) -> None:
    cluster = start(m, m.free_name(detail), 1 + detail % 2)
    compute(m, cluster, detail)


@use("room", dask=1)
def opens_from_another_project(m: Usage, detail: int) -> None:
    """One ledger, two project folders: it counts in the same quota."""
    start(m, m.free_name(detail), project="THERE")


@use("room 2", dask=1)
def opens_two_at_once(m: Usage, detail: int) -> None:
    first = m.free_name(detail)
    second = next(name for name in ("zeta", "eta") if name != first)
    opening = OPEN.format(name="ignored", engine="dask", workers=1, project="HERE", more="")
    opening = opening.partition(" = ")[2].replace('"ignored"', "name")
    ids = m.run(
        f"with ThreadPoolExecutor(2) as pool:\n"
        f"    {first}, {second} = pool.map(lambda name: {opening}, [{first!r}, {second!r}])\n"
        f"[{first}.id, {second}.id]"
    )
    for name, its_id in zip((first, second), ids, strict=True):
        m.model.handles[name] = its_id
        m.model.started(Expected(its_id, name, "dask", 1))
    m.run(f"{second}.close()")
    m.model.ended(m.model.clusters[ids[1]], "StoppedByUser")


@use("room 2", dask=1)
def nests(m: Usage, detail: int) -> None:
    outer, inner = (
        OPEN.format(name=name, engine="dask", workers=1, project="HERE", more="").partition(" = ")[2]
        for name in ("outer", "inner")
    )
    ids = m.run(
        f"with {outer} as outer:\n"
        f"    with {inner} as inner:\n"
        "        answer = inner.client.submit(sum, [1, 2]).result(timeout=60)\n"
        "    answer += outer.client.submit(sum, [3, 4]).result(timeout=60)\n"
        "[answer, outer.id, inner.id]"
    )
    same(ids[0], 10)
    for name, its_id in zip(("outer", "inner"), ids[1:], strict=True):
        m.model.started(Expected(its_id, name, "dask", 1))
        m.model.ended(m.model.clusters[its_id], "StoppedByUser")


@use("room", dask=1)
def opens_in_an_event_loop(m: Usage, detail: int) -> None:
    opening = OPEN.format(name="looped", engine="dask", workers=1, project="HERE", more="").partition(" = ")[
        2
    ]
    found = m.run(
        "async def main():\n"
        f"    async with {opening} as looped:\n"
        "        return [await looped.client.submit(sum, [1, 2]), looped.id]\n"
        "asyncio.run(main())"
    )
    same(found[0], 3)
    m.model.ended(m.model.started(Expected(found[1], "looped", "dask", 1)), "StoppedByUser")


@use("room", dask=1, spark=1)
def detaches(m: Usage, detail: int) -> None:
    """It lives on without its handle, until it is told to end."""
    name = m.free_name(detail)
    its_id = m.run(
        f'{name} = shoal.up("small", engine="dask", workers=1, name="{name}", project=HERE, quiet=True, detach=True)\n'
        f"found = {name}.id\n"
        f"del {name}\n"
        "gc.collect()\n"
        "found"
    )
    m.model.handles.pop(name, None)
    m.model.started(Expected(its_id, name, "dask", 1, owner=NOBODYS))


@use("mine", dask=4, spark=3)
def computes(m: Usage, detail: int) -> None:
    compute(m, m.one("mine", detail), detail)


@use("mine", dask=2, spark=2)
def computes_in_threads(m: Usage, detail: int) -> None:
    cluster = m.one("mine", detail)
    task = COMPUTE[cluster.engine].format(name=cluster.name, n="{n}").replace("{n} + 1", "{n} + 1")
    one = (
        task.replace("[{n}, 1]", "[n, 1]")
        if cluster.engine == "dask"
        else task.replace('"select', 'f"select')
    )
    cell = (
        f"with ThreadPoolExecutor(4) as pool:\n    found = list(pool.map(lambda n: {one}, range(4)))\nfound"
    )
    same(m.run(cell), [1, 2, 3, 4])


@use("dask", dask=2)
def computes_in_an_event_loop(m: Usage, detail: int) -> None:
    cluster = m.one("dask", detail)
    cell = (
        "async def several():\n"
        f"    futures = [{cluster.name}.client.submit(sum, [n, 1]) for n in range(3)]\n"
        "    return await asyncio.gather(*(asyncio.to_thread(each.result) for each in futures))\n"
        "asyncio.run(several())"
    )
    same(m.run(cell), [1, 2, 3])


@use("dask", dask=2)
def uses_a_client_in_a_task(m: Usage, detail: int) -> None:
    """Afterwards the cluster has to know its person from its own workers: a kill of the client ends it."""
    cluster = m.one("dask", detail)
    nested = (
        "    with distributed.worker_client() as client:\n"
        "        return client.submit(sum, [n, 1], pure=False).result()\n",
        "    distributed.secede()\n"
        "    return distributed.get_client().submit(sum, [n, 1], pure=False).result()\n",
    )[detail % 2]
    cell = (
        f"def inside(n):\n    import distributed\n{nested}{cluster.name}.client.submit(inside, 4, pure=False)"
    )
    same(m.run(f"{cell}.result(timeout=60)"), 5)


@use("dask", dask=1)
def leaves_a_child(m: Usage, detail: int) -> None:
    """A task starts a process and forgets it; ``wrong`` says it if it lives longer than the cluster."""
    cluster = m.one("dask", detail)
    environment = ("None", "{}")[detail % 2]
    cell = (
        "def leave():\n"
        "    import subprocess\n"
        f"    child = subprocess.Popen(['/bin/sleep', '3600'], start_new_session=True, env={environment})\n"
        "    child.returncode = 0\n"
        "    return child.pid\n"
        f"{cluster.name}.client.submit(leave, pure=False).result(timeout=60)"
    )
    cluster.children.add(m.run(cell))


# -- handles -----------------------------------------------------------------------------------------------


@use("mine", dask=2, spark=1)
def forks_a_child_that_exits(m: Usage, detail: int) -> None:
    """The child is a copy of the process: it owns nothing."""
    code = detail % 2
    cell = f"pid = os.fork()\nif pid == 0:\n    sys.exit({code})\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
    same(m.run(cell), code)
    compute(m, m.one("mine", detail), detail)


@use("mine", dask=2, spark=1)
def pickles_a_handle(m: Usage, detail: int) -> None:
    """A copy does not own: closed and gone, it leaves the cluster as it is."""
    cluster = m.one("mine", detail)
    how = ("pickle.loads(pickle.dumps({}))", "copy.copy({})", "copy.deepcopy({})")[detail % 3]
    m.run(f"twin = {how.format(cluster.name)}\ntwin.id == {cluster.name}.id or 1/0")
    compute(m, cluster, detail, name="twin")
    m.run("twin.close()\ndel twin\ngc.collect()")
    compute(m, cluster, detail)


@use("mine", dask=1)
def closes(m: Usage, detail: int) -> Expected:
    cluster = m.one("mine", detail)
    m.run(f"{cluster.name}.close()")
    m.model.ended(cluster, "StoppedByUser")
    return cluster


@use("mine", dask=1, spark=1)
def closes_twice(m: Usage, detail: int) -> None:
    m.run(f"{closes(m, detail).name}.close()")


@use("mine", dask=1, spark=1)
def forgets_a_handle(m: Usage, detail: int) -> None:
    cluster = m.one("mine", detail)
    m.run(f"del {cluster.name}\ngc.collect()")
    m.model.handles.pop(cluster.name)
    m.model.ended(cluster, "ClientGone")


@use("mine", dask=1, spark=1)
def forgets_an_attached_handle(m: Usage, detail: int) -> None:
    """A cell that connects by name is run again: the cluster stays, and so does what its other handle does."""
    cluster = m.one("mine", detail)
    m.run(f'attached = shoal.connect("{cluster.name}", project={where(m, cluster)})')
    compute(m, cluster, detail, name="attached")
    m.run("del attached\ngc.collect()")
    compute(m, cluster, detail)


@use("mine", dask=1, spark=1)
def asks_for_the_name_of_a_live_one(m: Usage, detail: int) -> None:
    """It gives the same cluster, which stays when that handle closes."""
    cluster = m.one("mine", detail)
    cell = OPEN.format(
        name=cluster.name, engine=cluster.engine, workers=cluster.workers, project=where(m, cluster), more=""
    )
    cell = f"again = {cell.partition(' = ')[2]}"
    where_from = (None, m.elsewhere)[detail % 2]
    same(m.run(f"{cell}\nagain.id", where_from), cluster.id)
    m.run("again.close()\ndel again", where_from)


@use("dask", dask=1)
def asks_for_the_name_of_a_live_one_with_another_plan(m: Usage, detail: int) -> None:
    cluster = m.one("dask", detail)
    other = cluster.workers % 3 + 1
    cell = OPEN.format(
        name=cluster.name, engine="dask", workers=other, project=where(m, cluster), more=""
    ).partition(" = ")[2]
    assert cluster.name in m.refused(f"again = {cell}", "UsageError")


def where(m: Usage, cluster: Expected) -> str:
    """The project that it was opened from: the other one is another plan."""
    return m.run(f"{cluster.name}.record.project == THERE and 'THERE' or 'HERE'")


@use("any", dask=3, spark=2)
def connects_from_elsewhere(m: Usage, detail: int) -> None:
    cluster = m.one("any", detail)
    assert (
        m.run(f'other = shoal.connect("{cluster.name}", project=HERE)\nother.id', m.elsewhere) == cluster.id
    )
    compute(m, cluster, detail, m.elsewhere, "other")
    m.run("other.close()\ndel other", m.elsewhere)


@use("", dask=1, spark=1)
def asks_for_too_much(m: Usage, detail: int) -> None:
    cell = OPEN.format(name="huge", engine=m.engine, workers=4, project="HERE", more="")
    m.refused(cell, "NeverFitsError")
