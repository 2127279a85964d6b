"""A disk that is really full: a small one of its own for the data folder, seen by nobody else."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shoal.units import Bytes

Eventually = Callable[..., Any]
SIZE = 64_000_000


@dataclass
class Disk:
    """A disk of 64 MB under the data folder, and the command that sees it."""

    place: Any
    namespace: Any
    folder: Path  # where it is mounted
    run_in: Callable[..., list[str]]

    def __call__(self, *arguments: str, timeout: float = 120) -> Any:
        """``shoal`` on that disk; never a stack trace."""
        place = self.place
        process = subprocess.run(
            self.run_in(self.namespace, place.folder, [place.command, *arguments]),
            env=place.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert "Traceback" not in process.stderr, process.stderr
        assert "defect" not in process.stderr, process.stderr
        return process

    def fill(self, *, but: int = 0) -> None:
        """Until this many bytes are free."""
        there = self.namespace.path(self.folder)
        with (there / "filler").open("wb") as file:
            room = os.statvfs(there)
            os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_frsize - but))

    def free(self) -> None:
        (self.namespace.path(self.folder) / "filler").unlink()


@pytest.fixture
def disk(small: Any, tmp_path: Path, namespaces: Any) -> Iterator[Disk]:
    namespaces.need_root()
    folder = Path(small.environment["SHOAL_DATA"])
    folder.mkdir()
    namespace = namespaces.Namespace(f'mount -t tmpfs -o size={SIZE},mode=700 shoal-test "{folder}"')
    yield Disk(small, namespace, folder, namespaces.run_in)
    namespace.close()


def assert_it_says_that_the_disk_is_full(answer: Any) -> None:
    assert answer.returncode == 4, answer.stderr
    assert "No space left on device" in answer.stderr or "disk is full" in answer.stderr, answer.stderr


@pytest.mark.parametrize(
    "room",
    [pytest.param(0, marks=pytest.mark.soak), 4096, pytest.param(65536, marks=pytest.mark.soak)],
    ids=lambda room: str(Bytes(room)),
)
def test_a_full_disk_is_told_and_leaves_nothing(disk: Disk, room: int, eventually: Eventually) -> None:
    """From no room at all to too little for the ledger."""
    disk.fill(but=room)
    assert_it_says_that_the_disk_is_full(disk("up", "small", "-w", "1", "--name", "full", "--yes"))
    eventually(lambda: not disk.place.marked(), 10, "no process is left")
    disk.free()
    assert disk("ls", "-o", "json").stdout == "[]\n"
    again = disk("up", "small", "-w", "1", "--name", "full", "--yes")
    assert again.returncode == 0, again.stderr
    assert disk("down", "full").returncode == 0


def test_with_little_room_it_starts_and_ends_or_says_why_not(disk: Disk, eventually: Eventually) -> None:
    """Enough for the ledger, and perhaps not for what follows: nothing in between a whole life and a told reason."""
    disk.fill(but=300_000)
    answer = disk("up", "small", "-w", "1", "--name", "tight", "--yes")
    if answer.returncode:
        assert_it_says_that_the_disk_is_full(answer)
    elif (down := disk("down", "tight")).returncode:
        assert_it_says_that_the_disk_is_full(down)
    else:
        assert '"Stopped"' in disk("ls", "--all", "-o", "json").stdout
    eventually(lambda: not disk.place.marked(), 20, "no process is left")
    disk.free()
    assert disk("ls", "-o", "json").stdout == "[]\n"


def test_a_disk_that_fills_while_it_runs_does_not_keep_anybody_from_ending_it(
    disk: Disk, eventually: Eventually
) -> None:
    assert disk("up", "small", "-w", "1", "--name", "runs", "--detach").returncode == 0
    disk.fill()
    listed = disk("ls")
    assert listed.returncode == 0, listed.stderr
    assert "runs" in listed.stdout
    refused = disk("up", "small", "-w", "1", "--name", "more")
    assert refused.returncode == 4, refused.stderr
    assert_it_says_that_the_disk_is_full(disk("down", "runs"))
    eventually(lambda: not disk.place.marked(), 20, "no process is left")
    disk.free()
    assert disk("ls", "-o", "json").stdout == "[]\n"
    (record,) = json.loads(disk("ls", "--all", "-o", "json").stdout)
    assert record["state"] in ("Stopped", "Failed"), "who looks next notes that it is gone"


SPILLS = """
    import numpy as np
    import dask.array as da
    import shoal

    with shoal.connect("spills") as cluster:
        x = da.random.random((40, 1_000_000), chunks=(1, 1_000_000)).persist()
        try:
            print("sum", cluster.client.compute(x.sum()).result(60) > 0)  # a paused worker waits for room
        except Exception as error:
            print("told", type(error).__name__)
        del x
        print("then", cluster.client.submit(sum, [1, 2]).result(60))
    """


@pytest.mark.soak
def test_a_scratch_disk_that_is_full_ends_no_cluster(disk: Disk, eventually: Eventually) -> None:
    """40 chunks of 8 MB do not fit into the worker's memory, and spilling finds no room."""
    disk.place.write("shoal.yaml", SMALL_WORKER)
    assert disk("up", "small", "-w", "1", "--name", "spills", "--detach").returncode == 0
    disk.fill(but=1_000_000)
    disk.place.write("spills.py", SPILLS)
    work = subprocess.run(
        disk.run_in(
            disk.namespace,
            disk.place.folder,
            [str(Path(disk.place.command).with_name("python")), "spills.py"],
        ),
        env=disk.place.environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "then 3" in work.stdout, work.stdout + work.stderr
    disk.free()
    down = disk("down", "spills")
    assert down.returncode == 0, down.stderr
    eventually(lambda: not disk.place.marked(), 20, "no process is left")


SMALL_WORKER = """
    default_target: local
    targets:
      local:
        home: local
        worker: {cores: 1, memory: 300 MB}
        head: {cores: 1, memory: 500 MB}
        machine: {cores: 64, memory: 64 GB}
    """
