"""How a process outside of Kubernetes reaches a head: a port of this machine that leads to its pod.

Why it exists: pods have no address out here. A tunnel is the API server's own way in, with the rights of who uses it.

What it must not do: be relied on for safety: its local end is open to every user of this machine, so whatever is
behind it asks for a certificate or a token.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from shoal.errors import InfrastructureError

_OPENS = 20.0  # s that a tunnel may take to be opened
_open: dict[tuple[str, str, str, int], tuple[Any, int]] = {}
_lock = threading.Lock()


def local_port(context: str | None, namespace: str, pod: str, uid: str, port: int) -> int:
    """The port here that leads to ``port`` of that pod; opened at the first use, and kept by this process.

    Raises:
        InfrastructureError: it cannot be opened.
    """
    key = namespace, pod, uid, port
    with _lock:
        if key not in _open:
            _open[key] = _opened(context, namespace, pod, port)
        return _open[key][1]


def close(uid: str) -> None:
    """End the tunnels to a cluster."""
    with _lock:
        ended = [_open.pop(key)[0] for key in list(_open) if key[2] == uid]
    for forward in ended:
        forward.stop()


def _opened(context: str | None, namespace: str, pod: str, port: int) -> tuple[Any, int]:
    import kr8s
    from kr8s.objects import Pod

    try:
        api = kr8s.api(context=context, namespace=namespace)
        forward = Pod.get(pod, namespace=namespace, api=api).portforward(port, local_port="auto")
        forward.start()
        begin = time.monotonic()
        while not forward.servers or not forward.local_port:
            if time.monotonic() - begin > _OPENS:
                raise TimeoutError(f"it was not open after {_OPENS:.0f} s")
            time.sleep(0.01)
        return forward, int(forward.local_port)
    except Exception as error:  # of kr8s, of its HTTP client, of its event loop
        raise InfrastructureError(
            f"no tunnel to pod {pod} in namespace {namespace}: {error}",
            hint=f"`kubectl port-forward --namespace {namespace} pod/{pod} {port}` tries the same.",
        ) from error
