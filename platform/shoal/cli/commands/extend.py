"""``shoal extend``: extend a cluster's lifetime, within the policy.

Why it exists: a run that takes longer than planned should not have to start again.

What it must not do: decide whether it may (the home does).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from shoal.cli import options as o

if TYPE_CHECKING:
    from shoal.units import Seconds

EXAMPLES = """\b
Examples:
  shoal extend nightly 6h             # in total, counted from admission
  shoal extend nightly +1h            # an hour more than now
"""


class _Extend(TyperCommand):
    """Takes ``-1h`` for what it was meant as, not for an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(re.match(r"-[\d.]", each) for each in args):
            from shoal.errors import UsageError

            raise UsageError(
                f"shoal extend {' '.join(args)}: a lifetime cannot be negative",
                hint="Write the total lifetime, such as 6h, or +1h for an hour more. `shoal down NAME` ends it now.",
            )
        return super().parse_args(ctx, args)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("extend", cls=_Extend, epilog=EXAMPLES)(extend)


def extend(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Your cluster.", autocompletion=o.complete_clusters)
    ],
    longest: Annotated[
        str,
        typer.Argument(
            metavar="DURATION", help="The total lifetime, counted from admission; +1h adds an hour."
        ),
    ],
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Extend a cluster's lifetime, up to your tier's limit: to DURATION in total, counted from admission."""
    from shoal.cli import views
    from shoal.cli.console import out, write_json
    from shoal.client.finding import find, open_project
    from shoal.homes.choose import open_home

    home = open_home(open_project(project, target))
    found = find(home, name)
    cluster = home.extend(found.id, found.plan.timeouts.longest(longest))
    if output is o.Output.JSON:
        write_json(views.cluster_view(cluster, home.status(cluster.id)))
        return
    before, times = found.plan.timeouts.max, cluster.plan.timeouts
    alone = "" if times.no_client >= times.max else f" or {times.no_client} without a client"
    now = f"the maximum lifetime is now {times.max}{_compared(before, times.max)}"
    out().print(
        f"{cluster.name}: {now}; it still ends after {times.idle} idle{alone}",
        markup=False,
        soft_wrap=True,
    )


def _compared(before: Seconds, now: Seconds) -> str:
    """A duration is the whole lifetime: who means to add to it is told that it got shorter."""
    if now < before:
        return f", shorter than the {before} before (+{now} adds to it)"
    return f" (was {before})" if now > before else ""
