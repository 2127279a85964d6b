"""Exit codes: how a script that calls ``shoal`` learns what happened without reading sentences.

Why it exists: a refusal, a mistake in the call and a broken machine ask for different answers.

What it must not do: print (``main`` does).
"""

from __future__ import annotations

from enum import IntEnum

from shoal.errors import RefusedError, ShoalError, UsageError


class ExitCode(IntEnum):
    """What ``shoal`` exits with. ``submit`` passes on the code of the script instead, once it ran."""

    OK = 0
    DEFECT = 1
    USAGE = 2
    REFUSED = 3
    FAILED = 4
    INTERRUPTED = 130  # 128 + SIGINT, as shells count
    CLOSED_PIPE = 141  # 128 + SIGPIPE


EPILOG = (
    "Exit codes: 0 done; 2 invalid request (usage, files, names); 3 refused by a limit; "
    "4 something failed (infrastructure, or a check); 130 interrupted; 1 a defect in Shoal."
)


def code_of(error: ShoalError) -> ExitCode:
    """The exit code for an error."""
    if isinstance(error, UsageError):
        return ExitCode.USAGE
    return ExitCode.REFUSED if isinstance(error, RefusedError) else ExitCode.FAILED
