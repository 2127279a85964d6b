"""What a ``shoal.yaml`` with faults still tells of where clusters are: enough to see them, and to end them.

Why it exists: nobody should be unable to end what costs money because of a typo. And nobody should look in another
place than their clusters are in: a target is left out as soon as what is wrong may be about its place.

What it must not do: read files, or decide what is a fault.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from shoal.project.targets import Cloud, Target
from shoal.project.yamlfile import Document, Fault, parse

# Where the clusters of a target are follows from these.
_CLOUD = "kubernetes"  # its key
_PLACE = ("home", "store", _CLOUD)
_ON_KUBERNETES = ("context", "namespace", "system", "namespaces", "project")


def places(document: Document, faults: Iterable[Fault]) -> dict[str, Any]:
    """The data of a ``shoal.yaml`` that says where clusters are, without what ``faults`` are about."""
    wrong = [fault.path for fault in faults if fault.file == document.file]
    targets = document.get("targets")
    found = {}
    for name, its in targets.items() if isinstance(targets, dict) and "targets" not in wrong else ():
        start = f"targets.{name}"
        about = [path[len(start) + 1 :] for path in wrong if path == start or path.startswith(f"{start}.")]
        if isinstance(its, dict) and (left := _sound(its, about)) is not None:
            found[name] = left
    default = document.get("default_target")
    return {"default_target": default if isinstance(default, str) else "", "targets": found}


def beginning(text: str, name: str) -> Document | None:
    """The longest beginning of a text that is YAML, without its last entry, which may not be whole."""
    lines = text.splitlines(keepends=True)
    for end in range(len(lines) - 1, 0, -1):
        document = parse("".join(lines[:end]), name, [])
        if document is not None and isinstance(document.data, dict) and document.data:
            last = list(document.data)[-1]
            its = document.data[last]
            data = {key: value for key, value in document.data.items() if key != last}
            if last == "targets" and isinstance(its, dict):
                data[last] = dict(list(its.items())[:-1])
            return Document(name, data, document.lines)
    return None


def _sound(its: Mapping[str, Any], about: Iterable[str]) -> dict[str, Any] | None:
    """A target without what is wrong in it; None where that may be its place. ``about``: paths from the target on."""
    left = dict(its)
    for path in about:
        key, _, inner = path.partition(".")
        of_cloud = inner.partition(".")[0]
        if key == _CLOUD and of_cloud and isinstance(left.get(key), dict):
            if _is(of_cloud.partition("[")[0], _ON_KUBERNETES, Cloud.model_fields):
                return None
            left[key] = {its_key: value for its_key, value in left[key].items() if its_key != of_cloud}
        elif not key or _is(key, _PLACE, Target.model_fields):
            return None
        else:
            left.pop(key, None)
    return left


def _is(key: str, one_of: Collection[str], known: Collection[str]) -> bool:
    """Whether a key is one of these, or is written in a way that may mean one."""
    return key in one_of or (key not in known and bool(difflib.get_close_matches(key, one_of, 1, 0.6)))
