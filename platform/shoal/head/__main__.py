"""Entry of a head process: ``python -m shoal.head CLUSTER_ID``, started by the local home.

Why it exists: it is a head's first code, which waits for its admission (``waiting``) and then lives (``life``).
"""

from shoal.head.waiting import main

if __name__ == "__main__":
    main()
