"""An API server's admission by policies, as far as one of ours goes: expressions are evaluated by Google's CEL.

What a real one adds (its authorizer, sums and maxima of lists) is given by functions here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from shoal.homes.kubernetes.names import ADMISSION

cel = pytest.importorskip("cel_expr_python.cel", reason="no CEL: pip install cel-expr-python")
Json = dict[str, Any]
_VARIABLES = ("object", "oldObject", "request", "params", "namespaceObject", "authorizer")


def nobody(asked: Json) -> bool:
    """Who may do nothing elsewhere."""
    return False


@dataclass(frozen=True)
class Asked:
    """One request. ``part``: its subresource; ``may``: what else who asks may do, by what the authorizer is asked."""

    operation: str
    resource: str
    new: Json | None = None
    old: Json | None = None
    part: str = ""
    group: str = ""
    user: str = "alice"
    groups: tuple[str, ...] = ()
    options: Json = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    may: Callable[[Json], bool] = nobody

    def request(self) -> Json:
        name = ((self.new or self.old or {}).get("metadata") or {}).get("name", "")
        found = {
            "operation": self.operation,
            "resource": {"group": self.group, "version": "v1", "resource": self.resource},
            "name": name,
            "namespace": "shoal-alice",
            "userInfo": {"username": self.user, "groups": list(self.groups)},
        }
        found |= {"subResource": self.part} if self.part else {}
        return found | ({"options": self.options} if self.options else {})


class Server:
    """With these policies. ``classes``: the priority classes there are."""

    def __init__(self, policies: Iterable[Json], classes: Iterable[Json] = ()) -> None:
        self._policies = [each for each in policies if each["kind"] == ADMISSION.name]
        self._classes = list(classes)
        self._may: Callable[[Json], bool] = nobody
        self._env = _environment(lambda asked: self._may(asked))
        self._compiled: dict[tuple[str, ...], Any] = {}

    def refusals(self, asked: Asked) -> dict[str, str]:
        """By policy (its name without the governor's namespace), what it says; nothing where it lets it pass."""
        found = {}
        for policy in self._policies:
            if not _matches(policy, asked):
                continue
            for params in self._classes if "paramKind" in policy["spec"] else [None]:
                if said := self._refusal(policy, asked, params):
                    found[policy["metadata"]["name"].rpartition("/")[2]] = said
                    break
        return found

    def _refusal(self, policy: Json, asked: Asked, params: Json | None) -> str:
        spec = policy["spec"]
        names = {each["name"]: each["expression"] for each in spec.get("variables", ())}
        self._may = asked.may
        data = {
            "object": asked.new,
            "oldObject": asked.old,
            "request": asked.request(),
            "params": params,
            "namespaceObject": {"metadata": {"name": "shoal-alice", "annotations": dict(asked.notes)}},
            "authorizer": {},
        }
        for each in spec["validations"]:
            outcome = self._evaluated(each["expression"], names, data)
            if outcome is True:
                continue
            if not isinstance(outcome, bool):
                return f"error: {outcome}"
            said = each.get("message") or self._evaluated(each["messageExpression"], names, data)
            assert isinstance(said, str), said
            assert said
            assert "\n" not in said
            return said
        return ""

    def _evaluated(self, expression: str, names: Mapping[str, str], data: Json) -> Any:
        key = expression, *names.values()
        if key not in self._compiled:
            text = expression
            while found := re.search(
                r"\bvariables\.(\w+)", text
            ):  # in place: only what is needed is evaluated
                text = f"{text[: found.start()]}({names[found[1]]}){text[found.end() :]}"
            self._compiled[key] = self._env.compile(text)
        try:
            return self._compiled[key].eval(data=data).plain_value()
        except Exception as error:
            return error


def _matches(policy: Json, asked: Asked) -> bool:
    what = f"{asked.resource}/{asked.part}" if asked.part else asked.resource
    return any(
        asked.group in rule["apiGroups"]
        and what in rule["resources"]
        and asked.operation in rule["operations"]
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]
    )


def _environment(may: Callable[[Json], bool]) -> Any:
    from cel_expr_python.ext import ext_optional, ext_strings

    kind = cel.Type

    asks = kind.Map(kind.STRING, kind.STRING)

    def adds(name: str) -> Any:
        def add(so_far: Any, text: Any) -> Json:
            return {**_plain(so_far), name: _plain(text)}

        return of(name, [asks, kind.STRING], asks, add)

    def of(name: str, parameters: list[Any], returns: Any, impl: Callable[..., Any]) -> Any:
        return cel.FunctionDecl(name, [cel.Overload(f"own_{name}", returns, parameters, True, impl)])

    functions = [
        *(adds(name) for name in ("group", "resource", "subresource", "namespace", "check")),
        of("allowed", [asks], kind.BOOL, lambda asked: may(_plain(asked))),
        of("sum", [kind.List(kind.INT)], kind.INT, lambda each: sum(_plain(each))),
        of("max", [kind.List(kind.DOUBLE)], kind.DOUBLE, lambda each: max(_plain(each))),
    ]
    extensions = [ext_optional.ExtOptional(), ext_strings.ExtStrings()]
    variables = dict.fromkeys(_VARIABLES, kind.DYN) | {"authorizer": asks}
    return cel.NewEnv(variables=variables, extensions=extensions, functions=functions)


def _plain(value: Any) -> Any:
    """A value of CEL's, with all that is in it, as Python has it."""
    if hasattr(value, "plain_value"):
        return value.plain_value()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(its) for key, its in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
