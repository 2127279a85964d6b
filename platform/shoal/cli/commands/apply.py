"""``shoal apply``: put a project's templates, policies, prices and images on a Kubernetes cluster.

Why it exists: what is in force there is what an administrator applied, and they see what it changes for whom.

What it must not do: decide what differs (the home does).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import options as o

if TYPE_CHECKING:
    from shoal.model.outlook import Outlook

EXAMPLES = """\b
Examples:
  shoal apply --target kubernetes --dry-run
  shoal apply --target kubernetes --yes
"""
_LOOKS = 10.0  # s that a governor gets to take it up
_TOLD = ("Project", "Namespace")  # each by its name, when they are new
_MARKS = {"added": "+", "changed": "~", "removed": "-"}


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("apply", epilog=EXAMPLES)(apply)


def apply(
    yes: o.Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Put templates, policies, prices, images and users' namespaces on a Kubernetes cluster; shows changes first."""
    from shoal.cli.console import confirm, err, out, write_json
    from shoal.homes.choose import applying
    from shoal.project.loading import load
    from shoal.words import count

    putting = applying(load(Path(project) if project else None, target))
    outlook = putting.outlook()
    as_json = output is o.Output.JSON
    if not as_json:
        for line in _told(outlook):
            out().print(line, markup=False, highlight=False, soft_wrap=True)
    done = False
    if outlook.changes and not dry_run:
        many = count(len(outlook.changes), "change")
        asked = f"Apply {many} to {outlook.server}?"
        done = confirm(asked, yes=yes, unattended=f"{many} would be applied")
        if done:
            putting.apply(outlook)
    if dry_run or (outlook.changes and not done):
        standing: dict[str, Any] = {}
    else:
        generation, in_force, fault = putting.in_force(_LOOKS if done else 0.0)
        standing = {"generation": generation, "in_force": in_force, "fault": fault}
    if as_json:
        write_json({"project": outlook.project, "applied": done, **_view(outlook), **standing})
    elif standing:
        err().print(_standing(outlook.project, **standing), markup=False, highlight=False, soft_wrap=True)
    if standing.get("fault"):
        raise typer.Exit(4)


def _told(outlook: Outlook) -> list[str]:
    lines, made = [], dict[str, Counter[str]]()
    for change in outlook.changes:
        if change.what == "added" and change.kind not in _TOLD:
            made.setdefault(change.namespace, Counter())[change.kind] += 1
            continue
        where = f" in {change.namespace}" if change.namespace else ""
        lines.append(f"{_MARKS[change.what]} {change.kind} {change.name}{where}")
        lines += [f"    {line}" for line in change.lines]
        if change.touches:
            lines.append(f"    running clusters whose limits these are: {', '.join(change.touches)}")
    for namespace, kinds in made.items():
        counted = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
        lines.append(f"+ in {namespace}: {counted}" if namespace else f"+ for the whole cluster: {counted}")
    lines += [f"! {wait}" for wait in outlook.waits]
    if not outlook.changes:
        lines.append(f"Nothing to change: project {outlook.project} is applied to {outlook.server}.")
    return lines


def _view(outlook: Outlook) -> dict[str, Any]:
    return {
        "changes": [
            {
                "what": change.what.value,
                "kind": change.kind,
                "namespace": change.namespace,
                "name": change.name,
                "lines": list(change.lines),
                "touches": list(change.touches),
            }
            for change in outlook.changes
        ],
        "waits": list(outlook.waits),
    }


def _standing(project: str, generation: int, in_force: int, fault: str) -> str:
    if fault:
        return f"Project {project}: {fault}"
    if in_force == generation:
        return f"Project {project} is in force (generation {generation})."
    return f"Project {project} is applied (generation {generation}); no governor has taken it up yet: `shoal doctor`."
