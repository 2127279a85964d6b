"""What lets in to clusters, in the one Secret of a user's namespace: an entry for each is made and taken away.

Why it exists: a user reads one Secret by name, and a head mounts its own entries of it.

What it must not do: keep a secret, or know when a cluster begins and ends.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from shoal.errors import NotFoundError, ShoalError, StaleRecordError
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.errors import ObjectRefusedError
from shoal.homes.kubernetes.names import ACCESS, SECRET
from shoal.homes.kubernetes.pods import Pass
from shoal.machine.certificate import make_certificate, name_of

_log = logging.getLogger("shoal.homes")


def give_pass(api: Api, namespace: str, uid: str) -> None:
    """A token, a certificate and its key for this cluster; those that are there stay."""
    path = SECRET.path(namespace, ACCESS)
    certificate, key = make_certificate(name_of(uid))
    data = Pass(secrets.token_urlsafe(32), certificate, key).data(uid)
    # By one request where it has none yet, whatever others write there meanwhile.
    tests = [{"op": "test", "path": f"/data/{name}", "value": None} for name in data]
    adds = [{"op": "add", "path": f"/data/{name}", "value": its} for name, its in data.items()]
    try:
        api.patch(path, [*tests, *adds], "json")
        return
    except (ObjectRefusedError, NotFoundError):  # some are there, or it is empty, or is not there
        pass
    try:
        there = api.get(path)
    except NotFoundError:
        metadata = {"name": ACCESS, "namespace": namespace}
        try:
            made = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
            there = api.create(SECRET.path(namespace), made)
        except StaleRecordError:
            there = api.get(path)
    if Pass.of(there.get("data", {}), uid) is not None:
        return
    version = {"resourceVersion": there["metadata"]["resourceVersion"]}
    api.patch(path, {"metadata": version, "data": data})


def take_stale_passes(
    api: Api,
    namespaces: Iterable[str],
    known: Collection[str],
    confirm: Callable[[str], None],
    again: Callable[[], None],
) -> None:
    """What lets in to clusters of these namespaces that nobody knows any more, by uid.

    ``confirm`` raises StaleRecordError where one is there after all; ``again`` has it look afresh.
    """
    for namespace in namespaces:
        try:
            there = api.get(SECRET.path(namespace, ACCESS)).get("data", {})
            again()
            for uid in {key.rpartition(".")[0] for key in there} - set(known):
                confirm(uid)
                take_pass(api, namespace, uid, [key for key in there if key.rpartition(".")[0] == uid])
        except ShoalError as error:
            _log.debug("passes of %s are looked at again: %s", namespace, error)


def take_pass(api: Api, namespace: str, uid: str, keys: Iterable[str] = ()) -> None:
    """What lets in to this cluster goes. ``keys``: what there is of it, if that is known: also another release's."""
    data = dict.fromkeys(keys or Pass("", "", "").data(uid))
    with suppress(NotFoundError):
        api.patch(SECRET.path(namespace, ACCESS), {"data": data})
