"""A cluster's template and size as a block of Prefect: chosen in its pages, used by flows by name.

Why it exists: whoever runs a flow may change how big its cluster is without a change of code.

What it must not do: check what a request for a cluster checks.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

from prefect.blocks.core import Block
from pydantic import Field

from shoal.client.dask_handle import DaskCluster
from shoal.client.spark_handle import SparkCluster
from shoal.prefect.blocks import dask_cluster, spark_session


class ShoalCluster(Block):  # type: ignore[misc]
    """What a flow asks for when it opens a cluster. What is left out is the template's."""

    _block_type_name: ClassVar[str] = "Shoal cluster"
    _block_type_slug: ClassVar[str] = "shoal-cluster"
    _description: ClassVar[str] = "The template and the size of a Dask or Spark cluster that Shoal starts."

    template: str = Field("etl", description="Name of a template of the project, from clusters/.")
    engine: Literal["dask", "spark"] = Field("dask", description="What runs on it.")
    workers: int | str | None = Field(None, description="How many workers: 3, or from 2 to 10: 2-10.")
    data: str | None = Field(None, description="How much data, by which it is sized: 25 GB.")
    target: str | None = Field(None, description="Where it runs: a target of shoal.yaml.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Further options of shoal.dask or shoal.spark, by name."
    )

    def cluster(
        self, role: str | None = None, **options: Any
    ) -> AbstractContextManager[DaskCluster] | AbstractContextManager[SparkCluster]:
        """The cluster for the block of a ``with``: :func:`dask_cluster` or :func:`spark_session` of these values.

        Args:
            role: As there.
            options: In place of the block's.

        Raises:
            UsageError: as those do, for a value that makes no sense.
        """
        said = {"workers": self.workers, "data": self.data, "target": self.target}
        chosen = {key: value for key, value in said.items() if value is not None} | self.options | options
        start = dask_cluster if self.engine == "dask" else spark_session
        return start(self.template, role=role, **chosen)
