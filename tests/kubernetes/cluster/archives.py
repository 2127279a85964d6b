"""Writes small image archives, so that a pod can run with neither a registry nor an image builder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def single(
    image: str, files: dict[str, Path], command: list[str], target: Path, links: tuple[str, ...] = ()
) -> Path:
    """A docker archive of one layer with `files` (path in the image: file here), at `target`.

    links: further names, as symbolic links to the first file. The same input gives the same bytes.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as content:
        for folder in sorted(
            {str(parent) for name in (*files, *links) for parent in Path(name).parents} - {"."}
        ):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            content.addfile(entry)
        scratch = tarfile.TarInfo("tmp")
        scratch.type, scratch.mode = tarfile.DIRTYPE, 0o1777
        content.addfile(scratch)
        for name, file in files.items():
            _add(content, name, file.read_bytes(), 0o755)
        for name in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/" + next(iter(files))
            content.addfile(entry)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    settings = {"Cmd": command, "Env": ["PATH=/bin"], "WorkingDir": "/tmp"}
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    history = [{"created": "1970-01-01T00:00:00Z", "created_by": "shoal"}]  # podman counts layers by it
    about = {"architecture": machine, "os": "linux", "config": settings, "rootfs": rootfs, "history": history}
    config = json.dumps(about).encode()
    name = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [image], "Layers": [f"{digest}.tar"]}]
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    with tarfile.open(unfinished, "w") as archive:
        _add(archive, f"{digest}.tar", layer.getvalue())
        _add(archive, f"{name}.json", config)
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    unfinished.replace(target)
    return target
