"""What clients tell of their own modules, brought to a Dask scheduler and to its workers, also to later ones.

Why it exists: what a user edits has to be importable where their tasks run, and Dask moves functions alone
(``client/dask_client.py`` tells of it). Where clients do not share the machine, their files come with what they tell:
to the scheduler first, and from there to each worker, which has them before its first task.

What it must not do: fail a client's stream, or a worker's start, for what somebody's module does.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import Collection, Mapping
from typing import Any

from distributed import WorkerPlugin

from shoal.errors import UsageError
from shoal.machine.importing import at_hand, bring
from shoal.machine.modules import Code, UserModuleWarning, merged
from shoal.machine.unpacking import ROOM, Unpacked, arrived, named, with_their_paths
from shoal.words import listed

TELL = "shoal_code"
FILES = "shoal_code_files"  # by which workers ask for what came from clients
_NAME = "shoal-code"  # of the workers' plugin
_NAMES = 5  # that one sentence tells
_WORKERS = 10.0  # s that workers get; one that is stuck in native code follows when it is not
_FETCHING = 30.0  # s that they get where they ask for files
_AT_ONCE = 1_000_000  # bytes of new files that go to workers with the news itself
_ASKED = 100  # files that a worker asks for at a time
_NO_ROOM = (
    f"your modules did not arrive on the cluster: those of its clients have more than {ROOM / 1e6:.0f} MB. Use a "
    "cluster of your own, or put them into its image."
)
_CHANGED = "your modules changed while they were being sent to the cluster; the next call sends them again"


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

    def forget_gone(self) -> None:
        """What only those had who are not connected any more counts no longer."""
        self._gone = Code()

    def all(self) -> Code:
        """What counts: those who are here before those who were, among them those who came first."""
        return merged([*self._live.values(), self._gone])


class ClientsCode:
    """Serves ``TELL`` on a scheduler; ``elsewhere``: clients and workers do not share a machine with it."""

    def __init__(self, scheduler: Any, *, elsewhere: bool = False, unpacked: Unpacked | None = None) -> None:
        self._scheduler = scheduler
        self._elsewhere = elsewhere
        self._missed: dict[str, set[str]] = {}
        self._clients = Clients()
        self._unpacked = unpacked or Unpacked()
        self._theirs: dict[str, frozenset[str]] = {}  # names of files, by client
        self._brought: tuple[Code, dict[str, str]] | None = None
        self._turn = asyncio.Lock()
        scheduler.handlers[TELL] = self.tell
        scheduler.handlers[FILES] = self.files
        scheduler.stream_handlers[TELL] = self.tell_in_stream

    async def tell(self, client: str, code: Mapping[str, Any]) -> list[str] | dict[str, list[str]]:
        """Bring it to the scheduler and to all workers; what cannot be had, as sentences.

        A client that ``sends`` is first told what is lacking, until it has sent that.
        """
        async with self._turn:
            read = Code.read(code)
            missing: list[str] = []
            said: list[str] = []
            fresh: dict[str, bytes] = {}
            if self._elsewhere and "files" in code:
                try:
                    fresh, lacking, said = self._take(client, code)
                    if lacking:
                        return {"lacking": lacking}
                    read, missing = arrived(read, str(code["host"]), {} if said else code["files"])
                except (UsageError, OSError) as error:
                    said = [f"your modules did not arrive on the cluster: {error}"]
                    read, missing = at_hand(read)
            elif self._elsewhere and code.get("sends"):
                return {"lacking": []}
            elif self._elsewhere:  # a client of an older version
                read, missing = at_hand(read)
            said += self._clients.tell(client, read, self._scheduler.clients) + self._not_here(
                client, missing
            )
            everything = self._clients.all()
            said += await self._bring(everything, fresh)
            return [with_their_paths(text, self._unpacked.base) for text in said]

    async def _bring(self, everything: Code, fresh: Mapping[str, bytes]) -> list[str]:
        files = dict(self._unpacked.files)
        if (everything, files) == self._brought:
            return []
        said = bring(self._unpacked.placed(everything))
        self._brought = everything, files
        small = sum(map(len, fresh.values())) <= _AT_ONCE
        self._scheduler.worker_plugins[_NAME] = pickle.dumps(_Plugin(everything, files, {}))
        plugin = pickle.dumps(_Plugin(everything, files, fresh if small else {}))
        message = {"op": "plugin-add", "plugin": plugin, "name": _NAME}
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(
                self._scheduler.broadcast(msg=message, on_error="ignore"), _WORKERS if small else _FETCHING
            )
        return said

    def _take(self, client: str, code: Mapping[str, Any]) -> tuple[dict[str, bytes], list[str], list[str]]:
        """Keep what came; what of it is new by name, paths of what did not come, and sentences on lack of room."""
        host = str(code["host"])
        files = {named(host, path): (path, str(its)) for path, its in code["files"].items()}
        fresh = {
            name: bytes(code["contents"][path])
            for name, (path, _) in files.items()
            if path in code.get("contents", ())
        }
        more = sum(map(len, fresh.values()))
        if self._unpacked.size + more > ROOM:
            self._forget_gone({client: frozenset(files)})
        if self._unpacked.size + more > ROOM:
            return {}, [], [_NO_ROOM]
        self._theirs[client] = frozenset(files)
        for name, content in fresh.items():
            self._unpacked.put(name, content)
        lacking = self._unpacked.lacks({name: its for name, (_, its) in files.items()})
        return fresh, [files[name][0] for name in lacking], []

    def _forget_gone(self, fresh: Mapping[str, frozenset[str]]) -> None:
        """Remove the files of clients that are not connected any more."""
        connected = self._scheduler.clients
        self._theirs = {name: its for name, its in self._theirs.items() if name in connected}
        self._clients.forget_gone()
        self._unpacked.keep(frozenset().union(*self._theirs.values(), *fresh.values()))

    async def files(self, names: Collection[str]) -> dict[str, bytes]:
        """What these hold, for workers."""
        return await asyncio.to_thread(self._unpacked.read, names)

    def _not_here(self, client: str, missing: Collection[str]) -> list[str]:
        """A sentence on what of a client's is missing here, once for each module."""
        self._missed = {each: its for each, its in self._missed.items() if each in self._scheduler.clients}
        fresh = sorted(set(missing) - self._missed.setdefault(client, set()))
        self._missed[client].update(fresh)
        if not fresh:
            return []
        names = fresh if len(fresh) <= _NAMES else [*fresh[:_NAMES], f"{len(fresh) - _NAMES} more"]
        return [
            f"{listed(names)} cannot be had on the cluster: only Python source and archives are sent there, within "
            "limits. What needs them there fails; install them in the cluster's image."
        ]

    async def tell_in_stream(self, client: str, code: Mapping[str, Any]) -> None:
        """The same in a client's stream, before the work that comes after it there; answers go as warnings."""
        try:
            answer = await self.tell(client, code)
            said = answer if isinstance(answer, list) else [_CHANGED] if answer["lacking"] else []
        except Exception as error:  # a stream ends with its first error
            said = [f"your modules could not be announced to the cluster: {type(error).__name__}: {error}"]
        for text in said:
            self._scheduler.log_event("warn", _warning(text))


class _Plugin(WorkerPlugin):  # type: ignore[misc]
    """``files``: digests of what came from clients, by name. ``fresh``: some of them, with what they hold."""

    def __init__(self, code: Code, files: Mapping[str, str], fresh: Mapping[str, bytes]) -> None:
        self._code, self._files, self._fresh = code, files, fresh

    async def setup(self, worker: Any) -> None:
        said = []
        try:
            unpacked = _of_worker(worker)
            for name, content in self._fresh.items():
                unpacked.put(name, content)
            self._fresh = {}
            if lacking := unpacked.lacks(self._files):
                said += await self._fetch(worker, unpacked, lacking)
                if worker.plugins.get(_NAME) is not self:
                    return  # a newer one was quicker
            said += [with_their_paths(text, unpacked.base) for text in bring(unpacked.placed(self._code))]
        except Exception as error:
            said.append(f"your modules could not be announced to a worker: {type(error).__name__}: {error}")
        for text in said:
            worker.log_event("warn", _warning(text))

    async def _fetch(self, worker: Any, unpacked: Unpacked, lacking: list[str]) -> list[str]:
        for begin in range(0, len(lacking), _ASKED):
            found = await getattr(worker.scheduler, FILES)(names=lacking[begin : begin + _ASKED])
            for name, content in found.items():
                unpacked.put(name, content)
        gone = [with_their_paths(name, unpacked.base) for name in lacking if name not in unpacked.files]
        return [f"a worker did not get {listed(sorted(gone)[:_NAMES])} of your modules"] if gone else []


def _of_worker(worker: Any) -> Unpacked:
    """One for the whole life of a worker."""
    found: Unpacked = vars(worker).setdefault("_shoal_unpacked", Unpacked())
    return found


def _warning(text: str) -> dict[str, bytes]:
    """As Dask's clients take warnings from workers."""
    return {"message": pickle.dumps(text), "category": pickle.dumps(UserModuleWarning)}
