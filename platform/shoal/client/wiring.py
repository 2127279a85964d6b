"""Joins the tables with the project: ``shoal.read_table`` reads from the catalog that ``shoal.yaml`` names.

Why it exists: ``tables`` works on any Dask cluster and knows no project; a person in a project folder
expects its catalog.

What it must not do: read a project before a table is asked for.
"""

from __future__ import annotations

from shoal.errors import UsageError
from shoal.project.folders import FILE
from shoal.project.loading import Project, load
from shoal.project.yamlfile import raise_faults
from shoal.tables.catalogs.opening import CatalogSettings, use


def catalog_of(project: Project) -> CatalogSettings | None:
    """What the project's target says of the catalog; None where it says nothing.

    Raises:
        ConfigError: there are faults in ``shoal.yaml``, which might be about the catalog.
    """
    raise_faults([fault for fault in project.faults if fault.file == FILE])
    said = project.target.catalog
    if said is None:
        return None
    return CatalogSettings(
        uri=said.uri or "",
        warehouse=said.warehouse or "",
        properties=dict(said.properties),
        credentials=said.credentials or "",
        timeout=float(said.timeout),
    )


class NoCatalogError(UsageError):
    """Nobody names a catalog, and the one of a single machine would lose what pods write."""


def refuse_own_file(project: Project) -> None:
    """Whether a file of this machine may be the catalog: clusters of its own processes see it, pods do not.

    Raises:
        NoCatalogError: the project's clusters are in pods.
    """
    if project.target.in_pods:
        raise NoCatalogError(
            f"target {project.target.name} has no catalog, and pods do not see a file of one machine: what they "
            "write into one of their own ends with them",
            hint=f"Name a server under targets: {project.target.name}: in shoal.yaml, such as catalog: "
            '{uri: "postgresql://...", warehouse: "s3://..."}, or in SHOAL_CATALOG_URI.',
        )


def wire(project: Project | None = None) -> None:
    """Let the tables fall back on ``project``'s catalog; without one, on that of the folder one is in."""

    def chosen() -> Project:
        return project if project is not None else load(tolerant=True)

    use(lambda: catalog_of(chosen()), before_default=lambda: refuse_own_file(chosen()))
