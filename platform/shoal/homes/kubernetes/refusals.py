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
from typing import Any, NamedTuple

from shoal.errors import NeverFitsError, NotFoundError, OutcomeUnknownError, ShoalError
from shoal.homes.kubernetes.errors import ObjectRefusedError, RightsError
from shoal.homes.kubernetes.names import ADMITTED, CLUSTER, GROUP, HEAD, RUNNER, WORKER
from shoal.homes.kubernetes.quantities import told
from shoal.model.cluster import Reason

_log = logging.getLogger("shoal.homes")
_AGAIN = (
    4.5  # s until what was refused is tried again: at the governor's next look, however busy others keep it
)
# The API server counts a pod that is gone a moment later: so long a lack of room isn't told, and is tried at each look.
_SETTLES = 3.0
END = "end"  # beside the roles of pods, as a part of a cluster: that a pod of it is deleted
_PARTS = {HEAD: "its head", WORKER: "a worker", RUNNER: "its script", END: "the end of a pod"}
# How the API server begins what our policy of limits says (`native_clusters`).
_LIMITED = re.compile(
    r"ValidatingAdmissionPolicy '\S+-limits' with binding '\S+' denied request: (.+)", re.DOTALL
)
_QUOTA = re.compile(r"exceeded quota: (\S+), requested: (\S+), used: (\S+), limited: (\S+)")


class Refusal(NamedTuple):
    """Why a part of a cluster is not there: for programs, and for people."""

    reason: Reason
    message: str
    quota: str = ""  # the one without room, where that is why


class _Remembered(NamedTuple):
    """Since when, when it was tried last, and whether its cluster's record is to say so."""

    why: Refusal
    first: float
    tried: float
    told: bool


def everybodys(error: ShoalError) -> bool:
    """Whether all clusters meet it: the credentials themselves were not taken."""
    return error.values.get("code") == 401


def refusal(sentence: str, part: str, namespace: str) -> Refusal:
    """What the API server's ``sentence`` means for a part of a cluster (``head``, ``worker``, ``runner``, ``end``)."""
    what = _PARTS[part]
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
    if quota == ADMITTED:
        said += ". It gives what was admitted: other pods take it, or something is added to these "
        said += f"(`kubectl get pods --namespace {namespace}`)"
    return Refusal(Reason.WAITING_FOR_QUOTA, said[:900], quota)


def by_limit(error: ObjectRefusedError) -> ShoalError:
    """NeverFitsError, as the library itself has it, where a limit is why; else the error as it is."""
    if (found := _LIMITED.search(error.message)) is None:
        return error
    hint = "Ask for less: waiting would not help. shoal quota shows your limits."
    return NeverFitsError(found[1].strip(), hint=hint)


def refuse_foreign(there: Mapping[str, Any], kind: str) -> None:
    """ObjectRefusedError where an object has a name that a cluster needs and belongs to none: nobody takes it away. One
    of an earlier cluster goes by itself."""
    metadata = there["metadata"]
    owned = any(
        each.get("kind") == CLUSTER.name and str(each.get("apiVersion")).startswith(f"{GROUP}/")
        for each in metadata.get("ownerReferences", ())
    )
    if not owned and "deletionTimestamp" not in metadata:
        name, namespace = metadata["name"], metadata["namespace"]
        shows = f"kubectl describe {kind.lower()} {name} --namespace {namespace}"
        raise ObjectRefusedError(
            f"{kind} {name} is there already and is somebody else's (`{shows}` tells whose): ask for a cluster of "
            "another name, or wait until that is gone"
        )


class Refusals:
    """What was refused of each cluster (by uid) and part, and when. ``clock`` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str], _Remembered] = {}
        self._news = False

    @property
    def young(self) -> bool:
        """Whether anything was refused that no record tells yet."""
        now = self._clock()  # what is not tried any more has come to its end
        return any(not its.told and now - its.tried < _SETTLES for its in self._known.values())

    def of(self, uid: str) -> Mapping[str, Refusal]:
        """By part, what is refused of this cluster now."""
        return {part: its.why for (known, part), its in self._known.items() if known == uid and its.told}

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
    def trying(self, uid: str, part: str, namespace: str = "") -> Iterator[None]:
        """Around writes of one part of a cluster.

        Raises:
            ObjectRefusedError: they were refused, for whatever reason; or they were a moment ago, and are not sent.
        """
        known = self._known.get((uid, part))
        if known is not None and known.told and self._clock() - known.tried < _AGAIN:
            raise ObjectRefusedError(known.why.message)
        try:
            yield
        except (ObjectRefusedError, RightsError, NotFoundError) as error:
            if everybodys(error):
                raise
            self._note(uid, part, error.message, namespace)
            raise ObjectRefusedError(error.message) from error
        except OutcomeUnknownError as error:
            if sentence := _said(error):  # a webhook that is broken, for one
                self._note(uid, part, sentence, namespace)
            raise
        self.taken(uid, part)

    def _note(self, uid: str, part: str, sentence: str, namespace: str) -> None:
        found = refusal(sentence, part, namespace)
        follows = found.quota == ADMITTED
        known, now = self._known.get((uid, part)), self._clock()
        first = now if known is None else known.first
        told = not follows or now - first >= _SETTLES or (known is not None and known.told)
        if told and (known is None or known.why != found or not known.told):
            _log.warning("%s", found.message)
            self._news = True
        self._known[uid, part] = _Remembered(found, first, now, told)


def _said(error: ShoalError) -> str:
    """What the API server answered, where it answered at all."""
    return str(error.values.get("said", ""))
