"""Joins the tables with the project: ``shoal.read_table`` reads from the catalog that ``shoal.yaml`` names.

Why it exists: ``tables`` works on any Dask cluster and knows no project; a person in a project folder
expects its catalog.

What it must not do: read a project before a table is asked for.
"""

from __future__ import annotations

from shoal.project.loading import Project, load
from shoal.tables.catalogs.opening import CatalogSettings, use


def catalog_of(project: Project) -> CatalogSettings | None:
    """What the project's target says of the catalog; None where it says nothing."""
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


def wire(project: Project | None = None) -> None:
    """Let the tables fall back on ``project``'s catalog; without one, on that of the folder one is in."""
    use(lambda: catalog_of(project if project is not None else load(tolerant=True)))
