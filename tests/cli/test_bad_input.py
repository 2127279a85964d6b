"""Every command with everything that can be wrong around it.

The commands are read from the application itself: a new one is tested here without a word about it. Whatever is
wrong, a person reads a sentence, a program an exit code that means it, and nobody a stack trace.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from shoal.cli.app import make_app

OK, USAGE, REFUSED, FAILED, CLOSED_PIPE = 0, 2, 3, 4, 141
FILLED = {  # what an argument of that name is called with; others get "x"
    "template": "small",
    "name": "known",
    "names": "known",
    "script": "idle.py",
    "longest": "1 h",
    "folder": "made",
    "table": "shop.orders",
    "workers": "2",
}


@dataclass(frozen=True)
class Command:
    """One command of the application: its words, and its parameters as typer knows them."""

    words: tuple[str, ...]
    parameters: tuple[Any, ...]

    def __str__(self) -> str:
        return " ".join(self.words)

    @property
    def call(self) -> list[str]:
        """With all its arguments, and so that it starts nothing if it can be called that way."""
        called = list(self.words)
        if any("--dry-run" in p.opts for p in self.parameters):
            called.append("--dry-run")
        if any("--template" in p.opts for p in self.parameters):
            called += ["--template", "small"]
        return called + [
            FILLED.get(p.name, "x")
            for p in self.parameters
            if p.param_type_name == "argument" and (p.required or p.name in FILLED)
        ]

    @property
    def values(self) -> list[str]:
        """Its options that take a value."""
        return [p.opts[-1] for p in self.parameters if p.param_type_name == "option" and not p.is_flag]


def commands() -> list[Command]:
    found = []
    for name, command in typer.main.get_command(make_app()).commands.items():  # type: ignore[attr-defined]
        inside = getattr(command, "commands", None)
        if inside is None:
            found.append(Command((name,), tuple(command.params)))
        else:
            found += [Command((name, sub), tuple(each.params)) for sub, each in inside.items()]
    return found


EVERY = pytest.mark.parametrize("command", commands(), ids=str)
OF_KUBERNETES = ("apply", "render", "governor")  # at another home there is nothing to do for them


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, place: Any) -> Iterator[Any]:
    """A project whose policy admits nothing, so that nothing starts; ``known`` was refused there once."""
    there = place(tmp_path_factory.mktemp("closed"))
    there.write("policies/tiers.yaml", TINY)
    there.write("idle.py", "")
    answer = there("up", "small", "--name", "known")
    assert answer.code == REFUSED, answer
    yield there
    assert not there.marked()


@pytest.fixture(scope="module")
def usually(closed: Any) -> Callable[[list[str]], Any]:
    """How a call of any command, or of its help, ends in ``closed`` where nothing is wrong: all are tried at once."""
    calls = [call for command in commands() for call in (command.call, [*command.words, "--help"])]
    answers = dict(zip(map(tuple, calls), closed.many(calls), strict=True))
    return lambda call: answers[tuple(call)]


TINY = """
    standard:
      {concurrent_clusters: 1, workers_per_cluster: 3, memory: 1 kB, max_duration: 4 h, head: 2 GB}
    """


def is_told(answer: Any) -> None:
    """No stack trace, no defect."""
    for word in ("Traceback", "defect", "Exception ignored", "BrokenPipe"):
        assert word not in answer.err, answer.err


# -- nonsense --------------------------------------------------------------------------------------------

NONSENSE = ("", "-1e999", "x" * 5000 + "/../\U0001f4a5\n")


def nonsense(command: Command) -> list[list[str]]:
    """Calls with an option that is not there, with more than is asked for, and with nonsense for each option."""
    calls = [[*command.call, "--no-such-option"], [*command.call, "--", "more", "than", "asked"]]
    return calls + [
        [*command.call, f"{option}={value}"]
        for option in command.values
        for value in NONSENSE
        if not (option == "--project" and value == "")  # which is this folder
    ]


@pytest.mark.timeout(1300)
def test_nonsense_for_every_option_is_told(closed: Any) -> None:
    """All in one go: what commands import is imported once."""
    calls = [call for command in commands() for call in nonsense(command)]
    for call, answer in zip(calls, closed.many(calls), strict=True):
        is_told(answer)
        assert answer.code in (OK, USAGE, REFUSED, FAILED), (call, answer)
        if answer.code:  # `doctor` and `validate` tell what they find on standard output
            assert answer.err.strip() or answer.out.strip(), (call, answer)
        if call[-1] == "--no-such-option":
            assert answer.code == USAGE, (call, answer)
    assert not closed.marked()


def furnish(place: Any) -> None:
    """What commands ask for by name: a script, and the demo's templates."""
    place.write("idle.py", "")
    text = (place.folder / "clusters" / "small.yaml").read_text()
    for name in ("etl", "analytics"):
        place.write(f"clusters/{name}.yaml", text)


# -- what is around it -----------------------------------------------------------------------------------


@EVERY
def test_a_broken_project_is_told_with_every_fault(bare: Any, command: Command) -> None:
    bare.write("shoal.yaml", "default_target: local\ntargets: {local: {home: lokal}}\ncolour: red\n")
    bare.write("clusters/etl.yaml", "engines: {dask: {image: x}}\nworkers: {min: 2, max: 1, memory: 3}\n")
    bare.write("idle.py", "")
    answer = bare.quick(*command.call)
    is_told(answer)
    if str(command) == "init":
        assert answer.code == OK, "it does not read what is there"
        return
    assert answer.code == (FAILED if str(command) in ("doctor", "validate") else USAGE), answer
    for fault in ("shoal.yaml:2: targets.local.home", "shoal.yaml:3: colour", "clusters/etl.yaml:2"):
        assert fault in answer.err + answer.out


def test_a_fault_in_the_settings_keeps_nobody_from_seeing_and_ending_clusters(bare: Any) -> None:
    text = "default_target: local\ntargets:\n  local: {home: local, machine: {cores: four}}\n"
    bare.write("shoal.yaml", text)
    told = "shoal.yaml:3: targets.local.machine.cores: 'four' is not a number"
    for call in (("ls", "-o", "json"), ("down", "gone"), ("why", "gone"), ("logs", "gone"), ("wait", "gone")):
        answer = bare.quick(*call)
        assert told in answer.err, answer
        if call[0] == "ls":
            assert (answer.code, answer.json) == (OK, [])
        else:
            assert "gone" in answer.err, "it was looked for"
    for call in (("plan", "etl"), ("quota",)):
        answer = bare.quick(*call)
        assert answer.code == USAGE, answer
        assert told in answer.err
    bare.write("shoal.yaml", f"{text}store: sqlite:////elsewhere.db\n")
    for call in (("ls",), ("down", "gone")):
        answer = bare.quick(*call)
        assert answer.code == USAGE, "somebody's ledger may be meant, and another one is not looked into"
        assert "shoal.yaml:4: store: is not a known key" in answer.err


@pytest.mark.parametrize("text", ["", "\0\1\2", "- a list\n", "a: [1", "a: &x [*x]\n", "\xff\xfe"], ids=repr)
def test_a_project_file_that_is_no_such_thing_is_told(bare: Any, text: str) -> None:
    bare.write("shoal.yaml", "").write_bytes(text.encode("latin-1"))
    answer = bare("plan", "etl")
    is_told(answer)
    assert answer.code == USAGE, answer
    assert "shoal.yaml" in answer.err


@EVERY
def test_without_a_project_the_shipped_one_counts(bare: Any, command: Command) -> None:
    if str(command) == "demo":
        return  # it would run; tests/flows runs it without a project
    bare.write("idle.py", "")
    call = ["etl" if word == "small" else word for word in command.call]
    answer = bare.quick(*call, *(["--engine", "dask"] if str(command) == "validate" else []))
    is_told(answer)
    assert answer.code in (OK, USAGE, FAILED), answer  # a name that is not there; a check that failed
    assert "shoal.yaml" not in answer.err, answer


@EVERY
def test_a_ledger_of_a_newer_version_is_left_alone(small: Any, command: Command) -> None:
    furnish(small)
    assert small.quick("ls").code == OK
    file = Path(small.environment["SHOAL_DATA"]) / "ledger.db"
    with sqlite3.connect(file) as database:
        database.execute("update shoal_meta set value = '99' where key = 'version'")
    database.close()
    before = file.read_bytes()
    answer = small.quick(*command.call)
    is_told(answer)
    if command.words[0] == "tables" or str(command) in ("init", "images build", *OF_KUBERNETES):
        assert "newer Shoal" not in answer.err, "it needs none"
    elif ("--dry-run" in command.call and str(command) != "down") or str(command) == "plan":
        assert answer.code == OK, answer
        assert "newer Shoal" in answer.out
    else:
        assert answer.code == FAILED, answer
        assert "newer Shoal" in answer.err + answer.out
    assert file.read_bytes() == before


@EVERY
@pytest.mark.parametrize("closed_to_us", ["data", "project"])
def test_folders_without_rights_are_told(small: Any, command: Command, closed_to_us: str) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root ignores rights, and there is no setpriv to take that away")
    furnish(small)
    data = Path(small.environment["SHOAL_DATA"])
    data.mkdir()
    where = data if closed_to_us == "data" else small.folder / "shoal.yaml"
    where.chmod(0o500 if closed_to_us == "data" else 0)
    folder_mode = small.folder.stat().st_mode
    if str(command) == "init":
        small.folder.chmod(0o500)
    try:
        answer = small.quick(
            *[word for word in command.call if word != "--dry-run"], rights=os.geteuid() != 0
        )
    finally:
        small.folder.chmod(folder_mode)
        where.chmod(0o700)
    is_told(answer)
    if str(command) == "init":
        assert answer.code == FAILED
        assert "cannot write" in answer.err
    elif closed_to_us == "project":
        assert answer.code == (FAILED if str(command) in ("doctor", "validate") else USAGE), answer
        assert "shoal.yaml:1: cannot be read ([Errno 13] Permission denied" in answer.err + answer.out
    elif str(command) in ("images build", *OF_KUBERNETES):
        assert answer.code == USAGE, "it writes nothing there"
    elif str(command) == "plan":
        assert answer.code == OK
        assert f"cannot write in {data}" in answer.out
    elif str(command) == "tables upkeep":
        assert answer.code == OK, "the project says nothing of tables, so none is looked at"
    elif command.words[0] == "tables":  # it is the catalog, not the ledger, that cannot be made
        assert answer.code == FAILED
        assert f"{data}/warehouse: Permission denied" in answer.err
    else:
        assert answer.code == FAILED, answer
        assert f"cannot write in {data}" in answer.err + answer.out
    assert not small.marked()


# -- where it writes to ----------------------------------------------------------------------------------


def ends_where_nobody_reads(place: Any, arguments: list[str], *, stderr_too: bool) -> tuple[int, str]:
    """Exit code and standard error of a command whose standard output goes into a closed pipe."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [place.command, *arguments],
            cwd=place.folder,
            env=place.environment,
            stdin=subprocess.DEVNULL,
            stdout=write,
            stderr=write if stderr_too else subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(write)
    return done.returncode, done.stderr or ""


def is_no_defect(closed: Any, usual: Any, call: list[str], *, stderr_too: bool) -> None:
    """That nobody reads what the call writes: ``usual`` is how it ends where somebody does."""
    code, error = ends_where_nobody_reads(closed, call, stderr_too=stderr_too)
    assert code in (usual.code, CLOSED_PIPE), (call, code, usual)
    if usual.out and not stderr_too:
        assert code == CLOSED_PIPE, call
    is_told(closed.answer(code, "", error))


@EVERY
def test_a_reader_that_goes_away_is_no_defect(
    closed: Any, usually: Callable[[list[str]], Any], command: Command
) -> None:
    usual, answer = usually(command.call), closed.quick(*command.call, out="closed")
    assert answer.code == (CLOSED_PIPE if usual.out else usual.code), (usual, answer)
    is_told(answer)


def test_nor_one_of_help_or_of_both_outputs(closed: Any, usually: Callable[[list[str]], Any]) -> None:
    """Two commands: nothing of it is a command's own."""
    for command in (each for each in commands() if str(each) in ("ls", "plan")):
        for call in (command.call, [*command.words, "--help"]):
            for stderr_too in (True, False):
                is_no_defect(closed, usually(call), call, stderr_too=stderr_too)


def test_nor_one_that_goes_while_a_command_writes(closed: Any) -> None:
    """Not only at its end: what fills the buffer, or has none, is written in between."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "shoal", "ls", "-o", "json"],
        cwd=closed.folder,
        env=closed.environment | {"PYTHONUNBUFFERED": "1"},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (CLOSED_PIPE, "")


@EVERY
def test_output_that_cannot_be_written_fails(
    closed: Any, usually: Callable[[list[str]], Any], command: Command
) -> None:
    usual = usually(command.call)
    answer = closed.quick(*command.call, out="/dev/full")
    is_told(answer)
    if usual.out:
        assert answer.code == FAILED, answer
        assert "No space left on device" in answer.err
    else:
        assert answer.code == usual.code


# -- on a narrow terminal --------------------------------------------------------------------------------


def fits(screen: str, columns: int) -> None:
    """Nothing is wider than the terminal, but for a command, path or address: those stay whole, for pasting."""
    for line in screen.splitlines():
        indent = len(line) - len(line.lstrip())
        pasted = line.lstrip().startswith(("shoal ", "$ ", "fix: ")) or len(line.split()) <= 2
        assert len(line) <= columns or pasted or indent > columns, f"{len(line)} wide: {line!r}"
        assert "…" not in line, f"cut: {line!r}"


@EVERY
def test_a_terminal_of_60_columns_is_wide_enough(closed: Any, command: Command) -> None:
    call = [*command.call, "--once"] if str(command) == "top" else command.call
    if str(command) == "demo":
        call = [*call, "--target", "nosuch"]  # further on its lines are Prefect's
    for arguments in (call, [*command.words, "--help"], [*command.words, "--no-such-option"]):
        screen = closed.quick_on_terminal(60, *arguments)
        assert screen.strip()
        fits(screen, 60)
