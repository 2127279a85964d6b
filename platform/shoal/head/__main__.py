"""Entry of a head process: ``python -m shoal.head CLUSTER_ID``, started by the local home.

Why it exists: it is what a head runs first: it waits for its admission (``waiting``), then lives (``life``).
"""

from shoal.head.waiting import main

if __name__ == "__main__":
    main()
