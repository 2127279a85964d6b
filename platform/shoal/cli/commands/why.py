"""``shoal why``: why a cluster is where it is.

Why it exists: the answer is there before somebody asks in a channel.

What it must not do: find the reason itself (``shoal.display.explain`` does).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from shoal.cli import options as o

if TYPE_CHECKING:
    from shoal.homes.base import Home
    from shoal.model.cluster import Cluster

EXAMPLES = """\b
Examples:
  shoal why nightly
  shoal why nightly -o json | jq '.steps[] | select(.outcome == "failed")'
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("why", epilog=EXAMPLES)(why)


def why(
    name: o.ClusterName,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Walk policy, quota, capacity, image, start-up and health: where a cluster stands, and why."""
    from shoal.cli import views
    from shoal.cli.console import out, write_json
    from shoal.client.finding import find, open_project
    from shoal.display.explain import explain
    from shoal.errors import ShoalError
    from shoal.homes.base import dashboard_of
    from shoal.homes.choose import open_home
    from shoal.model.cluster import State

    opened = open_project(project, target, looking=True)
    home = open_home(opened)
    cluster = find(home, name, ended=True)
    history = home.history(cluster.id)
    status = home.status(cluster.id) if cluster.state is State.READY else None
    try:
        limits = opened.policy.limits_of(cluster.owner)
    except ShoalError:  # a user who is no longer in the policy still has a history
        limits = None
    hung = home.unresponsive(cluster)
    try:
        held = home.held(cluster.owner)
    except ShoalError:  # of another one's account nothing may be seen
        held = None
    budgets = _budgets(home, cluster)
    steps = explain(cluster, history, status, limits, held, hung, in_pods=opened.target.in_pods)
    if output is o.Output.JSON:
        view = views.cluster_view(cluster, status, dashboard_of(home, cluster, lasting=True))
        write_json(
            view
            | {
                "steps": [vars(step) | {"mend": step.fix} for step in steps],
                "history": views.history_view(history),
                "budgets": budgets,
            }
        )
        return
    from shoal.cli import layout as tables
    from shoal.display.forecast import starts

    out().print(tables.steps(cluster, steps))
    if link := dashboard_of(home, cluster, lasting=True):
        out().print(f"Dashboard: {link}", markup=False, soft_wrap=True)
    for each in budgets:
        out().print(f"Budget: {each}", markup=False, highlight=False, soft_wrap=True)
    if ahead := starts(cluster, time.time()):
        out().print(
            f"It {ahead}, assuming that running clusters use their whole lifetimes and nobody is put ahead of it.",
            markup=False,
        )


def _budgets(home: Home, cluster: Cluster) -> list[str]:
    """Of a cluster that has not ended: what of its budgets is nearly spent, or is."""
    from shoal.errors import ShoalError
    from shoal.homes.base import KeepsBudgets
    from shoal.quota import budgets

    if cluster.state.ended or not isinstance(home, KeepsBudgets):
        return []
    try:
        return budgets.warnings(home.budgets(cluster.owner), cluster.plan)
    except ShoalError:  # half a policy, or of somebody whom it does not know any more
        return []
