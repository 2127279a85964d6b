"""Entry of a head process: ``python -m shoal.head CLUSTER_ID``, started by the local home.

Why it exists: it is the first code of a head; what the head does is in ``life``.
"""

from __future__ import annotations

import os
import sys

from shoal.head.life import Head
from shoal.homes.local.ledger import Ledger


def main() -> None:
    code = Head(sys.argv[1], Ledger(os.environ.get("SHOAL_LEDGER") or None)).run()
    sys.stdout.flush()
    # Not sys.exit: a thread of an engine that does not end must not keep the head alive.
    os._exit(code)


if __name__ == "__main__":
    main()
