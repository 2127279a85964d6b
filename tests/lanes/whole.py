"""Run all tests, for CI: the few that fail are run once more, alone, and named in either case.

``python tests/lanes/whole.py LANES [ARGUMENTS OF PYTEST]``. Lanes share two cores with Spark and a Kubernetes, and CI's
machine may be slow besides: a test that waits a bounded time then fails now and then for no fault of what it tests.
What fails twice, or together with many others, fails the run. What passes only alone is printed, to be looked into.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAILED = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
FEW = 5
SOME_FAILED = 1  # what pytest ends with then; any other code is not about single tests


Outcome = tuple[int, list[str]]  # pytest's exit code, and which tests failed


def run(pytest: Callable[[Sequence[str]], Outcome], first: Sequence[str], say: Callable[[str], None]) -> int:
    """The exit code of the whole. ``first``: pytest's arguments."""
    code, failed = pytest(first)
    if code != SOME_FAILED or not 0 < len(failed) <= FEW:
        return code
    say(f"failed, and run once more alone: {', '.join(failed)}")
    code, again = pytest(["--numprocesses", "0", "--tb=short", *failed])
    passed = [name for name in failed if name not in again]
    if passed:
        say(f"PASSED ONLY ALONE, to be looked into: {', '.join(passed)}")
    return code


def _pytest(arguments: Sequence[str]) -> Outcome:
    FAILED.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", *arguments]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    return code, sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []


if __name__ == "__main__":
    lanes, *more = sys.argv[1:]
    sys.exit(
        run(
            _pytest,
            ["--numprocesses", lanes, "--dist", "loadscope", *more],
            lambda text: print(f"== {text}", flush=True),
        )
    )
