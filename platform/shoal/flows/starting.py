"""``shoal init --flow``: a flow's file, and its deployment in ``prefect.yaml``.

Why it exists: a flow is a file that a person reads and changes.

What it must not do: overwrite anything, lose a comment of ``prefect.yaml``, or import Prefect without a schedule.
"""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from shoal.errors import InfrastructureError, MissingExtraError, UsageError
from shoal.flows.errors import ScheduleError
from shoal.machine.paths import replace_file
from shoal.project.folders import FILE, nearest
from shoal.words import did_you_mean, sentence

PREFECT = "prefect.yaml"
_HEAD = "# Deployments of this project's flows:   prefect deploy --all\nname: {project}\n\ndeployments:\n"

ETL = '''"""{name}: files -> checked -> the table {name}.rows. Yours to change.

    python flows/{name}.py
    prefect deploy --name {name} && prefect deployment run '{name}/{name}'
"""

import pandas as pd

from shoal.flows import etl


def clean(part: pd.DataFrame) -> pd.DataFrame:
    """Called with each part of the input, on the workers; gives the rows to write."""
    return part


{name} = etl(
    "{name}",
    input="data/{name}/",  # a folder, a file, a pattern such as "s3://lake/{name}/*.parquet", or a table: "raw.{name}"
    output="{name}.rows",
    transform=clean,  # or "clean.sql", a query of the view `input` on Spark; or None
    mode="append",  # or "overwrite"; or "upsert" with keys=["id"]
    # Rows that break a rule go to {name}.rows_quarantine, with the rule's name.
    # expect={{"amount is positive": "amount > 0", "id is known": "id is not null"}},
    # late=("at", "2 d"),  # older than two days before the run: to the quarantine, too
    # data="25 GB",  # estimated size of one run's input; without it, the files' size
    # template="etl", cluster={{"workers": 2}},
)

if __name__ == "__main__":
    print({name}())
'''

ANALYTICS = '''"""{name}: the queries of sql/{name}/ -> the tables {name}.* -> a report. Yours to change.

    python flows/{name}.py                      # for yesterday; {name}(date="2026-11-01") for another day
    prefect deploy --name {name} && prefect deployment run '{name}/{name}'
"""

from shoal.flows import Plot, analytics

{name} = analytics(
    "{name}",
    steps="sql/{name}/",  # in the order of their numbers; or a list, with "trend.py:trend" for a function on Dask
    output="{name}",  # 10_by_hour.sql gives the table {name}.by_hour
    by="day",  # a column that each table gets: a run replaces the rows of its own date
    plots=[Plot("by_hour", x="hour", y="amount", kind="bar")],
    # parameters={{"region": "EU"}},  # :region in the queries
    # report="s3://lake/reports",  # default: reports/{name}/DATE.html, below the project folder
    # data="25 GB",  # estimated size of what the queries read
    # template="analytics", cluster={{"workers": 2}},
)

if __name__ == "__main__":
    print({name}())
'''

QUERY = """-- One query, whose rows go to {name}.by_hour. Tables are shoal.NAMESPACE.TABLE, and :date is the run's date.
select hour(at) as hour, count(*) as orders, sum(amount) as amount
from shoal.sales.rows
where cast(at as date) = :date
group by hour(at)
"""

ML_TRAINING = '''"""{name}: a model from the rows of a table, kept in MLflow. Yours to change.

    python flows/{name}.py                      # once for each snapshot; {name}(again=True) trains again
    prefect deploy --name {name} && prefect deployment run '{name}/{name}'
"""

from shoal.flows import ml_training

{name} = ml_training(
    "{name}",
    table="sales.rows",
    target="amount",
    task="regression",  # or "classification"
    # features=["hour", "store"],  # or a function of a part's rows; without it, every other column of numbers
    model="xgboost",  # or an estimator of scikit-learn, such as RandomForestRegressor()
    parameters={{"n_estimators": 100}},
    search={{"max_depth": [3, 6], "learning_rate": [0.1, 0.3]}},  # trials=10 draws ten of many
    # tracking="https://mlflow.example.com",  # default: a file of yours
    # data="25 GB",  # estimated size of the rows; without it, the table's size
    # template="ml-training", cluster={{"workers": 2}},
)

if __name__ == "__main__":
    print({name}())
'''

TEMPLATES = {
    "etl": {"flows/{name}.py": ETL},
    "analytics": {"flows/{name}.py": ANALYTICS, "sql/{name}/10_by_hour.sql": QUERY},
    "ml-training": {"flows/{name}.py": ML_TRAINING},
}
"""The text of a flow's files, by kind and path; the flow's own is the first."""
_SAID = {
    "etl": "Files into a table, checked.",
    "analytics": "Queries into tables, with a report.",
    "ml-training": "A model from a table's rows.",
}


def check_name(name: str) -> None:
    """UsageError for a name that cannot be a flow's and its file's."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} cannot be a flow's name",
            hint="Lower-case letters, digits and underscores, at most 40, such as 'daily_sales'.",
        )
    # Run as `python flows/NAME.py`, its folder comes before all others when something is imported.
    with suppress(ValueError, ModuleNotFoundError):
        if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
            raise UsageError(
                f"{name!r} is the name of a Python module, which flows/{name}.py would hide",
                hint=f"Choose another, such as '{name}_flow'.",
            )


def check_schedule(cron: str) -> None:
    """ScheduleError for what is not a cron expression, or for a time that never comes. Asks Prefect."""
    try:
        from prefect.server.schemas.schedules import CronSchedule
    except ModuleNotFoundError as error:
        if error.name != "prefect":
            raise
        raise MissingExtraError.of("a schedule", "Prefect", "prefect") from error
    import asyncio

    try:
        schedule = CronSchedule(cron=cron, timezone="UTC")
    except ValueError:
        raise ScheduleError(
            f"{cron!r} is not a schedule",
            hint="Minute, hour, day of month, month, day of week: '0 3 * * *' is every night at three.",
        ) from None
    try:
        fires = asyncio.run(schedule.get_dates(1))
    except Exception as error:  # of a library inside of Prefect
        raise _never(cron) from error
    if not fires:
        raise _never(cron)


def _never(cron: str) -> ScheduleError:
    return ScheduleError(
        f"{cron!r} never fires: there is no such day",
        hint="Days 30 and 31 are not in every month: '0 0 28 2 *' fires in February.",
    )


def entry(kind: str, name: str, schedule: str | None) -> dict[str, Any]:
    """The deployment."""
    found: dict[str, Any] = {
        "name": name,
        "description": _SAID[kind],
        "entrypoint": f"flows/{name}.py:{name}",
        "tags": ["shoal", kind],
        "concurrency_limit": {"limit": 1, "collision_strategy": "CANCEL_NEW"},
        "work_pool": {"name": "shoal"},
    }
    if schedule is not None:
        found["schedules"] = [{"cron": schedule, "timezone": "UTC", "active": True}]
    return found


def with_deployment(text: str, added: dict[str, Any]) -> str:
    """``prefect.yaml`` with one more deployment, all else as it stands. Pure. UsageError where that cannot be."""
    item = [added]
    block = yaml.safe_dump(item, sort_keys=False, default_flow_style=None, width=1000)
    paste = f"Add it by hand, under deployments:\n{block}"
    try:
        before = yaml.safe_load(text) or {}
        root = yaml.compose(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{PREFECT} cannot be read: {error}", hint="Correct it first.") from None
    if not isinstance(before, dict):
        raise UsageError(f"{PREFECT} is not a mapping", hint=paste)
    there = before.get("deployments") or []
    if any(isinstance(one, dict) and one.get("name") == added["name"] for one in there):
        raise UsageError(
            f"{PREFECT} has a deployment {added['name']!r} already; nothing was changed",
            hint="Choose another name, or take that deployment out first.",
        )
    known = root.value if isinstance(root, yaml.MappingNode) else []
    node = next((value for key, value in known if key.value == "deployments"), None)
    if node is None:
        new = f"{text.rstrip()}\n\ndeployments:\n{_indented(block, 2)}".lstrip()
    elif isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
        at = _end(text, node)
        new = f"{text[:at].rstrip()}\n\n{_indented(block, node.start_mark.column)}{text[at:]}"
    elif not there:
        new = f"{text[: node.start_mark.index].rstrip()}\n{_indented(block, 2)}{text[node.end_mark.index :].lstrip()}"
    else:
        new = ""
    try:
        right = yaml.safe_load(new) == {**before, "deployments": [*there, added]}
    except yaml.YAMLError:
        right = False
    if not right:
        raise UsageError(f"the deployment cannot be added to {PREFECT} as that is written", hint=paste)
    return new


def _end(text: str, node: yaml.SequenceNode) -> int:
    """Where the last item's lines end: what follows it, comments included, stays behind it."""
    last: yaml.Node = node
    while isinstance(last, (yaml.SequenceNode, yaml.MappingNode)) and last.value and not last.flow_style:
        tail = last.value[-1]
        last = tail[1] if isinstance(tail, tuple) else tail
    end = text.find("\n", last.end_mark.index if last.value else last.start_mark.index)
    return len(text) if end < 0 else end + 1


def _indented(block: str, columns: int) -> str:
    return "".join(" " * columns + line for line in block.splitlines(keepends=True))


def start_flow(
    kind: str, name: str, folder: Path, schedule: str | None, *, dry_run: bool = False
) -> list[str]:
    """Write ``flows/NAME.py`` and its deployment; the files that were made or changed, below ``folder``.

    Raises UsageError (nothing is written then) for a kind or name that there cannot be, or that is there;
    ScheduleError, InfrastructureError.
    """
    if kind not in TEMPLATES:
        raise UsageError(f"there is no flow template {kind!r}", hint=sentence(did_you_mean(kind, TEMPLATES)))
    check_name(name)
    deployments = folder / PREFECT
    files = {path.format(name=name): text.format(name=name) for path, text in TEMPLATES[kind].items()}
    for path in files:
        if os.path.lexists(folder / path):
            raise UsageError(
                f"{path} is there already; nothing was changed",
                hint="It is yours to edit. For another flow choose another name.",
            )
    if schedule is not None:
        check_schedule(schedule)
    old = deployments.read_text() if deployments.exists() else _HEAD.format(project=folder.resolve().name)
    new = with_deployment(old, entry(kind, name, schedule))
    if not dry_run:
        _write(folder, files, new)
    return [*files, PREFECT]


def _write(folder: Path, files: Mapping[str, str], deployments: str) -> None:
    """All of it, or nothing; folders stay."""
    made: list[Path] = []
    try:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (folder / path).open("x") as file:
                made.append(folder / path)
                file.write(text)
        replace_file(folder / PREFECT, deployments.encode())
    except OSError as error:
        for file_made in made:
            with suppress(OSError):
                file_made.unlink(missing_ok=True)
        raise InfrastructureError(
            f"cannot write {error.filename or folder}: {error.strerror}; nothing was changed",
            hint="You need to be able to write to the project folder.",
        ) from error


def project_folder(start: Path) -> Path:
    """The project that a folder is in; UsageError without one."""
    found = nearest(start)
    if found is None:
        raise UsageError(
            f"{start.resolve()} is in no project: there is no {FILE} here or above",
            hint="Make one first: shoal init",
        )
    return found
