"""A cluster with a short life warns before its end: once, with the time left and the way to extend it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.cli import layout as tables
from shoal.cli import views
from shoal.cli.console import out
from shoal.client.clusters import open_home, open_project
from shoal.model.cluster import Reason, State
from shoal.units import Seconds


def test_word_of_the_end_comes_once_in_the_output_of_a_script_and_in_ls(
    project: Path, capfd: pytest.CaptureFixture[str], eventually: Callable[..., Any]
) -> None:
    home = open_home(open_project(project))
    with shoal.up(
        "small", engine="dask", workers=1, name="short", max_duration="40 s", project=project
    ) as it:

        def row() -> dict[str, Any]:
            return views.cluster_view(home.get(it.id), home.status(it.id))

        assert row()["warning"] is None
        warned = eventually(lambda: (shown := row())["warning"] and shown, 60, "ls warns")
        with out().capture() as shown:
            out().print(tables.clusters([warned], 200))
        for said in (warned["warning"], shown.get()):
            assert "its maximum lifetime (40 s); one hour more: shoal extend short +1h" in said
        home.extend(it.id, Seconds(90))
        eventually(lambda: row()["warning"] is None, 10, "extended: nothing to warn of")
        home.extend(it.id, Seconds(41))
        eventually(lambda: home.get(it.id).state.ended, 60, "it ended")
        assert (home.get(it.id).state, home.get(it.id).reason) == (State.STOPPED, Reason.DEADLINE_REACHED)
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("short ends in")]
    assert 1 <= len(said) <= 2, said  # anew where the extension was seen in between
    assert "shoal extend short +1h" in said[0]
