"""A project as it is put on the server: its templates, policies, prices and images, as an object, and back.

Why it exists: what governs is what an administrator applied, not a folder that happens to be on some machine. A person
who asks for a cluster names a template of it, or gives a whole template in the same form.

What it must not do: import a client, or read files (``project``).
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from decimal import Decimal
from importlib.metadata import version
from typing import Any, TypeVar

from shoal.homes.kubernetes.names import MANAGED, OF_PROJECT, PROJECT, RELEASE, Object
from shoal.homes.kubernetes.structure import Schema, camel, schema_of, written
from shoal.model.workload import Engine
from shoal.project.loading import Project
from shoal.project.network import addresses
from shoal.project.policy import PER_CLUSTER, TOTALS, Policy, Team, Tier, User
from shoal.project.settings import SizeOf
from shoal.project.targets import Cloud, Machine, Mount, Prices, Target
from shoal.project.templates import Template
from shoal.project.yamlfile import Document, Fault, check, raise_faults
from shoal.units import Bytes, Seconds
from shoal.words import did_you_mean

T = TypeVar("T")
MOST = 2000  # users, lines per user aside: the object stays below what etcd takes
_LIMITS = (*TOTALS.values(), *PER_CLUSTER.values())
# Of a target's `kubernetes:`, what says where that is and who governs there.
_WHERE = ("context", "namespace", "system", "namespaces", "project", "governor")
_FIRST = "defaultEngine"  # objects keep no order, and a template's first engine is its default


@dataclass(frozen=True)
class Policies:
    """``policies/``. ``lines``: where an entry or a limit is written: ``"tiers.standard.memory"`` -> 2."""

    tiers: Mapping[str, Tier]
    users: Mapping[str, User] = field(default_factory=dict)
    teams: Mapping[str, Team] = field(default_factory=dict)
    default: User | None = None
    lines: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, policy: Policy) -> Policies:
        lines = {}
        for part in ("tiers", "users", "teams"):
            for name in (*getattr(policy, part), *(("default",) if part == "users" else ())):
                for path in (f"{part}.{name}", *(f"{part}.{name}.{limit}" for limit in _LIMITS)):
                    if path in policy.where:
                        lines[path] = int(policy.where[path].rpartition(":")[2])
        return cls(policy.tiers, policy.users, policy.teams, policy.default, lines)

    @property
    def policy(self) -> Policy:
        where = {path: f"policies/{path.partition('.')[0]}.yaml:{line}" for path, line in self.lines.items()}
        return Policy(self.tiers, self.users, self.teams, self.default, where)


@dataclass(frozen=True)
class Applied:
    """What a Project's ``spec`` says. ``images``: references by name; ``kubernetes``: what the target says of
    the place, but where it is. No ``policies``: they are another project's. ``addresses``: where its pods go, as
    ``host:port``; ``deployed``: whether it brought the governor.
    """

    target: str
    templates: Mapping[str, Template] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, Mount] = field(default_factory=dict)
    prices: Prices | None = None
    worker: SizeOf | None = None
    head: SizeOf | None = None
    machine: Machine | None = None
    kubernetes: Cloud | None = None
    policies: Policies | None = None
    addresses: tuple[str, ...] = ()
    deployed: bool = True

    @classmethod
    def of(cls, project: Project) -> Applied:
        target = project.target
        project.policy.check()
        return cls(
            target.name,
            project.templates,
            target.images,
            project.mounts,
            target.prices,
            target.worker,
            target.head,
            target.machine,
            Cloud(**_said(target.kubernetes)) if target.kubernetes is not None else None,
            Policies.of(project.policy) if (project.folder / "policies").is_dir() else None,
            addresses(target),
            (target.kubernetes or Cloud()).governor.deployed,
        )

    @property
    def there(self) -> Target:
        """The target that it was applied to, as far as sizes and prices depend on it."""
        return Target(
            name=self.target,
            home="kubernetes",
            worker=self.worker,
            head=self.head,
            machine=self.machine,
            prices=self.prices,
            images=dict(self.images),
            kubernetes=self.kubernetes,
        )

    def within(self, target: Target) -> Target:
        """A person's target, as this project has it: sizes, prices and images; where it is stays the person's."""
        parts = ("worker", "head", "prices", "images")
        update = {part: getattr(self.there, part) for part in parts}
        if self.kubernetes is not None:
            its = {name: getattr(target.kubernetes, name) for name in _WHERE} if target.kubernetes else {}
            update["kubernetes"] = self.kubernetes.model_copy(update=its)
        return target.model_copy(update=update)


@dataclass(frozen=True)
class ProjectStatus:
    """What a Project's ``status`` says. ``observed``: the generation that the governor looked at last; ``in_force``:
    the one it goes by, whose ``spec`` is kept, so that a faulty one changes nothing; ``fault``: what is wrong in the
    last; ``drift``: which applied objects somebody changed since.
    """

    observed: int = 0
    in_force: int = 0
    fault: str = ""
    spec: Mapping[str, Any] | None = None
    drift: tuple[str, ...] = ()


def name_of(project: Project) -> str:
    """What a project is called on the server: as its target says, else as its folder is called."""
    from_folder = re.sub("[^a-z0-9]+", "-", project.folder.resolve().name.lower()).strip("-")[:63].strip("-")
    return applied_name(project) or from_folder or "project"


def applied_name(project: Project) -> str:
    """The applied project that a person's target names; "" where it names none."""
    said = project.target.kubernetes
    return (said.project if said is not None else None) or ""


def _said(cloud: Cloud) -> dict[str, Any]:
    return {name: getattr(cloud, name) for name in cloud.model_fields_set if name not in _WHERE}


def template_schema() -> Schema:
    """Of a template, in a Project and in a Cluster that brings its own."""
    schema = schema_of(Template)
    schema["properties"]["engines"]["maxProperties"] = len(Engine)
    schema["properties"][_FIRST] = {"type": "string", "enum": [each.value for each in Engine]}
    return schema


def applied_schema() -> Schema:
    schema = schema_of(Applied)
    schema["required"] = ["target"]
    del schema["properties"]["kubernetes"]["properties"]["governor"]  # it is in no Project
    schema["properties"]["templates"]["additionalProperties"] = template_schema()
    policies = schema["properties"]["policies"]
    policies["required"] = ["tiers"]
    policies["properties"]["users"]["maxProperties"] = MOST
    policies["properties"]["lines"]["maxProperties"] = MOST * 4
    return schema


_PARTS: dict[str, type[Any]] = {
    "prices": Prices,
    "worker": SizeOf,
    "head": SizeOf,
    "machine": Machine,
    "kubernetes": Cloud,
}


def template_written(template: Template) -> Object:
    """A template as objects have it."""
    return plain(written(template) | {_FIRST: template.default_engine.value})


def template_of(data: Mapping[str, Any], name: str, where: str, faults: list[Fault]) -> Template | None:
    """The template of an object; None, with every fault noted, where it cannot be one."""
    found = _model(Template, data, where, faults)
    first = str(data.get(_FIRST, ""))
    if found is None:
        return None
    engines = dict(sorted(found.engines.items(), key=lambda pair: pair[0].value != first))
    return found.model_copy(update={"name": name, "where": where, "engines": engines})


def project_object(name: str, namespace: str, applied: Applied) -> Object:
    """The object by which a project is put on the server."""
    spec = written(applied) | {
        "templates": {key: template_written(each) for key, each in applied.templates.items()}
    }
    spec.get("kubernetes", {}).pop("governor", None)  # that is a Deployment
    labels = {MANAGED: "shoal", OF_PROJECT: name, RELEASE: version("shoal")}
    return {
        "apiVersion": PROJECT.group_version,
        "kind": PROJECT.name,
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": plain(spec),
    }


def applied_of(data: Mapping[str, Any]) -> Applied:
    """What an object's ``spec`` says.

    Raises:
        ConfigError: with every fault of it.
    """
    faults: list[Fault] = []
    templates = {
        name: template
        for name, each in data.get("templates", {}).items()
        if (template := template_of(each, name, f"clusters/{name}.yaml", faults)) is not None
    }

    def models(kind: type[T], said: Mapping[str, Any] | None, where: str) -> dict[str, T]:
        made = {key: _model(kind, each, f"{where}.{key}", faults) for key, each in (said or {}).items()}
        return {key: its for key, its in made.items() if its is not None}

    settings: dict[str, Any] = {
        name: _model(kind, data[name], name, faults)
        for name, kind in _PARTS.items()
        if data.get(name) is not None
    }
    policies = None
    if (said := data.get("policies")) is not None:
        policies = Policies(
            models(Tier, said.get("tiers"), "tiers"),
            models(User, said.get("users"), "users"),
            models(Team, said.get("teams"), "teams"),
            _model(User, said["default"], "users.default", faults) if said.get("default") else None,
            dict(said.get("lines") or {}),
        )
        faults += _unknown(policies)
    applied = Applied(
        str(data.get("target", "kubernetes")),
        templates,
        dict(data.get("images") or {}),
        models(Mount, data.get("mounts"), "mounts"),
        **settings,
        policies=policies,
        addresses=tuple(data.get("addresses") or ()),
        deployed=bool(data.get("deployed", True)),
    )
    for template in templates.values():
        faults += names_unknown(template, applied)
    raise_faults(faults)
    return applied


def names_unknown(template: Template, applied: Applied) -> list[Fault]:
    """Images and mounts that the administrator did not apply: what a template brings is only their names."""
    found = []
    for engine, settings in template.engines.items():
        if settings.image and settings.image not in applied.images:
            wrong = f"there is no image {settings.image!r}"
            right = did_you_mean(settings.image, applied.images)
            found.append(Fault(template.where, 1, f"engines.{engine}.image", wrong, right))
    for mount in template.mounts:
        if mount not in applied.mounts:
            wrong = f"there is no mount {mount!r}"
            found.append(Fault(template.where, 1, "mounts", wrong, did_you_mean(mount, applied.mounts)))
    return found


def _unknown(policies: Policies) -> Iterable[Fault]:
    """Users name tiers and teams that exist."""
    everybody = {**policies.users, **({"default": policies.default} if policies.default else {})}
    for name, user in everybody.items():
        line = policies.lines.get(f"users.{name}", 1)
        for key, wanted, known in (
            ("tier", user.tier, policies.tiers),
            ("team", user.team, policies.teams),
        ):
            if wanted is not None and wanted not in known:
                wrong = f"there is no {key} {wanted!r}"
                yield Fault("policies/users.yaml", line, f"{name}.{key}", wrong, did_you_mean(wanted, known))


def _model(kind: type[T], data: Any, where: str, faults: list[Fault]) -> T | None:
    return check(kind, Document(where, _native(kind, data), {}), faults)


def _is_list(kind: Any) -> bool:
    origin = typing.get_origin(kind)
    return _is_list(typing.get_args(kind)[0]) if origin is typing.Annotated else origin is tuple


def _native(kind: Any, data: Any) -> Any:
    """``data`` in the spelling and with the amounts that a file's model takes; what does not fit stays as it is."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _native(arguments[0], data)
    if origin in (typing.Union, types.UnionType):
        kinds = [each for each in arguments if each is not type(None)]
        if len(kinds) > 1:  # one or the other: told by its form
            kinds = [each for each in kinds if _is_list(each) is isinstance(data, list)]
        return data if data is None or not kinds else _native(kinds[0], data)
    if origin is not None and isinstance(data, Mapping) and len(arguments) == 2:
        return {key: _native(arguments[1], each) for key, each in data.items()}
    if isinstance(data, list):
        return [_native(arguments[0], each) for each in data] if arguments else data
    if not isinstance(kind, type):
        return data
    if isinstance(data, Mapping):
        if getattr(kind, "as_it_stands", False):
            return data
        known = getattr(kind, "model_fields", None)
        hints = {name: each.annotation for name, each in known.items()} if known else None
        if hints is None and is_dataclass(kind):
            hints = typing.get_type_hints(kind)
        if hints is None:
            return data
        its = {name: _native(hint, data[camel(name)]) for name, hint in hints.items() if camel(name) in data}
        try:
            return its if known else kind(**its)
        except TypeError:  # something is missing
            return data
    if issubclass(kind, (Bytes, Seconds)) and isinstance(data, (int, float)) and not isinstance(data, bool):
        return kind(data)
    if issubclass(kind, Decimal) and re.fullmatch(r"\d+(\.\d+)?", str(data)):
        return Decimal(data)
    return data


def plain(value: Object) -> Object:
    """As JSON has it: no types of ours, which YAML would not write."""
    return json.loads(json.dumps(value))  # type: ignore[no-any-return]
