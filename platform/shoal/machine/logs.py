"""What Shoal tells beside its answers: the standard library's logging, one logger per room (``shoal.head``, ...).

Why it exists: one place decides which of it is written, where, and in which form: lines for people, or JSON for
what collects the output of pods.

What it must not do: configure anything in a user's process that did not ask for it by ``SHOAL_LOG``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

LEVEL = "SHOAL_LOG"
FORMAT = "SHOAL_LOG_FORMAT"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# As Dask's own lines, so that a head's log reads as one.
_TEXT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"


class JsonLines(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message; cluster and traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if cluster := os.environ.get("SHOAL_CLUSTER"):
            fields["cluster"] = cluster
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def set_up(stream: Any) -> None:
    """Write what Shoal's loggers tell to ``stream``: from level ``info`` on, or as ``SHOAL_LOG`` says; as text, or
    as ``SHOAL_LOG_FORMAT=json`` says. May be called again, for another stream or after more was imported.
    """
    level, form = os.environ.get(LEVEL, "info").lower(), os.environ.get(FORMAT, "text").lower()
    formatter = JsonLines() if form == "json" else logging.Formatter(_TEXT)
    ours = logging.getLogger("shoal")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    ours.handlers[:] = [handler]
    ours.propagate = False
    ours.setLevel(LEVELS.get(level, logging.INFO))
    if form == "json":  # also what others write: a collector reads all lines in one way
        for logger in (logging.getLogger(), *logging.root.manager.loggerDict.values()):
            for theirs in logger.handlers if isinstance(logger, logging.Logger) else ():
                theirs.setFormatter(formatter)
    if level not in LEVELS:
        ours.warning("%s=%s is not known: %s", LEVEL, level, ", ".join(LEVELS))
    if form not in ("text", "json"):
        ours.warning("%s=%s is not known: text, json", FORMAT, form)


def set_up_if_asked() -> None:
    """In a user's process: on standard error, where ``SHOAL_LOG`` asks for it."""
    if os.environ.get(LEVEL):
        set_up(sys.stderr)
