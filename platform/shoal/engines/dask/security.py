"""What all sides of a Dask cluster share: its certificate as Dask takes it, and what its workers load first.

Why it exists: a head with workers of its own and a worker that a home starts have to say the same.
"""

from __future__ import annotations

from typing import Any

WORKER_SETUP = "shoal.engines.dask.worker_setup"


def security(certificate: str, key: str) -> Any:
    """``distributed.Security`` in which everybody shows this certificate (both PEM) and trusts no other."""
    import distributed

    shown = {
        f"tls_{role}_{what}": text
        for role in ("client", "scheduler", "worker")
        for what, text in (("cert", certificate), ("key", key))
    }
    return distributed.Security(require_encryption=True, tls_ca_file=certificate, **shown)
