"""Entry of a head process: ``python -m shoal.head CLUSTER_ID ENGINE HOME [ahead]``, started by its home.

Why it exists: it is what a head runs first: before the decision (``ahead``) or after it (``birth``); then it
lives (``life``). ``HOME`` says whose desk it speaks to.
"""

import sys

if __name__ == "__main__":
    if sys.argv[4:] == ["ahead"]:
        from shoal.head.ahead import main
    else:
        from shoal.head.birth import main
    main(*sys.argv[1:4])
