"""Requests drawn at random, and what a plan says of them: what the API server is to refuse by itself is the same."""

from __future__ import annotations

import random

from shoal.errors import NeverFitsError
from shoal.model.workload import Workload
from shoal.planning.sizing import plan
from shoal.project.policy import Limits
from shoal.project.targets import Target
from shoal.project.templates import EngineSettings, Template
from shoal.units import Bytes, Seconds

GB = 10**9
TEMPLATE = Template.model_validate(
    {
        "name": "etl",
        "where": "clusters/etl.yaml",
        "engines": {"dask": EngineSettings(image="shoal-dask")},
        "workers": {"min": 1, "max": 1, "cores": 1, "memory": Bytes(GB)},
        "head": {"cores": 1, "memory": Bytes(GB)},
        "timeouts": {"idle": Seconds(60), "no_client": Seconds(60), "max": Seconds(60)},
    }
)


def drawn(dice: random.Random) -> Workload:
    """Some are within usual limits, as many are not."""
    least = dice.randint(1, 4)
    return Workload(
        "etl",
        workers=dice.choice((None, least, dice.randint(1, 10), (least, least + dice.randint(0, 20)))),
        memory=dice.choice((Bytes(GB), Bytes(GB), Bytes(1_500_000_000), Bytes(5 * GB))),
        cores=dice.choice((1, 2, 5)),
        gpu=dice.choice((None, 0, 0, 1)),
        max_duration=dice.choice((None, Seconds(600), Seconds(5400), Seconds(7261))),
        priority=dice.choice((0, 0, 0, 3)),
    )


def planned(workload: Workload, its: Limits) -> NeverFitsError | None:
    try:
        plan(workload, TEMPLATE, its, Target(name="place", home="kubernetes", images={"shoal-dask": "x"}))
    except NeverFitsError as error:
        return error
    return None
