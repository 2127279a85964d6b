"""``python -m shoal.homes.local.settle``: one look at the ledger, as every request does it, and nothing else.

Why it exists: a waiter is light, for there may be many; the first of them has this run when something may
have been freed with nobody there to say so.

What it must not do: wait or repeat.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from shoal.homes.local.decisions import Governing
from shoal.homes.local.ledger import Ledger
from shoal.homes.local.tidy import Found, follow
from shoal.machine.logs import set_up
from shoal.project.loading import load


def settle(governing: Governing, ledger: Ledger, do: Callable[[Iterable[Found]], frozenset[str]]) -> None:
    """Note what is gone, late or hung, ``do`` what has to be done about it, and let the queue move."""
    gone: frozenset[str] = frozenset()
    for _ in range(2):  # the second look notes the end of what is gone now
        with ledger.write() as tx:
            found = governing.settle(tx, gone)
        if not (gone := do(found)):
            break


def main() -> None:
    set_up(sys.stdout)
    governing = Governing(
        load(Path(os.environ["SHOAL_PROJECT"]), os.environ.get("SHOAL_TARGET"), tolerant=True)
    )
    ledger = Ledger(os.environ.get("SHOAL_LEDGER") or None)
    settle(governing, ledger, follow)


if __name__ == "__main__":
    main()
