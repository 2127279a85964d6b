"""A budget: what may be spent in a month, in money or in hours that need no prices (``policies/*.yaml``).

Why it exists: limits bound what runs at once; a bill, or a grant of hours, bounds what runs in a month.

What it must not do: know what was spent, or decide on a request (``quota.budgets``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, field_validator, model_validator

from shoal.errors import ContradictionError, UnitError
from shoal.project.settings import Checked, Share
from shoal.project.yamlfile import Fault
from shoal.units import Money, Seconds

if TYPE_CHECKING:
    from shoal.project.targets import Target

# Hours of a core, of a GiB of memory, of a GPU.
HOURS = ("core-hours", "GiB-hours", "GPU-hours")
_HOURS = {spelt.lower(): unit for unit in HOURS for spelt in (unit, unit[:-1])}
_KNOWN = f"a currency such as USD, {', '.join(HOURS[:-1])} or {HOURS[-1]}"


@dataclass(frozen=True)
class Allowance:
    """An amount with its unit: a currency, or one of :data:`HOURS`."""

    amount: Decimal
    unit: str

    @property
    def in_money(self) -> bool:
        return self.unit not in HOURS

    def __str__(self) -> str:
        return said(float(self.amount), self.unit)


def said(amount: float, unit: str) -> str:
    """As people write it: ``"12.50 USD"``, ``"500 core-hours"``."""
    if unit not in HOURS:
        return str(Money(Decimal(str(round(amount, 9))), unit))
    number = f"{amount:.1f}" if abs(amount) >= 10 else f"{amount:.3f}"
    return f"{number.rstrip('0').rstrip('.')} {unit}"


def allowance(value: object) -> Allowance:
    """From text such as ``"200 USD"`` or ``"500 core-hours"``.

    Raises:
        UnitError: it has no unit, or one that is not known.
        ContradictionError: it is not above 0.
    """
    if isinstance(value, Allowance):
        return value
    match = re.fullmatch(r"\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*([A-Za-z-]*)\s*", str(value))
    if match is None:
        raise UnitError(f"{value!r} is not one amount", hint="write it as '200 USD' or '500 core-hours'")
    number, unit = Decimal(match[1]), match[2]
    if not unit:
        raise UnitError(f"{value!r} has no unit", hint=f"write {_KNOWN}")
    known = unit if re.fullmatch("[A-Z]{3}", unit) else _HOURS.get(unit.lower())
    if known is None:
        raise UnitError(f"{unit!r} is not a unit of a budget", hint=f"write {_KNOWN}")
    if number <= 0:
        raise ContradictionError(
            f"{value!r} is not above 0: no cluster could ever start", hint="write more than 0"
        )
    return Allowance(number, known)


class AtLimit(StrEnum):
    """What happens where a budget ends: nothing more is admitted; or, besides, what runs ends."""

    REFUSE = "refuse"
    STOP = "stop"


class Budget(Checked):
    """What may be spent in a calendar month of UTC; ``warn``: from which share of it on people are told.

    ``reserve``: which part of what a run may still take is held against the budget. With less than all of it more is
    admitted than may be spent if all of it goes on: ``monthly / reserve`` at most. ``grace``: how long ahead people
    are told that a run ends for the budget, where ``at_limit`` is STOP.
    """

    monthly: Annotated[Allowance, BeforeValidator(allowance)]
    warn: Share = 0.8
    at_limit: AtLimit = AtLimit.REFUSE
    reserve: Share = 1.0
    grace: Seconds = Seconds(600)

    @field_validator("reserve", "grace")
    @classmethod
    def _above_zero(cls, value: float) -> float:
        if value <= 0:
            raise ContradictionError("is not above 0", hint="write '80%' of a share, '10 min' of a time")
        return value

    @model_validator(mode="after")
    def _grace_before_an_end(self) -> Budget:
        if "grace" in self.model_fields_set and self.at_limit is not AtLimit.STOP:
            raise ContradictionError(
                "grace is the time before an end, and this budget ends nothing",
                hint="write at_limit: stop, or remove grace",
            )
        return self

    @property
    def stops(self) -> bool:
        """Whether what runs ends when it is used up."""
        return self.at_limit is AtLimit.STOP


@dataclass(frozen=True)
class BudgetLimit:
    """One budget, and where it is written."""

    budget: Budget
    source: str

    @property
    def unit(self) -> str:
        return self.budget.monthly.unit

    @property
    def monthly(self) -> float:
        return float(self.budget.monthly.amount)


def not_held(budgets: Mapping[str, Budget], where: Mapping[str, str], target: Target) -> list[Fault]:
    """The budgets (by path) that nobody holds at this target: a limit that is not enforced is misleading.

    ``where``: the file and line of each path.
    """
    found = []
    for path, budget in budgets.items():
        monthly, prices, wrong = budget.monthly, target.prices, ""
        if not target.in_processes:
            wrong = f"budgets are not enforced at home {target.home} yet (target {target.name})"
            right = "remove it; totals and max_duration bound what can be spent"
        elif monthly.in_money and prices is None:
            wrong = f"is in {monthly.unit}, and target {target.name} has no prices"
            right = f"add prices to it in shoal.yaml, or write {', '.join(HOURS[:-1])} or {HOURS[-1]}"
        elif monthly.in_money and prices is not None and monthly.unit != prices.currency:
            wrong = f"is in {monthly.unit}, and the prices of target {target.name} are in {prices.currency}"
            right = f"write it in {prices.currency}"
        if wrong:
            part, _, key = path.partition(".")
            file, _, line = where.get(path, f"policies/{part}.yaml:1").rpartition(":")
            found.append(Fault(file, int(line), key, wrong, right))
    return found
