"""What a ``shoal.yaml`` with faults still tells of where clusters are: enough to see them, and to end them.

Why it exists: nobody should be unable to end what costs money because of a mistyped price. And nobody should
look in another place than their clusters are in: a key that slipped a level reads as if it had never been written, and
what then holds is a default, with namesakes in it. So a fault is passed over only where fixing it cannot change the
place: a wrong value of a key that is known, and that is about something else. All others are refused, and so is all
that is not YAML: of what comes before the fault nobody knows whether it is the whole.

What it must not do: read files, or decide what is a fault.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from shoal.project.yamlfile import UNKNOWN, Document, Fault, Path_

# What says nothing of a place. What is not listed may say something.
_OF_FILE = ("mounts", "tables")
_OF_TARGET = ("worker", "head", "machine", "catalog", "prices", "images")
_OF_CLOUD = ("spot", "gpu", "pod", "governor", "beside", "network")
# What says all of it.
_CLOUD = "kubernetes"  # a target's key
_CLOUD_SAYS = ("context", "namespace", "system", "namespaces", "project")
_TARGET_SAYS = ("home", "store", _CLOUD)
_FILE_SAYS = ("default_target", "targets")
_SAYS = (*_FILE_SAYS, *_TARGET_SAYS, *_CLOUD_SAYS)
# A line that was taken for the end of the one before.
_SWALLOWED = re.compile(rf"\s(?:{'|'.join(_SAYS)})\b")


def places(document: Document, faults: Iterable[Fault], named: str | None = None) -> dict[str, Any] | None:
    """The data of a ``shoal.yaml`` without what ``faults`` are about; None where a fault may be about the place.

    ``named``: the target that is asked for (None: the file's default). A target whose name is nearly another's is not
    told: either may be meant.
    """
    data: dict[str, Any] = copy.deepcopy(document.data)
    for fault in faults:
        if fault.file == document.file:
            if (key := _elsewhere(document, fault)) is None:
                return None
            _without(data, key)
    if any(_strays(path, value) for path, value in _parts(document.data)):
        return None
    targets, default = data["targets"], data["default_target"]
    name = named or default
    if default not in targets or name not in targets:
        return None
    return None if difflib.get_close_matches(name, targets.keys() - {name}, 1) else data


def _elsewhere(document: Document, fault: Fault) -> Path_ | None:
    """The key whose value is wrong; None where fixing it may change the place."""
    match fault.at:
        case (of_file, _, *_) if of_file in _OF_FILE:
            key = fault.at[:2]
        case ("targets", _, of_target, *_) if of_target in _OF_TARGET:
            key = fault.at[:3]
        case ("targets", _, its, of_cloud, *_) if its == _CLOUD and of_cloud in _OF_CLOUD:
            key = fault.at[:4]
        case _:
            return None
    # Text or a list where there are keys of its own is more likely what another key should have.
    if fault.wrong == UNKNOWN or isinstance(document.get(*map(str, key)), (str, list)):
        return None
    return key


def _without(data: dict[str, Any], key: Path_) -> None:
    for part in key[:-1]:
        data = data[str(part)]
    data.pop(str(key[-1]), None)


def _parts(data: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Everything in it, with where it is."""
    yield path, data
    within = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in within:
        yield from _parts(value, (*path, key))


def _strays(path: Path_, value: Any) -> bool:
    """Whether this may be part of a place, where none is looked for."""
    key = path[-1] if path else None
    if any(isinstance(text, str) and _SWALLOWED.search(text) for text in (key, value)):
        return True
    match path:
        case (str(),):
            return key not in _FILE_SAYS and key in _SAYS
        case ("targets", _):
            return False  # its name
        case ("targets", _, str()):
            return key not in _TARGET_SAYS and key in _SAYS
        case ("targets", _, its, str()) if its == _CLOUD:
            return key not in _CLOUD_SAYS and key in _SAYS
        case _:
            return key in _SAYS
