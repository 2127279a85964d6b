"""The entry of the ``shoal`` command.

Why it exists: a person may press Ctrl-C while the command is still being imported, and is to read one word
then as well.

What it must not do: import anything but what tells that.
"""

from __future__ import annotations

import gc
import sys
from typing import NoReturn


def main() -> NoReturn:
    """The console script."""
    gc.disable()  # nothing that is imported is garbage, and a short command would look for it for long
    try:
        from shoal.cli.app import run

        gc.freeze()
        gc.enable()
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        code = 130  # exits.ExitCode.INTERRUPTED
    except BrokenPipeError:  # nobody reads errors either
        from shoal.cli.console import stop_writing

        stop_writing()
        code = 141  # exits.ExitCode.CLOSED_PIPE
    sys.exit(code)
