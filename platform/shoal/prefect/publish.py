"""What a flow run's clusters took, as one report, and as an artifact in Prefect.

Why it exists: the report belongs where people look at the run, and it has to count the clusters of crashed
attempts too, so it is made from the records of the home and not from what this process remembers.

What it must not do: fail a run whose work is done because Prefect's API could not be reached.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from shoal.client.finding import open_project
from shoal.display.report import report_of
from shoal.display.run_report import RunCluster, RunReport
from shoal.errors import UsageError
from shoal.homes.choose import open_home
from shoal.prefect.runs import FLOW_RUN, Run, current


def run_report(
    flow_run_id: str | None = None, *, project: str | Path | None = None, target: str | None = None
) -> RunReport:
    """What all clusters of a flow run took (default: the run this code is in), retried attempts included.

    UsageError outside of a flow, when no id is given.
    """
    run = current() if flow_run_id is None else Run(flow_run_id)
    if run is None:
        raise UsageError(
            "there is no flow run here", hint="Call it inside a flow, or give run_report() a flow run's id."
        )
    opened = open_project(project, target)
    home = open_home(opened)
    owner = home.user()
    limits = opened.policy.limits_of(owner)
    phases = [
        RunCluster.of(cluster, report_of(cluster, home.history(cluster.id), time.time()), limits)
        for cluster in reversed(home.clusters(owner=owner, ended=True))
        if cluster.tags.get(FLOW_RUN) == run.flow_run_id and cluster.admitted_at is not None
    ]
    return RunReport(f"Clusters of {run.flow_run_name or run.flow_run_id}", phases)


def publish_report(
    key: str = "shoal-run", *, project: str | Path | None = None, target: str | None = None
) -> RunReport:
    """:func:`run_report` of this run, also as a markdown artifact under ``key`` (a-z, 0-9 and dashes)."""
    if not re.fullmatch(r"[a-z0-9-]+", key):
        raise UsageError(f"key={key!r} is not an artifact key", hint="Lower-case letters, digits and dashes.")
    report = run_report(project=project, target=target)
    publish(key, report.markdown(), "What the clusters of this run took")
    return report


def publish(key: str, markdown: str, description: str) -> None:
    """Make the artifact; what goes wrong with it is logged, for the work it tells of is done."""
    from prefect.artifacts import create_markdown_artifact
    from prefect.logging import get_run_logger

    try:
        create_markdown_artifact(markdown, key=key, description=description, _sync=True)
    except Exception as error:  # the API may fail in any way, and none of them undoes the run
        get_run_logger().warning(
            "the report could not be published as artifact %s: %s\n%s", key, error, markdown
        )
