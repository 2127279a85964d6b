"""Where the CLI writes: data to standard output, everything else to standard error.

Why it exists: one place knows whether a person or a program reads, how wide the terminal is, and what
happens when the reader goes away.

What it must not do: know what is written.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from functools import cache
from typing import Any, Literal, NoReturn, TextIO

from rich.console import Console

from shoal.cli.exits import ExitCode
from shoal.errors import UsageError

Format = Literal["text", "json"]
PIPED_WIDTH = 240  # columns when no terminal tells: tables in a pipe are for grep, so lines stay whole


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        stop_writing()
        raise SystemExit(ExitCode.CLOSED_PIPE)


def _width(stream: Any) -> int | None:
    return None if stream.isatty() or os.environ.get("COLUMNS") else PIPED_WIDTH


class _Trimmed:
    """A stream that is not a terminal: blanks that only pad a table's last column are left out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(_PADDING.sub("", text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_PADDING = re.compile(r"[ \t]+(?=\n|\Z)")


def _plain_file(stream: TextIO) -> Any:
    return None if stream.isatty() else _Trimmed(stream)


@cache
def out() -> Console:
    """Standard output: what was asked for."""
    return _Console(file=_plain_file(sys.stdout), width=_width(sys.stdout), highlight=False, soft_wrap=False)


@cache
def err() -> Console:
    """Standard error: progress, plans that are about to start, hints, errors."""
    return _Console(stderr=True, width=_width(sys.stderr), highlight=False)


def say(text: str) -> None:
    """A sentence for the person, which is not the command's data."""
    err().print(wrapped(text, sys.stderr), markup=False, soft_wrap=True)


def wrapped(text: str, stream: TextIO) -> str:
    """Lines that fit the terminal, broken between words; commands, paths and addresses stay whole, to paste."""
    if not stream.isatty():
        return text
    width = max(20, shutil.get_terminal_size().columns)
    lines = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        if len(line) <= width or line.lstrip().startswith(("shoal ", "$ ")):
            lines.append(line)
        else:
            lines += textwrap.wrap(
                line.lstrip(),
                width,
                initial_indent=indent,
                subsequent_indent=f"{indent}  " if indent else "",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def write_json(value: Any) -> None:
    """One JSON document on standard output; escaped where that takes less than Unicode."""
    print(json.dumps(value, indent=2, ensure_ascii=not _is_unicode(sys.stdout)), flush=True)


_PLAIN = {
    ord(mark): plain
    for mark, plain in {
        **{"█": "#", "░": ".", "✓": "+", "✗": "x", "→": "->", "■": "=", "·": "-", "–": "-", "—": "-"},
        **{"…": "...", "×": "x", "ß": "ss"},
    }.items()
}


def _is_unicode(stream: Any) -> bool:
    return str(getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def degrade() -> None:
    """Where a stream takes less than Unicode, what it cannot show is shown by what is nearest; nothing fails by it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and not _is_unicode(stream):
            codecs.register_error("shoal.nearest", _nearest)
            reconfigure(errors="shoal.nearest")


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    known = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return known or "?" * (error.end - error.start), error.end


def stop_writing() -> None:
    """After the reader went away: nothing more is written, also not at the interpreter's end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def interactive() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, yes: bool, unattended: str) -> bool:
    """Ask, unless ``yes``. Where nobody can answer: UsageError that says ``unattended``."""
    if yes:
        return True
    if not interactive():
        raise UsageError(unattended, hint="Not a terminal: pass --yes to confirm.")
    answer = err().input(f"{question} [Y/n] ", markup=False)
    return answer.strip().lower() in ("", "y", "yes")
