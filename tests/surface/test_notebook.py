"""A real Jupyter kernel runs the README's cells; what stays in the notebook is the end of the story."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def client(empty_home: Path, tmp_path: Path) -> Iterator[NotebookClient]:
    """A notebook without cells, on a kernel in an empty home."""
    notebook = nbformat.v4.new_notebook()
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={})
    with client.setup_kernel(env=dict(os.environ), cwd=str(tmp_path)):
        yield client


def run(client: NotebookClient, source: str) -> Any:
    """Run one more cell; returns it with its outputs."""
    cell = nbformat.v4.new_code_cell(source)
    client.nb.cells.append(cell)
    client.execute_cell(cell, len(client.nb.cells) - 1)
    return cell


def outputs(cell: Any, kind: str) -> str:
    return "\n".join(o["data"].get(kind, "") for o in cell.outputs if "data" in o)


def printed(cell: Any, stream: str = "stdout") -> str:
    return "".join(o["text"] for o in cell.outputs if o.get("name") == stream)


@pytest.mark.spark
@pytest.mark.slow
def test_the_readmes_cells_run_and_keep_their_final_state(
    client: NotebookClient, marked: Callable[[], dict[int, str]]
) -> None:
    [source] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[:1]
    first, second = source.split("\nwith shoal.spark", 1)
    dask = run(client, first)
    assert "16.0" in printed(dask)
    card = outputs(dask, "text/html")
    assert card.count("<table") == 1, "one card, updated in place"
    for word in ("Stopped", "starting 2 workers", "peak memory", "worker-hours", "<svg", "owner"):
        assert word in card, word
    assert "USD" not in card, "no price is known here"
    spark = run(client, "with shoal.spark" + second)
    assert "UA" in printed(spark)
    assert "Stopped" in outputs(spark, "text/html")
    saved = nbformat.writes(client.nb)
    assert "Stopped" in saved
    assert not marked()


def test_a_killed_kernel_takes_its_cluster_with_it(
    client: NotebookClient, marked: Callable[[], dict[int, str]], eventually: Callable[..., Any]
) -> None:
    cell = run(
        client,
        "import os, shoal\n"
        'cluster = shoal.dask("etl", workers=1, no_client="2 s", name="orphan")\n'
        "print(os.getpid())\n"
        "cluster",
    )
    html = outputs(cell, "text/html")
    assert "orphan" in html
    assert "Ready" in html
    assert "orphan: Ready" in outputs(cell, "text/plain")
    assert set(marked()), "it runs"
    os.kill(int(printed(cell).split()[-1]), signal.SIGKILL)
    eventually(lambda: not marked(), 20, "the cluster of a dead kernel ended")


class Watched(NotebookClient):
    """Keeps what the card showed meanwhile: the notebook itself has the last alone."""

    shown: list[str]

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] == "update_display_data":
            self.shown.append(msg["content"]["data"].get("text/html", ""))
        return super().process_message(msg, cell, cell_index)


WORK = {
    "dask": (
        "import time\n"
        "def slow(number):\n    time.sleep(0.5)\n    return number\n"
        "print(sum(cluster.client.gather(cluster.client.map(slow, range(16)))))",
        r"\d+ of 16 tasks, \d+ s; slow \d+/16",
    ),
    "spark": (
        "from pyspark.sql.functions import udf\n"
        "wait = udf(lambda n: __import__('time').sleep(0.5) or n, 'long')\n"
        "print(sum(row.n for row in cluster.session.range(0, 16, 1, 16).select(wait('id').alias('n')).collect()))",
        r"\d+ of 16 tasks, \d+ s; stage \d+ \d+/16",
    ),
}


@pytest.mark.parametrize(
    "engine", ["dask", pytest.param("spark", marks=[pytest.mark.spark, pytest.mark.slow])]
)
def test_the_card_shows_how_far_the_work_is(empty_home: Path, tmp_path: Path, engine: str) -> None:
    work, said = WORK[engine]
    client = Watched(nbformat.v4.new_notebook(), timeout=300, kernel_name="python3", resources={})
    client.shown = []
    with client.setup_kernel(env=dict(os.environ), cwd=str(tmp_path)):
        card = run(client, f'import shoal\ncluster = shoal.{engine}("etl", workers=1, name="busy")')
        run(client, "import time\ntime.sleep(2.5)")
        assert not [html for html in client.shown if "of 16 tasks" in html]
        assert printed(run(client, work)) == "120\n"
        run(client, "time.sleep(3)")
        between = [html for html in client.shown if re.search(said, html)]
        assert len(between) > 2, client.shown[-3:]
        assert len({re.search(said, html)[0] for html in between}) > 2, "it moves"  # type: ignore[index]
        assert "of 16 tasks" not in client.shown[-1], "nothing is computed any more"
        run(client, "cluster.close()")
    last = outputs(card, "text/html")
    assert "Stopped" in last
    assert last.count("<table") == 1
    assert "computes" not in last
