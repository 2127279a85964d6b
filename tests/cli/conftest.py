"""The real ``shoal`` command, in a home and a project of its own, shared by the tests of a session."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from warm import Warm

SHOAL = str(Path(sys.executable).with_name("shoal"))


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def read_to_the_end(terminal: int) -> str:
    seen = b""
    with suppress(OSError):  # the terminal closes with its last process
        while block := os.read(terminal, 65536):
            seen += block
    return seen.decode()


def without_colours(seen: str) -> str:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    # What a spinner wrote over is not seen.
    return "\n".join(line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n"))


WARM = {True: Warm(), False: Warm("setpriv", "--bounding-set=-all", "--inh-caps=-all")}


@pytest.fixture(scope="session", autouse=True)
def warm_ones_end() -> Iterator[None]:
    yield
    for each in WARM.values():
        each.end()


@dataclass
class Place:
    """A project folder with its own home; runs ``shoal`` there."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    command: str = SHOAL
    left_with: int | None = None
    """The exit code of the last command at a terminal."""
    answer = Answer

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [SHOAL, *arguments],
            cwd=self.folder,
            env=self.environment | changes,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, timeout: float = 120, **changes: str) -> Answer:
        process = self.start(*arguments, **changes)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            pytest.fail(f"shoal {' '.join(arguments)} took over {timeout} s:\n{out}\n{err}")
        assert arguments[0] == "submit" or "Traceback" not in err, err  # a script may have one
        return Answer(process.returncode, out, err)

    def many(
        self, calls: list[list[str]], *, out: str = "", err: str = "", rights: bool = True, **changes: str
    ) -> list[Answer]:
        """Many commands, one after the other, without paying for a start of Python and its imports each time.

        ``out`` and ``err``: files to write to, "closed" for a pipe that nobody reads. Without ``rights`` the modes
        of files count, which root ignores otherwise.
        """
        answers = WARM[rights].ask(calls, str(self.folder), self.environment | changes, out, err)
        return [Answer(*answer) for answer in answers]

    def quick(self, *arguments: str, **how: Any) -> Answer:
        """One command in that way."""
        return self.many([list(arguments)], **how)[0]

    def at_terminal(
        self, command: list[str], columns: int, *, pipe: bool = False, **changes: str
    ) -> tuple[str, str]:
        """What a terminal of that width gets of a command, as it is written. With ``pipe`` the command's standard
        output goes into a pipe: what came through that, and what the terminal got of standard error."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        with os.fdopen(slave, "wb", closefd=True) as terminal:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment | {"TERM": "xterm"} | changes,
                stdin=subprocess.DEVNULL if pipe else terminal,
                stdout=subprocess.PIPE if pipe else terminal,
                stderr=terminal,
                text=True,
                start_new_session=True,
            )
        seen = read_to_the_end(master)
        os.close(master)
        out, _ = process.communicate(timeout=60)
        self.left_with = process.returncode
        return out or "", seen

    def on_terminal(self, columns: int, *arguments: str) -> str:
        """What a person sees of ``shoal`` on a terminal of that width, without colours."""
        _, seen = self.at_terminal([self.command, *arguments], columns)
        return without_colours(seen)

    def quick_on_terminal(self, columns: int, *arguments: str) -> str:
        """The same in a process that ``many`` starts."""
        master, slave = pty.openpty()
        try:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
            with ThreadPoolExecutor(1) as aside:  # a terminal that nobody reads is full at once
                reading = aside.submit(read_to_the_end, master)
                self.quick(*arguments, out=os.ttyname(slave), err=os.ttyname(slave), TERM="xterm")
                os.close(slave)
                slave = -1
                return without_colours(reading.result())
        finally:
            os.close(master)
            if slave >= 0:
                os.close(slave)

    def marked(self) -> dict[int, str]:
        """Pid -> cluster id of every live process of a cluster of this home."""
        found = {}
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                ours = environment.get("SHOAL_DATA") == self.environment["SHOAL_DATA"]
                if ours and "SHOAL_CLUSTER" in environment and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = environment["SHOAL_CLUSTER"]
            except (psutil.Error, OSError):
                continue
        return found

    def write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip())
        return file


@pytest.fixture(scope="session")
def bare_place(home_environment: Callable[[Path], dict[str, str]]) -> Callable[[Path], Place]:
    """Makes a place in an empty folder, with an empty project folder and a home of its own."""

    def make(folder: Path) -> Place:
        clean = home_environment(folder / "home")
        clean.pop("COLUMNS", None)
        project = folder / "project"
        project.mkdir()
        return Place(project, clean)

    return make


@pytest.fixture(scope="session")
def place(
    bare_place: Callable[[Path], Place], small_project: Callable[[Path], Path]
) -> Callable[[Path], Place]:
    """The same, with a project of small clusters."""

    def make(folder: Path) -> Place:
        made = bare_place(folder)
        small_project(made.folder)
        return made

    return make


@pytest.fixture(scope="session")
def shoal(tmp_path_factory: pytest.TempPathFactory, place: Callable[[Path], Place]) -> Iterator[Place]:
    """The command in a project with small clusters; at the end everything is gone."""
    made = place(tmp_path_factory.mktemp("cli"))
    yield made
    made("down", "--all", "--yes")
    assert not made.marked(), f"left running: {made.marked()}"


@pytest.fixture
def bare(tmp_path: Path, bare_place: Callable[[Path], Place]) -> Place:
    """The command in an empty folder with an empty home."""
    return bare_place(tmp_path)


@pytest.fixture
def small(tmp_path: Path, place: Callable[[Path], Place]) -> Iterator[Place]:
    """The command in a project with small clusters and a home of its own; at the end everything is gone."""
    made = place(tmp_path)
    yield made
    left = made.marked()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"left running: {left}"


@pytest.fixture(scope="session")
def namespaces() -> Any:
    """The module beside this file: private mounts, for small disks and other people."""
    found = importlib.util.spec_from_file_location("namespaces", Path(__file__).with_name("namespaces.py"))
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
