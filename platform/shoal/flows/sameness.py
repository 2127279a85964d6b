"""When two trainings are the same: one key for all that decides what a model will be.

Why it exists: a model that is there already is returned for the same key. So functions, estimators and values go into
it as what they do: their code and the files that it is from, what they are bound to, their state. Neither their names
nor their ``repr`` tell them apart.

What it must not do: call what it is given, or depend on the process that asks: no addresses, no order of sets.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

from shoal.flows.errors import ScriptError
from shoal.machine.modules import file_of, installed, is_users

_PLAIN = (bool, float, complex, str, bytes, type(None), type(...), type(NotImplemented))
_OF_CODE = (
    *("co_code", "co_consts", "co_names", "co_varnames", "co_freevars", "co_cellvars"),
    *("co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_flags", "co_exceptiontable"),
)
_NOT_OF_CLASS = {
    *("__dict__", "__weakref__", "__module__", "__doc__", "__qualname__", "__firstlineno__"),
    *("__static_attributes__", "__slotnames__", "_abc_impl"),  # the last two come with the first use
}


def run_key(flow: str, table: str, snapshot: int, settings: Mapping[str, Any]) -> str:
    """The same for each run that would give the same model.

    Raises ScriptError for settings that hold what cannot be compared.
    """
    walk = _Walk()
    told = [walk.of(name) + walk.of(settings[name], f"{name}=") for name in sorted(settings)]
    return f"{flow}/{table}@{snapshot}/{_digest(*told)[:16]}"


class _Walk:
    """Goes through a value once."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._steps: list[str] = []
        self._known: dict[int, tuple[object, str]] = {}  # the object, lest another one gets its id
        self._texts: dict[str, str] = {}

    def of(self, value: Any, step: str = "") -> str:
        """Its digest; ``step`` is how it is reached."""
        kind = type(value)
        if kind in _PLAIN:
            return _digest(kind.__name__, value if kind is bytes else repr(value))
        if kind is int:
            return _digest("int", hex(value))
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._open:
            return _digest("within itself", str(len(self._open) - self._open[id(value)]))
        self._open[id(value)] = len(self._open)
        self._steps.append(step)
        try:
            found = _digest(*self._parts(value))
        finally:
            self._steps.pop()
            del self._open[id(value)]
        self._known[id(value)] = (value, found)
        return found

    def _parts(self, value: Any) -> Iterator[str]:
        kind = type(value)
        yield kind.__name__
        if kind in (list, tuple):
            yield from map(self.of, value)
        elif kind in (dict, MappingProxyType):
            for key, each in value.items():
                yield self.of(key)
                yield self.of(each, key if isinstance(key, str) else "")
        elif kind in (set, frozenset):
            yield from sorted(self._alone(each) for each in value)
        elif isinstance(value, type):
            yield from self._class(value)
        elif kind is FunctionType:
            yield from self._function(value)
        elif kind is CodeType:
            yield from (self.of(getattr(value, name, None)) for name in _OF_CODE)
        elif kind is CellType:
            with suppress(ValueError):  # nothing is in it yet
                yield self.of(value.cell_contents)
        elif kind is ModuleType:
            yield self._text(file_of(value)) if _is_own(value.__name__) else value.__name__
        elif kind is MethodType:
            yield self.of(value.__func__)
            yield self.of(value.__self__)
        elif kind in (staticmethod, classmethod):
            yield self.of(value.__func__)
        elif kind is property:
            yield from map(self.of, (value.fget, value.fset, value.fdel))
        elif kind is functools.cached_property:
            yield self.of(value.func)
        elif kind in (MemberDescriptorType, GetSetDescriptorType):
            yield value.__name__
        elif kind is BuiltinFunctionType and isinstance(value.__self__, (ModuleType, type(None))):
            yield f"{value.__module__}.{value.__qualname__}"
        else:
            yield from self._object(value)

    def _object(self, value: Any) -> Iterator[str]:
        """What a pickle of it has."""
        kind = type(value)
        yield self.of(kind)
        try:
            known = copyreg.dispatch_table.get(kind)
            made: Any = known(value) if known is not None else value.__reduce_ex__(4)
        except Exception:  # whatever it is may refuse in its own way
            raise self._refused(value) from None
        if isinstance(made, str):
            yield f"{getattr(value, '__module__', '')}.{made}"
            yield self.of(getattr(value, "__wrapped__", None))
            return
        state = made[2] if len(made) > 2 else None
        if isinstance(state, dict):  # an upgrade of scikit-learn makes no other model of them
            state = {key: each for key, each in state.items() if key != "_sklearn_version"}
        yield from map(self.of, (*made[:2], state, *(list(each or ()) for each in made[3:5])))

    def _class(self, value: type) -> Iterator[str]:
        if not _is_own(value.__module__):
            yield f"{value.__module__}.{value.__qualname__}"
            return
        yield value.__qualname__
        yield from map(self.of, (type(value), value.__bases__))
        for name in sorted(vars(value).keys() - _NOT_OF_CLASS):
            yield name + self._of_file(vars(value)[name], name)

    def _function(self, value: FunctionType) -> Iterator[str]:
        own = _is_own(value.__globals__.get("__name__", ""))
        yield value.__qualname__ if own else f"{value.__module__}.{value.__qualname__}"
        if not own and "<locals>" not in value.__qualname__ and not value.__closure__:
            return
        code = value.__code__
        yield self.of(code)
        yield from map(self.of, (value.__defaults__, value.__kwdefaults__, vars(value)))
        for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True):
            yield self.of(cell, name)
        if own:
            yield self._text(code.co_filename)
            yield from self._reached(code, value.__globals__)

    def _reached(self, code: CodeType, known: Mapping[str, Any]) -> Iterator[str]:
        """What a function's code takes from its module and, by their names, from other modules of the user."""
        steps = list(dis.get_instructions(code))
        for number, step in enumerate(steps):
            if step.opname == "IMPORT_NAME":
                yield self._imported(step.argval)
            elif step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in known:
                value = known[step.argval]
                for after in steps[number + 1 :]:
                    there = vars(value) if isinstance(value, ModuleType) and _is_own(value.__name__) else {}
                    if after.opname not in ("LOAD_ATTR", "LOAD_METHOD") or after.argval not in there:
                        break
                    yield self.of(value)
                    value = there[after.argval]
                yield step.argval + self._of_file(value, step.argval)
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                yield from self._reached(inner, known)

    def _imported(self, name: str) -> str:
        """The text of a module of the user's own that a function imports when it is called."""
        spec = None
        with suppress(
            Exception
        ):  # what its package raises when it is imported, it will raise in the function, too
            for part in (
                name.partition(".")[0],
                name,
            ):  # nothing of an installed package is imported for this
                spec = importlib.util.find_spec(part)
                if spec is None or (spec.origin and not is_users(part, spec.origin, installed())):
                    return ""
        return self._text(spec.origin) if spec is not None else ""

    def _of_file(self, value: Any, name: str) -> str:
        """Of what a file makes when it is loaded: its text is known, so a lock or a connection may be among it."""
        try:
            return self.of(value, name)
        except ScriptError:
            return self.of(type(value))

    def _alone(self, value: Any) -> str:
        """Its digest whatever was seen before it, since sets have no order."""
        known, self._known = self._known, dict(self._known)
        try:
            return self.of(value)
        finally:
            self._known = known

    def _text(self, file: str | None) -> str:
        if file is None:
            return ""
        if file not in self._texts:
            path = Path(file)
            self._texts[file] = _digest(path.read_bytes()) if path.is_file() else ""
        return self._texts[file]

    def _refused(self, value: object) -> ScriptError:
        first, *others = [step for step in self._steps if step]
        where = f" ({'.'.join(others)})" if others else ""
        return ScriptError(
            f"{first} cannot be compared with that of earlier runs: it holds a {type(value).__name__}{where}",
            hint="Open files and connections and make generators and locks inside of it, and bind plain values: "
            "functools.partial(features, hours=3).",
        )


def _digest(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()


def _is_own(name: str) -> bool:
    """Whether a module's content is the user's, and so no version tells what it is."""
    module = sys.modules.get(name)
    if name in ("__main__", "__mp_main__") or not isinstance(module, ModuleType):
        return True
    file = file_of(module)
    if file is None:
        return vars(module).get("__spec__") is None and name != "builtins"
    return is_users(name, file, installed())
