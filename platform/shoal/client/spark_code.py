"""Sends with every Python function for Spark where its client's own modules are, and how new.

Why it exists: Spark's Python workers unpickle functions by the name of their module, start on their own, and are
used again for other functions and other clients. So what a function needs has to come with it.

What it must not do: change what a function does, or know more of a plan than where its functions are.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message
from pyspark.sql.connect.proto import base_pb2, commands_pb2, relations_pb2

from shoal.machine import modules
from shoal.machine.environment import differences, versions
from shoal.machine.importing import opened
from shoal.machine.spawned import as_of_main

# What runs Python functions: set for each session, so that it is its client's.
PYTHON = "spark.sql.execution.pyspark.python"
VERSION = "spark.shoal.python.version"  # told by the head: of the one that is used where nobody sets it
_FUNCTIONS = {f"spark.connect.{name}" for name in ("PythonUDF", "PythonUDTF", "PythonDataSource")}
_WITHOUT = {"spark.connect.DataType", "spark.connect.Expression.Literal"}  # many, and no function in them
_LETS_GO = ("/ReleaseSession", "/ReleaseExecute")  # calls that nobody needs an answer of
_LETTING_GO = 5.0  # s for each: pyspark waits for them, without an end where a server hangs
_COMPRESSED: dict[int, tuple[str, Any]] = {
    1: ("root", relations_pb2.Relation),
    2: ("command", commands_pb2.Command),
}


def settle_python(session: Any, *, here: bool, chosen: bool) -> list[str]:
    """Let the session's functions run in this process's Python; in what that one differs from this, if it cannot.

    ``here``: the cluster runs on this machine. ``chosen``: its template says which Python it uses.
    """
    there = session.conf.getAll
    if here and not chosen and sys.executable:
        if there.get(PYTHON) != sys.executable:
            session.conf.set(PYTHON, sys.executable)
        return []
    theirs = there.get(VERSION)
    return differences({"Python": versions()["Python"]}, {"spark": {"Python": theirs}} if theirs else {})


class WithModules(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):  # type: ignore[misc]
    """Looks at each request on its way to Spark Connect."""

    def __init__(self) -> None:
        as_of_main()
        self._watch = modules.ModuleWatch()
        self._code = "{}"

    def intercept_unary_unary(self, go_on: Callable[..., Any], details: Any, request: Any) -> Any:
        if details.method.endswith(_LETS_GO):
            details = details._replace(timeout=_LETTING_GO)
        return go_on(details, self._completed(request))

    def intercept_unary_stream(self, go_on: Callable[..., Any], details: Any, request: Any) -> Any:
        return go_on(details, self._completed(request))

    def _completed(self, request: Any) -> Any:
        """The request with the modules beside each function in it; a request may be sent twice, so a copy."""
        if not isinstance(request, base_pb2.ExecutePlanRequest | base_pb2.AnalyzePlanRequest):
            return request
        unpacked = _unpacked(request.plan) if isinstance(request, base_pb2.ExecutePlanRequest) else None
        if next(_functions(unpacked or request), None) is None:
            return request
        if (code := self._watch.look()) is not None:
            self._code = json.dumps(code.written())
            self._watch.acknowledged(code)
        modules.warn(modules.edits(self._watch.edited()))
        copy = type(request)()
        copy.CopyFrom(request)
        if unpacked is not None:
            copy.plan.CopyFrom(unpacked)
        for function in _functions(copy):
            function.command = pickle.dumps(_Command(self._code, function.command))
        return copy


class _Command:
    """Is read as what it holds, after the modules that it needs were brought."""

    def __init__(self, code: str, command: bytes) -> None:
        self._held = (code, command)

    def __reduce__(self) -> tuple[Any, tuple[str, bytes]]:
        return opened, self._held


def _unpacked(plan: Any) -> Any:
    """A plan that pyspark has compressed (from 10 MB on), as it was; None for others."""
    packed = plan.compressed_operation
    if not plan.HasField("compressed_operation") or packed.op_type not in _COMPRESSED:
        return None
    import zstandard

    name, kind = _COMPRESSED[packed.op_type]
    unpacked = type(plan)()
    getattr(unpacked, name).CopyFrom(kind.FromString(zstandard.decompress(packed.data)))
    return unpacked


def _functions(message: Message) -> Iterator[Any]:
    """Every Python function in this message, however deep."""
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.full_name in _WITHOUT:
            continue
        if isinstance(value, Message):
            inside: Iterable[Any] = (value,)
        else:
            inside = value.values() if hasattr(value, "values") else value
        for inner in inside:
            if not isinstance(inner, Message):
                break  # a map of plain values
            if inner.DESCRIPTOR.full_name in _FUNCTIONS:
                yield inner
            else:
                yield from _functions(inner)
