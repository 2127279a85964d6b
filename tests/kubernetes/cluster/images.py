"""The project's images for test clusters: on a base made by mmdebstrap, kept as archives, loaded into a node.

Uses no registry of images. Keeps its storage in the cache folder, away from that of whoever runs it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import binaries, needs, paths
from .errors import ClusterError

PACKAGES = ("python3", "ca-certificates", "openjdk-17-jre-headless")
# What a test image never reads. Java's installer needs the manual pages' folders, so those go at the end.
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/locale/*")
REFERENCE = "shoal.test/{}:1"


def _base_name() -> str:
    digest = hashlib.sha256(" ".join([*PACKAGES, *_EXCLUDED]).encode()).hexdigest()[:8]
    return f"shoal.test/base:{digest}"


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise ClusterError(f"{' '.join(command[:3])} exited with {done.returncode}:\n{tail}")
    return done.stdout


@contextmanager
def storage() -> Iterator[None]:
    """Within it, buildah keeps images in our cache and runs build steps in a plain chroot."""
    folder = paths.images() / "storage"
    folder.mkdir(parents=True, exist_ok=True)
    settings = paths.images() / "storage.conf"
    settings.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}"\nrunroot = "{folder}-run"\n')
    given = {"CONTAINERS_STORAGE_CONF": str(settings), "BUILDAH_ISOLATION": "chroot"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _base() -> str:
    """The base image, made once: Debian 12 with Python 3.11 and Java 17."""
    name = _base_name()
    if subprocess.run(
        ["buildah", "inspect", "--type=image", name], capture_output=True, check=False
    ).returncode:
        archive = paths.images() / "base.tar"
        options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
        # Debian's Python is 3.11 in bookworm, which is what the images are laid out for.
        _run(
            [
                "mmdebstrap", "--variant=minbase", "--quiet", f"--include={','.join(PACKAGES)}", *options,
                '--customize-hook=rm -rf "$1"/usr/share/man "$1"/var/lib/apt/lists',
                '--customize-hook=rm -rf "$1"/var/cache/apt/archives', "bookworm", str(archive),
            ]
        )  # fmt: skip
        container = _run(["buildah", "from", "scratch"]).strip()
        _run(["buildah", "add", container, str(archive), "/"])
        _run(["buildah", "commit", "--rm", container, name])
        archive.unlink()
    return name


def ensure(wanted: tuple[str, ...] = ()) -> dict[str, Path]:
    """Name -> docker archive of each image of the project, built only if its inputs changed.

    Needs root, buildah and mmdebstrap. The reference inside is `REFERENCE.format(name)`.
    """
    needs.check("images")
    from shoal.install import images as project

    with binaries.locked(paths.images() / ".lock"), storage():
        folder = paths.REPOSITORY / "images"
        built = project.build(
            wanted,
            folder=folder,
            references={name: REFERENCE.format(name) for name in project.names(folder)},
            tool="buildah",
            base=_base(),
            lock=paths.REPOSITORY / "requirements.lock",
            archives=paths.images(),
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        for each in built:
            if each.fresh:
                _forget_others(each.name, each.inputs)
    return {each.name: each.archive for each in built if each.archive is not None}


def _forget_others(name: str, inputs: str) -> None:
    """Old archives, but for the newest that another branch may use, and the layers behind them."""
    others = [file for file in paths.images().glob(f"{name}-*.tar") if file.name != f"{name}-{inputs}.tar"]
    for old in sorted(others, key=lambda file: file.stat().st_mtime)[:-1]:
        old.unlink()
    subprocess.run(["buildah", "rmi", "--prune"], capture_output=True, check=False)


def forget() -> None:
    """Removes everything that `ensure` kept."""
    shutil.rmtree(paths.images(), ignore_errors=True)
