"""Which client computes in a block: that of the innermost ``with`` that is still open, in this context alone.

Why it exists: Dask's default client is one for the whole process, the newest. Two threads or two tasks with a
cluster each would compute in the same one, and lose their work when the other's block ends.

What it must not do: know homes. It sets Dask's own context variable, as ``with Client(...)`` does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Any

import dask
import distributed
from distributed.client import _current_client

_DISTRIBUTED = ("dask.distributed", "distributed")  # the values of Dask's `scheduler` that want a client
_open: ContextVar[tuple[Any, ...]] = ContextVar("shoal_open_blocks", default=())
# What the user's own configuration says, while Dask's says that a client computes.
_users: dict[str, Any] = {}


def enter(client: Any) -> None:
    """From here on this client computes what is computed in this context."""
    outer, blocks = _current_client.get(), _open.get()
    if outer is not None and outer not in blocks:  # a plain `with Client(...)`
        blocks = (*blocks, outer)
    _open.set((*blocks, client))
    _current_client.set(client)


def leave(client: Any) -> None:
    """It no longer does; the next outer one does that is open. In another context than its own: nothing."""
    # A token would bring back the client that was there before, also one that was closed meanwhile.
    blocks = tuple(each for each in _open.get() if each is not client and each.status != "closed")
    _open.set(blocks)
    if _current_client.get() is client:
        _current_client.set(blocks[-1] if blocks else None)


def note_scheduler() -> None:
    """Before a client is opened, which sets the configuration: keep what the user's own says."""
    said = dask.config.get("scheduler", None)
    if isinstance(said, _Anew):
        _restore()
    elif said not in _DISTRIBUTED:
        _users["scheduler"] = said


@dataclass(frozen=True)
class _Anew:
    """Computes in a forked child, by a client that is made with the first work."""

    connect: Callable[[], Any]

    def __call__(self, graph: Any, keys: Any, **options: Any) -> Any:
        return self.connect().get(graph, keys, **options)


def forked(client: Any, connect: Callable[[], Any]) -> None:
    """In a forked child: this client is the parent's, and has no threads here. What went to it goes to one that
    ``connect`` gives, as soon as something is computed."""
    ours = client in (_current_client.get(), _default())
    client.status = "closed"  # nobody waits for its loop: not at exit, not as the default client
    leave(client)
    if ours:
        dask.config.set(scheduler=_Anew(connect))


def forget_scheduler() -> None:
    """After a client was closed: without another one, Dask computes as it did before.

    Dask puts back the scheduler that it found when a client was opened. Where clients overlap that is the one of
    another client, also when that is closed by then, and nothing could be computed without a client.
    """
    if _default() is None and dask.config.get("scheduler", None) in _DISTRIBUTED:
        _restore()


def _restore() -> None:
    dask.config.config.pop("scheduler", None)
    if (said := _users.get("scheduler")) is not None:
        dask.config.set(scheduler=said)


def _default() -> Any:
    """The client of the process; a block's may be closed already."""
    try:
        return Context().run(distributed.default_client)
    except ValueError:
        return None
