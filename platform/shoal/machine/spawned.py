"""What a script defines, in a child of ``multiprocessing`` that was not forked.

Why it exists: such a child loads its parent's script as ``__mp_main__``. Whoever pickles for another machine sends
by value what is of ``__main__``, and would send by name what is of ``__mp_main__``, a name that every process there
has for something else; Dask would also take functions of two scripts for one another.

What it must not do: change what pickles mean among the script's own processes. In all of them the script is
``__main__`` too.
"""

from __future__ import annotations

import gc
import sys
import typing
from types import FunctionType

_MAIN, _CHILDS = "__main__", "__mp_main__"
_NAMED = (FunctionType, type, typing.TypeVar, typing.ParamSpec, typing.NewType)  # what is pickled by its name


def as_of_main() -> None:
    """From now on what the script of this process defines is of ``__main__``, as it is in the parent."""
    script = sys.modules.get(_CHILDS)
    if script is None or script is not sys.modules.get(_MAIN) or vars(script).get("__name__") != _CHILDS:
        return
    # Not by the script's variables alone: methods, wrapped functions and what registries hold are pickled, too.
    for each in gc.get_objects():
        if issubclass(type(each), _NAMED) and getattr(each, "__module__", None) == _CHILDS:
            each.__module__ = _MAIN
