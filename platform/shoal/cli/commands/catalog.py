"""``shoal tables``: which tables there are, what each holds, and what was written to one.

Why it exists: people look for a table before they write code that reads it.

What it must not do: change a table (``upkeep`` has the commands that do).
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shoal.cli import options as o
from shoal.cli.commands import upkeep

EXAMPLES = """\b
Examples:
  shoal tables
  shoal tables ls nyc
  shoal tables history nyc.flights -o json
  shoal tables doctor nyc.flights
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    group = typer.Typer(
        help="List tables, what was written to one, and keep them small.",
        invoke_without_command=True,
        epilog=EXAMPLES,
    )
    group.callback(epilog=EXAMPLES)(_default)
    group.command("ls", epilog=EXAMPLES)(ls)
    group.command("history", epilog=EXAMPLES)(history)
    upkeep.add_to(group)
    app.add_typer(group, name="tables")


def _default(context: typer.Context, output: o.Answer = o.Output.TEXT) -> None:
    """List tables, what was written to one, and keep them small."""
    if context.invoked_subcommand is None:
        ls(output=output)


def ls(
    namespace: Annotated[
        str | None, typer.Argument(metavar="[NAMESPACE]", help="Only tables of this namespace.")
    ] = None,
    names: Annotated[bool, typer.Option("--names", help="Names only; opens no table.")] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """List tables with rows, size and when each was last written."""
    from shoal.cli.console import out, say, write_json
    from shoal.cli.exits import ExitCode
    from shoal.cli.views import moment
    from shoal.client.finding import open_project
    from shoal.tables.errors import StorageError, StorageUnavailableError
    from shoal.tables.listing import described, list_tables

    open_project(project, target)
    found = list_tables(namespace)
    rows: list[dict[str, Any]] = [{"name": name} for name in found]
    broken: list[str] = []
    if not names:
        rows = []
        for name in found:
            try:
                row = described(name)
            except StorageUnavailableError:
                raise  # of all of them, each of which would be waited for
            except StorageError as error:  # of this table; the others are listed all the same
                broken.append(f"{name}: {error}")
                continue
            if row is not None:
                rows.append(row | {"updated": moment(row["updated"])})
    if output is o.Output.JSON:
        write_json(rows)
    elif not found:
        where = f"Namespace {namespace} holds" if namespace else "The catalog holds"
        say(f"{where} no tables. shoal.write_table(frame, 'namespace.table') makes one.")
    elif names:
        print("\n".join(found))
    else:
        from shoal.cli import layout as tables
        from shoal.units import Bytes

        table = tables.plain("TABLE", "ROWS", "SIZE", "FILES", "SNAPSHOTS", "UPDATED")
        for row in rows:
            size = "" if row["bytes"] is None else str(Bytes(row["bytes"]))
            counts = ["" if row[key] is None else f"{row[key]:,}" for key in ("rows", "files", "snapshots")]
            table.add_row(row["name"], counts[0], size, *counts[1:], f"{tables.age(row['updated'])} ago")
        out().print(table)
    for one in broken:
        say(f"Not listed: {one}")
    if broken:
        raise typer.Exit(ExitCode.FAILED)


def history(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Such as nyc.flights.")],
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Show every snapshot of a table, oldest first: when, what was done, and how many rows."""
    from shoal.cli.console import out, write_json
    from shoal.client.finding import open_project
    from shoal.tables.refs import snapshots

    open_project(project, target)
    rows = [
        {key: _plain(value) for key, value in row.items()}
        for row in snapshots(table).to_dict(orient="records")
    ]
    if output is o.Output.JSON:
        write_json(rows)
        return
    from shoal.cli import layout as tables

    shown = tables.plain("SNAPSHOT", "TIME", "OPERATION", "ADDED", "DELETED", "ROWS", "REFS")
    for row in rows:
        counts = [f"{row[key]:,}" for key in ("added_rows", "deleted_rows", "total_rows")]
        shown.add_row(str(row["snapshot_id"]), row["time"], row["operation"], *counts, row["refs"])
    out().print(shown)


def _plain(value: Any) -> Any:
    """As JSON has it."""
    import pandas as pd

    if isinstance(value, pd.Timestamp):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if value is None or value is pd.NA or value != value:
        return None
    return value.item() if hasattr(value, "item") else value
