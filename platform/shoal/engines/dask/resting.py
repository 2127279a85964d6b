"""What a Dask cluster does while nothing is to do: less often than Dask does it.

Why it exists: each server of Dask (the scheduler, every nanny, every worker) looks 50 times a second how late its
loop is, and a worker 100 times which of its threads run a task, for its profile. So two idle workers and their head
took a twelfth of a core, on every laptop with a notebook that is open.

What it must not do: change what is seen of work: while tasks run, they are profiled as often as ever.
"""

from __future__ import annotations

from typing import Any

_TICK = "100ms"
_PAUSE = 100.0  # ms between two looks of a profile at a worker that is idle
_LOOKS = 100  # without a task, until a worker counts as idle: a second


def tick_slowly() -> None:
    """For servers that this process makes from now on, and for their workers, unless the user's settings say else."""
    import dask

    dask.config.update_defaults({"distributed": {"admin": {"tick": {"interval": _TICK}}}})


def of_worker(worker: Any) -> None:
    """Let its profile rest while it is idle."""
    profile = worker.periodic_callbacks.get("profile")
    if profile is None:  # the user's settings say so
        return
    look, usual, in_vain = profile.callback, profile.callback_time, 0

    def rested() -> None:
        nonlocal in_vain
        in_vain = 0 if worker.active_threads else in_vain + 1
        profile.callback_time = max(usual, _PAUSE) if in_vain > _LOOKS else usual
        look()

    profile.callback = rested
