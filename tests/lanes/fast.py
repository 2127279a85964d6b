"""Run the tests of `make test-fast`: under two minutes on two cores, for after each change.

``python tests/lanes/fast.py [ARGUMENTS OF PYTEST]``. No cluster, no server and no JVM is started, and what is drawn
at random is drawn in few steps. The Java on PATH and in JAVA_HOME tells who starts it, and that fails the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARKS = "not spark and not kubernetes and not slow"
TESTS = (
    "tests/unit",
    "tests/governing",
    "tests/tables/test_encodings.py",
    "tests/tables/test_expression.py",
    "tests/tables/test_write_read.py",
    "tests/cli/test_advice.py",
    "tests/cli/test_explain.py",
    "tests/cli/test_views.py",
    "tests/flows/test_names.py",
)
JAVA = """#!/bin/sh
echo "{java} $*" >> {told}
echo "make test-fast starts no Java" >&2
exit 1
"""


def command(*more: str, tests: tuple[str, ...] = TESTS) -> list[str]:
    """Pytest with the selection, in two lanes."""
    lanes = ["-q", "-n", "2", "--dist", "loadscope"]
    return [sys.executable, "-m", "pytest", *lanes, "-m", MARKS, *tests, *more]


def run(*more: str, tests: tuple[str, ...] = TESTS) -> int:
    """The exit code: pytest's, or 1 where a Java was started."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        java, told = home / "bin" / "java", home / "started"
        java.parent.mkdir()
        java.write_text(JAVA.format(java=java, told=told))
        java.chmod(0o755)
        path = f"{java.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "JAVA_HOME": folder, "PATH": path}
        code = subprocess.run(command(*more, tests=tests), cwd=ROOT, env=environment, check=False).returncode
        if told.exists():
            print(f"a test of `make test-fast` started a Java:\n{told.read_text()}", file=sys.stderr)
            return code or 1
        return code


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
