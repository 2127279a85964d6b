"""Commands below ``shoal tables`` that keep tables in good order, or change what everybody sees of them.

Why it exists: maintenance is done by hand or by a scheduler before anybody writes Python for it.

What it must not do: decide what is deleted (``shoal.tables.maintenance`` does).
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from shoal.cli import options as o

EXAMPLES = """\b
Examples:
  shoal tables doctor nyc.flights
  shoal tables compact nyc.flights --sort-by at --dry-run
  shoal tables expire nyc.flights --older-than 7d --keep 3
  shoal tables remove-orphans nyc.flights
  shoal tables remove-orphans nyc.flights --delete
  shoal tables publish nyc.flights audit
  shoal tables upkeep --dry-run
  shoal tables drop-tag nyc.flights before-upsert
"""

_Table = Annotated[str, typer.Argument(metavar="TABLE", help="Such as nyc.flights.")]


def add_to(group: typer.Typer) -> None:
    """Register the commands below ``shoal tables``."""
    for name, command in (
        ("doctor", doctor),
        ("compact", compact),
        ("rewrite-manifests", rewrite_manifests),
        ("expire", expire),
        ("remove-orphans", remove_orphans),
        ("publish", publish),
        ("drop-tag", drop_tag),
        ("drop-branch", drop_branch),
        ("upkeep", upkeep),
    ):
        group.command(name, epilog=EXAMPLES)(command)


def doctor(
    table: _Table,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Show what a table's files look like, and what maintenance would save. Changes nothing."""
    from shoal.cli import views
    from shoal.cli.console import out, write_json
    from shoal.client.finding import open_project
    from shoal.tables.maintenance.health import table_health
    from shoal.units import Bytes
    from shoal.words import count

    open_project(project, target)
    found = table_health(table)
    if output is o.Output.JSON:
        plain = dataclasses.asdict(found)
        write_json(plain | {"oldest": views.moment(found.oldest.timestamp() if found.oldest else None)})
        return
    from shoal.cli import layout as tables

    shown = tables.plain("", table)
    size = Bytes(found.bytes)
    rows: list[tuple[str, str]] = [
        ("data", f"{count(found.rows, 'row')}, {count(found.files, 'file')}, {size}"),
        (
            "small files",
            f"{found.small_files:,} (put together, {count(found.files_after_compaction, 'file')} would be left)",
        ),
        ("deletes", f"{count(found.delete_files, 'file')}, {count(found.deleted_rows, 'row')}"),
        ("partitions", f"{found.partitions:,}, the largest {found.skew:.1f} x an average one"),
        ("snapshots", f"{found.snapshots:,}; branches and tags: {', '.join(found.refs) or 'none'}"),
        ("expirable", f"{count(found.expirable_snapshots, 'snapshot')}, {Bytes(found.expirable_bytes)}"),
        (
            "orphans",
            "not known: other tables' files may be there"
            if found.orphans is None
            else f"{count(found.orphans, 'file')}, {Bytes(found.orphan_bytes or 0)}",
        ),
    ]
    for row in rows:
        shown.add_row(*row)
    out().print(shown)
    print("\n".join(found.advice) or "Nothing needs doing.")


def compact(
    table: _Table,
    sort_by: Annotated[
        list[str] | None,
        typer.Option("--sort-by", help="Sort rows by this column, such as 'at desc'; may be repeated."),
    ] = None,
    zorder_by: Annotated[
        list[str] | None,
        typer.Option("--zorder-by", help="Order rows by these columns alike; to be repeated."),
    ] = None,
    target_size: Annotated[
        str | None, typer.Option("--target-size", help="Size of a file, such as '256 MiB'.")
    ] = None,
    branch: Annotated[str, typer.Option("--branch", help="Of this branch.")] = "main",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Put a table's small files together and apply its deletes; the rows stay the same."""
    from shoal.cli.console import say, write_json
    from shoal.client.finding import open_project
    from shoal.tables.maintenance import compaction
    from shoal.units import Bytes
    from shoal.words import count

    open_project(project, target)
    found = compaction.compact(
        table,
        sort_by=sort_by or None,
        zorder_by=zorder_by or None,
        target_size=target_size,
        branch=branch,
        dry_run=dry_run,
    )
    if output is o.Output.JSON:
        write_json(dataclasses.asdict(found))
    elif not found.files:
        say(f"{table}: nothing to compact.")
    else:
        done = "would become about" if dry_run else "became"
        size = (
            f"{Bytes(found.bytes)}" if dry_run else f"{Bytes(found.bytes)}, now {Bytes(found.bytes_written)}"
        )
        say(f"{table}: {count(found.files, 'file')} {done} {found.files_written:,} ({size}).")
        if found.delete_files:
            say(
                f"Applied and removed{' would be' if dry_run else ''}: {count(found.delete_files, 'delete file')}."
            )
        if found.skipped_files:
            say(f"Changed by others meanwhile, and left as they are: {count(found.skipped_files, 'file')}.")


def rewrite_manifests(
    table: _Table,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Put the lists of a table's files together, so that reads are planned sooner."""
    from shoal.cli.console import say, write_json
    from shoal.client.finding import open_project
    from shoal.tables.maintenance import manifests

    open_project(project, target)
    found = manifests.rewrite_manifests(table, dry_run=dry_run)
    if output is o.Output.JSON:
        write_json(dataclasses.asdict(found))
    else:
        done = "would become" if dry_run else "became"
        say(f"{table}: {found.manifests:,} manifests {done} {found.manifests_after:,}.")


def expire(
    table: _Table,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            help="Younger snapshots stay, such as 7d or 12h (default: as the table says, else 5d).",
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", help="The newest of each branch that stay (default: as the table says, else 1)."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Forget old snapshots of a table, and delete the files that only they needed. Tags and branches stay."""
    from shoal.client.finding import open_project
    from shoal.tables.maintenance.expiry import expire_snapshots
    from shoal.words import count

    open_project(project, target)
    found = expire_snapshots(table, older_than=older_than, keep=keep, dry_run=dry_run)
    done = "would be expired" if dry_run else "expired"
    deleted = "would be deleted" if dry_run else "deleted"
    _told(
        found,
        f"{count(len(found.snapshots), 'snapshot')} {done}, {found.kept:,} kept; {count(found.files, 'file')} "
        f"{deleted}",
        found.bytes,
        output,
    )


def remove_orphans(
    table: _Table,
    older_than: Annotated[
        str, typer.Option("--older-than", help="Younger files stay, at least 24h: a write may go on.")
    ] = "3d",
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete them; without it they are listed.")
    ] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """List the files in a table's folders that nothing refers to; with --delete, delete them."""
    from shoal.client.finding import open_project
    from shoal.tables.maintenance import orphans
    from shoal.words import count

    open_project(project, target)
    found = orphans.remove_orphans(table, older_than=older_than, dry_run=not delete)
    if output is o.Output.TEXT:
        for path in found.paths:
            print(path)
    files = count(len(found.paths), "file")
    deleted = (
        f"{files} deleted"
        if delete
        else f"{files} {'is' if len(found.paths) == 1 else 'are'} nobody's; --delete takes them away"
    )
    young = f"; {count(found.young, 'younger one')} left alone" if found.young else ""
    _told(found, f"{deleted}{young}", found.bytes, output)


def drop_tag(
    table: _Table,
    tag: Annotated[str, typer.Argument(metavar="TAG")],
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
) -> None:
    """Take a tag off its snapshot, which then expires as others do."""
    from shoal.cli.console import say
    from shoal.client.finding import open_project
    from shoal.tables import labels

    open_project(project, target)
    say(f"{table}: the tag {tag!r} is dropped; it was on snapshot {labels.drop_tag(table, tag)}.")


def drop_branch(
    table: _Table,
    branch: Annotated[str, typer.Argument(metavar="BRANCH")],
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
) -> None:
    """End a branch; what was written to it alone then expires as other snapshots do."""
    from shoal.cli.console import say
    from shoal.client.finding import open_project
    from shoal.tables import labels

    open_project(project, target)
    say(f"{table}: the branch {branch!r} is dropped; it was at snapshot {labels.drop_branch(table, branch)}.")


def publish(
    table: _Table,
    branch: Annotated[str, typer.Argument(metavar="BRANCH", help="The branch that everybody is to see.")],
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Make what a branch holds the table's current state, unless main has moved since the branch was started."""
    from shoal.cli.console import say, write_json
    from shoal.client.finding import open_project
    from shoal.tables import refs

    open_project(project, target)
    snapshot = refs.publish(table, branch)
    if output is o.Output.JSON:
        write_json({"table": table, "branch": branch, "snapshot_id": snapshot})
    else:
        say(f"{table}: main is at snapshot {snapshot}, as {branch}.")


def upkeep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    target: o.TargetOption = None,
    project: o.ProjectFolder = None,
    output: o.Answer = o.Output.TEXT,
) -> None:
    """Do for each table what `tables:` in shoal.yaml says: compact, expire, remove orphans."""
    from shoal.cli.console import say, write_json
    from shoal.cli.exits import ExitCode
    from shoal.client.finding import open_project
    from shoal.client.table_upkeep import unused_patterns, upkeep_tables

    opened = open_project(project, target)
    steps = []
    for step in upkeep_tables(opened, dry_run=dry_run):
        steps.append(step)
        if output is o.Output.TEXT:
            print(f"{step.table}: {step.step}: {'failed: ' if step.failed else ''}{step.done}")
    if output is o.Output.JSON:
        write_json([dataclasses.asdict(step) for step in steps])
    elif not steps:
        say("Nothing to do: `tables:` of this project names no table that is there.")
    if steps and (unused := unused_patterns(opened)):
        say(
            "These patterns of `tables:` apply to no table (none has such a name, or an earlier pattern matches it): "
            f"{', '.join(unused)}"
        )
    if any(step.failed for step in steps):
        raise typer.Exit(ExitCode.FAILED)


def _told(found: Any, sentence: str, size: int, output: o.Output) -> None:
    from shoal.cli.console import say, write_json
    from shoal.units import Bytes

    if output is o.Output.JSON:
        write_json(dataclasses.asdict(found))
        return
    say(f"{found.table}: {sentence} ({Bytes(size)}).")
    if found.left:
        say(f"{found.left:,} of them could not be deleted (permission denied, or no answer). Run it again.")
