"""An etl flow whose workers wait while the file ``hold`` is there. Run by tests, never imported.

python sales.py PROJECT [TRANSFORM]     runs it twice; a line of JSON for each run
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd

from shoal.flows import etl

folder, *transform = sys.argv[1:]
held, reached = Path(folder, "hold"), Path(folder, "reached")


def clean(part: pd.DataFrame) -> pd.DataFrame:
    if len(part) and held.exists():
        from distributed import get_worker

        try:
            get_worker()
        except ValueError:
            return part  # the flow's own process, which looks at some rows first
        reached.touch()
        while held.exists():
            time.sleep(0.05)
    return part


sales = etl(
    "sales",
    input="data/",
    output="sales.rows",
    transform=transform[0] if transform else clean,
    expect={"sane": "amount > 0"},
    template="small",
    cluster={"workers": 1, "quiet": True},
)
for _ in range(2):
    print(json.dumps(sales(project=folder)), flush=True)
