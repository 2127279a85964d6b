"""Run the tests with the oldest versions that pyproject.toml admits, and with a Dask that lacks what is private.

``python tests/versions/run.py`` (``make versions``). The newest versions are those of requirements.lock, with
which all other tests run. Each environment is made from a lock file beside this one (names, versions and hashes;
``make lock`` writes them), kept in the user's cache folder, and made anew only when its lock changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("SHOAL_CACHE") or Path.home() / ".cache" / "shoal") / "versions"


@dataclass(frozen=True)
class Environment:
    """A set of versions, what it is to show, and the tests that show it."""

    name: str
    why: str
    tests: tuple[str, ...]
    pushes: bool
    """Whether Dask's private expressions are there, so that ours is used."""


ENVIRONMENTS = (
    Environment(
        "oldest",
        "every lower bound of pyproject.toml, exactly",
        (
            "tests/tables/test_write_read.py",
            "tests/tables/test_expression.py",
            "tests/tables/test_upsert_evolve.py",
            "tests/tables/test_bad_input.py",
            "tests/tables/test_catalog.py",
            "tests/unit",
            # These look at the installed package, and here only what it stands on is installed.
            "--ignore=tests/unit/test_images.py",
            "--ignore=tests/unit/test_package.py",
        ),
        pushes=True,
    ),
    Environment(
        "plain",
        "a Dask from before its expressions: tables are read through dd.from_map",
        ("tests/tables/test_write_read.py", "tests/tables/test_upsert_evolve.py"),
        pushes=False,
    ),
)


def prepared(environment: Environment) -> Path:
    """The environment's Python, made if its lock is new."""
    lock = HERE / f"{environment.name}.lock"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = CACHE / f"{environment.name}-{digest}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    for old in CACHE.glob(f"{environment.name}-*"):
        shutil.rmtree(old)
    print(f"Setting up {folder}", flush=True)
    venv.create(folder, with_pip=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    subprocess.run([python, *install, "--require-hashes", "-r", lock], check=True)
    (folder / "complete").touch()
    return python


def run(environment: Environment) -> int:
    """Run its tests; the exit code of pytest."""
    python = prepared(environment)
    probe = (
        "import dask, pyarrow, pyiceberg, pandas\n"
        "print('dask', dask.__version__, 'pyarrow', pyarrow.__version__,\n"
        "      'pyiceberg', pyiceberg.__version__, 'pandas', pandas.__version__)\n"
        "from shoal.tables.reading import read\n"
        "try:\n"
        "    import shoal.tables.reading.expression\n"
        "except ImportError:\n"
        "    print('without push-down')\n"
        "else:\n"
        "    print('with push-down')\n"
    )
    command = "import sys; sys.argv = ['shoal', '--help']; from shoal.cli.main import main; main()"
    variables = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT / 'tests' / 'kubernetes'}",
    }
    said = subprocess.run(
        [python, "-c", probe], env=variables, cwd=HERE, capture_output=True, text=True, check=False
    )
    print(f"{environment.name} ({environment.why}): {said.stdout}{said.stderr}", flush=True)
    if said.returncode or ("with push-down" in said.stdout) != environment.pushes:
        return 1
    helped = subprocess.run(
        [python, "-c", command], env=variables, cwd=HERE, capture_output=True, text=True, check=False
    )
    if helped.returncode or "Usage" not in helped.stdout:
        print(f"shoal --help: {helped.stdout}{helped.stderr}")
        return 1
    pytest = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not spark and not kubernetes and not slow",
    ]
    return subprocess.run(
        [python, *pytest, *environment.tests], env=variables, cwd=ROOT, check=False
    ).returncode


def main() -> None:
    codes = []
    for environment in ENVIRONMENTS:
        begun = time.monotonic()
        codes.append(run(environment))
        print(f"{environment.name}: {time.monotonic() - begun:.0f} s", flush=True)
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
