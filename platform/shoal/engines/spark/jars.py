"""The jars that Spark needs for Iceberg, fetched once into the user's cache.

Why it exists: resolving packages at every start costs seconds and needs the network; the files, once
there, need neither.

What it must not do: choose versions (``tables`` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shoal.machine import paths


def jar_files(packages: Sequence[str], folder: Path) -> list[Path]:
    """Where Ivy puts the jars of ``group:artifact:version`` coordinates below its folder."""
    return [folder / "jars" / f"{'_'.join(p.split(':')[:2])}-{p.split(':')[2]}.jar" for p in packages]


def jar_conf(packages: Sequence[str]) -> dict[str, str]:
    """Spark settings that bring the jars: by class path when they are in the cache, else by resolving.

    Spark resolves into the same cache, so the next start finds them.
    """
    folder = paths.make_private(paths.cache_folder() / "ivy")
    files = jar_files(packages, folder)
    if all(file.is_file() for file in files):
        return {"spark.driver.extraClassPath": ":".join(map(str, files))}
    return {"spark.jars.packages": ",".join(packages), "spark.jars.ivy": str(folder)}
