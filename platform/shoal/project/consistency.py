"""What policy files have to agree on with each other, and with the templates.

Why it exists: apart from reading them, so that both stay short. What it must not do: read files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from shoal.project.policy import TOTALS, Policy
from shoal.project.yamlfile import Document, Fault
from shoal.words import did_you_mean


def known_templates(policy: Policy, templates: Collection[str], faults: list[Fault]) -> None:
    """A budget of a template that nobody can ask for limits nothing. One with a fault may be the one that is meant."""
    if any(fault.file.startswith("clusters/") for fault in faults):
        return
    for name in policy.templates:
        if name not in templates:
            file, _, line = policy.where[f"templates.{name}"].rpartition(":")
            wrong = f"there is no template {name!r} in clusters/"
            faults.append(Fault(file, int(line), name, wrong, did_you_mean(name, templates)))


def known_names(
    documents: Mapping[str, Document], parts: Mapping[str, dict[str, Any]], faults: list[Fault]
) -> None:
    """Users name tiers and teams that exist; everybody else is nobody in particular."""
    if (everybody := parts["users"].get("default")) and everybody.subjects:
        wrong = "everybody who is not named cannot be somebody"
        faults.append(documents["users"].fault(("default", "subjects"), wrong, "name a user for them"))
    for name, user in parts["users"].items():
        for key in ("tier", "team") if user else ():
            wanted, known = getattr(user, key), parts[f"{key}s"]
            if wanted is not None and wanted not in known:
                wrong = f"there is no {key} {wanted!r} in policies/{key}s.yaml"
                faults.append(documents["users"].fault((name, key), wrong, did_you_mean(wanted, known)))


def held_together(
    documents: Mapping[str, Document],
    parts: Mapping[str, dict[str, Any]],
    faults: list[Fault],
) -> None:
    """Limits that cannot hold together."""
    for name, user in parts["users"].items():
        team = user and user.team and parts["teams"].get(user.team)
        for key in TOTALS.values() if team else ():
            mine, theirs = getattr(user, key), getattr(team, key)
            if mine is not None and theirs is not None and mine > theirs:
                place = documents["teams"].where(user.team, key)
                wrong = f"{mine} is more than all of team {user.team!r} may have ({theirs}, {place})"
                faults.append(documents["users"].fault((name, key), wrong, "lower it, or raise the team's"))
