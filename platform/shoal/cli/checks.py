"""Checks: one thing each, proved or not, with what fixes it. What ``doctor`` and ``validate`` are made of.

Why it exists: a failure that does not name its fix costs an afternoon.

What it must not do: stop at the first failure, or hide an error that is not a ShoalError.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.text import Text

from shoal.cli.console import out
from shoal.errors import ShoalError
from shoal.model.checks import Check, Failed, Warned

OK, WARN, FAIL = "ok", "warning", "failed"
_MARKS = {OK: ("✓", "green"), WARN: ("!", "yellow"), FAIL: ("✗", "red")}


@dataclass(frozen=True)
class Finding:
    """What one check found. ``fix``: the command or step that fixes it (empty when ok)."""

    check: str
    result: str
    said: str
    fix: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"mend": self.fix}  # as it was called in 0.1.0


def run(checks: Iterable[Check], *, show: bool) -> list[Finding]:
    """Run every check, in order; each line is shown when it is known."""
    findings = []
    for name, prove in checks:
        finding = _one(name, prove)
        findings.append(finding)
        if show:
            _show(finding)
    return findings


def _one(name: str, prove: Callable[[], str]) -> Finding:
    begin = time.monotonic()

    def found(result: str, said: str, fix: str = "") -> Finding:
        return Finding(name, result, said, fix, round(time.monotonic() - begin, 3))

    try:
        return found(OK, prove())
    except Warned as warned:
        return found(WARN, warned.said, warned.fix)
    except Failed as failed:
        return found(FAIL, failed.said, failed.fix)
    except ShoalError as error:
        return found(FAIL, error.message, error.hint or "shoal doctor")
    except Exception as error:  # other people's libraries fail in their own ways, and each is a finding
        if os.environ.get("SHOAL_DEBUG"):
            traceback.print_exc()
        return found(FAIL, f"{type(error).__name__}: {error}", "SHOAL_DEBUG=1 shows where it comes from")


def _show(finding: Finding) -> None:
    mark, colour = _MARKS[finding.result]
    line = Text.assemble((f"{mark} ", colour), (finding.check, "bold"), ": ", finding.said)
    out().print(line, soft_wrap=not out().is_terminal)
    if finding.fix:  # a command, to paste: it stays whole
        out().print(Text(f"    fix: {finding.fix}", colour), soft_wrap=True)


def failed(findings: Iterable[Finding]) -> int:
    """How many failed."""
    return sum(finding.result == FAIL for finding in findings)
