"""Links to an engine's own pages, which have no login: a secret in the path lets in whoever has the link.

Why it exists: who shows the pages and who gives out the link are two processes; both make the secret from the cluster's
key, so none is told it.

What it must not do: write a link anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from urllib.parse import urlsplit

FIRST = "status"  # the page that a link leads to
_AS_IT_IS = "{scheme}://{host}:{port}/status"  # Dask's default


def secret_of(key: str) -> str:
    """The secret of a cluster's pages, from its private key (PEM): scheduler and workers need not be told it."""
    digest = hmac.digest(key.encode(), b"dashboard", hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:18]).decode()


def link(port: int, secret: str, host: str = "127.0.0.1") -> str:
    """Where the pages are."""
    return f"http://{host}:{port}/{secret}/{FIRST}"


def by_proxy(url: str) -> str:
    """The link as a browser that comes by a proxy (JupyterHub's) has to write it.

    Dask's own setting ``distributed.dashboard.link`` says how; without it, or where it names what is not there, the
    link stays as it is.
    """
    if not url:
        return url
    from dask import config

    template = config.get("distributed.dashboard.link", _AS_IT_IS)
    if template == _AS_IT_IS:
        return url
    parts = urlsplit(url)
    where = {"scheme": parts.scheme, "host": parts.hostname, "port": parts.port}
    try:
        start = str(template).format(**{**os.environ, **where})
    except (LookupError, ValueError):
        return url
    return start.rstrip("/").removesuffix(f"/{FIRST}") + parts.path
