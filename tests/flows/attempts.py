"""A flow whose attempts are separate processes, as after a crash. Run by tests, never imported.

    python attempts.py FLOW_RUN_ID|new PROJECT WORKERS hold|finish|retry [OPTION=VALUE ...]

Writes one line of JSON when it has its cluster. ``hold`` waits to be killed; ``retry`` fails the first time.
"""

import json
import sys
import time

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.states import Pending

import shoal
from shoal.prefect import dask_cluster, publish_report, run_report
from shoal.prefect.publish import publish

_, flow_run_id, folder, workers, what, *more = sys.argv
options = dict(pair.split("=", 1) for pair in more)


@flow(name="attempts", retries=1 if what == "retry" else 0)
def attempts() -> None:
    with dask_cluster("small", workers=int(workers), project=folder, quiet=True, **options) as cluster:
        number = cluster.client.submit(lambda: 42).result(30)
        try:
            with dask_cluster("small", project=folder, quiet=True):
                twice = "a second one opened"
        except shoal.ShoalError as error:
            twice = str(error)
        said = {
            "cluster": cluster.id,
            "name": cluster.name,
            "tags": cluster.record.tags,
            "head": cluster.record.head["pid"],
        }
        print(json.dumps({"flow_run": str(run.id), "number": number, "twice": twice, **said}), flush=True)
        if what == "retry" and cluster.record.tags["prefect.attempt"] == "1":
            raise RuntimeError("the first attempt fails")
        if what == "hold":
            time.sleep(600)
    publish_report("attempts", project=folder)
    publish("no key for Prefect", "lost", "")  # fails, and the run goes on
    print(json.dumps({"phases": len(run_report(project=folder).phases)}), flush=True)


with get_client(sync_client=True) as client:
    if flow_run_id == "new":
        run = client.create_flow_run(attempts)
    else:
        client.set_flow_run_state(flow_run_id, Pending(), force=True)
        run = client.read_flow_run(flow_run_id)
run_flow(attempts, flow_run=run)
