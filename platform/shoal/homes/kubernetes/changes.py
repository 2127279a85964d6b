"""What applying a project would change on a server: added, changed, removed, and whose running clusters it touches.

Why it exists: an administrator sees it before anything is sent, and a second time there is nothing to see.

What it must not do: speak to a server.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from shoal.errors import ConfigError, UsageError
from shoal.homes.kubernetes.applied import Applied, applied_of
from shoal.homes.kubernetes.manifests import RIGHTS
from shoal.homes.kubernetes.names import (
    ADMISSION,
    ADMISSION_BINDING,
    ADMITTED,
    BINDING,
    CLUSTER_BINDING,
    CLUSTER_ROLE,
    DEFINITION,
    DEPLOYMENT,
    MANAGED,
    NAMESPACE,
    NETWORK,
    OF_PROJECT,
    PROJECT,
    QUOTA,
    RELEASE,
    ROLE_OF,
    SECRET,
    SERVICE_ACCOUNT,
    VERSION,
    Json,
    Kind,
    Object,
)
from shoal.homes.kubernetes.quantities import amount
from shoal.model.outlook import Change, What
from shoal.project.policy import Limits
from shoal.units import Bytes, Seconds
from shoal.words import listed

MANAGER = "shoal"  # the one field manager of what is applied
# In this order they are applied: what limits first, rights and who goes by them last. Removed in reverse.
ORDER = (
    DEFINITION,
    NAMESPACE,
    SERVICE_ACCOUNT,
    SECRET,
    QUOTA,
    NETWORK,
    ADMISSION,
    ADMISSION_BINDING,
    PROJECT,
    CLUSTER_ROLE,
    ROLE_OF,
    CLUSTER_BINDING,
    BINDING,
    DEPLOYMENT,
)
KINDS = {kind.name: kind for kind in ORDER}
# What would exempt requests from an admission policy, by kind. We write none of it.
_EXEMPT: dict[str, Object] = {
    ADMISSION.name: {"matchConditions": None, "matchConstraints": {"excludeResourceRules": None}},
    ADMISSION_BINDING.name: {"matchResources": {"excludeResourceRules": None, "resourceRules": None}},
}
_QUANTITIES = {"hard", "limits", "requests", "sizeLimit"}  # the API server spells them in its own way
ObjectKey = tuple[str, str, str]  # kind, namespace, name
# What of a project is one, by the last or last but one word of its path.
_SIZES = ("memory", "scratch", "head", "throughputPerCore")
_DURATIONS = ("timeouts", "maxDuration", "fallback", "target")
_UNITS = ("B", "kB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB")


@dataclass(frozen=True)
class Running:
    """A live cluster, as far as a change may touch it."""

    namespace: str
    name: str
    owner: str


def path_of(change: Change) -> str:
    """Where the API server has the object that changes."""
    return KINDS[change.kind].path(change.namespace or None, change.name)


def key_of(each: Json) -> ObjectKey:
    """By what an object is found again."""
    metadata = each["metadata"]
    return each["kind"], metadata.get("namespace", ""), metadata["name"]


def changes(
    wanted: Iterable[Object],
    live: Mapping[ObjectKey, Json],
    ours: Collection[ObjectKey],
    running: Collection[Running],
) -> tuple[list[Change], list[str]]:
    """What has to be done, in its order; and what has to wait, as sentences.

    ``live``: what of it is there, and what is there of this project beside it (``ours``: its keys).
    """
    needed = {key_of(each): each for each in wanted}
    found = []
    for key, each in needed.items():
        before = live.get(key)
        if before is None:
            found.append(Change(What.ADDED, *key, object=each))
        elif lines := _without_places(differences(before, each)):
            touches = _touched(before, each, running) if key[0] == PROJECT.name else ()
            found.append(Change(What.CHANGED, *key, lines, touches, each))
    removed, waits = _removed(needed, [key for key in ours if key not in needed], running)
    place = {kind.name: number for number, kind in enumerate(ORDER)}
    found.sort(key=lambda change: place[change.kind])
    removed.sort(key=lambda change: -place[change.kind])
    return [*found, *removed], waits


def _without_places(lines: Iterable[str]) -> tuple[str, ...]:
    """Which line of a file says something is news only where nothing else is."""
    every = tuple(lines)
    told = tuple(line for line in every if not line.startswith("spec.policies.lines."))
    return told or (("spec.policies.lines: other lines of the files",) if every else ())


def _removed(
    needed: Collection[ObjectKey], keys: Collection[ObjectKey], running: Collection[Running]
) -> tuple[list[Change], list[str]]:
    """A namespace goes with all that is in it; while clusters run there, only its user's rights go."""
    kept = {namespace for _, namespace, _ in needed}
    gone = {name for kind, _, name in keys if kind == NAMESPACE.name}
    at_work: dict[str, list[str]] = {}
    for each in running:
        if each.namespace not in kept:
            at_work.setdefault(each.namespace, []).append(f"{each.owner}/{each.name}")
    found, waits = [], dict[str, None]()
    for kind, namespace, name in keys:
        if name == ADMITTED and namespace in kept:
            continue  # the governor's
        place = name if kind == NAMESPACE.name else namespace
        busy = at_work.get(place, [])
        if busy and name != RIGHTS:
            waits[f"namespace {place} stays until {listed(busy)} ended: apply again then"] = None
        elif busy or kind == NAMESPACE.name or namespace not in gone:  # else it goes with its namespace
            found.append(Change(What.REMOVED, kind, namespace, name, touches=tuple(busy)))
    return found, list(waits)


def _touched(before: Json, after: Json, running: Iterable[Running]) -> tuple[str, ...]:
    """Running clusters of users whose limits change. What a template, a price or an image says counts at a start."""
    try:
        old, new = applied_of(before["spec"]), applied_of(after["spec"])
    except ConfigError:
        return ()
    return tuple(
        f"{each.owner}/{each.name}"
        for each in running
        if _limits(old, each.owner) != _limits(new, each.owner)
    )


def _limits(applied: Applied, user: str) -> object:
    if applied.policies is None:
        return None
    try:
        limits: Limits = applied.policies.policy.limits_of(user)
    except UsageError:
        return None
    parts = limits.totals, limits.per_cluster, limits.team_totals
    return limits.team, [{what: limit.value for what, limit in part.items()} for part in parts]


def differences(before: Any, after: Json) -> Iterator[str]:
    """Where what is wanted is not what is there; what others have added to it counts only in a project's ``spec``."""
    whole = ("spec",) if after["kind"] == PROJECT.name else ()
    for part in (name for name in after if name not in ("apiVersion", "kind", "metadata")):
        yield from _differ(before.get(part), after[part], (part,), part in whole)
    metadata = after["metadata"]
    for part in ("labels", "annotations"):
        yield from _differ(
            before["metadata"].get(part, {}), metadata.get(part, {}), ("metadata", part), False
        )
    yield from _exempts(before.get("spec", {}), _EXEMPT.get(after["kind"], {}), ("spec",))
    managed = [
        each.get("fieldsV1", {})
        for each in before["metadata"].get("managedFields", ())
        if each.get("manager") == MANAGER and "subresource" not in each
    ]
    for fields in managed:
        yield from _no_longer(fields, after, ())


def _differ(before: Any, after: Any, path: tuple[str, ...], whole: bool) -> Iterator[str]:
    if isinstance(after, Mapping) and isinstance(before, Mapping):
        for name, its in after.items():
            yield from _differ(before.get(name), its, (*path, name), whole)
        for name in before if whole else ():
            if name not in after:
                yield f"{'.'.join((*path, name))}: removed"
    elif isinstance(after, list) and isinstance(before, list) and _plain([*before, *after]):
        if before == after:
            return
        news = [f"+{each}" for each in after if each not in before]
        news += [f"-{each}" for each in before if each not in after]
        yield f"{'.'.join(path)}: {', '.join(news) or 'in another order'}"
    elif isinstance(after, list) and isinstance(before, list) and len(after) == len(before):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differ(one, other, (*path, str(number)), whole)
    elif before != after and not (_QUANTITIES & {*path} and amount(before) == amount(after)):
        where = ".".join(path)
        if before is None:
            yield f"{where}: {_shown(path, after)}" if _plain([after]) else f"{where}: added"
        else:
            yield f"{where}: {_shown(path, before)} -> {_shown(path, after)}"


def _plain(values: Iterable[Any]) -> bool:
    return not any(isinstance(each, (Mapping, list)) for each in values)


def _shown(path: tuple[str, ...], value: Any) -> str:
    """As people write it in the files: sizes and durations with units."""
    if isinstance(value, (Mapping, list)):
        return "…" if len(str(value)) > 60 else str(value)
    if path[:2] == ("spec", "hard") and path[-1].endswith(("memory", "storage")):
        its = amount(value)
        return str(value) if its is None else _size(round(its))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if path[-1] in _SIZES:
        return _size(round(value))
    return str(Seconds(value)) if path[-1] in _DURATIONS or path[-2] in _DURATIONS else f"{value:.15g}"


def _size(value: int) -> str:
    """Shortest, but exact: what differs is to look different."""
    told = (f"{value / Bytes.parse(f'1 {unit}'):.6g} {unit}" for unit in _UNITS)
    return min(
        (each for each in told if "e" not in each and Bytes.parse(each) == value),
        key=len,
        default=f"{value} B",
    )


def _no_longer(fields: Json, after: Any, path: tuple[str, ...]) -> Iterator[str]:
    """What was applied once and is not wanted any more: by what the API server notes of who set which field."""
    for name, inner in fields.items():
        if not name.startswith("f:") or not isinstance(after, Mapping):
            continue
        its = name.removeprefix("f:")
        if its not in after:
            if path[:1] != ("spec",) or after.get("kind") != PROJECT.name:
                yield f"{'.'.join((*path, its))}: removed"
        else:
            yield from _no_longer(inner, after[its], (*path, its))


def others_of(kind: str) -> Object:
    """What takes out of a policy's or a binding's ``spec`` (a merge patch) what would exempt requests from it."""
    return deepcopy(_EXEMPT.get(kind, {}))


def _exempts(before: Any, none: Json, path: tuple[str, ...]) -> Iterator[str]:
    for name, inner in none.items():
        there = before.get(name)
        if inner is not None:
            yield from _exempts(there or {}, inner, (*path, name))
        elif there:
            yield f"{'.'.join((*path, name))}: removed"


def kept(wanted: Object, live: Json | None) -> Object:
    """A namespace that somebody else made stays theirs: it gets its user, and is never removed by us."""
    if wanted["kind"] != NAMESPACE.name or live is None:
        return wanted
    if live["metadata"].get("labels", {}).get(MANAGED) == "shoal":
        return wanted
    metadata = wanted["metadata"]
    labels = {name: its for name, its in metadata["labels"].items() if name not in (MANAGED, OF_PROJECT)}
    return wanted | {"metadata": metadata | {"labels": labels}}


def refuse_other_release(live: Iterable[Json], release: str) -> None:
    """UsageError where the definitions that are there are of a newer Shoal, or of one that speaks otherwise."""
    for each in live:
        if each["kind"] != DEFINITION.name:
            continue
        name = each["metadata"]["name"]
        served = [its["name"] for its in each["spec"].get("versions", ()) if its.get("served")]
        if VERSION not in served:
            raise UsageError(
                f"{name} is there in version {listed(served)}, and Shoal {release} speaks {VERSION}",
                hint="Use the Shoal that installed it: pip install --upgrade 'shoal[kubernetes]'",
            )
        there = each["metadata"].get("labels", {}).get(RELEASE, "0")
        if _numbers(there) > _numbers(release):
            raise UsageError(
                f"{name} is of Shoal {there}, and this is {release}: it would take fields away",
                hint=f"pip install --upgrade 'shoal[kubernetes]>={there}'",
            )


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", release)[:3])


def kind_of(change: Change) -> Kind:
    """What it is a change of."""
    return KINDS[change.kind]
