"""What can be wrong with a flow's input, script, target or schedule, each kind with its own type.

Why it exists: a team's automations have to tell "no data came" from "the data are others" from "the flow's file is
wrong". What it must not do: wrap an error of the user's own code.
"""

from __future__ import annotations

from shoal.errors import InfrastructureError, NotFoundError, UsageError


class InputMissingError(NotFoundError):
    """The path that a flow reads does not exist, or no file is there that fits. ``values["input"]`` names it."""


class EmptyInputError(UsageError):
    """A file without any content, or an input without rows where that would empty the table."""


class InputChangedError(UsageError):
    """A file's columns or values are not those of the others, or it changed after it was read.

    ``values["file"]`` names it.
    """


class ScriptError(UsageError):
    """The script of a flow cannot be used: it is not there, or has no such function, or that gives no frame."""


class TargetError(UsageError):
    """The target of a training is not there, or its values do not go with the task. ``values["target"]`` names it."""


class TrackingError(InfrastructureError):
    """Where trainings are kept does not answer, or refuses. ``values["tracking"]`` says where that is."""


class ScheduleError(UsageError):
    """A schedule that cannot be read, or that never fires."""
