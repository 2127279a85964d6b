"""Finds a Java that Spark 4.1 runs on, or says in one sentence what to do.

Why it exists: a missing or wrong Java otherwise shows as a stack trace a minute later.

What it must not do: install anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shoal.errors import InfrastructureError

# Spark 4.1 supports Java 17 and 21 (https://spark.apache.org/docs/4.1.0/, "Downloading").
SUPPORTED = (17, 21)
_MEND = "Install Java 17 (Debian: `apt install openjdk-17-jre-headless`), or set JAVA_HOME to one."


class JavaError(InfrastructureError):
    """There is no Java, or not one that Spark runs on."""


@dataclass(frozen=True)
class Java:
    """A Java command and its major version."""

    command: Path
    version: int

    @property
    def home(self) -> Path:
        """What JAVA_HOME has to be for it."""
        return self.command.resolve().parent.parent


def find_java() -> Java:
    """The Java of JAVA_HOME, else of PATH; JavaError when there is none that Spark 4.1 runs on."""
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    where = f"JAVA_HOME={home}" if home else "PATH"
    if not found or not Path(found).is_file():
        raise JavaError(f"Spark needs Java 17, and none was found ({where})", hint=_MEND)
    ask = [found, "-XX:-UsePerfData", "-version"]  # its counters would be a folder below /tmp, open to all
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JavaError(f"{found} does not answer `-version`: {error}", hint=_MEND) from error
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    version = int(match[1]) if match else 0
    if version not in SUPPORTED:
        said = version or (answer.stderr or answer.stdout).strip().splitlines()[:1]
        raise JavaError(f"Spark needs Java 17, and {found} ({where}) is {said}", hint=_MEND)
    return Java(Path(found), version)
