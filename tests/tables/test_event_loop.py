"""Tables in programs with an event loop: what would wait for the loop's own client is refused at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client

import shoal
from shoal.errors import UsageError
from shoal.tables.catalogs.opening import CatalogSettings


def test_a_write_on_the_loop_of_its_client_is_refused_and_one_in_a_thread_works(tmp_path: Path) -> None:
    """In `async with shoal.dask(...)` it stood still for 35 s, and the whole service with it."""
    catalog = CatalogSettings(uri=f"sqlite:///{tmp_path / 'catalog.db'}", warehouse=str(tmp_path / "lake"))
    frame = dd.from_pandas(pd.DataFrame({"x": [1, 2, 3]}), npartitions=2)

    async def main() -> int:
        quiet = {"dashboard_address": "127.0.0.1:0", "n_workers": 1, "threads_per_worker": 2}
        async with Client(processes=False, asynchronous=True, **quiet) as client:
            for rows in (frame, pd.DataFrame({"x": [1]})):
                begin = time.monotonic()
                with pytest.raises(UsageError, match="event loop") as refused:
                    shoal.write_table(rows, "lab.loop", catalog=catalog)
                assert "await asyncio.to_thread(shoal.write_table, " in refused.value.hint
                assert time.monotonic() - begin < 20
            written = await asyncio.to_thread(shoal.write_table, frame, "lab.loop", catalog=catalog)
            assert written.rows == 3
            assert written.workers != ()
            lazily = shoal.read_table("lab.loop", catalog=catalog)
            return int(await client.compute(lazily.x.sum()))

    with dask.config.set({"dataframe.convert-string": False}):
        assert asyncio.run(main()) == 6
