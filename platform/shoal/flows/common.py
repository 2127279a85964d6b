"""What the flows of this room share: their names, stages, folder and start.

What it must not do: know what a flow does.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from shoal.client.finding import open_project
from shoal.errors import UsageError
from shoal.project.folders import defaults

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")


def check_name(name: object) -> None:
    """UsageError for what cannot be a flow's name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a flow's name",
            hint="Letters, digits, dashes and underscores, such as 'sales'.",
        )


def slug(name: str) -> str:
    """A name as part of an artifact's key."""
    return name.lower().replace("_", "-")


def stage(name: str, work: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Do the work as a task of Prefect, which is done each time."""
    return task(work, name=name, cache_policy=NO_CACHE)(*given, **options)


def open_folder(where: Mapping[str, Any]) -> Path:
    """The folder of the flow's project, whose catalog is in force from here; without a project, the working folder."""
    folder = open_project(where["project"], where["target"]).folder
    return Path.cwd() if folder == defaults() else folder


def start_of_run() -> dt.datetime:
    """When this run was to start: the same for each of its tries."""
    start: dt.datetime | None = flow_run.scheduled_start_time
    return start or dt.datetime.now(dt.UTC)
