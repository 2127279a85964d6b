"""What people write from habit, with other libraries' clusters in their fingers, is answered with what to write."""

from __future__ import annotations

import pytest

import shoal
from shoal.errors import UsageError

DASK: shoal.DaskCluster = object.__new__(shoal.DaskCluster)
SPARK: shoal.SparkCluster = object.__new__(shoal.SparkCluster)


@pytest.mark.parametrize(
    ("handle", "name", "said"),
    [
        (DASK, "get_client", "cluster.client"),
        (DASK, "submit", "cluster.client.submit"),
        (DASK, "dashboard_link", "cluster.dashboard"),
        (DASK, "adapt", "workers=(1, 4)"),
        (DASK, "shutdown", "cluster.close()"),
        (SPARK, "spark", "cluster.session"),
        (SPARK, "createDataFrame", "cluster.session.createDataFrame"),
        (SPARK, "stop", "cluster.close()"),
    ],
)
def test_a_name_from_elsewhere_says_what_it_is_here(
    handle: shoal.DaskCluster | shoal.SparkCluster, name: str, said: str
) -> None:
    if handle is SPARK:
        pytest.importorskip("pyspark", reason="whoever has such a handle has it")
    with pytest.raises(AttributeError) as caught:
        getattr(handle, name)
    assert said in str(caught.value)
    assert not hasattr(handle, name), "who only asks whether it is there is not misled"


def test_a_name_of_nobody_says_only_that() -> None:
    for name in ("sbumit", "_ipython_display_"):
        with pytest.raises(AttributeError) as caught:
            getattr(DASK, name)
        assert str(caught.value) == f"'DaskCluster' object has no attribute {name!r}"


def test_dasks_own_client_of_a_cluster_says_that_there_is_one() -> None:
    """``Client(cluster)`` is how each of Dask's pages goes on."""
    from distributed import Client

    with pytest.raises(UsageError, match="Client\\(cluster\\)") as caught:
        Client(DASK)
    assert "cluster.client" in str(caught.value.hint)
