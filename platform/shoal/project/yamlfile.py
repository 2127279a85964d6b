"""YAML with line numbers, checked against a model: every fault at once, by file and line.

Why it exists: a person who wrote three mistakes into a file wants to hear of three, each with its line, what
is wrong and what would be right.

What it must not do: know which files a project has (``project``), or stop at the first fault.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from yaml.composer import ComposerError
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from shoal.errors import ConfigError, ShoalError
from shoal.words import count, did_you_mean

T = TypeVar("T")
Path_ = tuple[str | int, ...]
UNKNOWN = "is not a known key"


@dataclass(frozen=True, order=True)
class Fault:
    """One mistake in a file: where it is, what is wrong and what would be right.

    ``at``: the parts of ``path``, of which any may have a dot; none where it is not the value there that is wrong.
    """

    file: str
    line: int
    path: str
    wrong: str
    right: str = ""
    at: Path_ = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        right = f"; {self.right}" if self.right else ""
        return f"{self.file}:{self.line}: {where}{self.wrong}{right}"


def raise_faults(faults: Sequence[Fault]) -> None:
    """Raise one :class:`ConfigError` with all of ``faults``; nothing happens without any."""
    if faults:
        ordered = sorted(set(faults))
        lines = "\n".join(f"  {fault}" for fault in ordered)
        raise ConfigError(f"{count(len(ordered), 'fault')} in the project's files:\n{lines}", faults=ordered)


@dataclass(frozen=True)
class Document:
    """A parsed file: its data, and the line of every path in it."""

    file: str
    data: Any
    lines: Mapping[Path_, int]

    def line(self, path: Path_) -> int:
        """The line of ``path``, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def where(self, *path: str | int) -> str:
        """``"policies/tiers.yaml:3"``."""
        return f"{self.file}:{self.line(path)}"

    def get(self, *path: str) -> Any:
        """The data at ``path``; None when there is nothing."""
        data = self.data
        for part in path:
            data = data.get(part) if isinstance(data, dict) else None
        return data

    def fault(self, path: Path_, wrong: str, right: str = "") -> Fault:
        return Fault(self.file, self.line(path), dotted(path), wrong, right, path)


def dotted(path: Path_) -> str:
    """``("workers", "memory")`` as ``"workers.memory"``, ``("mounts", 0)`` as ``"mounts[0]"``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _Loader(yaml.SafeLoader):
    """Safe, and without aliases: they would let a small file grow without end."""

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it out
            raise ComposerError(None, None, "aliases (*name) are not supported", event.start_mark)
        return super().compose_node(parent, index)


def read(path: Path, name: str, faults: list[Fault]) -> Document | None:
    """Parse the file at ``path``, which messages call ``name``; None, with a fault noted, if it cannot."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(Fault(name, 1, "", f"cannot be read ({error})", "make it a readable UTF-8 file"))
        return None
    return parse(text, name, faults)


def parse(text: str, name: str, faults: list[Fault]) -> Document | None:
    """Parse YAML text, noting the line of every key; None, with a fault noted, if it is not YAML."""
    document, found = _parsed(text, name)
    faults.extend(found)
    return document


@lru_cache(maxsize=256)  # a project is loaded at every look at a table, and its files seldom change
def _parsed(text: str, name: str) -> tuple[Document | None, tuple[Fault, ...]]:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[Path_, int] = {}
        notes: list[Fault] = []
        data = {} if node is None else _build(loader, node, (), lines, notes, name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        return None, (Fault(name, line, "", f"is not YAML: {error.problem}", "fix the syntax"),)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return None, (Fault(name, 1, "", f"is not YAML: {error}", "fix the syntax"),)
    return Document(name, data, lines), tuple(notes)


def _build(
    loader: _Loader, node: Node, path: Path_, lines: dict[Path_, int], notes: list[Fault], file: str
) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, MappingNode):
        data: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                notes.append(Fault(file, line, dotted(path), "a key is not plain text", "write 'key: value'"))
                continue
            # The key as written: YAML 1.1 would make False of a user called "no".
            name = str(key.value)
            here = (*path, name)
            if name in data:
                first = lines[here]
                notes.append(
                    Fault(file, line, dotted(here), f"appears twice (first on line {first})", "keep one")
                )
                continue
            lines[here] = line
            data[name] = _build(loader, value, here, lines, notes, file)
        return data
    if isinstance(node, SequenceNode):
        return [
            _build(loader, item, (*path, index), lines, notes, file) for index, item in enumerate(node.value)
        ]
    return loader.construct_object(node)


def check(kind: type[T], document: Document, faults: list[Fault], at: Path_ = ()) -> T | None:
    """``document``'s data under ``at`` as a ``kind`` (a model, or ``dict[str, Model]``).

    None, with every fault noted, if it does not fit.
    """
    data = document.data
    for part in at:
        data = data[part]
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            inner = tuple(part for part in detail["loc"] if not str(part).startswith("["))
            wrong, right = _say(detail, kind, inner)
            faults.append(document.fault((*at, *inner), wrong, right))
        return None


def _say(detail: ErrorDetails, kind: Any, path: Path_) -> tuple[str, str]:
    """What is wrong and what would be right, in plain words."""
    context = detail.get("ctx", {})
    value = detail["input"]
    shown = repr(value) if isinstance(value, (str, int, float, bool)) else type(value).__name__
    match detail["type"]:
        case "missing":
            return "is missing", "add it"
        case "extra_forbidden":
            known = _keys(_model_at(kind, path[:-1]))
            return UNKNOWN, did_you_mean(str(path[-1]), known)
        case "value_error" if isinstance(context.get("error"), ShoalError):
            error: ShoalError = context["error"]
            return error.message, f"{error.hint[:1].lower()}{error.hint[1:]}".rstrip(".")
        case "value_error":
            return str(context.get("error")), ""
        case "greater_than_equal":
            return f"{shown} is too small", f"write {context['ge']} or more"
        case "greater_than":
            return f"{shown} is too small", f"write more than {context['gt']}"
        case "enum" | "literal_error":
            return f"{shown} is not one of them", f"write {context['expected']}"
        case "int_type" | "int_parsing" | "int_from_float":
            return f"{shown} is not a whole number", "write a whole number without a unit or quotes"
        case "float_type" | "float_parsing":
            return f"{shown} is not a number", "write a number without a unit or quotes"
        case "model_type" | "dict_type" | "model_attributes_type":
            known = _keys(_model_at(kind, path))
            keys = f" with the keys {', '.join(known)}" if known else ""
            return f"{shown if value is not None else 'nothing'} was found there", f"write a mapping{keys}"
        case "list_type" | "tuple_type":
            item = f"[{value}]" if isinstance(value, (str, int, float)) else "[a, b]"
            return (
                f"{shown if value is not None else 'nothing'} was found there",
                f"write a list, such as {item}",
            )
        case _:
            return f"{shown}: {detail['msg'][0].lower()}{detail['msg'][1:]}", ""


def _model_at(kind: Any, path: Path_) -> Any:
    """The model or type that ``path`` leads to from ``kind``; None when it cannot be told."""
    for part in path:
        kind = _plain(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if isinstance(part, int):
                continue  # one of a list, where a single one could stand
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        else:
            arguments = typing.get_args(kind)
            kind = arguments[-1] if arguments else None
    return _plain(kind)


def _plain(kind: Any) -> Any:
    """``kind`` without ``Annotated`` and ``| None``."""
    while True:
        origin = typing.get_origin(kind)
        if origin is typing.Annotated:
            kind = typing.get_args(kind)[0]
        elif origin in (typing.Union, types.UnionType):
            kind = next((part for part in typing.get_args(kind) if part is not type(None)), None)
        else:
            return kind


def _keys(kind: Any) -> list[str]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [name for name in kind.model_fields if name not in getattr(kind, "not_in_file", ())]
    return []


def replace_value(text: str, path: Path_, value: str) -> str:
    """``text`` with the plain value at ``path`` written as ``value``; comments and layout stay.

    KeyError when there is no such value.
    """
    node = yaml.compose(text, Loader=_Loader)
    for part in path:
        if isinstance(node, SequenceNode) and isinstance(part, int):
            node = node.value[part]
            continue
        if not isinstance(node, MappingNode):
            raise KeyError(part)
        node = next((its for key, its in node.value if key.value == part), None)
    if not isinstance(node, ScalarNode):
        raise KeyError(path[-1])
    return text[: node.start_mark.index] + value + text[node.end_mark.index :]
