"""``async with shoal.dask(...)``: the start of a cluster that waits for its block, and runs in a thread.

Why it exists: a start takes seconds, in which an event loop has to go on; and what a program calls is the same
function with and without a loop.

What it must not do: import anything heavy, or start and end clusters in another way than without a loop.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Generator
from itertools import islice
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from shoal.client.handles import ClusterHandle

H = TypeVar("H", bound="ClusterHandle")


def entered_asynchronously(caller: FrameType) -> bool:
    """Whether the call that ``caller`` is at is what an ``async with`` enters.

    Only the caller's code tells: at the moment of the call both kinds of block look alike.
    """
    code = caller.f_code
    if not code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        return False
    import dis

    after = (each for each in dis.get_instructions(code) if each.offset > caller.f_lasti)
    following = list(islice((each for each in after if each.opname != "CACHE"), 2))
    # The first up to Python 3.13, the second since.
    return any(
        each.opname == "BEFORE_ASYNC_WITH" or (each.opname == "LOAD_SPECIAL" and each.argrepr == "__aexit__")
        for each in following
    )


class Opening(Generic[H]):
    """A start that begins when its ``async with`` block is entered, or when it is awaited.

    ``start`` brings a cluster up and gives its handle, not connected; it gives up once the event is set.
    """

    def __init__(self, start: Callable[[threading.Event], H]) -> None:
        self._start = start
        self._handle: H | None = None

    def __await__(self) -> Generator[object, None, H]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> H:
        import asyncio

        from shoal.client.threads import in_thread

        given_up = threading.Event()
        started: list[H] = []
        starting = asyncio.ensure_future(in_thread(lambda: started.append(self._start(given_up))))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            given_up.set()
            await asyncio.wait([starting])
            starting.exception()  # that it was given up is known
            for handle in started:  # it was there a moment before
                await in_thread(handle.close)
            raise
        (handle,) = started
        self._handle = handle
        return await handle.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            await self._handle.__aexit__(kind, error, trace)

    def __enter__(self) -> None:
        raise TypeError("asynchronous=True is for `async with`; leave it out for `with`")

    def __exit__(self, *_: object) -> None:
        pass
