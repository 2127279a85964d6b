"""What can go wrong with a test cluster, each with what to do next."""

from __future__ import annotations


class ClusterError(Exception):
    """Something about a test cluster failed; the message says what, why and what next."""


class Unavailable(ClusterError):
    """This machine cannot run that shape; the message names every missing thing and the command for it."""


class NotInTime(ClusterError):
    """A wait reached its deadline; the message says what was waited for and what was seen last."""
