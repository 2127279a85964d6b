"""Compares the packages of a client with those of its workers.

Why it exists: another pandas or cloudpickle on the workers shows as a strange error in the middle of a job;
here it shows as a sentence at connect.

What it must not do: import the packages it names, or keep anybody from connecting.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

# Objects of these cross between client and workers, so their versions have to fit.
COMPARED = ("dask", "distributed", "cloudpickle", "numpy", "pandas", "pyarrow", "pyspark")


VERSIONS = "shoal_versions"  # what workers tell their scheduler about themselves under this name


class EnvironmentMismatchWarning(UserWarning):
    """Client and workers do not have the same Python or packages."""


def versions() -> dict[str, str]:
    """Versions of this process by name; what is not installed is not in it. Runs on workers, too."""
    found = {"Python": platform.python_version()}
    for name in COMPARED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def differences(mine: Mapping[str, str], theirs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Sentences on what differs between this process and workers, which are given by name.

    Python differs when its first two numbers do. A package that one side lacks differs only where this side
    has it, and workers of several versions are told together.
    """
    said = []
    for name in sorted(mine):
        others: dict[str, list[str]] = {}
        for worker, its in theirs.items():
            there = its.get(name, "not installed")
            if name == "pyspark" and name not in its:
                continue  # workers of Dask may well be without it; Spark's cannot be
            if _short(name, there) != _short(name, mine[name]):
                others.setdefault(there, []).append(worker)
        for there, workers in sorted(others.items()):
            where = "the workers" if len(workers) == len(theirs) else f"worker {', '.join(sorted(workers))}"
            said.append(f"{name} {mine[name]} here, {there} on {where}")
    return said


def _short(name: str, its: str) -> str:
    return ".".join(its.split(".")[:2]) if name == "Python" else its


def warn(different: list[str]) -> None:
    """EnvironmentMismatchWarning for :func:`differences`, at the line of whoever connects."""
    if different:
        message = f"client and workers differ: {'; '.join(different)}. Results may fail or differ."
        warnings.warn(message, EnvironmentMismatchWarning, stacklevel=4)
