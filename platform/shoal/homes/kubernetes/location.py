"""Where on a Kubernetes a target is: its context, the namespace that is asked in, the one where accounts are.

Why it exists: who asks, the governor and a head find the same objects by the same rules.

What it must not do: read or write any object but namespaces.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.errors import NotFoundError
from shoal.homes.kubernetes.errors import RightsError
from shoal.homes.kubernetes.names import NAMESPACE, OF_SYSTEM, SYSTEM, USER
from shoal.machine.addresses import POD_IP
from shoal.project.targets import Target

if TYPE_CHECKING:
    from shoal.homes.kubernetes.api import Api


@dataclass(frozen=True)
class Location:
    """``namespaces``: those that are governed; empty: all that carry the label of a user."""

    context: str | None = None
    namespace: str | None = None
    system: str = SYSTEM
    namespaces: tuple[str, ...] = ()

    @classmethod
    def of(cls, target: Target) -> Location:
        """By the target's ``kubernetes:`` block; SHOAL_NAMESPACE stands over its namespace.

        In a pod of ours the account is the pod's own, whatever context its user has at home.
        """
        said = target.kubernetes
        chosen = os.environ.get("SHOAL_NAMESPACE") or (said.namespace if said else None)
        if said is None:
            return cls(namespace=chosen)
        context = None if os.environ.get(POD_IP) else said.context
        return cls(context, chosen, said.system, said.namespaces)

    def own(self, api: Api) -> str:
        """The namespace that is asked in: the target's, else the context's."""
        return self.namespace or str(api.config.namespace)


def namespaces_of_users(api: Api, system: str) -> list[str]:
    """All that are a user's, and not of another governor's place."""
    found = (each["metadata"] for each in api.list(NAMESPACE.path(), labelSelector=USER)[0])
    return [each["name"] for each in found if each["labels"].get(OF_SYSTEM, system) == system]


def user_of(api: Api, namespace: str) -> str:
    """Whose a namespace is: its annotation says so, else its label, else it is its own."""
    try:
        metadata = api.get(NAMESPACE.path(name=namespace))["metadata"]
    except (RightsError, NotFoundError) as error:
        if (
            error.values.get("code") == 401
        ):  # whoever asks is not known any more: that says nothing of the namespace
            raise
        return namespace
    said = metadata.get("labels", {}) | metadata.get("annotations", {})
    return str(said.get(USER, namespace))
