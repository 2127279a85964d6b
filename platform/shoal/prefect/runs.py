"""Which flow run this is, and what its clusters are called. The names are pure.

Why it exists: after a crash nothing is left of the attempt but its flow run's id, so a retry can find what
the crash left only when names follow from that id.

What it must not do: start or look up clusters.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from shoal.errors import UsageError

FLOW_RUN = "prefect.flow-run-id"
"""The tag that every cluster of a flow run carries."""

# 10 hex digits, 2^40 names, of which only those of one owner's live clusters must differ.
_DIGITS = 10
# With the dash and the digits at most 40 characters: Kubernetes' names leave 53 to 63.
_LONGEST_ROLE = 29


@dataclass(frozen=True)
class Run:
    """The flow run, and inside a task the task, that this code runs in."""

    flow_run_id: str
    flow_name: str = ""
    flow_run_name: str = ""
    task_key: str = ""
    attempt: int = 1

    @property
    def tags(self) -> dict[str, str]:
        """What its clusters are tagged with."""
        tags = {
            FLOW_RUN: self.flow_run_id,
            "prefect.flow": self.flow_name,
            "prefect.flow-run": self.flow_run_name,
            "prefect.task": self.task_key,
            "prefect.attempt": str(self.attempt),
        }
        return {key: value for key, value in tags.items() if value}


def current() -> Run | None:
    """The run this code is in; None outside of Prefect's flows and tasks."""
    from prefect.context import FlowRunContext, TaskRunContext

    flow, task = FlowRunContext.get(), TaskRunContext.get()
    task_key = task.task.task_key if task is not None else ""
    if flow is not None and flow.flow_run is not None:
        return Run(
            str(flow.flow_run.id),
            flow.flow.name if flow.flow is not None else "",
            flow.flow_run.name or "",
            task_key,
            flow.flow_run.run_count or 1,
        )
    if task is not None and task.task_run.flow_run_id is not None:  # a task runner in another process
        return Run(str(task.task_run.flow_run_id), task_key=task_key, attempt=task.task_run.run_count or 1)
    return None


def cluster_name(flow_run_id: str, role: str, task_key: str = "") -> str:
    """``etl-5f0c31aa97``: always the same for a role of a flow run (and task), another for every other.

    The id is hashed, not cut: Prefect's ids begin with the time, so runs of the same minute share their
    first digits. UsageError for a role that is not a lower-case name.
    """
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", role) or len(role) > _LONGEST_ROLE:
        raise UsageError(
            f"role={role!r} cannot be part of a cluster's name",
            hint=f"Lower-case letters, digits and dashes, at most {_LONGEST_ROLE}, such as 'read-back'.",
            role=role,
        )
    digest = hashlib.sha256("/".join((flow_run_id, task_key, role)).encode()).hexdigest()
    return f"{role}-{digest[:_DIGITS]}"
