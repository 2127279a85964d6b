"""Whether a live cluster is what somebody asks for under its name.

Why it exists: whoever asks under a name in use gets what was asked for, or is told what is there instead; nobody
computes on a cluster of another size unnoticed.

What it must not do: look anything up; records and requests come in as values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shoal.errors import UsageError
from shoal.homes.base import Request
from shoal.model.cluster import Cluster
from shoal.model.names import command
from shoal.model.workload import Engine, Group, Plan
from shoal.words import count

# What differs: its name, as requested, as it is.
Unlike = tuple[str, str, str]


def same_or_refused(known: Cluster, request: Request) -> Cluster:
    """The live cluster of that name, if it is what is asked for; else UsageError with both side by side."""
    different = list(differences(known, request))
    if not different:
        return known
    rows = [("", "requested", "existing"), *different]
    wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
    table = "\n".join(f"  {what:{wide[0]}}  {asked:{wide[1]}}  {there}" for what, asked, there in rows)
    ways = [
        ("Use it as it is:", f'shoal.connect("{request.name}")'),
        ("Keep both:", "choose another name"),
        ("Replace it:", f"{command('down', request.name)}, then try again"),
    ]
    if [what for what, *_ in different] == ["workers"] and known.plan.engine is Engine.DASK:
        ways.insert(0, ("Resize it:", command("scale", request.name, str(request.plan.workers))))
    raise UsageError(
        f"you have a live cluster named {request.name!r}, and it differs from what was requested:\n{table}",
        hint="\n".join(f"  {what:17}{how}" for what, how in ways),
        name=request.name,
        differences={what: {"requested": asked, "existing": there} for what, asked, there in different},
    )


def differences(known: Cluster, request: Request) -> Iterator[Unlike]:
    """In what the live cluster is not what is asked for.

    Workers may be any number within the range that is asked for. How long it lives without a client and in all
    counts only where it is said, for ``--detach`` and ``extend`` change it.
    """
    here, asked = known.plan, request.plan
    if request.run is not None and request.id != known.id:
        yield "script", request.run.script, known.run.script if known.run is not None else "none"
    for what in ("template", "engine", "target"):
        if getattr(here, what) != getattr(asked, what):
            yield what, str(getattr(asked, what)), str(getattr(here, what))
    if here.engine is not asked.engine:
        return  # nothing else compares
    yield from _workers(here, asked)
    if here.head != asked.head:
        yield "head", _size(asked.head.cores, asked.head.memory), _size(here.head.cores, here.head.memory)
    for what in ("packages", "mounts"):
        if sorted(getattr(here, what)) != sorted(getattr(asked, what)):
            yield what, _listed(getattr(asked, what)), _listed(getattr(here, what))
    if here.image != asked.image:
        yield "image", asked.image or "none", here.image or "none"
    for key in sorted({*here.conf, *asked.conf}):
        if here.conf.get(key) != asked.conf.get(key):
            yield key, asked.conf.get(key, "not set"), here.conf.get(key, "not set")
    if here.timeouts.idle != asked.timeouts.idle:
        yield "idle", str(asked.timeouts.idle), str(here.timeouts.idle)
    for what, field in (("no_client", "no_client"), ("max_duration", "max")):
        said = getattr(request.workload, what)
        wanted, there = getattr(asked.timeouts, field), getattr(here.timeouts, field)
        if said is not None and said != getattr(known.workload, what) and wanted != there:
            yield what, str(wanted), str(there)


def _workers(here: Plan, asked: Plan) -> Iterator[Unlike]:
    if [group.name for group in here.groups] != [group.name for group in asked.groups]:
        yield "groups", _listed(g.name for g in asked.groups), _listed(g.name for g in here.groups)
        return
    for there, wanted in zip(here.groups, asked.groups, strict=True):
        which = f"{wanted.name} " if len(asked.groups) > 1 else ""
        low, high = (wanted.minimum, wanted.maximum)
        if here.engine is Engine.SPARK:
            low = high  # it holds its maximum from the start
        have = there.maximum if here.engine is Engine.SPARK else there.count
        if not low <= have <= high:
            yield f"{which}workers", str(high) if low == high else f"{low}-{high}", str(have)
        for what, one, other in _parts(wanted, there):
            if one != other:
                yield f"{which}{what}", one, other


def _parts(wanted: Group, there: Group) -> Iterator[Unlike]:
    yield "cores per worker", f"{wanted.size.cores:g}", f"{there.size.cores:g}"
    yield "memory per worker", str(wanted.size.memory), str(there.size.memory)
    if wanted.size == there.size:
        yield (
            "actual size per worker",
            _size(wanted.there.cores, wanted.there.memory),
            _size(there.there.cores, there.there.memory),
        )
    yield "GPUs per worker", str(wanted.gpus), str(there.gpus)
    yield "spot", f"{wanted.spot:.0%}", f"{there.spot:.0%}"
    yield "scratch per worker", str(wanted.scratch), str(there.scratch)


def _size(cores: float, memory: object) -> str:
    return f"{count(cores, 'core')}, {memory}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
