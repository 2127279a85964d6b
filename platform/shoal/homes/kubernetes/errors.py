"""What an API server may answer besides what every home may.

Why it exists: whoever catches them need not import a client.
"""

from __future__ import annotations

from shoal.errors import InfrastructureError, RefusedError


class RightsError(InfrastructureError):
    """The API server does not let this account do that. ``values``: ``verb``, ``path``."""


class ObjectRefusedError(RefusedError):
    """The API server refused an object: its schema, a policy or a quota says no. The message is the server's."""


class WatchOverError(InfrastructureError):
    """A watch came to its end too soon. ``values``: ``code``, as the API server says."""


class ApiClosedError(InfrastructureError):
    """The connections to the API server were given back by this process itself."""
