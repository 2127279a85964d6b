"""How values become plain data that is stored or sent, and come back.

Why it exists: there is one rule for all of them, so that a Shoal one version older or newer can read what this one
wrote. A new field has a default. What is unknown is left out, never a fault. A field never changes its meaning or
its unit; what would is a new field. (What Shoal 0.1.0 could not leave out is kept apart by the
home that stores it.)

What it must not do: know a store, or what the values mean.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from shoal.errors import InfrastructureError

T = TypeVar("T")
# msgspec looks at a type when it first reads one. A second thread that does so meanwhile sees half of what it found,
# and the process ends with a segmentation fault (msgspec 0.22).
_first, _known = threading.Lock(), set[type]()


def plain(value: Any) -> Any:
    """A dataclass as dicts, lists, text and numbers. Written out by hand: it runs for every request, and values
    that never change need no copies."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if (fields := getattr(value, "__dataclass_fields__", None)) is not None:
        return {name: plain(getattr(value, name)) for name in fields}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return str(value) if isinstance(value, Decimal) else value


def read(kind: type[T], data: Any) -> T:
    """The value of this type that :func:`plain` made ``data`` of, whichever version of Shoal that was.

    Raises:
        InfrastructureError: the data cannot be such a value.
    """
    try:
        if kind in _known:
            return msgspec.convert(data, kind, dec_hook=_read_amount)
        with _first:
            found = msgspec.convert(data, kind, dec_hook=_read_amount)
            _known.add(kind)
            return found
    except (msgspec.ValidationError, ArithmeticError) as error:
        raise InfrastructureError(
            f"a stored {kind.__name__} cannot be read: {error}",
            hint="If a newer Shoal wrote it, upgrade Shoal here; else the record is damaged.",
        ) from error


def _read_amount(kind: type, value: Any) -> Any:
    """An amount (Bytes, Seconds) of a bare number, as :func:`plain` leaves it."""
    if not isinstance(value, (int, float)):
        raise msgspec.ValidationError(f"{value!r} is not a number")
    return kind(value)
