"""The project folder: finds it, loads and checks ``shoal.yaml``, ``clusters/``, ``policies/``, ``images/``.

Why it exists: one place that turns files into checked values, and tells every fault in them at once.

What it must not do: decide on anything, or connect to anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
from pydantic import Field

from shoal.errors import ConfigError, NotFoundError
from shoal.project import templates as _templates
from shoal.project.budget import not_held
from shoal.project.consistency import held_together, known_names, known_templates
from shoal.project.folders import FILE
from shoal.project.folders import defaults as defaults
from shoal.project.folders import find as find
from shoal.project.policy import Policy, Shared, Team, Tier, User
from shoal.project.settings import Checked
from shoal.project.tables import TablePolicy
from shoal.project.targets import Image, Machine, Mount, Prices, Target
from shoal.project.templates import Template
from shoal.project.variables import UnsetVariableError, with_catalog, with_store
from shoal.project.yamlfile import UNKNOWN, Document, Fault, check, dotted, raise_faults, read
from shoal.units import Bytes
from shoal.words import did_you_mean, listed, sentence

T = TypeVar("T")

# Of what a machine has, this much is for clusters; the rest is for the system and the person's own process.
_SHARE_FOR_CLUSTERS = 0.8
IMAGES = "images/images.yaml"
_TOLERATED = ("clusters/", "images/", "policies/")
_UNREAD = "is not read"


class _Settings(Checked):
    """``shoal.yaml``."""

    default_target: str
    targets: dict[str, Target] = Field(min_length=1)
    mounts: dict[str, Mount] = Field(default_factory=dict)
    tables: dict[str, TablePolicy] = Field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """A loaded project folder with one target chosen.

    ``faults``: what is wrong in ``shoal.yaml`` and in files of ``clusters/``, ``images/`` and ``policies/``, where that
    was tolerated; the templates that it is about are not among ``templates``, and ``policy`` has no limits for anybody.
    ``numbers``: whose numbers these are, where they are not (only) its files.
    """

    folder: Path
    target: Target
    targets: Mapping[str, Target]
    templates: dict[str, Template]
    policy: Policy
    mounts: Mapping[str, Mount] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    tables: Mapping[str, TablePolicy] = field(default_factory=dict)
    numbers: str = ""

    @property
    def prices(self) -> Prices | None:
        """What an hour costs at the target; None where nobody said."""
        return self.target.prices

    def template(self, name: str) -> Template:
        """The template called ``name``; ConfigError if its file is at fault, or a shared folder of it is not there at
        this target, NotFoundError with the nearest name."""
        if name not in self.templates:
            raise_faults([fault for fault in self.faults if fault.file in (f"clusters/{name}.yaml", IMAGES)])
        found = _templates.find(self.templates, name)
        for mount in found.mounts if self.target.in_pods else ():
            if mount in self.mounts and self.mounts[mount].claim is None:
                raise ConfigError(
                    f"Template {name!r} has the mount {mount!r}, which has no claim: at target {self.target.name!r} "
                    "shared folders are PersistentVolumeClaims",
                    hint=f"Add 'claim: NAME' to mounts: {mount}: in {FILE}: the claim in each user's namespace.",
                )
        return found


def load(
    folder: Path | None = None, target: str | None = None, *, tolerant: bool = False, looking: bool = False
) -> Project:
    """Load and check the project in ``folder`` (default: :func:`find`), for ``target``.

    The target is chosen by ``target``, else by the environment's ``SHOAL_TARGET``, else by
    ``default_target:`` in the file. A ``clusters/``, ``policies/`` or ``images/`` that is not there is
    taken from the shipped defaults.

    ``tolerant``: a fault in ``clusters/`` or ``images/`` is not an error before its template is asked for, one in
    ``policies/`` not before somebody's limits are; what runs can be looked at and ended without them. ``looking``: nor
    is a wrong value of ``shoal.yaml`` under a known key that does not say where clusters are (see
    :mod:`shoal.project.looking`): that key is left out then, and nobody has limits. Nor is an unset variable of the
    catalog, which is left out.

    Raises ConfigError with all faults of all files; NotFoundError for an unknown target, or for a ``folder``
    without a ``shoal.yaml``.
    """
    if folder is not None and not (folder / FILE).is_file():
        raise NotFoundError(f"There is no {FILE} in {folder}", hint="shoal init makes a project folder.")
    root = folder or find()
    if folder is None and not (root / FILE).is_file():
        raise NotFoundError(
            f"There is no {FILE} in {root} (from SHOAL_PROJECT)",
            hint="Set SHOAL_PROJECT to a project folder, or unset it; shoal init makes one.",
        )
    faults: list[Fault] = []
    settings = _settings(root, faults)
    known_images = _images(root, faults)
    templates = _all_templates(root, settings, known_images, faults)
    images = known_images or {}
    policy = _policy(root, settings, faults)
    known_templates(policy, templates, faults)
    tolerable = [fault for fault in faults if _is_tolerable(fault)] if tolerant or looking else []
    partly = len(tolerable) < len(faults)
    if partly and not looking:
        raise_faults(faults)
    if partly:
        settings, tolerable = _places(root, faults, target), sorted(set(faults))
    if tolerable:
        at_fault = {fault.file for fault in tolerable}
        sound = IMAGES not in at_fault
        templates = {name: each for name, each in templates.items() if sound and each.where not in at_fault}
        wrong = tuple(
            fault
            for fault in tolerable
            if (partly or fault.file.startswith("policies/")) and fault.wrong != _UNREAD
        )
        policy = replace(policy, faults=wrong)
    assert settings is not None
    chosen = _choose(settings, target)
    try:
        chosen = with_catalog(chosen)
    except UnsetVariableError as error:
        if not looking:
            raise
        tolerable.append(_fault_of(root, error))
        chosen = chosen.model_copy(update={"catalog": None})
    references = {name: image.reference for name, image in images.items()} | dict(chosen.images)
    chosen = chosen.model_copy(update={"images": references})
    if unheld := not_held(policy.budgets(), policy.where, chosen):
        if not (tolerant or looking):
            raise_faults(unheld)
        tolerable += unheld
        policy = replace(policy, faults=(*policy.faults, *unheld))
    return Project(
        root,
        chosen,
        settings.targets,
        templates,
        policy,
        settings.mounts,
        images,
        tuple(tolerable),
        settings.tables,
    )


def _places(root: Path, faults: list[Fault], target: str | None) -> _Settings:
    """What ``shoal.yaml`` says without what is wrong in it.

    Raises:
        ConfigError: what is wrong may be about where clusters are.
    """
    from shoal.project.looking import places

    document = read(root / FILE, FILE, [])
    named = target or os.environ.get("SHOAL_TARGET")
    data = places(document, faults, named) if document is not None else None
    settings = check(_Settings, Document(FILE, data, {}), []) if data is not None else None
    if settings is None:
        raise_faults(faults)
    assert settings is not None
    return _named(settings)


def _fault_of(root: Path, error: UnsetVariableError) -> Fault:
    """The same, as a fault of the file's line."""
    path, name = tuple(error.values["path"]), error.values["variable"]
    wrong = f"needs the environment variable {name}, which is not set"
    document = read(root / FILE, FILE, [])
    line = document.line(path) if document is not None else 1
    return Fault(FILE, line, dotted(path), wrong, f"set {name}, or write ${{{name}:-default}}")


def _is_tolerable(fault: Fault) -> bool:
    """Nothing that is read follows from it but its own template."""
    return fault.file.startswith(_TOLERATED) or fault.wrong == _UNREAD


def look_up(machine: Machine) -> Machine:
    """``machine`` with what was left open (``auto``) filled in from this machine.

    Cores: those this process may use. Memory: 80 % of what the machine, or the container around, has.
    """
    cores = machine.cores
    if cores is None:
        affinity = getattr(os, "sched_getaffinity", None)
        cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
        quota = _cgroup("cpu.max").split()
        if len(quota) == 2 and quota[0] != "max":
            cores = min(cores, max(1.0, int(quota[0]) / int(quota[1])))
    memory = machine.memory
    if memory is None:
        total = psutil.virtual_memory().total
        limit = _cgroup("memory.max").strip()
        total = min(total, int(limit)) if limit.isdigit() else total
        memory = Bytes(total * _SHARE_FOR_CLUSTERS)
    return machine.model_copy(update={"cores": cores, "memory": memory})


def _cgroup(name: str) -> str:
    try:
        return Path("/sys/fs/cgroup", name).read_text()
    except OSError:
        return ""


def _settings(root: Path, faults: list[Fault]) -> _Settings | None:
    document = read(root / FILE, FILE, faults)
    if document is None:
        return None
    settings = check(_Settings, document, faults)
    for name in document.get("targets") or ():
        _refuse_reserved(Target.not_in_file, document, ("targets", name), faults)
    if settings is None:
        return None
    if settings.default_target not in settings.targets:
        wrong = f"there is no target {settings.default_target!r}"
        faults.append(
            document.fault(
                ("default_target",), wrong, did_you_mean(settings.default_target, settings.targets)
            )
        )
    return _named(settings)


def _named(settings: _Settings) -> _Settings:
    """Each target with its name."""
    named = {name: target.model_copy(update={"name": name}) for name, target in settings.targets.items()}
    return settings.model_copy(update={"targets": named})


def _refuse_reserved(
    keys: tuple[str, ...], document: Document, at: tuple[str, ...], faults: list[Fault]
) -> None:
    """Fields that the loader fills in are no keys of the file."""
    for key in keys:
        if document.get(*at, key) is not None:
            faults.append(document.fault((*at, key), UNKNOWN, "it follows from the place"))


def _choose(settings: _Settings, target: str | None) -> Target:
    name = target or os.environ.get("SHOAL_TARGET") or settings.default_target
    if name not in settings.targets:
        origin = "" if target else " (from SHOAL_TARGET)"
        raise NotFoundError(
            f"There is no target {name!r}{origin}",
            hint=sentence(did_you_mean(name, settings.targets)),
            name=name,
        )
    return with_store(settings.targets[name])


def _part(root: Path, name: str) -> Path:
    """The project's own folder ``name``, else the shipped one."""
    return root / name if (root / name).is_dir() else defaults() / name


def _images(root: Path, faults: list[Fault]) -> dict[str, Image] | None:
    """Those of the file, if there is one; None where it is at fault, so that nothing is said to follow from it."""
    path = _part(root, "images") / "images.yaml"
    if not path.is_file():
        return {}
    document = read(path, IMAGES, faults)
    return check(dict[str, Image], document, faults) if document is not None else None


def _all_templates(
    root: Path, settings: _Settings | None, images: Mapping[str, Image] | None, faults: list[Fault]
) -> dict[str, Template]:
    found: dict[str, Template] = {}
    folder = _part(root, "clusters")
    for path in sorted(folder.glob("*.yml")):
        if not path.with_suffix(".yaml").exists():
            faults.append(Fault(f"clusters/{path.name}", 1, "", _UNREAD, f"name it {path.stem}.yaml"))
    for path in sorted(folder.glob("*.yaml")):
        document = read(path, f"clusters/{path.name}", faults)
        if document is None:
            continue
        template = check(Template, document, faults)
        # From the raw data, so that these are said together with whatever else is wrong.
        _refuse_reserved(Template.not_in_file, document, (), faults)
        for engine in document.get("engines") or ():
            image = document.get("engines", engine, "image")
            if isinstance(image, str) and images is not None and image not in images:
                wrong = f"there is no image {image!r}"
                faults.append(
                    document.fault(("engines", engine, "image"), wrong, did_you_mean(image, images))
                )
        for index, mount in enumerate(document.get("mounts") or ()):
            if settings and isinstance(mount, str) and mount not in settings.mounts:
                wrong = f"there is no mount {mount!r} in {FILE}"
                faults.append(document.fault(("mounts", index), wrong, did_you_mean(mount, settings.mounts)))
        if template is None:
            continue
        found[path.stem] = template.model_copy(update={"name": path.stem, "where": document.file})
    if not found and not faults:
        faults.append(Fault("clusters/", 1, "", "holds no template", "add a file such as clusters/etl.yaml"))
    return found


def _policy(root: Path, settings: _Settings | None, faults: list[Fault]) -> Policy:
    folder = _part(root, "policies")
    documents: dict[str, Document] = {}
    kinds: dict[str, type[Any]] = {"tiers": Tier, "users": User, "teams": Team, "templates": Shared}
    parts: dict[str, dict[str, Any]] = {name: {} for name in kinds}
    for name, kind in kinds.items():
        path = folder / f"{name}.yaml"
        if name != "tiers" and not path.is_file():
            continue
        document = read(path, f"policies/{name}.yaml", faults)
        if document:
            documents[name] = document
            # Each entry for itself: one with a fault does not make its neighbours unknown.
            if not isinstance(document.data, dict):
                faults.append(document.fault((), "is not a mapping", f"write 'name: {{…}}' per {name[:-1]}"))
                continue
            for key in document.data:
                parts[name][key] = check(kind, document, faults, at=(key,))
    everybody = None
    if (path := folder / "everybody.yaml").is_file() and (
        document := read(path, "policies/everybody.yaml", faults)
    ):
        documents["everybody"] = document
        everybody = check(Shared, document, faults)
    for path in sorted(folder.glob("*.y*ml")):
        if path.name not in (files := [f"{name}.yaml" for name in (*kinds, "everybody")]):
            right = f"policies are in {listed(files)}"
            faults.append(Fault(f"policies/{path.name}", 1, "", _UNREAD, right))
    known_names(documents, parts, faults)
    held_together(documents, parts, faults)
    where = {
        ".".join((name, *map(str, path))): document.where(*path)
        for name, document in documents.items()
        for path in document.lines
        if path
    }
    known = {name: {key: value for key, value in part.items() if value} for name, part in parts.items()}
    default = known["users"].pop("default", None)
    return Policy(
        *(known["tiers"], known["users"], known["teams"], default, where),
        everybody=everybody,
        templates=known["templates"],
    )
