"""Entry of a head process: ``python -m shoal.head CLUSTER_ID ENGINE [ahead]``, started by the local home.

Why it exists: it is what a head runs first: before the decision (``ahead``) or after it (``waiting``); then it
lives (``life``).
"""

import sys

if __name__ == "__main__":
    if sys.argv[3:] == ["ahead"]:
        from shoal.head.ahead import main
    else:
        from shoal.head.waiting import main
    main(*sys.argv[1:3])
