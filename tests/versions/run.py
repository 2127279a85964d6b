"""Run the tests with the oldest versions that pyproject.toml admits, with a Dask that lacks what is private, and with
newer Pythons.

``python tests/versions/run.py`` (``make versions``). The newest versions are those of requirements.lock, with
which all other tests run, on Python 3.11. Each environment is made from a lock file beside this one (names, versions
and hashes; ``make lock`` writes them), kept in the user's cache folder, and made anew only when its lock or its
Python changes.

A newer Python is used where one is installed (``pythonX.Y`` on PATH, or pyenv's or uv's); where none is, that is
said at the end, and with ``CI=true`` it is a failure for those in ``EXPECTED``. With names as arguments only those
environments are tried.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("SHOAL_CACHE") or Path.home() / ".cache" / "shoal") / "versions"
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")
AT_ONCE = 2  # environments; each keeps about one core busy

EXPECTED = ("3.12", "3.13")
# These look at the repository itself, with tools that only requirements.lock names, or import a client of Kubernetes
# or scikit-learn, which are extras that these environments lack.
UNIT = (
    "tests/unit",
    "--ignore=tests/unit/test_credentials.py",
    "--ignore=tests/unit/test_governor_health.py",
    "--ignore=tests/unit/test_kubeconfig.py",
    "--ignore=tests/unit/test_kubernetes_parts.py",
    "--ignore=tests/unit/test_architecture.py",
    "--ignore=tests/unit/test_borders.py",
    "--ignore=tests/unit/test_house.py",
    "--ignore=tests/unit/test_images.py",
    "--ignore=tests/unit/test_package.py",
    "--ignore=tests/unit/test_sameness.py",
    "--ignore=tests/unit/test_words.py",
)


@dataclass(frozen=True)
class Environment:
    """A set of versions, what it is to show, and the tests that show it."""

    name: str
    why: str
    tests: tuple[str, ...]
    pushes: bool
    """Whether Dask's private expressions are there, so that ours is used."""
    python: str = ""
    """The version of Python, where it is not the one that runs this."""
    locked: str = ""
    """The lock's name, where it is not the environment's own."""


ENVIRONMENTS = (
    Environment(
        "oldest",
        "every lower bound of pyproject.toml, exactly",
        (
            "tests/tables/test_write_read.py",
            "tests/tables/test_expression.py",
            "tests/tables/test_upserts.py",
            "tests/tables/test_evolve.py",
            "tests/tables/test_bad_input.py",
            "tests/tables/test_catalog.py",
            *UNIT,
        ),
        pushes=True,
    ),
    Environment(
        "plain",
        "a Dask from before its expressions: tables are read through dd.from_map",
        ("tests/tables/test_write_read.py", "tests/tables/test_upserts.py", "tests/tables/test_evolve.py"),
        pushes=False,
    ),
    *(
        Environment(
            f"python{version}",
            "the newest versions, on a newer Python; a cluster is started with its fork server",
            (
                "tests/tables/test_write_read.py",
                "tests/tables/test_expression.py",
                "tests/homes/test_forkserver.py",
                *UNIT,
            ),
            pushes=True,
            python=version,
            locked="newer",
        )
        for version in (*EXPECTED, "3.14")
    ),
)


def version_of(python: str | Path) -> str:
    """What a Python says of itself; empty where it does not run."""
    try:
        said = subprocess.run(
            [python, "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.stdout.strip()


def interpreter(version: str) -> str:
    """The path of an installed Python of that version; empty where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    uv = Path.home() / ".local" / "share" / "uv" / "python"
    places = [
        shutil.which(f"python{version}"),
        *pyenv.glob(f"{version}.*/bin/python{version}"),
        *uv.glob(f"cpython-{version}.*/bin/python{version}"),
    ]
    return next((str(place) for place in places if place and version_of(place).startswith(f"{version}.")), "")


def prepared(environment: Environment, base: str) -> Path:
    """The environment's Python, made of ``base`` if its lock is new."""
    lock = HERE / f"{environment.locked or environment.name}.lock"
    digest = hashlib.sha256(lock.read_bytes() + version_of(base).encode()).hexdigest()[:16]
    folder = CACHE / f"{environment.name}-{digest}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    for old in CACHE.glob(f"{environment.name}-*"):
        shutil.rmtree(old)
    print(f"Setting up {folder}", flush=True)
    subprocess.run([base, "-m", "venv", folder], check=True)
    install = ["install", "--only-binary", ":all:", "--require-hashes", "-r", lock]
    subprocess.run([python, *PIP, *install], check=True)
    (folder / "complete").touch()
    return python


def built(folder: Path) -> Path:
    """The wheel of this working tree, as a user installs it."""
    python = ROOT / ".venv" / "bin" / "python"
    subprocess.run(
        [python, *PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT], check=True
    )
    (wheel,) = folder.glob("shoal-*.whl")
    return wheel


def run(environment: Environment, base: str, wheel: Path) -> tuple[int, str]:
    """Run its tests; the exit code of pytest, and what was printed."""
    python = prepared(environment, base)
    subprocess.run([python, *PIP, "install", "--no-deps", "--force-reinstall", wheel], check=True)
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
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "kubernetes")}

    def ran(*arguments: str, where: Path) -> tuple[int, str]:
        done = subprocess.run(
            [python, *arguments],
            env=variables,
            cwd=where,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    code, said = ran("-c", probe, where=HERE)
    told = f"{environment.name} ({environment.why}): {said}"
    if code or ("with push-down" in said) != environment.pushes:
        return 1, told
    code, helped = ran("-c", command, where=HERE)
    if code or "Usage" not in helped:
        return 1, f"{told}shoal --help: {helped}"
    chosen = ("-m", "not spark and not kubernetes and not slow")
    code, tests = ran(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--durations=10",
        *chosen,
        *environment.tests,
        where=ROOT,
    )
    return code, told + tests


def tried(environment: Environment, wheel: Path) -> tuple[int, str]:
    """The exit code, and a line for the end."""
    base = interpreter(environment.python) if environment.python else sys.executable
    if not base:
        must = os.environ.get("CI") == "true" and environment.python in EXPECTED
        return int(must), f"{environment.name}: not tried, no python{environment.python} is installed here"
    begun = time.monotonic()
    code, printed = run(environment, base, wheel)
    print(printed, end="", flush=True)
    result = "passed" if code == 0 else f"FAILED ({code})"
    took = f"{time.monotonic() - begun:.0f} s"
    return code, f"{environment.name}: {result} in {took}, {version_of(base).split()[0]}"


def main() -> None:
    only = set(sys.argv[1:])
    chosen = [each for each in ENVIRONMENTS if not only or each.name in only]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        wheel = built(Path(folder))
        results = list(pool.map(tried, chosen, [wheel] * len(chosen)))
    print("\n".join(line for _, line in results))
    sys.exit(max((code for code, _ in results), default=2))


if __name__ == "__main__":
    main()
