"""What a person's own modules do at home they do where the cluster has none of their folders.

A head whose workers come by themselves, as in pods: what it imports lies in its own folder, and what a worker imports
in that worker's. A file that was sent, and is then gone here, is one that nothing but the cluster has.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shoal.machine import packing
from shoal.machine.modules import UserModuleWarning

from .own_modules import HELPERS
from .pods import Pods

Eventually = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A person's folder, first on the path; what is loaded of it is forgotten afterwards."""
    folder = tmp_path / "mine"
    for name, text in {
        "mine_helpers.py": HELPERS,
        "mine_lazy.py": "VALUE = 42\n",
        "mine_package/__init__.py": "from .sub import triple\n",
        "mine_package/sub.py": "def triple(x): return 3 * x\n",
        "mine_package/deep/__init__.py": "",
        "mine_package/deep/er.py": "def quadruple(x): return 4 * x\n",
        "mine_space/inner.py": "def quintuple(x): return 5 * x\n",
        "mine_data.json": "{}",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.startswith("mine_")]:
        del sys.modules[name]


def test_modules_and_packages_arrive_and_edits_and_later_workers_have_them(
    stand: Path,
    pods: Pods,
    folder: Path,
    eventually: Eventually,
) -> None:
    handle = pods.up(stand, "w-0")
    helpers = importlib.import_module("mine_helpers")
    package = importlib.import_module("mine_package")
    inner = importlib.import_module("mine_space.inner")
    client = handle.client

    def where() -> str:
        import mine_helpers

        return str(mine_helpers.__file__)

    where.__module__ = "__main__"  # by value
    (there,) = client.run(where).values()
    assert Path(there).is_relative_to(pods.folder / "w-0"), "it has its own"
    assert there.endswith(str(folder / "mine_helpers.py"))
    assert not Path(client.run_on_scheduler(where)).is_relative_to(folder)

    # Loaded here, or imported by a task alone; from here on nothing but the cluster has the folder.
    hidden = folder.rename(folder.with_name("hidden"))

    def lazy(x: int) -> int:
        import mine_lazy
        from mine_package.deep.er import quadruple

        return int(quadruple(x) + mine_lazy.VALUE)

    lazy.__module__ = "__main__"
    assert client.submit(helpers.double, 2).result(60) == 4
    point = client.submit(helpers.Point.doubled, helpers.Point(4)).result(60)
    assert point == helpers.Point(8, helpers.Colour.RED)
    assert point.colour is helpers.Colour.RED
    assert (client.submit(package.triple, 2).result(60), client.submit(inner.quintuple, 2).result(60)) == (
        6,
        10,
    )
    assert client.submit(lazy, 2).result(60) == 50
    assert client.run_on_scheduler(helpers.double, 4) == 8
    assert not list((pods.folder / "w-0").rglob("mine_data.json"))

    # A worker that comes later, and one whose process is new.
    pods.start("w-1")
    eventually(lambda: len(client.run(where)) == 2, 60, "another worker")
    assert sorted(client.run(helpers.double, 3).values()) == [6, 6]
    client.restart()
    assert set(client.run(helpers.double, 5).values()) == {10}

    # An edit that is not reloaded is told; one that is, is sent.
    hidden.rename(folder)
    file = folder / "mine_helpers.py"
    file.write_text(file.read_text().replace("2 * x", "7 * x"))

    def told() -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            client.submit(helpers.double, 1, pure=False).result(60)
        return [str(each.message) for each in caught if each.category is UserModuleWarning]

    assert eventually(told, 30, "the edit is told")
    assert client.submit(helpers.double, 1, pure=False).result(60) == 2
    importlib.reload(helpers)
    assert set(client.run(helpers.double, 1).values()) == {7}
    assert client.run_on_scheduler(helpers.double, 1) == 7


def test_two_clients_of_which_one_comes_later_and_sends_only_what_is_new(
    stand: Path,
    pods: Pods,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle = pods.up(stand, "w-0")
    helpers = importlib.import_module("mine_helpers")
    first = handle.client
    assert first.submit(helpers.double, 2).result(60) == 4
    sent: list[str] = []
    contents = packing.Packing.contents

    def noted(self: packing.Packing, paths: Any) -> dict[str, bytes]:
        found = contents(self, paths)
        sent.extend(found)
        return found

    monkeypatch.setattr(packing.Packing, "contents", noted)
    (folder / "mine_more.py").write_text("def f(x): return x + 1\n")
    with type(first)(first.scheduler.address, security=first.security) as second:
        more = importlib.import_module("mine_more")
        assert second.submit(more.f, 2).result(60) == 3
    assert {Path(each).name for each in sent if Path(each).is_relative_to(folder)} == {"mine_more.py"}


def test_a_client_in_an_event_loop_sends_before_the_work(
    stand: Path,
    pods: Pods,
    folder: Path,
) -> None:
    import asyncio

    handle = pods.up(stand, "w-0")
    known = handle.client

    async def work() -> int:
        async with type(known)(known.scheduler.address, security=known.security, asynchronous=True) as client:
            late = folder / "late"
            late.mkdir()
            (late / "mine_late.py").write_text("def f(x): return x + 1\n")
            sys.path.insert(0, str(late))
            module = importlib.import_module("mine_late")
            future = client.submit(module.f, 2)
            shutil.rmtree(late)
            return int(await future)

    assert asyncio.run(work()) == 3


def test_what_does_not_fit_stays_and_is_told(
    stand: Path,
    pods: Pods,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder / "mine_large.py").write_text("X = 1  # " + "x" * packing.ONE)
    handle = pods.up(stand, "w-0")
    importlib.import_module("mine_large")
    helpers = importlib.import_module("mine_helpers")
    with pytest.warns(UserModuleWarning) as caught:
        client = handle.client
    said = textwrap.shorten(" ".join(str(each.message) for each in caught), 100_000)
    assert f"{folder / 'mine_large.py'} was not sent to the cluster: it has 4.0 MB" in said
    assert client.submit(helpers.double, 2).result(60) == 4, "what fits arrived"
