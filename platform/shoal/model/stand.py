"""Where a head's servers listen, and who starts its workers: what a home settles before an engine is started.

Why it exists: on one machine that is loopback, free ports and workers of the head's own; in pods it is the pod's
address, ports that a service knows, the home's certificate, and workers that the home starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stand:
    """Where a head's servers listen, and who starts its workers.

    ``port`` is the engine's, port 0 a free one. ``certificate``: a certificate and its key, both PEM, which all
    sides show and trust (None: the engine makes its own). ``own_workers``: the head starts its workers on its
    own machine; else the home starts them (``shoal.engines.dask.worker``), and they come by themselves.
    """

    host: str = "127.0.0.1"
    port: int = 0
    dashboard_port: int = 0
    status_port: int = 0
    certificate: tuple[str, str] | None = field(default=None, repr=False)
    own_workers: bool = True
