"""The queue: is it fair, does anybody starve, what does a decision cost? Against a first-come queue."""

from __future__ import annotations

import itertools

from harness import Bench, Result, versions_of
from simulation import LONGEST, first_fit, simulate
from simulation import Result as Run


def worst_part(run: Run) -> float:
    """The largest deviation of a backlogged team's part from its weight, in %."""
    return max(abs(value) for value in run.deviations) * 100


def main() -> None:
    bench = Bench(
        "queue",
        "The queue",
        "1,000 simulated hours of 200 users in 12 teams that ask 10,000 times for 1 to 5 workers for at most "
        "2 to 8 hours, at a place of 80 workers; four teams always ask for more than they get. Every window of "
        "100 hours, from each tenth hour on. The peer admits whoever fits, oldest first.",
        versions=versions_of("shoal"),
    )
    ours, peer = simulate(), simulate(first_fit)
    print(f"{ours.requests} requests in {ours.hours:.0f} h, {ours.used:.0%} of the place in use")
    for name, unit, value, at_most in (
        ("a backlogged team's part against its weight, worst of any 100 h", "%", worst_part, 5.0),
        ("longest wait / maximum lifetime", "x", lambda run: max(run.waits) / LONGEST, 3.0),
    ):
        values = {"shoal": [value(ours)], "first come": [value(peer)]}
        target = f"at most {at_most:g} {unit}"
        met = values["shoal"][0] <= at_most
        bench._add(Result(name, unit, values, "shoal", "first come", target, met))
    spent = {"shoal": ours, "first come": peer}
    cost = {who: [run.cpu_seconds / run.decisions * 1e6] for who, run in spent.items()}
    bench._add(Result("CPU time per decision", "us", cost, "shoal", "first come", "", None))
    print(bench.save(), *itertools.islice(bench.skipped, 1))


if __name__ == "__main__":
    main()
