"""The base of every model that is read from a file of the project folder.

Why it exists: all of them refuse unknown keys, cannot be changed, and read counts, shares and rates alike.

What it must not do: read files (``yamlfile``) or mean anything by itself.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from shoal.errors import UnitError
from shoal.model.workload import Size
from shoal.units import Bytes


class Checked(BaseModel):
    """A model of a piece of YAML: unknown keys are faults, and it never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_share(value: object) -> float:
    """A share from ``"50%"`` or a number from 0 to 1, as a number from 0 to 1 (UnitError otherwise)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if isinstance(value, str) else None
    if match:
        share = float(match[1]) / 100
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        share = float(value)
    else:
        raise UnitError(f"{value!r} is not a share", hint="Write it as '50%', or as a number from 0 to 1.")
    if not 0 <= share <= 1:
        raise UnitError(f"{value!r} is not between 0% and 100%", hint="Write a share as '50%'.")
    return share


def parse_rate(value: object) -> Bytes:
    """Bytes per second from text such as ``"40 MB/s"`` (UnitError otherwise)."""
    if isinstance(value, Bytes):
        return value
    text = str(value)
    if not text.rstrip().endswith("/s"):
        raise UnitError(f"{value!r} is not a rate", hint="Write it as '40 MB/s'.")
    return Bytes.parse(text.rstrip()[:-2])


def _plain_text(value: Any) -> Any:
    # Spark's settings are text; in YAML people write 64 and true without quotes.
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float)) else value


Share = Annotated[float, BeforeValidator(parse_share)]
Rate = Annotated[Bytes, BeforeValidator(parse_rate)]
Text = Annotated[str, BeforeValidator(_plain_text)]
Positive = Annotated[int, Field(strict=True, ge=1)]
# What Kubernetes calls its objects (RFC 1123).
ObjectName = Annotated[
    str, Field(max_length=253, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
]
Natural = Annotated[int, Field(strict=True, ge=0)]


class SizeOf(Checked):
    """``{cores: 4, memory: 14 GB}``."""

    cores: Annotated[float, Field(gt=0)]
    memory: Bytes

    @property
    def size(self) -> Size:
        return Size(self.cores, self.memory)
