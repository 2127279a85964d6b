"""Advice on size, from runs that were measured. Pure.

Why it exists: people ask for what they once guessed. Three clean runs say what would have been enough.

What it must not do: advise from a run that ran out of memory, spilled, restarted a worker, failed or was too
short to mean anything; raise a size; or change anything.

The rule: the largest peak of a worker over all clean runs, times :data:`HEADROOM`, up to the next step of
:data:`STEPS`. Peaks are the kernel's high-water marks, so nothing between two samples is missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from shoal.planning.asking import LEAST_MEMORY
from shoal.units import Bytes, Money, Seconds
from shoal.words import count

LEAST_RUNS = 3
HEADROOM = 2.0  # times the largest peak: data grows, and Dask spills from 60 % of a worker's limit on
IDLE = Bytes(300_000_000)  # below it a worker held next to nothing: Python with pandas takes about as much
SHORTEST = Seconds(5.0)  # s of Ready time below which a peak says nothing about the work
STEPS = tuple(Bytes(n * 10**9) for n in (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64, 96, 128))


@dataclass(frozen=True)
class PastRun:
    """One ended run of a template. Memory per worker in bytes.

    ``asked``: what a worker was asked for; ``limit``: what it could really use where it ran.
    """

    name: str
    failed: bool
    ready: Seconds
    asked: Bytes
    limit: Bytes
    peak: Bytes
    spilled: Bytes
    restarts: int
    price: Money | None = None
    exit_code: int | None = None  # of the script that ran on it, where one did
    data: Bytes | None = None  # size of its input, where it was told

    @property
    def fault(self) -> str | None:
        """Why nothing may be learned from it, or None."""
        if self.failed:
            return "it failed"
        if self.exit_code:
            return f"its script failed (exit code {self.exit_code})"
        if self.restarts:
            return f"{count(self.restarts, 'worker')} ran out of memory or died"
        if self.spilled:
            return f"{self.spilled} spilled to disk"
        if not self.peak:
            return "no peak was measured"
        if self.ready < SHORTEST:
            return f"it was Ready for only {self.ready}"
        return None


@dataclass(frozen=True)
class Advice:
    """What the runs of a template say.

    ``memory``: what would have been enough per worker, None when there is nothing to advise; ``why`` says why
    in either case. ``runs``: how many it rests on; ``left_out``: which runs it does not rest on, and why.
    """

    template: str
    memory: Bytes | None
    now: Bytes | None
    peak: Bytes | None
    runs: int
    why: str
    left_out: tuple[str, ...] = ()
    price: Money | None = None


def advise(template: str, runs: Sequence[PastRun], now: Bytes | None = None) -> Advice:
    """What ``runs`` of ``template`` say about its memory per worker, which is ``now`` in its file.

    An estimate: another input may need more.
    """
    clean = [run for run in runs if run.fault is None]
    left_out = tuple(f"{run.name}: {run.fault}" for run in runs if run.fault is not None)
    now = now or (clean[-1].asked if clean else None)
    if len(clean) < LEAST_RUNS:
        why = f"{count(len(clean), 'clean run')} of {template}; advice needs {LEAST_RUNS}"
        return Advice(template, None, now, None, len(clean), why, left_out)
    peak = max(run.peak for run in clean)
    if peak < IDLE:
        why = (
            f"peak worker memory over {len(clean)} clean runs was next to nothing ({peak}, about what an idle worker "
            f"takes): too little to size real input from"
        )
        return Advice(template, None, now, peak, len(clean), why, left_out)
    wanted = max(LEAST_MEMORY, Bytes(peak * HEADROOM))
    enough = next((step for step in STEPS if step >= wanted), None)
    basis = f"peak worker memory over {len(clean)} clean runs{_input(clean)} was {peak}"
    if enough is None or now is None or enough >= now:
        why = f"{basis}; {now} is not more than {HEADROOM:g} times that needs, so there is nothing to save"
        return Advice(template, None, now, peak, len(clean), why, left_out)
    why = f"{basis}: {enough} would have held it with {enough / peak:.1f}x headroom instead of {now}"
    return Advice(template, enough, now, peak, len(clean), why, left_out, _price(clean, enough, now))


def _input(runs: Sequence[PastRun]) -> str:
    """What the advice is bound to: the largest input that was seen, where all of them told theirs."""
    sizes = [run.data for run in runs if run.data is not None]
    return f", with at most {max(sizes)} of input," if len(sizes) == len(runs) else " (input size unknown)"


def _price(runs: Sequence[PastRun], enough: Bytes, now: Bytes) -> Money | None:
    """The mean price of the runs, in proportion to memory; None where prices are not known."""
    known = [run.price for run in runs if run.price is not None]
    if len(known) < len(runs):
        return None
    mean = sum((price.amount for price in known), Decimal(0)) / len(known)
    return Money(mean * int(enough) / int(now), known[0].currency)
