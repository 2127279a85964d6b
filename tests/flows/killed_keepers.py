"""Processes that are killed while they keep a model, one for each call to MLflow. Run by tests, never imported.

python killed_keepers.py URI KEY     a line of JSON: how they ended, and the runs that two have that were not killed
"""

import json
import os
import signal
import sys

import mlflow.pyfunc  # once, for all of them, as the next three
import mlflow.sklearn
import mlflow.store.tracking.sqlalchemy_store
import mlflow.xgboost  # noqa: F401
import numpy as np
import pandas as pd
from mlflow.tracking import MlflowClient
from sklearn.linear_model import LinearRegression

from shoal.flows.tracking import SNAPSHOT, TABLE, Tracker
from shoal.flows.training import Trained

CALLS = ("create_run", "log_batch", "log_inputs", "log_artifacts", "set_terminated")
_, uri, key = sys.argv
rows = pd.DataFrame({"a": np.arange(5.0)})
trained = Trained(
    LinearRegression().fit(rows, rows.a), {"deep": 1}, {"rmse": 0.0}, (({"deep": 1}, 0.5),), rows
)


def keep() -> str:
    tracker = Tracker(uri, "delays")
    tracker.open()
    return tracker.keep(key, "delays", trained, "rmse", {TABLE: "nyc.flights", SNAPSHOT: 5}).run_id


def killed_after(call: str) -> int:
    child = os.fork()
    if child == 0:
        whole = getattr(MlflowClient, call)

        def last(*given: object, **named: object) -> None:
            whole(*given, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(MlflowClient, call, last)
        keep()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# After the last call all is there: whoever comes next finds it.
codes = [killed_after(call) for call in CALLS[:-1]]
first = keep()
print(json.dumps({"codes": codes, "first": first, "run_id": keep()}), flush=True)
