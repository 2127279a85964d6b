"""What runs a detached ``shoal submit``: the same command, whose exit code is noted for who asks later.

Why it exists: nobody waits for it, and it may end before it has a cluster.

What it must not do: anything of the command itself.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from shoal.cli.app import run
from shoal.cli.exits import ExitCode
from shoal.cli.scripts import Scripts


def main(place: str, name: str, arguments: list[str]) -> NoReturn:
    """Run it to its end. ``place``: of its clusters; see :class:`shoal.cli.scripts.Scripts`."""
    code: int = ExitCode.DEFECT
    try:
        code = run(arguments)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    finally:
        sys.stdout.flush()
        Scripts(place).ended(name, code)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
