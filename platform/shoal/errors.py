"""The error tree: every error that Shoal raises on purpose.

Why it exists: a person who meets an error reads what happened, why, and what to do next, and a program
can tell kinds apart without reading sentences. Errors travel between processes (Dask pickles them), so
each one pickles with its values.

What it must not do: import anything of Shoal, or wrap errors of the user's own code.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any


class ShoalError(Exception):
    """Base of all errors of Shoal.

    ``message`` says what happened and why, with the values; ``hint`` says what to do next (may be empty).
    Both are shown by ``str()``. Further keyword values are kept in ``values`` for programs.
    """

    def __init__(self, message: str, *, hint: str = "", **values: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.values = values

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        # Exception's own reduce would call the class with positional args only and lose the keywords.
        return copyreg.__newobj__, (type(self), self.message), dict(self.__dict__)  # type: ignore[attr-defined]


class UsageError(ShoalError):
    """What was asked for makes no sense: a bad value, an unknown name, a contradiction."""


class ConfigError(UsageError):
    """A file of the project folder has faults. ``values["faults"]`` lists all of them."""


class UnitError(UsageError, ValueError):
    """A size, duration or amount that cannot be read, such as memory without a unit."""


class ContradictionError(UsageError, ValueError):
    """Values that cannot hold together, such as a minimum above the maximum."""


class WorkloadError(UsageError, ValueError):
    """What was asked for a cluster makes no sense. ``values["faults"]`` lists what, by name."""


class NotFoundError(UsageError):
    """Something named does not exist: a template, a cluster, a table."""


class ForkedError(UsageError):
    """A connection was asked for in a forked child, where it cannot work."""


class RefusedError(ShoalError):
    """A limit says no. Nothing was started."""


class QuotaExceededError(RefusedError):
    """A limit of the policy is in the way now; it would fit once others free what they hold.

    ``values["shortages"]`` lists every limit in the way, for programs.
    """


class NeverFitsError(QuotaExceededError):
    """More than a limit of the policy gives in all: waiting would not help."""


class WaitsForItselfError(QuotaExceededError):
    """It would wait for clusters that whoever asks holds meanwhile. ``values["own"]`` names them."""


class CapacityError(RefusedError):
    """The policy allows it, but the machine does not hold it (``values["shortages"]``)."""


class InfrastructureError(ShoalError):
    """Something that Shoal depends on failed: a head, a store, Java, the disk."""


class ClusterEndedError(InfrastructureError):
    """The cluster ended before it was ready, or while it was in use. ``values["reason"]`` says why."""


class SessionLostError(InfrastructureError):
    """The Spark session is gone, its cluster is not: ask its handle for a new one."""


class DeadlineError(InfrastructureError):
    """A wait ended at its deadline. The message names what was waited for and how long."""


class StaleRecordError(InfrastructureError):
    """Somebody else wrote in between. Nothing was changed; look again and decide again."""


class OutcomeUnknownError(InfrastructureError):
    """No reply came: it was done, or it was not. Look it up; never assume."""


class MissingExtraError(UsageError, ImportError):
    """A part of Shoal needs packages that are not installed. ``values["extra"]`` names the extra."""

    @classmethod
    def of(cls, who: str, package: str, extra: str) -> MissingExtraError:
        """``who`` needs ``package``, which ``extra`` brings."""
        hint = f"pip install 'shoal[{extra}]'"
        return cls(f"{who} needs {package}, which is not installed", hint=hint, extra=extra)
