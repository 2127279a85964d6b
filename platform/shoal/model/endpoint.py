"""Where a client connects to a cluster.

Why it exists: engines make it, homes keep it and handles use it, and none of them knows another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Endpoint:
    """Where clients connect. ``token`` is a secret: it is not in ``repr`` and never stored.

    ``dashboard`` is a link that lets in whoever has it. ``security`` is what TLS takes, as Dask names it, and
    ``name`` whom the certificate is made out to. ``files``: a folder that client and cluster both reach.
    """

    address: str
    token: str = field(repr=False)
    dashboard: str = field(default="", repr=False)
    security: Mapping[str, str] = field(default_factory=dict, repr=False)
    name: str = ""
    files: str = ""
