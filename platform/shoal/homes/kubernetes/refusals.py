"""What the API server refused of a cluster: its own sentence, kept until that is taken, and not asked for in a loop.

Why it exists: what a quota, a policy or a webhook of the place says no to is one cluster's affair. Its record says so,
it is tried again, and nobody else waits for it.

What it must not do: import a client, or decide what becomes of the cluster (``governor.lifecycle`` does).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from shoal.errors import NotFoundError, OutcomeUnknownError, ShoalError
from shoal.homes.kubernetes.errors import ObjectRefusedError, RightsError
from shoal.homes.kubernetes.names import HEAD, RUNNER, WORKER
from shoal.homes.kubernetes.quantities import told
from shoal.model.cluster import Reason

_log = logging.getLogger("shoal.homes")
_AGAIN = (
    4.5  # s until what was refused is tried again: at the governor's next look, however busy others keep it
)
_PARTS = {HEAD: "its head", WORKER: "a worker", RUNNER: "its script"}
_QUOTA = re.compile(r"exceeded quota: (\S+), requested: (\S+), used: (\S+), limited: (\S+)")


class Refusal(NamedTuple):
    """Why a part of a cluster is not there: for programs, and for people."""

    reason: Reason
    message: str


def everybodys(error: ShoalError) -> bool:
    """Whether all clusters meet it: the credentials themselves were not taken."""
    return error.values.get("code") == 401


def refusal(sentence: str, part: str, namespace: str) -> Refusal:
    """What the API server's ``sentence`` means for a part of a cluster (``head``, ``worker``, ``runner``)."""
    what = _PARTS.get(part, "its end")
    if (found := _QUOTA.search(sentence)) is None:
        return Refusal(Reason.PLACE_REFUSED, f"the API server refused {what}: {sentence}"[:900])
    quota, *amounts = found.groups()
    asked, used, hard = (dict(each.split("=", 1) for each in its.split(",")) for its in amounts)
    lacking = [
        f"{resource} {told(resource, its)} asked for, {told(resource, used.get(resource, '?'))} of "
        f"{told(resource, hard.get(resource, '?'))} used"
        for resource, its in asked.items()
    ]
    said = f"quota {quota!r} of namespace {namespace} has no room for {what}: {'; '.join(lacking)}"
    return Refusal(Reason.WAITING_FOR_QUOTA, said[:900])


class Refusals:
    """What was refused of each cluster (by uid) and part, and when. ``clock`` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[Refusal, float]] = {}
        self._news = False

    def of(self, uid: str) -> Mapping[str, Refusal]:
        """By part, what is refused of this cluster now."""
        return {part: known for (its, part), (known, _) in self._known.items() if its == uid}

    def keep(self, uids: Collection[str]) -> None:
        """Forget all other clusters."""
        self._known = {key: known for key, known in self._known.items() if key[0] in uids}

    def taken(self, uid: str, part: str) -> None:
        """Nothing of this part is refused any more."""
        self._known.pop((uid, part), None)

    def news(self) -> bool:
        """Whether anything was refused, since this was asked last, that no record can say yet."""
        news, self._news = self._news, False
        return news

    @contextmanager
    def trying(self, uid: str, part: str, namespace: str) -> Iterator[None]:
        """Around writes of one part of a cluster.

        Raises:
            ObjectRefusedError: they were refused, for whatever reason; or they were a moment ago, and are not sent.
        """
        known = self._known.get((uid, part))
        if known is not None and self._clock() - known[1] < _AGAIN:
            raise ObjectRefusedError(known[0].message)
        try:
            yield
        except (ObjectRefusedError, RightsError, NotFoundError) as error:
            if everybodys(error):
                raise
            self._note(uid, part, refusal(error.message, part, namespace))
            raise ObjectRefusedError(error.message) from error
        except OutcomeUnknownError as error:
            if sentence := _said(error):  # a webhook that is broken, for one
                self._note(uid, part, refusal(sentence, part, namespace))
            raise
        self.taken(uid, part)

    def _note(self, uid: str, part: str, found: Refusal) -> None:
        known = self._known.get((uid, part))
        if known is None or known[0] != found:
            _log.warning("%s", found.message)
            self._news = True
        self._known[uid, part] = found, self._clock()


def _said(error: ShoalError) -> str:
    """What the API server answered, where it answered at all."""
    return str(error.values.get("said", ""))
