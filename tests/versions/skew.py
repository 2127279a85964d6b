"""Two versions of Shoal on one ledger: the last release beside today's, each with the other's clusters.

``python tests/versions/skew.py`` (part of ``make versions``). People upgrade a notebook while the clusters of a
colleague's older one still run, and the other way round: each looks at, connects to, extends, scales and ends the
other's clusters, and no head may fail of what the other wrote. The release is taken out of the repository's own
history; a clone without that commit says so and tries nothing. What a file or a ledger of an older Shoal looks
like is also a test of its own (tests/homes/test_older.py), which needs no history.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RELEASE = "107d421"  # 0.1.0, until a tag is there
USE = """
import sys, shoal
with shoal.connect(sys.argv[1]) as cluster:
    assert cluster.client.submit(sum, [1, 2]).result() == 3
    cluster.scale(2)
print("used", sys.argv[1])
"""


@dataclass(frozen=True)
class Version:
    """A Shoal by the folder that its package lies in."""

    name: str
    package: Path

    def run(self, *command: str, environment: dict[str, str]) -> str:
        """Its standard output; AssertionError with all that it said where it failed."""
        done = subprocess.run(
            [sys.executable, "-P", *command],
            env=environment | {"PYTHONPATH": str(self.package)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        said = (
            f"{self.name}: {' '.join(command)[:200]}\nexit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
        assert done.returncode == 0, said
        assert "TypeError" not in said, said
        return done.stdout

    def shoal(self, *words: str, environment: dict[str, str]) -> str:
        return self.run("-m", "shoal", *words, environment=environment)


def release(folder: Path) -> Version | None:
    """The last release, unpacked there; None where the clone lacks its commit."""
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", RELEASE], capture_output=True, timeout=60, check=False
    )
    if packed.returncode != 0:
        return None
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return Version("0.1.0", folder / "platform")


def side_by_side(maker: Version, other: Version, folder: Path) -> None:
    """``maker`` starts two clusters; ``other`` does with them what people do, and ends them."""
    home = folder / f"made-by-{maker.name}"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
    environment |= {"SHOAL_DATA": str(home / "data"), "SHOAL_USER": "alice", "HOME": str(home)}
    try:
        for name in ("one", "two"):
            size = ("--workers", "1", "--memory", "1 GB", "--cores", "1")
            maker.shoal("up", "etl", *size, "--name", name, "--detach", "--yes", environment=environment)
        for words in (("ls",), ("ls", "-o", "json"), ("why", "one"), ("logs", "one"), ("quota",)):
            other.shoal(*words, environment=environment)
        other.shoal("extend", "one", "30 min", environment=environment)
        other.run("-c", USE, "one", environment=environment)
        assert "used" in maker.run("-c", USE, "one", environment=environment)  # its head has read all of that
        other.shoal("down", "one", "--yes", environment=environment)
        maker.shoal("down", "two", "--yes", environment=environment)
        for version in (maker, other):
            listed = version.shoal("ls", "--all", environment=environment)
            assert listed.count("StoppedByUser") == 2, listed
            assert "HeadCrashed" not in listed, listed
    finally:
        maker.shoal("down", "--all", "--yes", environment=environment)


def main() -> int:
    today = Version("today", ROOT / "platform")
    with tempfile.TemporaryDirectory(prefix="shoal-skew-") as folder:
        before = release(Path(folder) / "release")
        if before is None:
            print(f"skew: this clone has no commit {RELEASE}; nothing was tried")
            return 0
        for maker, other in ((today, before), (before, today)):
            side_by_side(maker, other, Path(folder))
            print(
                f"skew: {other.name} uses, extends, scales and ends the clusters of {maker.name}", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
