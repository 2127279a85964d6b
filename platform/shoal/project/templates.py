"""Templates: how one kind of work is sized, imaged and timed out, per engine (``clusters/*.yaml``).

Why it exists: a template is what a person names instead of thirty numbers.

What it must not do: read files (``project``) or settle numbers (``sizing``).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from shoal.errors import ContradictionError, NotFoundError
from shoal.model.workload import Engine
from shoal.project.settings import Checked, Natural, ObjectName, Positive, Rate, Share, SizeOf, Text
from shoal.units import Bytes, Seconds
from shoal.words import did_you_mean, sentence


class EngineSettings(Checked):
    """How the template runs on one engine: its image (by name from ``images/``; default: ``shoal-dask`` or
    ``shoal-spark``) and engine settings."""

    image: str = ""
    conf: dict[str, Text] = Field(default_factory=dict)


class TemplateWorkers(Checked):
    """``min`` to ``max`` workers of ``cores``, ``memory`` and ``gpus`` each; ``spot`` is a share, 0 to 1.

    ``fallback``: how long a worker waits for a spot machine before it gets another one (None: for ever).
    """

    min: Positive
    max: Positive
    cores: Positive
    memory: Bytes
    gpus: Natural = 0
    spot: Share = 0.0
    fallback: Seconds | None = None

    @model_validator(mode="after")
    def _ordered(self) -> TemplateWorkers:
        if self.min > self.max:
            raise ContradictionError(
                f"min {self.min} is above max {self.max}", hint="write min equal to max or below it"
            )
        return self


class TemplateGroup(TemplateWorkers):
    """One of several kinds of workers, by its name. All but the first may have none at the start."""

    name: Annotated[str, Field(pattern="^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$")]
    min: Natural


def _form(value: Any) -> str:
    return "[several]" if isinstance(value, (list, tuple)) else "[one]"


# One kind of workers, or a list of named ones. What is in brackets is left out of a fault's path.
_WorkersOrGroups = Annotated[
    Annotated[TemplateWorkers, Tag("[one]")]
    | Annotated[tuple[TemplateGroup, ...], Field(min_length=1, max_length=8), Tag("[several]")],
    Discriminator(_form),
]


class Sizing(Checked):
    """How a count of workers follows from the size of the input.

    ``expansion``: memory that the data takes per byte on disk. ``target``: how long the work may take.
    ``throughput_per_core``: bytes on disk that one core gets through per second.
    """

    expansion: Annotated[float, Field(gt=0)] = 3.0
    target: Seconds = Seconds(15 * 60)
    throughput_per_core: Rate = Bytes(40_000_000)

    @field_validator("target", "throughput_per_core")
    @classmethod
    def _above_zero(cls, value: float) -> float:
        if value <= 0:
            raise ContradictionError("is 0", hint="write more than 0")
        return value


class TimeoutSettings(Checked):
    """When a cluster ends on its own. Defaults: idle 20 min, no client 2 min, at most 4 h."""

    idle: Seconds = Seconds(20 * 60)
    no_client: Seconds = Seconds(2 * 60)
    max: Seconds = Seconds(4 * 3600)


def _both() -> dict[Engine, EngineSettings]:
    return {engine: EngineSettings() for engine in Engine}


class Template(Checked):
    """One file of ``clusters/``. ``name`` is the file's name, ``where`` its place for messages.

    ``workers`` is all that has to be there. ``secrets``: on Kubernetes, Secrets whose entries head and workers have in
    their environment. Defaults: both engines, Dask first; a head of 1 core and 2 GB.
    """

    not_in_file: ClassVar[tuple[str, ...]] = ("name", "where")

    name: str = ""
    where: str = ""
    description: str = ""
    engines: dict[Engine, EngineSettings] = Field(default_factory=_both, min_length=1)
    workers: _WorkersOrGroups
    head: SizeOf = SizeOf(cores=1, memory=Bytes(2 * 10**9))
    sizing: Sizing = Sizing()
    timeouts: TimeoutSettings = TimeoutSettings()
    scratch: Bytes = Bytes(0)
    mounts: tuple[str, ...] = ()
    secrets: tuple[ObjectName, ...] = ()
    packages: tuple[str, ...] = ()

    @field_validator("workers")
    @classmethod
    def _told_apart(cls, value: TemplateWorkers | tuple[TemplateGroup, ...]) -> Any:
        if isinstance(value, TemplateWorkers):
            return value
        names = [group.name for group in value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ContradictionError(
                f"two groups are called {twice[0]!r}", hint="give each a name of its own"
            )
        if value[0].min < 1:
            raise ContradictionError(
                f"the first group, {names[0]!r}, has a min of 0",
                hint="write 1 or more: a cluster has a worker",
            )
        return value

    @property
    def groups(self) -> tuple[tuple[str, TemplateWorkers], ...]:
        """Every kind of worker with its name; the first is the one that follows the data."""
        if isinstance(self.workers, TemplateWorkers):
            return (("default", self.workers),)
        return tuple((group.name, group) for group in self.workers)

    @property
    def default_engine(self) -> Engine:
        """The first engine in the file."""
        return next(iter(self.engines))

    def engine(self, engine: Engine | None) -> tuple[Engine, EngineSettings]:
        """The settings of ``engine``, or of the default one; NotFoundError if the template lacks it."""
        chosen = engine or self.default_engine
        if chosen not in self.engines:
            known = ", ".join(self.engines)
            raise NotFoundError(
                f"Template {self.name!r} has no engine {chosen.value!r}",
                hint=f"It runs on {known}; add {chosen.value!r} under engines: in {self.where}.",
            )
        settings = self.engines[chosen]
        image = settings.image or f"shoal-{chosen.value}"
        return chosen, settings.model_copy(update={"image": image})


def find(templates: dict[str, Template], name: str) -> Template:
    """The template called ``name``, or NotFoundError with the nearest name."""
    if name not in templates:
        plain = (
            name.rpartition("/")[2].removesuffix(".yaml").removesuffix(".yml").lower()
        )  # ETL, clusters/etl.yaml
        near = f"did you mean {plain!r}? Known: {', '.join(sorted(templates))}"
        hint = near if plain in templates else did_you_mean(name, templates)
        raise NotFoundError(f"There is no template {name!r}", hint=sentence(hint), name=name)
    return templates[name]
