"""A Dask client that tells its cluster where this process's own modules are, and when they change.

Why it exists: Dask unpickles graphs on the scheduler and runs them on workers; both have to import what this
process imported, also what was put on ``sys.path`` or edited after it connected.

What it must not do: cost a submit more than a look at what is in memory, or fail one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from shoal.client.dask_ending import TellingClient
from shoal.errors import ShoalError
from shoal.machine import modules
from shoal.machine.packing import Packed, Packing
from shoal.machine.spawned import as_of_main

TELL = "shoal_code"  # the operation by which a scheduler is told (engines/dask/code.py)
_ANSWER = 30.0  # s that it gets to answer
_SENDING = 120.0  # s where files go with it
_ROUNDS = 4  # in which files are sent that change meanwhile


class Client(TellingClient):
    """A ``distributed.Client`` for a cluster of Shoal."""

    def __init__(self, *args: Any, **options: Any) -> None:
        as_of_main()
        self._modules = modules.ModuleWatch()
        self._deaf = False  # the head is older than this client
        self._said: list[str] = []
        self._packing: Packing | None = None  # the cluster does not share this machine's folders
        self._once: set[str] = set()  # what was told of files that do not travel
        self.after_call: Callable[[], None] | None = None  # once a call of the user's has ended
        super().__init__(*args, **options)
        modules.warn(self._said)

    def sync(self, *args: Any, **options: Any) -> Any:
        try:
            return super().sync(*args, **options)
        finally:
            if self.after_call is not None:
                self.after_call()

    async def _gather(self, *args: Any, **options: Any) -> Any:
        # Actors and futures in results take the client that is current where they arrive, else the newest one, whose
        # cluster does not know them.
        with self.as_current():
            return await super()._gather(*args, **options)

    async def _start(self, *args: Any, **options: Any) -> None:
        await super()._start(*args, **options)
        self.tell_actors()
        code = self._modules.look()
        if code is not None:
            self._said = await self._tell(code)

    def _graph_to_futures(self, *args: Any, **options: Any) -> Any:
        self.refuse_if_ended()
        self._bring()
        try:
            futures = super()._graph_to_futures(*args, **options)
            if options.get("actors"):
                self.actors.update(futures)
            return futures
        except ShoalError:
            # Dask notes the futures before it sends the graph: the same call again would wait for those.
            self.refuse_if_ended()
            raise

    async def ask_workers(self, function: Callable[[], Any]) -> dict[str, Any]:
        """What a function of ours gives on each worker; nothing of one that fails. Needs no code of the user's."""
        return dict(await self._run(function, on_error="ignore"))

    def run(self, *args: Any, **options: Any) -> Any:
        return self._brought(super().run, *args, **options)

    def run_on_scheduler(self, *args: Any, **options: Any) -> Any:
        return self._brought(super().run_on_scheduler, *args, **options)

    def scatter(self, *args: Any, **options: Any) -> Any:
        return self._brought(super().scatter, *args, **options)

    def register_plugin(self, *args: Any, **options: Any) -> Any:
        return self._brought(super().register_plugin, *args, **options)

    def _bring(self) -> None:
        """Before work goes out: tell what is new. On the event loop nobody can wait: it goes before the work."""
        code = self._news()
        if code is None:
            return
        if self.asynchronous:
            self.tell_scheduler({"op": TELL, "code": code.written() | self._unseen(code)})
            self._modules.acknowledged(code)
            return
        try:
            said = self.sync(self._tell, code, callback_timeout=_SENDING if self._packing else _ANSWER)
        except (OSError, TimeoutError):
            return  # the work itself will show what is wrong
        modules.warn(said)

    def _brought(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if not self.asynchronous:
            self._bring()
            return call(*args, **options)
        return self._bring_then(call, *args, **options)

    async def _bring_then(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if (code := self._news()) is not None:
            modules.warn(await self._tell(code))
        return await call(*args, **options)

    def _news(self) -> modules.Code | None:
        if self._deaf:
            return None
        code = self._modules.look()
        edited = self._modules.edited()
        modules.warn(modules.edits(edited))
        if code is None and edited and self._packing is not None:
            self._modules.acknowledged(None)  # who loads it there from now on finds the new one, as here
            return self._modules.look()
        return code

    async def _tell(self, code: modules.Code) -> list[str]:
        """Until scheduler and workers have it; what they cannot have, as sentences."""
        said: Any
        if self._packing is not None:
            said = await self._send(self._packing, code)
        else:
            said = await self.scheduler.shoal_code(client=self.id, code=code.written() | {"sends": True})
            if isinstance(said, dict):
                self._packing = Packing()
                said = await self._send(self._packing, code)
        self._modules.acknowledged(code)
        if said is None:
            self._deaf = True
        return list(said or ())

    async def _send(self, packing: Packing, code: modules.Code) -> list[str]:
        """The same with the files themselves: those that are lacking there."""
        lacking: list[str] = []
        for _ in range(_ROUNDS):
            packed = await asyncio.to_thread(packing.gather, code)
            contents = await asyncio.to_thread(packing.contents, lacking)
            answer = await self.scheduler.shoal_code(
                client=self.id, code=code.written() | packing.written(packed, contents)
            )
            if not isinstance(answer, dict):
                packing.arrived.update(packed.files)
                return [*self._left(packed), *answer]
            lacking = answer["lacking"]
        return [f"{lacking[0]} kept changing while it was sent: the cluster has its previous version"]

    def _unseen(self, code: modules.Code) -> dict[str, Any]:
        """What goes with it where nobody can wait for what is lacking: all that may be."""
        if self._packing is None:
            return {}
        packed = self._packing.gather(code)
        modules.warn(self._left(packed))
        contents = self._packing.contents(self._packing.fresh(packed))
        self._packing.arrived.update(packed.files)
        return self._packing.written(packed, contents)

    def _left(self, packed: Packed) -> list[str]:
        """Sentences on what does not travel, each once."""
        fresh = [text for text in packed.left if text not in self._once]
        self._once.update(fresh)
        return fresh
