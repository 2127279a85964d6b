"""Where a test cluster's files lie, so that every module agrees. Makes no folder by being imported."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]


def cache() -> Path:
    """The folder for everything that is kept between runs; `SHOAL_KUBE_CACHE` moves it."""
    return Path(os.environ.get("SHOAL_KUBE_CACHE") or platformdirs.user_cache_path("shoal") / "kubernetes")


def binaries() -> Path:
    """What was compiled, one folder per Go module and state of its lock."""
    return cache() / "bin"


def images() -> Path:
    """Image archives and the base they stand on."""
    return cache() / "images"


def runs() -> Path:
    """One folder per cluster that is running now; gone when it is."""
    return cache() / "run"
