"""What limits are about: one name each, from a policy's line to the sentence that refuses.

Why it exists: amounts, limits and shortages of the same thing meet by it; a misspelt one is found by the type checker.
"""

from __future__ import annotations

from enum import StrEnum


class Resource(StrEnum):
    """What clusters hold (the first five, limited in total; workers), and what else is limited per cluster, and what
    in a month."""

    CLUSTERS = "clusters"
    CORES = "cores"
    MEMORY = "memory"
    GPUS = "gpus"
    SCRATCH = "scratch"
    WORKERS = "workers"
    HEAD = "head"
    DURATION = "duration"
    PRIORITY = "priority"
    BUDGET = "budget"
