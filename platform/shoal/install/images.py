"""Builds the container images of `images/` with the versions of the environment that builds them.

Why it exists: client and cluster must run the same versions, and a build must need no registry of images
and no network of its own. So the packages are laid out here, from the lock where there is one, and the
Containerfile only copies them.

What it must not do: push anywhere, or know which home uses an image.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shoal.errors import InfrastructureError, NotFoundError
from shoal.machine import paths
from shoal.machine.java import find_java
from shoal.project.folders import defaults
from shoal.tables.spark_conf import ICEBERG_RUNTIME, POSTGRESQL_JDBC, SQLITE_JDBC

TOOLS = ("buildah", "docker", "podman")
JARS = (ICEBERG_RUNTIME, SQLITE_JDBC, POSTGRESQL_JDBC)
LABEL = "dev.shoal.inputs"
_KEEP = 7 * 24 * 3600.0  # s that a laid-out set of packages stays after another took its place
# The extras of Shoal that an image carries, by the name of its folder; any other folder gets none.
_IN_PODS = ("pod", "postgresql", "s3")
EXTRAS: Mapping[str, tuple[str, ...]] = {"shoal-dask": _IN_PODS, "shoal-spark": ("spark", *_IN_PODS)}
COMMON = "shoal[s3]"  # what every image has: one layer that they share
# Of the shipped project folder, what programs in pods go by where nobody wrote anything else.
_SHIPPED = ("shoal.yaml", "clusters", "policies", "images/images.yaml")
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class BuildError(InfrastructureError):
    """An image could not be built; the message has the last lines of the tool that failed."""


@dataclass(frozen=True)
class Built:
    """One image: `reference` to use in templates, digest of its inputs, and whether anything was done."""

    name: str
    reference: str
    inputs: str
    seconds: float
    fresh: bool
    archive: Path | None = None


def requirements(roots: Iterable[str]) -> dict[str, str]:
    """Name -> version of `roots` ("shoal[spark]") and all they need, as installed here; without Shoal itself.

    Raises NotFoundError naming every one that is not installed.
    """
    wanted, seen, found, absent = list(map(Requirement, roots)), set(), dict[str, str](), set[str]()
    while wanted:
        each = wanted.pop()
        name = canonicalize_name(each.name)
        for extra in ("", *each.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                installed = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                absent.add(str(each))
                continue
            found[name] = installed.version
            for line in installed.requires or ():
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    wanted.append(needed)
    if absent:
        missing = ", ".join(sorted(absent))
        raise NotFoundError(
            f"the image needs {missing}, not installed here",
            hint=f"Install them first: pip install {missing}",
        )
    found.pop("shoal", None)
    return dict(sorted(found.items()))


def pins(versions: Mapping[str, str], lock: str) -> str:
    """A requirements file for `versions`, with the hashes of `lock` if it has every one of them."""
    blocks: dict[tuple[str, str], str] = {}
    for block in re.split(r"\n(?=\S)", lock):
        if head := re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", block):
            hashes = re.findall(r"--hash=\S+", block)
            blocks[canonicalize_name(head[1]), head[2]] = " ".join([f"{head[1]}=={head[2]}", *hashes])
    if all((name, version) in blocks for name, version in versions.items()):
        return "".join(f"{blocks[item]}\n" for item in versions.items())
    return "".join(f"{name}=={version}\n" for name, version in versions.items())


def find_tool(wanted: str = "") -> str:
    """`wanted`, or the first of TOOLS that is on PATH. NotFoundError says how to get one."""
    for tool in [wanted] if wanted else TOOLS:
        if shutil.which(tool):
            return tool
    raise NotFoundError(
        f"no image builder on PATH: {wanted or ', '.join(TOOLS)}",
        hint="Install one (Debian: `apt install buildah`), or name it with --tool.",
    )


def names(folder: Path) -> list[str]:
    """The images that can be built from `folder`: its subfolders with a Containerfile."""
    return sorted(file.parent.name for file in folder.glob("*/Containerfile"))


def build(
    wanted: Sequence[str] = (),
    *,
    folder: Path,
    references: Mapping[str, str],
    tool: str = "",
    base: str = "",
    lock: Path | None = None,
    archives: Path | None = None,
    again: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Built]:
    """Builds `wanted` (default: all) of the images in `folder`; what has not changed is not built again.

    references: name -> reference to give it ("shoal-dask:0.1.0"); tool: buildah, docker or podman; base:
    another BASE than the Containerfile's; lock: a requirements.lock whose hashes are checked; archives:
    write docker archives into this folder too; again: build even if nothing changed; say: gets a line per
    step. Raises NotFoundError for an unknown name, BuildError with the tool's own words.
    """
    known = names(folder)
    if unknown := [name for name in wanted if name not in known]:
        raise NotFoundError(
            f"no image {', '.join(unknown)} in {folder}", hint=f"There are: {', '.join(known)}"
        )
    chosen = find_tool(tool)
    return [
        _one(name, folder, references.get(name, name), chosen, base, lock, archives, again, say)
        for name in wanted or known
    ]


def _one(
    name: str,
    folder: Path,
    reference: str,
    tool: str,
    base: str,
    lock: Path | None,
    archives: Path | None,
    again: bool,
    say: Callable[[str], None],
) -> Built:
    began = time.monotonic()
    common, given = requirements([COMMON]), EXTRAS.get(name, ())
    more = requirements([COMMON, *(f"shoal[{extra}]" for extra in given)])
    hashes = lock.read_text() if lock else ""
    shared, own = pins(common, hashes), pins({k: v for k, v in more.items() if k not in common}, hashes)
    jars = JARS if "spark" in given else ()
    inputs = _digest(folder, name, base, shared + own, jars)
    archive = archives / f"{name}-{inputs}.tar" if archives else None
    if not again and (archive.exists() if archive else _label(tool, reference) == inputs):
        return Built(name, reference, inputs, time.monotonic() - began, False, archive)
    with tempfile.TemporaryDirectory(prefix=".context-", dir=_cache("contexts")) as temporary:
        context = Path(temporary)
        shutil.copytree(folder / name, context, dirs_exist_ok=True)
        shutil.copy(folder / "entry.py", context)
        # Linked, not copied: the same hundreds of megabytes serve until a version changes.
        for part, pinned in (("site", shared), ("more", own)):
            shutil.copytree(_site(part, pinned, say), context / part, copy_function=os.link, symlinks=True)
        _copy_shoal(context)
        if jars:
            fetch_jars(jars, context / "jars")
        say(f"{name}: building {reference} with {tool}")
        arguments = ["--build-arg", f"BASE={base}"] if base else []
        arguments += ["--layers"] if tool != "docker" else []  # only what changed is copied again
        # docker looks for a Dockerfile alone; buildah leaves the container of a failed step, mounted
        arguments += ["--file", str(context / "Containerfile"), "--force-rm"]
        _run([tool, "build", *arguments, "--label", f"{LABEL}={inputs}", "--tag", reference, str(context)])
    if archive:
        archive.parent.mkdir(parents=True, exist_ok=True)
        unfinished = archive.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        say(f"{name}: writing {archive}")
        _run(_save(tool, reference, unfinished))
        unfinished.replace(archive)
    return Built(name, reference, inputs, time.monotonic() - began, True, archive)


def _save(tool: str, reference: str, archive: Path) -> list[str]:
    if tool == "buildah":
        return ["buildah", "push", reference, f"docker-archive:{archive}:{reference}"]
    return [tool, "save", "--output", str(archive), reference]


def _sources(folder: Path, name: str) -> Iterator[tuple[str, Path]]:
    for top in (folder / name, folder / "entry.py", Path(__file__).parents[1], *_shipped()):
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if file.is_file() and "__pycache__" not in file.parts:
                yield f"{top.name}/{file.relative_to(top)}", file


def _digest(folder: Path, name: str, base: str, pinned: str, jars: Sequence[str]) -> str:
    total = hashlib.sha256("\0".join([base, pinned, _PYTHON, *jars]).encode())
    for where, file in _sources(folder, name):
        total.update(where.encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()[:12]


def _label(tool: str, reference: str) -> str:
    """The digest of inputs of the image that `reference` names now; "" if there is none."""
    kind = ["--type", "image"] if tool != "docker" else []
    layout = "{{index .OCIv1.Config.Labels" if tool == "buildah" else "{{index .Config.Labels"
    command = [tool, "inspect", *kind, "--format", f'{layout} "{LABEL}"}}}}', reference]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _cache(part: str) -> Path:
    return paths.make_private(paths.cache_folder() / "images" / part)


def _site(part: str, pinned: str, say: Callable[[str], None]) -> Path:
    """A folder with every package of `pinned`, laid out once. The image needs this Python's version."""
    kept = _cache("sites") / f"{part}-{_PYTHON}-{hashlib.sha256(pinned.encode()).hexdigest()[:12]}"
    if kept.exists():
        return kept
    say(f"laying out {len(pinned.splitlines())} packages")
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=kept.parent) as temporary:
        file, site = Path(temporary, "pinned.txt"), Path(temporary, "site")
        file.write_text(pinned)
        site.mkdir()
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        if pinned:
            _run([*pip, "--no-compile", "--root-user-action=ignore", "--target", str(site), "-r", str(file)])
        for script in (site / "bin").glob("*"):  # they name the Python that installed them
            first, _, rest = script.read_bytes().partition(b"\n")
            if first.startswith(b"#!") and b"python" in first:
                script.write_bytes(b"#!/usr/bin/env python3\n" + rest)
        for tests in [folder for folder in site.rglob("tests") if folder.is_dir()]:
            shutil.rmtree(tests)
        _compile(site)
        for old in kept.parent.glob(f"{part}-*"):
            if time.time() - old.stat().st_ctime > _KEEP:
                shutil.rmtree(old)
        site.rename(kept)
    return kept


def _shipped() -> list[Path]:
    return [defaults() / part for part in _SHIPPED]


def _copy_shoal(context: Path) -> None:
    """shoal/: this very Shoal, as a distribution of its own that other tools can see."""
    site = context / "shoal"
    shutil.copytree(Path(__file__).parents[1], site / "shoal", ignore=shutil.ignore_patterns("__pycache__"))
    its = site / "shoal" / "_defaults"  # where a wheel has them
    if not its.exists():
        for part, there in zip(_SHIPPED, _shipped(), strict=True):
            (its / part).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if there.is_dir() else shutil.copy)(there, its / part)
    facts = site / f"shoal-{metadata.version('shoal')}.dist-info"
    facts.mkdir()
    for file in ("METADATA", "entry_points.txt"):
        (facts / file).write_text(metadata.distribution("shoal").read_text(file) or "")
    _compile(site)


def _compile(folder: Path) -> None:
    # Contents, not times, say whether compiled code is valid: the copy into the image may change times.
    checked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(folder, quiet=2, workers=os.cpu_count() or 1, invalidation_mode=checked)


def fetch_jars(coordinates: Sequence[str], target: Path) -> list[Path]:
    """The jars of `group:artifact:version` in `target`, by the Ivy of PySpark; kept in the cache."""
    target.mkdir(parents=True, exist_ok=True)
    cache = _cache("jars")
    found = []
    for coordinate in coordinates:
        group, artifact, version = coordinate.split(":")
        kept = cache / f"{artifact}-{version}.jar"
        if not kept.exists():
            _ivy(group, artifact, version, cache)
        if not kept.exists():
            raise BuildError(f"Ivy found {coordinate} but left no {kept.name} in {cache}")
        found.append(Path(shutil.copy(kept, target)))
    return found


def _ivy(group: str, artifact: str, version: str, cache: Path) -> None:
    jars = Path(str(metadata.distribution("pyspark").locate_file("pyspark"))) / "jars"
    pattern = f"{cache}/[artifact]-[revision].[ext]"
    ivy = ["-cp", f"{jars}/*", "org.apache.ivy.Main", "-cache", str(cache / "ivy"), "-types", "jar"]
    _run(
        [
            str(find_java().command),
            *ivy,
            "-notransitive",
            "-dependency",
            group,
            artifact,
            version,
            "-retrieve",
            pattern,
        ]
    )


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-15:])
        raise BuildError(f"{command[0]} {command[1]} exited with {done.returncode}:\n{tail}")
