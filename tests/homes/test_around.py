"""A request inside a block that waits for the block's own cluster is refused at once, by its name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import shoal
from shoal.errors import WaitsForItselfError


def test_a_block_does_not_wait_for_the_one_around_it(project: Path, empty_home: Path) -> None:
    with shoal.dask("small", workers=1, name="outer", project=project, quiet=True) as outer:
        with shoal.dask("small", workers=1, name="beside", project=project, quiet=True, queue=True) as beside:
            assert beside.record.state.value == "Ready"
            with pytest.raises(WaitsForItselfError, match="inside the block of outer, beside") as caught:
                shoal.dask("small", workers=1, name="third", project=project, quiet=True, queue=True)
        assert caught.value.values["own"] == ("outer", "beside")
        assert outer.client.submit(sum, [1, 2]).result() == 3


async def _in_a_loop(project: Path) -> None:
    async with (
        shoal.dask("small", workers=1, name="first", project=project, quiet=True),
        shoal.dask("small", workers=1, name="second", project=project, quiet=True),
    ):
        with pytest.raises(WaitsForItselfError, match="inside the block of first, second"):
            async with shoal.dask("small", workers=1, project=project, quiet=True, queue=True):
                pass


def test_nor_does_one_in_an_event_loop(project: Path, empty_home: Path) -> None:
    asyncio.run(_in_a_loop(project))
