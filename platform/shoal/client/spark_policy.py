"""What a failed call to Spark Connect means: try again, the cluster has ended, or its session is gone.

Why it exists: pyspark retries a dead server for ten minutes and then says UNAVAILABLE. Each failed call passes
its retry policies, so this is where the reason is known first.

What it must not do: know homes.
"""

from __future__ import annotations

from collections.abc import Callable

import grpc
from pyspark.sql.connect.client.retries import DefaultPolicy

from shoal.errors import ClusterEndedError, SessionLostError

_RETRIES = 6  # some ten seconds in all
_GONE = (
    "INVALID_HANDLE.SESSION_CLOSED",
    "INVALID_HANDLE.SESSION_NOT_FOUND",
    "INVALID_HANDLE.SESSION_CHANGED",
)


class TellingPolicy(DefaultPolicy):  # type: ignore[misc]  # pyspark's types are not followed
    """Retries some seconds; raises the reason instead where ``why`` gives one, or where the session is gone.

    ``why``: the error to raise once the cluster has ended, None while it lives. ``lost``: is called when the
    server does not know the session any more, and gives the error to raise.
    """

    def __init__(
        self, why: Callable[[], ClusterEndedError | None], lost: Callable[[], SessionLostError]
    ) -> None:
        super().__init__(max_retries=_RETRIES, max_backoff=3000)
        self._why = why
        self._lost = lost

    def can_retry(self, error: BaseException) -> bool:
        """As pyspark's, which asks this of every error of a call before anybody else sees it."""
        if isinstance(error, grpc.RpcError):
            call: grpc.Call = error
            if (ended := self._why()) is not None:  # a dying server says all sorts of things
                raise ended from error
            if any(gone in (call.details() or "") for gone in _GONE):
                raise self._lost() from error
        return bool(super().can_retry(error))
