"""A pytest plugin: others' tests run on a cluster that is Dask's default scheduler (``-p shoal_others``).

``OTHERS_ON``: ``shoal`` (default), or ``distributed`` for a plain LocalCluster, to tell whose fault a failure is.
``OTHERS_EXPECTED``: a YAML file of what is known to fail, by reason; such a test has to fail.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml

SITE = Path(dask.__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    import dask.array.utils
    import dask.dataframe.utils

    # Their helper computes without a scheduler unless told otherwise; here the default one is what is tried.
    for helper in (dask.array.utils.assert_eq, dask.dataframe.utils.assert_eq):
        use_default_scheduler(helper)
    for marker in ("slow", "network", "gpu", "array_expr", "normal_and_array_expr"):
        config.addinivalue_line("markers", f"{marker}: of Dask's own")


def use_default_scheduler(helper: Callable[..., Any]) -> None:
    """Its ``scheduler="sync"`` becomes ``None``."""
    parameters = [p for p in inspect.signature(helper).parameters.values() if p.default is not p.empty]
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    changed = [None if p.name == "scheduler" else p.default for p in positional]
    assert any(p.name == "scheduler" for p in positional), f"{helper.__module__} has changed"
    helper.__defaults__ = tuple(changed)  # type: ignore[attr-defined]


def name_of(item: pytest.Item) -> str:
    """``dask/bag/tests/test_bag.py::test_keys``, from wherever pytest was started."""
    return f"{item.path.relative_to(SITE)}::{item.nodeid.partition('::')[2]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    known: dict[str, list[str]] = {}
    if file := os.environ.get("OTHERS_EXPECTED"):
        known = yaml.safe_load(Path(file).read_text()) or {}
    reasons = {name: reason for reason, names in known.items() for name in names}
    for item in items:
        name = name_of(item)
        # One line may stand for all parameters of a test.
        if reason := reasons.get(name) or reasons.get(name.partition("[")[0]):
            skipped = reason.startswith("not run: ")
            item.add_marker(
                pytest.mark.skip(reason=reason) if skipped else pytest.mark.xfail(reason=reason, strict=True)
            )


@contextmanager
def cluster() -> Iterator[Any]:
    if os.environ.get("OTHERS_ON") == "distributed":
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local,
            Client(local) as client,
        ):
            yield client
    else:
        import shoal

        with shoal.dask("small", workers=2, project=os.environ["OTHERS_PROJECT"], quiet=True) as handle:
            yield handle.client


@pytest.fixture(scope="session", autouse=True)
def default_scheduler(record_testsuite_property: Callable[[str, object], None]) -> Iterator[None]:
    """The client of the cluster is Dask's default scheduler while it is open."""
    with cluster() as client:
        yield
        count = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
        record_testsuite_property("transitions", count)
