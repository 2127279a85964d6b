"""Amounts as value types: bytes, seconds, money.

Why it exists: ``"2G"`` read as 2 GiB, or a size without a unit read as bytes, costs people money and
clusters. An amount is parsed once, here, and carries its meaning from then on.

What it must not do: guess a missing unit, or import anything but the errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from shoal.errors import UnitError

# SI: powers of 1000 (GB); IEC 80000-13: powers of 1024 (GiB).
_BYTE_UNITS = {"B": 1} | {
    f"{prefix}{infix}B": base**power
    for power, prefix in enumerate("kMGTP", start=1)
    for infix, base in (("", 1000), ("i", 1024))
}
_BYTE_UNITS |= {"KB": 1000, "KiB": 1024}
_SECOND_UNITS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}
# What else people write, in lower case. `G` is 10^9 and `Gi` is 2^30, as in Kubernetes. A lone `m` is not read as a
# size: there it is a thousandth of a byte.
_ALSO_BYTES = {
    spelt.lower(): size
    for unit, size in _BYTE_UNITS.items()
    for spelt in ((unit, unit[:-1]) if len(unit) > 1 else (unit,))
}
_ALSO_SECONDS = _SECOND_UNITS | {
    spelt: _SECOND_UNITS[unit]
    for unit, spellings in {
        "s": ("sec", "secs", "second", "seconds"),
        "min": ("m", "mins", "minute", "minutes"),
        "h": ("hr", "hrs", "hour", "hours"),
        "d": ("day", "days"),
    }.items()
    for spelt in spellings
}
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*([A-Za-z]*)\s*")


def _split(
    text: str, units: dict[str, Any], also: dict[str, Any], what: str, example: str
) -> tuple[Decimal, Any]:
    """The number and what its unit stands for: as in ``units``, or as in ``also`` in any case."""
    match = _NUMBER.fullmatch(text)
    known = ", ".join(units)
    if match is None:
        raise UnitError(f"{text!r} is not {what}", hint=f"Write a number and a unit, such as {example!r}.")
    number, unit = match.groups()
    if not unit:
        raise UnitError(f"{text!r} has no unit", hint=f"Write {what} as {example!r} (units: {known}).")
    if unit not in units and (unit.lower() not in also or (unit == "m" and also is _ALSO_BYTES)):
        raise UnitError(
            f"{text!r}: {unit!r} is not a unit of {what}",
            hint=f"Known units: {known}; for example {example!r}.",
        )
    return Decimal(number), units.get(unit) or also[unit.lower()]


def _parsed_by(parse: Callable[[object], Any]) -> Any:
    """The schema of a value that is read by ``parse``. A head knows sizes without knowing pydantic."""
    from pydantic_core import core_schema

    return core_schema.no_info_plain_validator_function(parse)


class Bytes(int):
    """A size in bytes. ``Bytes.parse("14 GB")`` is 14 x 1000^3, ``"14 GiB"`` is 14 x 1024^3.

    Also as people write them: ``"14G"`` and ``"14gb"`` are 14 GB, ``"14Gi"`` is 14 GiB.
    """

    @classmethod
    def parse(cls, value: object) -> Bytes:
        """From text with a unit, or from another :class:`Bytes`; a bare number is refused (UnitError)."""
        if isinstance(value, cls):
            return value
        if isinstance(value, (int, float)):
            raise UnitError(f"{value!r} has no unit", hint="Write a size as '14 GB' (or '14 GiB').")
        number, factor = _split(str(value), _BYTE_UNITS, _ALSO_BYTES, "a size", "14 GB")
        if number < 0:
            raise UnitError(f"{value!r} is negative", hint="A size is 0 B or more.")
        return cls(number * factor)

    def __str__(self) -> str:
        for unit in ("PB", "TB", "GB", "MB", "kB"):
            if self >= _BYTE_UNITS[unit]:
                amount = int(self) / _BYTE_UNITS[unit]
                return f"{amount:.0f} {unit}" if amount == int(amount) else f"{amount:.1f} {unit}"
        return f"{int(self)} B"

    def __repr__(self) -> str:
        return f"Bytes({int(self)})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return _parsed_by(cls.parse)


class Seconds(float):
    """A duration in seconds. ``Seconds.parse("4 h")``, ``"20 min"``, ``"90 s"``, ``"500 ms"``, ``"2 d"``.

    Also as people write them: ``"30m"`` (minutes), ``"2 hours"``, ``"2h30m"``.
    """

    @classmethod
    def parse(cls, value: object) -> Seconds:
        """From text with a unit, or from another :class:`Seconds`; a bare number is refused (UnitError)."""
        if isinstance(value, cls):
            return value
        if isinstance(value, (int, float)):
            raise UnitError(f"{value!r} has no unit", hint="Write a duration as '20 min' or '4 h'.")
        # Several parts, as durations are shown: "1 h 30 min".
        parts = re.findall(r"[^\sA-Za-z]+\s*[A-Za-z]+", str(value))
        if len(parts) < 2 or "".join(parts).replace(" ", "") != str(value).replace(" ", ""):
            parts = [str(value)]
        total = 0.0
        for part in parts:
            number, factor = _split(part, _SECOND_UNITS, _ALSO_SECONDS, "a duration", "20 min")
            if number < 0:
                raise UnitError(f"{value!r} is negative", hint="A duration is 0 s or more.")
            total += float(number) * factor
        return cls(total)

    def __str__(self) -> str:
        total = float(self)
        if total < 1:
            return f"{total * 1000:.0f} ms"
        if total < 60:
            return f"{total:.0f} s" if total == int(total) else f"{total:.1f} s"
        minutes, seconds = divmod(round(total), 60)
        hours, minutes = divmod(minutes, 60)
        parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
        return " ".join(f"{n} {unit}" for n, unit in parts if n)

    def __repr__(self) -> str:
        return f"Seconds({float(self)})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return _parsed_by(cls.parse)


@dataclass(frozen=True, order=True)
class Money:
    """An amount in one currency. ``Money.parse("200 USD")``."""

    amount: Decimal
    currency: str = "USD"

    @classmethod
    def parse(cls, value: object) -> Money:
        """From text such as ``"200 USD"``; a bare number is refused (UnitError)."""
        if isinstance(value, cls):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Z]{3})\s*", str(value))
        if match is None:
            raise UnitError(f"{value!r} is not an amount of money", hint="Write it as '200 USD'.")
        return cls(Decimal(match[1]), match[2])

    def __str__(self) -> str:
        places = Decimal("0.01") if self.amount >= Decimal("0.1") or not self.amount else Decimal("0.0001")
        return f"{self.amount.quantize(places, ROUND_HALF_UP)} {self.currency}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return _parsed_by(cls.parse)
