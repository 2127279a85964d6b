"""What a submitted script's uncaught error shows: the script's own frames, without those of what it runs on.

Why it exists: between the line of a script and the function that failed on a worker lie some thirty frames of
Shoal, Dask and Spark, and the one line that matters is lost among them.

What it must not do: replace a hook that somebody else has set, or leave anything out where SHOAL_LOG=debug.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from functools import lru_cache
from types import TracebackType

from shoal.words import count

_PACKAGES = ("shoal", "dask", "distributed", "tornado", "pyspark", "grpc")
_OF_PYTHON = ("asyncio", "concurrent", "multiprocessing", "runpy.py", "threading.py", "contextlib.py")


def shorten() -> None:
    """From now on an error that ends this process is shown by the frames of its own code."""
    if sys.excepthook is sys.__excepthook__ and os.environ.get("SHOAL_LOG", "").lower() != "debug":
        sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    try:
        text = shortened(error)
    except Exception:  # whatever an exception of somebody's does when it is looked at
        sys.__excepthook__(kind, error, trace)
        return
    print(text, file=sys.stderr, end="", flush=True)


def shortened(error: BaseException) -> str:
    """The traceback of ``error`` and of what it came from, as Python writes it, without frames of the inside.

    An error that has no other frames is shown whole.
    """
    shown = traceback.TracebackException.from_exception(error)
    left_out = _strip(shown)
    text = "".join(shown.format())
    if not left_out:
        return text
    return (
        f"{text}({count(left_out, 'frame')} of Shoal and its engines left out; SHOAL_LOG=debug shows all)\n"
    )


def _strip(shown: traceback.TracebackException) -> int:
    left_out = 0
    kept = [frame for frame in shown.stack if not _is_inside(frame.filename)]
    if kept:
        left_out += len(shown.stack) - len(kept)
        shown.stack = traceback.StackSummary.from_list(kept)
    if shown.__cause__ is not None:
        left_out += _strip(shown.__cause__)
    elif shown.__context__ is not None and not shown.__suppress_context__:
        if all(_is_inside(frame.filename) for frame in shown.__context__.stack):
            left_out += len(shown.__context__.stack)
            shown.__context__ = None
        else:
            left_out += _strip(shown.__context__)
    for each in getattr(shown, "exceptions", None) or ():
        left_out += _strip(each)
    return left_out


def _is_inside(file: str) -> bool:
    return file.startswith("<") or file.startswith(_inside())


@lru_cache(maxsize=1)
def _inside() -> tuple[str, ...]:
    """Files and folders whose code is not the script's."""
    found = []
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None:
            found += [folder + os.sep for folder in spec.submodule_search_locations or ()]
    library = os.path.dirname(os.__file__)
    return (*found, *(os.path.join(library, name) for name in _OF_PYTHON))
