"""The end of a Spark session: its server lets go of it, and whoever still uses it reads why.

Why it exists: pyspark closes a session that is collected, and waits there for the calls of all sessions: for ever,
where these need the thread that collects. So a session is kept until it was closed, and one whose handle is
collected is closed in a thread of its own. Then pyspark also knows no default session any more, though there are
others.

What it must not do: wait where a handle is collected, or touch what is of a process's parent.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, NoReturn

from shoal.errors import ShoalError

_Cause = Callable[[], ShoalError]

_AT_EXIT = 5.0  # s that sessions which nobody closed get, all together

# pyspark's builder gives a session that is open only where it has a URL. It is never connected to; and where no session
# is open, in a child that inherited it for one, it is refused at once.
_REMOTE, _OPEN = "SPARK_REMOTE", "shoal:a-session-of-its-own-process"
_kept: list[Any] = []  # sessions of this process that are open
_parents: list[Any] = []  # in a forked child: nothing may finalize them there
_leaving: SimpleQueue[tuple[Any, _Cause] | None] = (
    SimpleQueue()
)  # its put may interrupt itself, as collecting does
_thread: threading.Thread | None = None


def keep(session: Any) -> None:
    """From now on it is not collected before :func:`leave`."""
    global _thread
    _kept.append(session)
    os.environ.setdefault(_REMOTE, _OPEN)
    if _thread is None:
        _thread = threading.Thread(target=_leave_those, name="shoal-spark-leaving", daemon=True)
        _thread.start()
        atexit.register(_leave_all)


def leave(session: Any, why: _Cause) -> None:
    """Close it, also on its server, which gets some seconds (``spark_code``); later uses raise what ``why`` gives."""
    client = session.client
    client.set_retry_policies([])
    if not session.is_stopped:
        with contextlib.suppress(Exception):  # a server that is gone fails in many ways
            client.release_session()
    # Not session.stop(): that holds a lock which every session needs, and also ends the server of whoever has a
    # local session of their own (SparkSession.builder.remote("local")) in this process.
    with contextlib.suppress(Exception):
        client.close()
    _forget(session)
    client.close = _nothing  # it would close itself once more when it is collected
    client._handle_error = partial(_raise, why)  # all calls fail, and pass there
    with contextlib.suppress(ValueError):
        _kept.remove(session)
    if _kept:
        session._set_default_and_active_session(_kept[-1])  # where there is none now
    else:
        _no_url()


def leave_soon(session: Any, why: _Cause) -> None:
    """The same from wherever a handle is collected."""
    if session in _kept:
        _leaving.put((session, why))


def _no_url() -> None:
    if os.environ.get(_REMOTE) == _OPEN:
        del os.environ[_REMOTE]


def _forget(session: Any) -> None:
    """It is nobody's default any more."""
    known = type(session)
    if known._default_session is session:
        known._default_session = None
    if getattr(known._active_session, "session", None) is session:
        known._active_session.session = None


def _nothing() -> None:
    """In the place of what was done."""


def _raise(why: _Cause, error: Exception) -> NoReturn:
    raise why() from error


def _leave_those() -> None:
    while (each := _leaving.get()) is not None:
        with contextlib.suppress(Exception):
            leave(*each)
        del each  # the session is to be collected


def _leave_all() -> None:
    """At the end of the process: sessions of handles that nobody closed."""
    for session in list(_kept):
        leave_soon(session, _ending)
    _leaving.put(None)
    if _thread is not None:
        _thread.join(_AT_EXIT)


def _ending() -> ShoalError:
    return ShoalError("this process is exiting and has closed its Spark sessions")


def _in_a_forked_child() -> None:
    global _leaving, _thread
    _parents.extend(_kept)
    _kept.clear()
    _no_url()
    _leaving, _thread = SimpleQueue(), None
    atexit.unregister(_leave_all)


os.register_at_fork(after_in_child=_in_a_forked_child)
