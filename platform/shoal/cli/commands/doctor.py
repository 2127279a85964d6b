"""``shoal doctor``: every connection proved, each failure with the command that fixes it.

Why it exists: what is wrong with a machine shows here in a second, instead of in a stack trace a minute
after a start.

What it must not do: change anything, or start a cluster (``validate`` does).
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from shoal.cli import options as o
from shoal.cli.checks import failed, run
from shoal.errors import ShoalError
from shoal.model.checks import Check, Failed, Warned
from shoal.words import count

if TYPE_CHECKING:
    from shoal.homes.base import Home

EXAMPLES = """\b
Examples:
  shoal doctor
  shoal doctor --target kubernetes -o json
"""
_NEED = ("dask", "distributed", "pandas", "pyarrow", "pyiceberg", "sqlalchemy")
_EXTRAS = {"pyspark": "spark", "prefect": "prefect"}
_FREE = 2e9  # bytes of disk below which a first Spark start (jars, scratch) may fail
_FILES = 1024  # open files that some ten workers with their connections take


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("doctor", epilog=EXAMPLES)(doctor)


def doctor(
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Check the environment: versions, Java, folders, ledger, catalog, project files, machine."""
    findings = run(_Proofs(target, project).checks(), show=output is o.Output.TEXT)
    bad = failed(findings)
    if output is o.Output.JSON:
        from shoal.cli.console import write_json

        write_json({"ok": not bad, "checks": [finding.to_json() for finding in findings]})
    else:
        from shoal.cli.console import out

        out().print(f"\n{bad} of {len(findings)} checks failed." if bad else "\nAll checks passed.")
    raise typer.Exit(4 if bad else 0)


class _Proofs:
    def __init__(self, target: str | None, project: Path | None) -> None:
        self._target, self._folder = target, project
        self._project: Any = None

    def checks(self) -> Iterator[Check]:
        yield from (
            ("Python", _python),
            ("packages", _packages),
            ("extras", _extras),
            ("dashboard", _dashboard),
            ("Java", _java),
            ("project", self._files),
            ("policy", self._policy),
            ("data folder", _data),
        )
        yield from self._of_home()
        yield from (
            ("catalog", self._catalog),
            *self._for_spark(),
            ("machine", self._machine),
            ("loopback", _loopback),
            ("open files", _open_files),
            ("heads", self._heads),
        )

    def _opened(self) -> Any:
        if self._project is None:
            raise Failed("skipped: the project cannot be loaded", "fix the project first (see above)")
        return self._project

    def _home(self) -> Home:
        from shoal.homes.choose import open_home

        return open_home(self._opened())

    def _files(self) -> str:
        from shoal.client.finding import open_project
        from shoal.errors import ConfigError
        from shoal.project.loading import defaults
        from shoal.project.yamlfile import raise_faults

        try:
            self._project = open_project(self._folder, self._target)
            raise_faults(self._project.faults)
        except ConfigError as error:
            raise Failed(
                error.message, "edit these lines; `shoal init` elsewhere shows files that work"
            ) from error
        shipped = (
            " (the shipped one: no shoal.yaml here or above)" if self._project.folder == defaults() else ""
        )
        names = ", ".join(self._project.templates)
        return f"{self._project.folder}{shipped}, target {self._project.target.name}; templates {names}"

    def _policy(self) -> str:
        from shoal.homes.choose import in_force

        opened = in_force(self._opened())
        limits = opened.policy.limits_of(self._home().user())
        team = f", team {limits.team}" if limits.team else ""
        return f"{limits.user} is in tier {limits.tier}{team}" + (
            f", {opened.numbers}" if opened.numbers else ""
        )

    def _of_home(self) -> Iterable[Check]:
        """What the home proves of itself, by its own names; without one, that there is none."""
        try:
            return self._home().proofs()
        except (Failed, ShoalError):
            return [("home", lambda: self._home().name)]

    def _catalog(self) -> str:
        self._opened()
        from shoal.client.wiring import NoCatalogError
        from shoal.tables.catalogs.opening import catalog, settings
        from shoal.tables.trial import prove

        try:
            found = settings()
        except NoCatalogError as error:
            raise Warned(f"no tables: {error.message}", error.hint) from error
        names = catalog(found).list_namespaces()
        prove(found)
        where = f"files go to {found.warehouse}" if found.warehouse else "it says where files go"
        return (
            f"{found.shown_uri} answers, {count(len(names), 'namespace')}; {where}: "
            "a table was made, written, read and dropped"
        )

    def _for_spark(self) -> Iterable[Check]:
        """A laptop's Spark takes its jars from here; an image has its own."""
        in_pods = self._project is not None and self._project.target.in_pods
        return () if in_pods else [("Spark's jars", self._jars)]

    def _jars(self) -> str:
        self._opened()  # which jars Spark needs depends on the catalog
        from shoal.engines.spark.jars import jar_files
        from shoal.machine import paths
        from shoal.tables.spark_conf import spark_packages

        folder = paths.cache_folder() / "ivy"
        missing = [file.name for file in jar_files(spark_packages(), folder) if not file.is_file()]
        if missing:
            raise Warned(
                f"not fetched yet: {', '.join(missing)}; the first Spark start does it",
                "shoal validate --engine spark",
            )
        return f"in {folder / 'jars'}"

    def _machine(self) -> str:
        from shoal.model.workload import Workload
        from shoal.planning.sizing import plan
        from shoal.project.loading import look_up

        opened = self._opened()
        if opened.target.machine is None:
            return f"target {opened.target.name} does not say how much it holds (machine:)"
        from shoal.quota.account import real

        there = look_up(opened.target.machine)
        limits = opened.policy.limits_of(self._home().user())
        too_large = []
        for name, template in opened.templates.items():
            need = real(plan(Workload(name), template, limits, opened.target)).memory
            if there.memory is not None and need > there.memory:
                too_large.append(f"{name} ({need})")
        said = f"{count(there.cores or 0, 'core')} and {there.memory} for clusters"
        if too_large:
            raise Warned(
                f"{said}: not enough for {', '.join(too_large)}",
                "shoal up with fewer --workers, or a smaller `worker:` of the target in shoal.yaml",
            )
        return f"{said}: enough for one of each template"

    def _heads(self) -> str:
        home = self._home()
        live = home.clusters(owner=home.user())
        hung = {cluster.name: said for cluster in live if (said := home.unresponsive(cluster))}
        if hung:
            said = "; ".join(f"{name}: {what}" for name, what in hung.items())
            raise Warned(said, f"shoal down {' '.join(hung)}")
        if not live:
            return "you have no live cluster"
        return f"your {count(len(live), 'live cluster responds', 'live clusters respond')}"


def _python() -> str:
    need = metadata("shoal")["Requires-Python"]
    if platform.python_version() not in SpecifierSet(need):
        raise Failed(f"this is {platform.python_version()}", f"make a venv with Python {need}")
    return f"{platform.python_version()} at {sys.executable}"


def _packages() -> str:
    found = {}
    for name in _NEED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            raise Failed(
                f"{name} is not installed", f"{sys.executable} -m pip install --upgrade shoal"
            ) from None
    _fit_pins(list(found), "shoal")
    return ", ".join(f"{name} {its}" for name, its in {"shoal": version("shoal"), **found}.items())


def _extras() -> str:
    found, missing = {}, []
    for name, extra in _EXTRAS.items():
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            missing.append(extra)
    _fit_pins(list(found), "'shoal[all]'")
    if missing:
        have = ", ".join(f"{name} {its}" for name, its in found.items()) or "none"
        raise Warned(
            f"{have}; not installed: {', '.join(missing)}",
            f"{sys.executable} -m pip install 'shoal[{','.join(missing)}]'",
        )
    return ", ".join(f"{name} {its}" for name, its in found.items())


def _fit_pins(names: list[str], what: str) -> None:
    """Installed versions are those that Shoal's own metadata asks for."""
    for text in requires("shoal") or ():
        need = Requirement(text)
        if need.name.lower() in names and not need.specifier.contains(version(need.name), prereleases=True):
            raise Failed(
                f"{need.name} is {version(need.name)}, and Shoal needs {need.specifier}",
                f"{sys.executable} -m pip install --upgrade {what}",
            )


def _dashboard() -> str:
    """What draws Dask's pages is imported, as a cluster does when somebody first looks."""
    try:
        import distributed.dashboard.core as pages
    except ImportError as error:
        raise Failed(
            f"Dask's pages cannot be drawn: {error}", f"{sys.executable} -m pip install 'bokeh>=3.6'"
        ) from None
    return f"bokeh {pages.BOKEH_VERSION} draws Dask's pages; `shoal ls` shows their links"


def _java() -> str:
    from shoal.machine.java import find_java

    java = find_java()
    return f"Java {java.version} at {java.command}"


def _data() -> str:
    from shoal.machine import paths

    folder = paths.make_private(paths.data_folder())
    free = shutil.disk_usage(folder).free
    if free < _FREE:
        raise Failed(
            f"{folder} has {free / 1e9:.1f} GB free", "free some disk, or point SHOAL_DATA elsewhere"
        )
    if folder.stat().st_mode & 0o077:
        raise Failed(f"{folder} can be read by others", f"chmod 700 {folder}")
    return f"{folder} can be written; {free / 1e9:.0f} GB free"


def _loopback() -> str:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        client.settimeout(2)
        try:
            client.connect(server.getsockname())
        except OSError as error:
            raise Failed(f"127.0.0.1 cannot be connected to: {error}", "ip link set lo up") from error
    return "127.0.0.1 answers"


def _open_files() -> str:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return f"no limit on {os.name}"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _FILES:
        raise Warned(f"at most {soft} per process", f"ulimit -n {min(hard, 65536) if hard > 0 else 65536}")
    return f"{soft} per process"
