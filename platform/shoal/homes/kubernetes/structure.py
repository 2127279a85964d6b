"""Our types as Kubernetes objects: structural schemas, and values in the spelling that people expect there.

Why it exists: the definitions of our resources are made of the types that the code uses, so that none of them can
drift; and a field that Python calls ``max_duration`` is ``maxDuration`` in an object.

What it must not do: know what any of the types means, or import a client.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from shoal.model import codec
from shoal.units import Bytes, Seconds

T = TypeVar("T")
Schema = dict[str, Any]

_TEXT, _ITEMS = 1024, 64  # the most characters and entries where nothing else is said
_OPEN: Schema = {"x-kubernetes-preserve-unknown-fields": True}


@cache
def camel(name: str) -> str:
    """``max_duration`` as ``maxDuration``."""
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


def schema_of(kind: Any, *, text: int = _TEXT, items: int = _ITEMS) -> Schema:
    """A structural OpenAPI schema (apiextensions.k8s.io/v1) of a type: every text and list in it is bounded.

    Raises:
        TypeError: the type has no form that the API server could check.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        kinds = [each for each in arguments if each is not type(None)]
        if len(kinds) > 1:
            return dict(_OPEN)  # one or the other: what reads it checks it
        return schema_of(kinds[0], text=text, items=items) | {"nullable": True}
    if kind is Any:
        return dict(_OPEN)
    if origin is typing.Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin is typing.Annotated:
        return schema_of(arguments[0], text=text, items=items) | _bounds(arguments[1:])
    if (known := getattr(kind, "model_fields", None)) is not None:
        return _schema_of_model(kind, known, text, items)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        its = {camel(name): schema_of(hint, text=text, items=items) for name, hint in hints.items()}
        return {"type": "object", "properties": its}
    if origin is not None and issubclass(origin, Mapping):
        inner = schema_of(arguments[1], text=text, items=items)
        return {"type": "object", "additionalProperties": inner, "maxProperties": items}
    if origin is tuple:
        alike = len(arguments) == 2 and arguments[1] is Ellipsis
        inner = schema_of(arguments[0], text=text, items=items) if alike else dict(_OPEN)
        return {"type": "array", "items": inner, "maxItems": items if alike else len(arguments)}
    for base, found in (
        (bool, {"type": "boolean"}),
        ((Bytes, int), {"type": "integer", "format": "int64"}),
        ((Seconds, float), {"type": "number"}),
        ((Enum, Decimal), {"type": "string", "maxLength": 64}),
        (str, {"type": "string", "maxLength": text}),
    ):
        if isinstance(kind, type) and issubclass(kind, base):
            return dict(found)
    raise TypeError(f"{kind} has no structural schema")


def _schema_of_model(kind: Any, known: Mapping[str, Any], text: int, items: int) -> Schema:
    """Of a pydantic model, told by its form alone: every head has this module, and none needs pydantic."""
    if getattr(kind, "as_it_stands", False):
        return {"type": "object", **_OPEN}
    its = {
        name: schema_of(field.annotation, text=text, items=items) | _bounds(field.metadata)
        for name, field in known.items()
        if name not in _left_out(kind)
    }
    needed = [camel(name) for name in its if known[name].is_required()]
    named = {camel(name): schema for name, schema in its.items()}
    return {"type": "object", "properties": named} | ({"required": needed} if needed else {})


def _left_out(kind: Any) -> tuple[str, ...]:
    """The fields of a model that no object has."""
    return (*getattr(kind, "not_in_file", ()), *getattr(kind, "not_in_objects", ()))


def _bounds(marks: Iterable[Any]) -> Schema:
    """What annotations of a type say of the least and the most."""
    found: Schema = {}
    for mark in marks:
        if (least := getattr(mark, "ge", None)) is not None:
            found["minimum"] = least
        if (below := getattr(mark, "gt", None)) is not None:
            found |= {"minimum": below, "exclusiveMinimum": True}
        if (most := getattr(mark, "le", None)) is not None:
            found["maximum"] = most
        found |= _bounds(getattr(mark, "metadata", ()))
    return found


def written(value: Any) -> Any:
    """A value as an object has it. What is None is left out."""
    if (known := getattr(type(value), "model_fields", None)) is not None:
        if getattr(value, "as_it_stands", False):
            return value.model_dump(mode="json", exclude_unset=True)
        out = _left_out(type(value))
        named = {camel(name): written(getattr(value, name)) for name in known if name not in out}
        return {name: its for name, its in named.items() if its is not None}
    if is_dataclass(value) and not isinstance(value, type):
        named = {camel(each.name): written(getattr(value, each.name)) for each in fields(value)}
        return {name: its for name, its in named.items() if its is not None}
    if isinstance(value, Mapping):
        return {str(key): written(its) for key, its in value.items()}
    if isinstance(value, (tuple, list)):
        return [written(each) for each in value]
    if isinstance(value, Enum):
        return str(value.value)
    return codec.plain(value)


def read(kind: type[T], data: Any) -> T:
    """The value that :func:`written` made ``data`` of; fields that this version does not know are left out.

    Raises:
        InfrastructureError: it cannot be such a value.
    """
    return codec.read(kind, _spelled(kind, data))


def _spelled(kind: Any, data: Any) -> Any:
    """``data`` with the fields of dataclasses in Python's spelling."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        fitting = [each for each in arguments if is_dataclass(each)]
        return _spelled(fitting[0], data) if fitting and isinstance(data, Mapping) else data
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(data, Mapping):
        hints = _hints(kind)
        return {
            name: _spelled(hint, data[camel(name)]) for name, hint in hints.items() if camel(name) in data
        }
    if origin is not None and isinstance(data, Mapping) and len(arguments) == 2:
        return {key: _spelled(arguments[1], its) for key, its in data.items()}
    if origin is tuple and isinstance(data, list) and arguments[1:] == (Ellipsis,):
        return [_spelled(arguments[0], each) for each in data]
    return data


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}
