"""Asking: what a person typed becomes a checked workload, or one error that says everything wrong with it.

Why it exists: a notebook, a flow, the CLI and a Kubernetes object ask in the same words, and each of their
mistakes gets the same answer.

What it must not do: know templates, limits or targets (``sizing``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from shoal.errors import ShoalError, UsageError, WorkloadError
from shoal.model.workload import Engine, Workload
from shoal.project.settings import parse_share
from shoal.units import Bytes, Seconds
from shoal.words import count, did_you_mean, sentence

T = TypeVar("T")

# Less does not hold Python with pandas or a JVM (about 200 MB each before any data).
LEAST_MEMORY = Bytes(256_000_000)


def ask(
    template: str,
    *,
    engine: str | None = None,
    data: str | Bytes | None = None,
    workers: int | str | Sequence[int] | None = None,
    cores: int | str | None = None,
    memory: str | Bytes | None = None,
    gpu: int | str | None = None,
    spot: float | str | bool | None = None,
    max_duration: str | Seconds | None = None,
    idle: str | Seconds | None = None,
    no_client: str | Seconds | None = None,
    packages: Iterable[str] = (),
    queue: bool = False,
    priority: int | str | None = None,
) -> Workload:
    """A workload from values as people write them.

    ``data="25 GB"``; ``workers=3``, ``"3"``, ``"2-10"`` or ``(2, 10)``; per worker ``memory="14 GB"`` and
    ``cores=4``; ``spot=True``, ``"50%"`` or ``0.5``; durations as ``"4 h"``; ``packages=["xgboost>=2"]``.

    Raises UnitError for a lone amount without a unit, WorkloadError for everything else and for several
    faults at once (``values["faults"]``: what is wrong, by name).
    """
    faults: dict[str, ShoalError] = {}

    def read(name: str, value: Any, how: Callable[[Any], T]) -> T | None:
        if value is None:
            return None
        try:
            return how(value)
        except ShoalError as error:
            faults[name] = error
            return None

    result = Workload(
        template=template,
        engine=read("engine", engine, _engine),
        data=read("data", data, _size),
        workers=read("workers", workers, _workers),
        cores=read("cores", cores, _whole),
        memory=read("memory", memory, _size),
        gpu=read("gpu", gpu, _whole),
        spot=read(
            "spot", spot, lambda value: float(value) if isinstance(value, bool) else parse_share(value)
        ),
        max_duration=read("max_duration", max_duration, _duration),
        idle=read("idle", idle, _duration),
        no_client=read("no_client", no_client, _duration),
        packages=(packages,) if isinstance(packages, str) else tuple(packages),
        queue=bool(queue),
        priority=read("priority", priority, _whole) or 0,
    )
    for name, error in _faults(result).items():
        faults.setdefault(name, error)
    _raise(faults)
    return result


def number_of_workers(value: object) -> int:
    """One number, as ``workers=`` of :func:`ask` takes it; WorkloadError for a range or anything else."""
    found = _workers(value)
    if isinstance(found, int):
        return found
    raise WorkloadError(
        f"{value!r} is a range", hint="A cluster that runs is scaled to one number, such as 3."
    )


# What people bring from Dask, Coiled and Spark, by our name for it.
_SPELLINGS = {
    "workers": "n_workers num_workers worker_count nworkers executors num_executors instances",
    "memory": "worker_memory memory_limit mem executor_memory memory_per_worker",
    "cores": "nthreads threads_per_worker worker_cpu worker_cores cpus cpu executor_cores ncores",
    "gpu": "worker_gpu gpus n_gpus num_gpus",
    "idle": "idle_timeout idle_time",
    "no_client": "no_client_timeout client_timeout",
    "max_duration": "max_lifetime lifetime timeout max_runtime ttl walltime",
    "spot": "spot_policy preemptible",
    "packages": "pip requirements dependencies extra_packages",
    "name": "cluster_name",
    "tags": "labels tag",
}
_OURS = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings.split()}


def refuse_unknown(function: str, options: Iterable[str], *more: str) -> None:
    """UsageError for options that the public ``function`` does not have, with what was probably meant.

    It has those of :func:`ask`, and ``more``.
    """
    known = {*list(inspect.signature(ask).parameters)[1:], *more}
    unknown = [name for name in options if name not in known]
    if not unknown:
        return
    faults = {}
    for name in unknown:
        ours = _OURS.get(name.lower())
        said = f"did you mean {ours}=?" if ours in known else f"{did_you_mean(name, known)}."
        faults[name] = f"{said[:1].upper()}{said[1:]}"
    message = f"{function}() has no option {' and no option '.join(repr(name) for name in unknown)}"
    hint = "\n".join(f"{name}: {said}" if len(faults) > 1 else said for name, said in faults.items())
    raise UsageError(message, hint=hint, faults=faults)


def labels(tags: object) -> dict[str, str]:
    """``tags=`` as people write it: names with values, as text. WorkloadError for anything else."""
    if tags is None:
        return {}
    if not isinstance(tags, Mapping) or not all(
        isinstance(name, str) and isinstance(value, (str, int, float)) for name, value in tags.items()
    ):
        raise WorkloadError(
            f"tags: {tags!r} does not give names and values", hint="Write {'project': 'churn'}."
        )
    return {name: str(value) for name, value in tags.items()}


def check(workload: Workload) -> None:
    """Raise, with every fault, if the workload's values make no sense (see :func:`ask`)."""
    _raise(_faults(workload))


def _raise(faults: dict[str, ShoalError]) -> None:
    if not faults:
        return
    if len(faults) == 1:
        name, error = next(iter(faults.items()))
        raise type(error)(f"{name}: {error.message}", hint=error.hint, faults={name: str(error)})
    lines = "\n".join(
        f"  {name}: {error.message}" + (f"; {error.hint[:1].lower()}{error.hint[1:]}" if error.hint else "")
        for name, error in faults.items()
    )
    raise WorkloadError(
        f"invalid request ({count(len(faults), 'problem')}):\n{lines}",
        faults={name: str(error) for name, error in faults.items()},
    )


def _faults(asked: Workload) -> dict[str, ShoalError]:
    found: dict[str, ShoalError] = {}

    def fault(name: str, message: str, hint: str) -> None:
        found.setdefault(name, WorkloadError(message, hint=hint))

    for name, example in (("data", "25 GB"), ("memory", "14 GB")):
        value = getattr(asked, name)
        if value is not None and value <= 0:
            fault(name, f"{int(value)} B is not above 0", f"Write a size such as '{example}'.")
    if asked.memory is not None and 0 < asked.memory < LEAST_MEMORY:
        fault("memory", f"{asked.memory} per worker is too little", f"Request {LEAST_MEMORY} or more.")
    for name in ("max_duration", "idle", "no_client"):
        value = getattr(asked, name)
        if value is not None and not 0 < value < float("inf"):
            fault(name, f"{value} is not above 0", "Write a duration such as '20 min'.")
    if asked.cores is not None and asked.cores < 1:
        fault("cores", f"{asked.cores} is below 1", "Write a whole number of cores per worker.")
    if not -10 <= asked.priority <= 10:
        fault("priority", f"{asked.priority} is not from -10 to 10", "Higher goes first within your team.")
    if asked.gpu is not None and asked.gpu < 0:
        fault("gpu", f"{asked.gpu} is below 0", "Write how many GPUs each worker has; 0 for none.")
    if asked.spot is not None and not 0 <= asked.spot <= 1:
        fault("spot", f"{asked.spot} is not from 0 to 1", "Write a share such as '50%'.")
    bounds = asked.workers if isinstance(asked.workers, tuple) else (asked.workers,)
    if asked.workers is not None:
        if any(bound is not None and bound < 1 for bound in bounds):
            fault("workers", f"{_shown(asked.workers)} is below 1", "Write 1 or more.")
        elif isinstance(asked.workers, tuple) and asked.workers[0] > asked.workers[1]:
            low, high = asked.workers
            fault("workers", f"the minimum {low} is above the maximum {high}", f"Write '{high}-{low}'.")
    for package in asked.packages:
        if not _is_requirement(package):
            fault("packages", f"{package!r} is not a requirement", "Write each as 'xgboost>=2'.")
    return found


def _is_requirement(text: str) -> bool:
    # Here, since most requests name no packages and wait for what is imported.
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(text)
    except InvalidRequirement:
        return False
    return True


def _shown(workers: int | tuple[int, int]) -> str:
    return str(workers) if isinstance(workers, int) else f"{workers[0]}-{workers[1]}"


def _size(value: object) -> Bytes:
    # -1 and 0 are wrong with any unit, so that is what to say.
    if isinstance(value, (int, float)) and value <= 0 and not isinstance(value, Bytes):
        raise WorkloadError(f"{value} is not above 0", hint="Write a size such as '25 GB'.")
    return Bytes.parse(value)


def _duration(value: object) -> Seconds:
    return Seconds.parse(value)


def _engine(value: str) -> Engine:
    try:
        return Engine(value)
    except ValueError:
        known = [engine.value for engine in Engine]
        raise WorkloadError(
            f"there is no engine {value!r}", hint=sentence(did_you_mean(str(value), known))
        ) from None


def _whole(value: object) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise WorkloadError(f"{value!r} is not a whole number", hint="Write a number such as 4.")
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]  # whatever it is, int() says
    except (TypeError, ValueError):
        raise WorkloadError(f"{value!r} is not a whole number", hint="Write a number such as 4.") from None


def _workers(value: object) -> int | tuple[int, int]:
    parts: Sequence[object] = value.split("-") if isinstance(value, str) and value[:1] != "-" else [value]
    if isinstance(value, (list, tuple)):
        parts = value
    try:
        numbers = [_whole(part) for part in parts]
    except UsageError:
        numbers = []
    if len(numbers) == 1:
        return numbers[0]
    if len(numbers) == 2:
        return numbers[0], numbers[1]
    raise WorkloadError(f"{value!r} is not a number of workers", hint="Write 3, or '2-10' for from 2 to 10.")
