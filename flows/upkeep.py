"""Every night: what `tables:` in shoal.yaml says of each table.

Why it exists: tables grow slow and large by being used, and nobody thinks of it every day.

    python flows/upkeep.py
    prefect deploy --all && prefect deployment run 'tables-upkeep/upkeep'

What it must not do: anything that `tables:` does not name; with nothing there, it does nothing.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from prefect import flow, get_run_logger

import shoal
from shoal.client.clusters import open_project
from shoal.client.table_upkeep import upkeep_tables
from shoal.prefect import dask_cluster


@flow(name="tables-upkeep", log_prints=True)
def tables_upkeep(
    template: str | None = None, dry_run: bool = False, project: str | None = None, target: str | None = None
) -> dict[str, int]:
    """All tables, one after the other: on a Dask cluster of `template`, or in this process without one.

    Fails at the end if anything did, with what it was.
    """
    opened = open_project(project, target)
    cluster: Any = nullcontext()
    if template is not None and opened.tables:
        cluster = dask_cluster(template, project=project, target=target)
    done, failed = 0, []
    with cluster:
        for step in upkeep_tables(opened, dry_run=dry_run):
            said = f"{step.table}: {step.step}: {step.done}"
            get_run_logger().info(said)
            done += not step.failed
            failed += [said] if step.failed else []
    if failed:
        raise shoal.ShoalError(
            f"{len(failed)} of {done + len(failed)} steps failed:\n" + "\n".join(failed),
            hint="The others are done. A ConflictError means that others wrote meanwhile: the next run tries again.",
        )
    return {"steps": done}


if __name__ == "__main__":
    tables_upkeep()
