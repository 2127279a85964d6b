"""Kubernetes' quantities: read, compared, and told as people read them.

Why it exists: the API server spells an amount in its own way, which need not be the one in which it was written.

What it must not do: import a client.
"""

from __future__ import annotations

import re

from shoal.units import Bytes

_POWERS = ("m", "", "k", "M", "G", "T", "P", "E")
_SUFFIXES = {"": 1.0, "m": 1e-3, **{unit: 1000.0**power for power, unit in enumerate("kMGTPE", 1)}}
_SUFFIXES |= {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", 1)}


def amount(text: object) -> float | None:
    """What a quantity is; None where it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", str(text))
    if match is None or match[2] not in _SUFFIXES:
        return None
    return float(match[1]) * _SUFFIXES[match[2]]


def spelled(value: float) -> str:
    """An amount as the API server itself spells it: ``512_000_000`` as ``"512M"``, ``0.5`` as ``"500m"``.

    What is applied in another spelling seems to be somebody else's change.
    """
    number, power = round(value * 1000), 0
    while number and number % 1000 == 0 and power < len(_POWERS) - 1:
        number, power = number // 1000, power + 1
    return f"{number}{_POWERS[power]}" if number else "0"


def told(resource: str, text: str) -> str:
    """A quantity of this resource, for people: ``("requests.memory", "2100M")`` as ``"2.1 GB"``."""
    its = amount(text)
    if its is None:
        return text
    return str(Bytes(its)) if resource.endswith(("memory", "storage")) else f"{its:g}"
