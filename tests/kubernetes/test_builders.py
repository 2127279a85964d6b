"""`shoal images build` with each of its tools: the same inputs give an image that carries Shoal."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import fixtures, needs
from cluster.errors import Unavailable

from shoal.errors import InfrastructureError
from shoal.install import images

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]
_LAYOUT = (
    "ARG BASE=scratch\nFROM ${BASE}\nRUN echo made > /made\nCOPY shoal /opt/shoal\nCOPY entry.py /entry.py\n"
)
_REFERENCE = "shoal.test/built:1"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """buildah, docker and podman keep what they make in a folder that goes, and mount nothing that stays."""
    if os.geteuid() != 0:
        fixtures.unavailable("images are built as root here: run the same command with sudo")
    with tempfile.TemporaryDirectory(prefix="shoal-builders-") as name:
        folder = Path(name)
        settings = f'[storage]\ndriver = "overlay"\ngraphroot = "{name}/graph"\nrunroot = "{name}/run"\n'
        (folder / "storage.conf").write_text(settings)
        monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
        monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
        yield folder
        subprocess.run(
            ["umount", "--recursive", str(folder / "graph" / "overlay")], capture_output=True, check=False
        )


def _dockerd(folder: Path) -> subprocess.Popen[bytes]:
    """A Docker of our own, that touches neither the machine's network nor its other Docker."""
    socket = folder / "docker.sock"
    command = [
        needs.where("dockerd") or "dockerd", "--host", f"unix://{socket}", "--pidfile", f"{folder}/pid",
        "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--bridge=none", "--iptables=false",
        "--ip6tables=false",
    ]  # fmt: skip
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while subprocess.run(["docker", "--host", f"unix://{socket}", "info"], capture_output=True).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            pytest.fail(f"dockerd does not answer:\n{(folder / 'dockerd.log').read_text()[-2000:]}")
        time.sleep(0.1)
    return daemon


@pytest.fixture(
    params=[pytest.param(tool, marks=() if tool == "buildah" else pytest.mark.soak) for tool in images.TOOLS]
)
def tool(request: pytest.FixtureRequest, storage: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = str(request.param)
    wanted = {"docker": ("docker", "dockerd")}.get(name, (name,))
    if absent := [each for each in wanted if needs.where(each) is None]:
        package = {"docker": "docker.io"}.get(name, name)
        fixtures.unavailable(f"{', '.join(absent)}: sudo apt-get install --no-install-recommends {package}")
    if name != "docker":
        yield name
        return
    daemon = _dockerd(storage)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{storage}/docker.sock")
    try:
        yield name
    finally:
        daemon.terminate()
        daemon.wait(30)


def _load(tool: str, archive: Path) -> None:
    command = {"buildah": ["buildah", "pull", f"docker-archive:{archive}"]}.get(
        tool, [tool, "load", "--input", str(archive)]
    )
    subprocess.run(command, check=True, capture_output=True)


def _files(archive: Path) -> set[str]:
    with tarfile.open(archive) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert manifest[0]["RepoTags"] == [_REFERENCE]
        found: set[str] = set()
        for layer in manifest[0]["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(layer)) as inner:
                found |= {name.lstrip("./") for name in inner.getnames()}
    return found


def test_every_tool_builds_once_and_saves(tool: str, storage: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "built").mkdir(parents=True)
    (folder / "built" / "Containerfile").write_text(_LAYOUT)
    (folder / "entry.py").write_text("pass\n")
    try:
        _load(tool, fixtures.tools_archive())
    except Unavailable as reason:
        fixtures.unavailable(str(reason))
    base = {"base": fixtures.TOOLS_IMAGE, "references": {"built": _REFERENCE}, "folder": folder, "tool": tool}
    first = images.build(**base, archives=tmp_path / "kept")[0]  # type: ignore[arg-type]
    assert (first.fresh, first.reference) == (True, _REFERENCE)
    assert first.archive is not None
    assert {"made", "entry.py", "opt/shoal/shoal/install/images.py"} <= _files(first.archive)
    assert not images.build(**base)[0].fresh  # type: ignore[arg-type]
    (folder / "built" / "Containerfile").write_text(f"{_LAYOUT}RUN echo no such luck >&2; exit 9\n")
    with pytest.raises(InfrastructureError, match=r"(?s)build exited with.*no such luck"):
        images.build(**base)  # type: ignore[arg-type]
    assert f"{storage}/graph/overlay/" not in Path("/proc/self/mountinfo").read_text()  # nor a failed step
