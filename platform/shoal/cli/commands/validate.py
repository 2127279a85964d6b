"""``shoal validate``: start a cluster of each engine and prove that it does its work.

Why it exists: a green "installed" says nothing; a cluster counts when real workers computed, a table when
the other engine read it.

What it must not do: leave anything behind, also when a proof fails.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import options as o
from shoal.cli.checks import Finding, failed, run
from shoal.model.checks import Check, Failed
from shoal.model.status import HeadStatus
from shoal.words import count

if TYPE_CHECKING:
    from shoal.homes.base import Home

EXAMPLES = """\b
Examples:
  shoal validate
  shoal validate --engine dask -o json
"""
NAMESPACE = "shoal_validate"
_PATIENCE, _POLL = 20.0, 0.2  # s for a head to say what it sees
_ROWS = 1000


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("validate", epilog=EXAMPLES)(validate)


def validate(
    engine: Annotated[o.EngineName | None, typer.Option("--engine", "-e", help="Only this engine.")] = None,
    template: o.TemplateOption = None,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Start a cluster of each engine; prove session, compute, workers and tables; end it."""
    shown = output is o.Output.TEXT
    findings: list[Finding] = []
    for each in [engine.value] if engine else ["dask", "spark"]:
        proofs = _Trials(each, template or "etl", target, project)
        try:
            findings += run(proofs.checks(), show=shown)
        finally:
            findings += run([(f"{each}: ended", proofs.end)], show=shown)
    if output is o.Output.JSON:
        from shoal.cli.console import write_json

        write_json({"ok": not failed(findings), "checks": [finding.to_json() for finding in findings]})
    elif not failed(findings):
        from shoal.cli.console import out

        out().print("\nEverything works.")
    raise typer.Exit(4 if failed(findings) else 0)


class _Trials:
    """What is proved of one engine, with the cluster that it is proved on."""

    def __init__(self, engine: str, template: str, target: str | None, project: Path | None) -> None:
        self._engine = engine
        self._options: dict[str, Any] = {"target": target, "project": project}
        self._template = template
        self._stack = ExitStack()
        self._cluster: Any = None
        self._table = f"{NAMESPACE}.{engine}_{secrets.token_hex(3)}"

    def checks(self) -> Iterator[Check]:
        """One after the other; without a cluster the rest is not tried."""
        yield f"{self._engine}: started", self._start
        if self._cluster is None:
            return
        yield (
            f"{self._engine}: session",
            self._dask_session if self._engine == "dask" else self._spark_session,
        )
        yield (
            f"{self._engine}: workers",
            self._dask_workers if self._engine == "dask" else self._spark_workers,
        )
        yield (
            f"{self._engine}: compute",
            self._dask_compute if self._engine == "dask" else self._spark_compute,
        )
        yield f"{self._engine}: tables", self._dask_tables if self._engine == "dask" else self._spark_tables

    def end(self) -> str:
        """The cluster is gone, and what was written with it."""
        self._stack.close()
        if self._cluster is None:
            return "nothing was started"
        if self._home().remains(self._cluster.id):
            raise Failed("something of it is still running", f"shoal down {self._cluster.name}")
        return f"{self._cluster.record.message}; no process is left"

    def _start(self) -> str:
        from shoal.client.clusters import start
        from shoal.client.preparing import prepare

        begin = time.monotonic()
        request = prepare(self._template, engine=self._engine, workers=2, **self._options)
        name = f"validate-{self._engine}-{secrets.token_hex(2)}"
        handle = start(request, name=name, quiet=True)
        self._cluster = self._stack.enter_context(handle)
        return f"{name} in {time.monotonic() - begin:.1f} s: {handle.record.message}"

    def _dask_session(self) -> str:
        client = self._cluster.client
        version = client.get_versions()["scheduler"]["packages"]["dask"]
        return f"connected to {client.scheduler.address}, dask {version}"

    def _dask_workers(self) -> str:
        import os

        pids = set(self._cluster.client.run(os.getpid).values())
        planned = self._cluster.plan.workers
        if len(pids) != planned or os.getpid() in pids:
            raise Failed(f"{len(pids)} worker processes, not {planned}", f"shoal logs {self._cluster.name}")
        return f"{count(planned, 'process', 'processes')} of their own"

    def _dask_compute(self) -> str:
        import dask.array as da

        got = int(da.arange(_ROWS, chunks=_ROWS // 10).sum().compute())
        return _right(got, sum(range(_ROWS)))

    def _dask_tables(self) -> str:
        import dask.dataframe as dd
        import pandas as pd

        from shoal.tables.catalogs.opening import catalog
        from shoal.tables.reading.read import read_table
        from shoal.tables.writing.write import write_table

        opened = catalog()
        self._make_room(opened)
        frame = pd.DataFrame({"n": range(_ROWS), "half": [n // 2 for n in range(_ROWS)]})
        write_table(dd.from_pandas(frame, npartitions=2), self._table)
        self._stack.callback(opened.drop_table, self._table)
        got = int(read_table(self._table)["n"].sum().compute())
        return f"wrote {self._table} and read it back; {_right(got, sum(range(_ROWS)))}"

    def _spark_session(self) -> str:
        return f"Spark Connect answers, version {self._cluster.session.version}"

    def _spark_workers(self) -> str:
        pids = self._status().worker_pids
        master = self._cluster.plan.conf.get("spark.master", "")
        return f"a JVM of its own (pid {', '.join(map(str, pids))}), {master}"

    def _spark_compute(self) -> str:
        got = self._cluster.session.range(_ROWS).groupBy().sum("id").collect()[0][0]
        return _right(int(got), sum(range(_ROWS)))

    def _spark_tables(self) -> str:
        from shoal.tables.catalogs.opening import catalog, settings

        opened = catalog()
        self._make_room(opened)
        self._cluster.session.range(_ROWS).withColumnRenamed("id", "n").writeTo(
            f"{settings().name}.{self._table}"
        ).create()
        self._stack.callback(opened.drop_table, self._table)
        got = opened.load_table(self._table).scan().to_arrow()["n"].to_pylist()
        return f"Spark wrote {self._table}, read here without Spark; {_right(sum(got), sum(range(_ROWS)))}"

    def _home(self) -> Home:
        from shoal.client.finding import open_project
        from shoal.homes.choose import open_home

        return open_home(open_project(self._options["project"], self._options["target"]))

    def _status(self) -> HeadStatus:
        """What its head says of its processes; on a busy machine that may take some seconds."""
        home, end = self._home(), time.monotonic() + _PATIENCE
        while (answer := home.status(self._cluster.id)) is None or not answer.worker_pids:
            if time.monotonic() > end:
                what = "its head does not answer" if answer is None else "its head knows of no JVM"
                raise Failed(what, f"shoal logs {self._cluster.name}")
            time.sleep(_POLL)
        return answer

    def _make_room(self, opened: Any) -> None:
        opened.create_namespace_if_not_exists(NAMESPACE)
        # Registered first, so that it goes last; it stays where another validation still has a table in it.
        self._stack.callback(_drop_namespace, opened)


def _drop_namespace(opened: Any) -> None:
    from pyiceberg.exceptions import NamespaceNotEmptyError, NoSuchNamespaceError

    try:
        opened.drop_namespace(NAMESPACE)
    except (NamespaceNotEmptyError, NoSuchNamespaceError):
        return


def _right(got: int, expected: int) -> str:
    if got != expected:
        raise Failed(f"got {got}, expected {expected}", "report this, with `shoal doctor -o json`")
    return f"the sum is right ({got})"
