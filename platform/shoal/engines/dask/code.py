"""What clients tell of their own modules, brought to a Dask scheduler and to its workers, also to later ones.

Why it exists: see ``dask_client``, which tells it.

What it must not do: fail a client's stream, or a worker's start, for what somebody's module does.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import Collection, Mapping
from typing import Any

from distributed import WorkerPlugin

from shoal.machine.importing import at_hand, bring
from shoal.machine.modules import Code, UserModuleWarning, merged
from shoal.words import listed

TELL = "shoal_code"
_NAME = "shoal-code"  # of the workers' plugin
_NAMES = 5  # that one sentence tells
_WORKERS = 10.0  # s that workers get; one that is stuck in native code follows when it is not


class Clients:
    """Who told what. Pure."""

    def __init__(self) -> None:
        self._live: dict[str, Code] = {}  # in the order of coming
        self._gone = Code()

    def tell(self, client: str, code: Code, connected: Collection[str]) -> list[str]:
        """Take note; what this client cannot have since another one that is connected has it, as sentences."""
        for name in [name for name in self._live if name not in connected and name != client]:
            self._gone = merged([self._live.pop(name), self._gone])
        self._live[client] = code
        said = []
        for name, version in code.versions.items():
            theirs = next((o.versions[name] for o in self._live.values() if name in o.versions), version)
            if theirs.file != version.file:
                said.append(
                    f"{name} on the cluster is {theirs.file} of another client that is connected, not your "
                    f"{version.file}. Use a cluster of your own, or another name."
                )
        return said

    def all(self) -> Code:
        """What counts: those who are here before those who were, among them those who came first."""
        return merged([*self._live.values(), self._gone])


class ClientsCode:
    """Serves ``TELL`` on a scheduler; ``elsewhere``: clients and workers do not share a machine with it."""

    def __init__(self, scheduler: Any, *, elsewhere: bool = False) -> None:
        self._scheduler = scheduler
        self._elsewhere = elsewhere
        self._missed: dict[str, set[str]] = {}
        self._clients = Clients()
        self._brought: Code | None = None
        self._turn = asyncio.Lock()
        scheduler.handlers[TELL] = self.tell
        scheduler.stream_handlers[TELL] = self.told

    async def tell(self, client: str, code: Mapping[str, Any]) -> list[str]:
        """Bring it to the scheduler and to all workers; what cannot be had, as sentences."""
        async with self._turn:
            read = Code.read(code)
            read, missing = at_hand(read) if self._elsewhere else (read, [])
            said = self._clients.tell(client, read, self._scheduler.clients) + self._not_here(client, missing)
            everything = self._clients.all()
            if everything == self._brought:
                return said
            said += bring(everything)
            self._brought = everything
            plugin = pickle.dumps(_Plugin(everything))
            self._scheduler.worker_plugins[_NAME] = plugin
            message = {"op": "plugin-add", "plugin": plugin, "name": _NAME}
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._scheduler.broadcast(msg=message, on_error="ignore"), _WORKERS)
            return said

    def _not_here(self, client: str, missing: Collection[str]) -> list[str]:
        """A sentence on what of a client's is missing here, once for each module."""
        self._missed = {each: its for each, its in self._missed.items() if each in self._scheduler.clients}
        fresh = sorted(set(missing) - self._missed.setdefault(client, set()))
        self._missed[client].update(fresh)
        if not fresh:
            return []
        names = fresh if len(fresh) <= _NAMES else [*fresh[:_NAMES], f"{len(fresh) - _NAMES} more"]
        return [
            f"{listed(names)} cannot be had on the cluster: the files are on your machine alone. What needs them "
            "there fails; install them in the cluster's image."
        ]

    async def told(self, client: str, code: Mapping[str, Any]) -> None:
        """The same in a client's stream, before the work that comes after it there; answers go as warnings."""
        try:
            said = await self.tell(client, code)
        except Exception as error:  # a stream ends with its first error
            said = [f"the cluster could not be told of your modules: {type(error).__name__}: {error}"]
        for text in said:
            self._scheduler.log_event("warn", _warning(text))


class _Plugin(WorkerPlugin):  # type: ignore[misc]
    def __init__(self, code: Code) -> None:
        self._code = code

    def setup(self, worker: Any) -> None:
        try:
            said = bring(self._code)
        except Exception as error:
            said = [f"a worker could not be told of your modules: {type(error).__name__}: {error}"]
        for text in said:
            worker.log_event("warn", _warning(text))


def _warning(text: str) -> dict[str, bytes]:
    """As Dask's clients take warnings from workers."""
    return {"message": pickle.dumps(text), "category": pickle.dumps(UserModuleWarning)}
