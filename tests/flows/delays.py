"""An ml_training flow whose workers wait while the file ``hold`` is there. Run by tests, never imported.

python delays.py PROJECT     runs it twice, again, and once more; a line of JSON for each run
"""

import json
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
from sklearn.linear_model import LogisticRegression

from shoal.flows import ml_training

folder = sys.argv[1]
held, reached = Path(folder, "hold"), Path(folder, "reached")


def features(part: pd.DataFrame, *, end: int) -> pd.DataFrame:
    if len(part) and held.exists():
        from distributed import get_worker

        try:
            get_worker()
        except ValueError:
            return part  # the flow's own process, which looks at some rows first
        reached.touch()
        while held.exists():
            time.sleep(0.05)
    return part.assign(hour=part["at"].str[:end].astype("int64[pyarrow]")).drop(columns="at")


delays = ml_training(
    "delays",
    table="nyc.departures",
    target="late",
    task="classification",
    features=partial(features, end=2),
    model=LogisticRegression(max_iter=200),
    search={"C": [0.1, 1.0]},
    metric="f1",
    tracking="sqlite:///models/mlflow.db",
    template="small",
    cluster={"workers": 1, "quiet": True},
)
for again in (False, False, True, False):
    print(json.dumps(delays(project=folder, again=again)), flush=True)
