"""The options that commands share, each told once.

Why it exists: the same option has the same name, the same help and the same completion in every command.

What it must not do: import anything heavy; it is loaded for `shoal --help`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

_SIZE = "Size of the cluster (default: what the template says)"
_PLACE = "Place"


class Output(StrEnum):
    """How a command answers."""

    TEXT = "text"
    JSON = "json"


class EngineName(StrEnum):
    """Dask or Spark."""

    DASK = "dask"
    SPARK = "spark"


def complete_templates(incomplete: str) -> Iterable[str]:
    """Names of templates, for the shell."""
    from shoal.project.loading import load

    return sorted(name for name in load(tolerant=True).templates if name.startswith(incomplete))


def complete_clusters(incomplete: str) -> Iterable[str]:
    """Names of live clusters, for the shell."""
    from shoal.homes.choose import open_home
    from shoal.project.loading import load

    home = open_home(load(looking=True))
    return sorted(c.name for c in home.clusters(owner=home.user()) if c.name.startswith(incomplete))


def _option(*names: str, help: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


Answer = Annotated[Output, _option("-o", "--output", help="Output format; json has a stable schema.")]
TargetOption = Annotated[
    str | None, _option("--target", help="One of `targets:` in shoal.yaml (or SHOAL_TARGET).", panel=_PLACE)
]
ProjectFolder = Annotated[
    Path | None,
    _option(
        "--project",
        help="Project folder (default: the nearest one upwards, else the shipped one).",
        panel=_PLACE,
    ),
]
Yes = Annotated[bool, _option("-y", "--yes", help="Do not ask for confirmation.")]
Name = Annotated[
    str | None,
    _option(
        "--name",
        help="Name of the cluster. A live one of that name is reused, and left running, if it matches the request.",
    ),
]
Verbose = Annotated[bool, _option("-v", "--verbose", help="Show the whole plan, with its reasons.")]
DryRun = Annotated[bool, _option("--dry-run", help="Only show what would be started.")]
Detach = Annotated[
    bool, _option("--detach", help="Keep running without a client, until idle or at its maximum lifetime.")
]
Queue = Annotated[bool, _option("--queue", help="Wait for quota instead of being refused.")]
PriorityOption = Annotated[
    int | None,
    _option("--priority", min=-10, max=10, help="Priority in the queue; higher goes first within your team."),
]
TemplateArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="TEMPLATE", help="A file of clusters/, such as etl.", autocompletion=complete_templates
    ),
]
TemplateOption = Annotated[
    str | None,
    _option("--template", "-t", help="A file of clusters/, such as etl.", autocompletion=complete_templates),
]
ClusterName = Annotated[
    str, typer.Argument(metavar="NAME", help="The cluster's name.", autocompletion=complete_clusters)
]
EngineOption = Annotated[
    EngineName | None, _option("--engine", "-e", help="The engine (default: the template's first).")
]
Data = Annotated[str | None, _option("--data", "-d", help="Size of the input, such as '25 GB'.", panel=_SIZE)]
WorkersOption = Annotated[str | None, _option("--workers", "-w", help="A number, or 2-10.", panel=_SIZE)]
Cores = Annotated[str | None, _option("--cores", help="Cores per worker.", panel=_SIZE)]
Memory = Annotated[str | None, _option("--memory", help="Memory per worker, such as '14 GB'.", panel=_SIZE)]
Gpu = Annotated[str | None, _option("--gpu", help="GPUs per worker.", panel=_SIZE)]
Spot = Annotated[str | None, _option("--spot", help="Share of spot machines, such as 50%.", panel=_SIZE)]
Packages = Annotated[
    list[str] | None,
    _option("--package", help="A pip requirement for the workers; may be repeated.", panel=_SIZE),
]
MaxDuration = Annotated[
    str | None, _option("--max-duration", help="Maximum lifetime, such as '2 h'.", panel=_SIZE)
]
MaxCost = Annotated[
    str | None,
    _option("--max-cost", help="End before it cost more, such as '5 USD' or '20 core-hours'.", panel=_SIZE),
]
MaxPrice = Annotated[
    str | None,
    _option("--max-price", help="At most so much an hour, such as '2 USD/h': fewer workers.", panel=_SIZE),
]
Idle = Annotated[str | None, _option("--idle", help="End after this long without work.", panel=_SIZE)]
NoClient = Annotated[
    str | None, _option("--no-client", help="End after this long without a client.", panel=_SIZE)
]


NOTHING: dict[str, Any] = {}  # stands for what `asking` puts in its place
# What is asked for about a cluster, by the name that `prepare` has for it, in the order of `--help`.
ASKED: dict[str, Any] = {
    "engine": EngineOption,
    "data": Data,
    "workers": WorkersOption,
    "cores": Cores,
    "memory": Memory,
    "gpu": Gpu,
    "spot": Spot,
    "packages": Packages,
    "max_duration": MaxDuration,
    "max_cost": MaxCost,
    "max_price": MaxPrice,
    "idle": Idle,
    "no_client": NoClient,
}


def asking(command: Callable[..., None], *, without: Collection[str] = ()) -> Callable[..., None]:
    """``command`` with the options of :data:`ASKED` in place of its parameter ``asked``, in which it gets what
    was typed of them, by name."""
    names = [name for name in ASKED if name not in without]
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name != "asked":
            parameters.append(parameter)
            continue
        parameters += [parameter.replace(name=name, annotation=ASKED[name], default=None) for name in names]

    @functools.wraps(command)
    def run(**typed: Any) -> None:
        asked = {name: typed.pop(name) for name in names}
        command(asked={key: value for key, value in asked.items() if value not in (None, [])}, **typed)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
