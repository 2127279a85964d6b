"""Which one module may reach into what others keep private; import-linter sees an outside package only as a whole.

A private part (``_x``) of Dask, distributed, PyIceberg, PySpark or multiprocessing may change with any of their
releases. Each is reached from one module, which is listed here with what it needs it for, so that a new release is
checked in few places. Found are imports, attributes (also by ``getattr`` and by names kept as text), and what a
class of ours overrides or uses of a class of theirs.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import shoal
from shoal.model.cluster import Reason, State
from shoal.model.homes import HomeKind

PACKAGE = Path(shoal.__file__).parent
LIBRARIES = {"dask", "distributed", "pyiceberg", "pyspark", "multiprocessing"}
OF_PYTHON = {
    "_exit",
    "_getframe",
    "_replace",
    "_asdict",
    "_name_",
    "_value_",
}  # documented, in spite of their names

ALL = "*"
KNOWN: dict[str, tuple[str, str, set[str]]] = {  # module: whose, what for, which
    "tables/reading/expression.py": (
        "dask",
        "a read that takes filters and columns from Dask's optimiser is one of its expressions; "
        "where they are not as expected, read.py goes without",
        {ALL},
    ),
    "tables/pyiceberg_private.py": ("pyiceberg", "what PyIceberg can do and does not offer", {ALL}),
    "tables/pyiceberg_commits.py": ("pyiceberg", "the same of commits: each step of one by itself", {ALL}),
    "tables/pyiceberg_rest.py": (
        "pyiceberg",
        "requests of a REST catalog that end, and keys by table",
        {ALL},
    ),
    "client/dask_client.py": (
        "distributed",
        "what a graph needs is sent before it, and futures of a cluster that ended are told why",
        {"_gather", "_graph_to_futures", "_run", "_start"},
    ),
    "client/dask_current.py": (
        "distributed",
        "each thread and task computes in the cluster of its own block, as with Dask's own clients",
        {"_current_client"},
    ),
    "client/dask_ending.py": (
        "distributed",
        "distributed waits for ever, or says CommClosedError, when its scheduler is gone for good, and does not "
        "connect again where its warning of versions is an error",
        {
            *("_asynchronous", "_close", "_ensure_connected", "_loop_runner", "_reconnect"),
            *("_send_to_scheduler", "_shutdown"),
        },
    ),
    "client/frames.py": (
        "pyspark",
        "a frame too large for one message goes to Spark Connect by a file",
        {"_cache_local_relation", "_plan", "_schema", "_table"},
    ),
    "client/spark_leaving.py": (
        "pyspark",
        "calls of a closed session are told why; another open one becomes the default again",
        {"_active_session", "_default_session", "_handle_error", "_set_default_and_active_session"},
    ),
    "engines/dask/forking.py": (
        "multiprocessing",
        "the server of forks is a fork of the head; where that is not as expected, workers are spawned",
        {
            "_forkserver",
            "_forkserver_address",
            "_forkserver_alive_fd",
            "_forkserver_pid",
            "_forkserver_preload_set",
        },
    ),
    "engines/dask/host.py": (
        "distributed",
        "a forked worker is there sooner than Dask looks",
        {"_init_msg_interval"},
    ),
    "homes/kubernetes/forwarding.py": (
        "kr8s",
        "its tunnel tries for ever to reach a pod that is gone, and leaves connections open (_select_pod, too); its "
        "public way to an API keeps each by its arguments for all event loops, and leaves keys in files (_api)",
        {"_sync_sockets", "_api"},
    ),
    "machine/modules.py": ("IPython", "which edits IPython's %autoreload has followed", {"_reloader"}),
}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in OF_PYTHON and name != "_"


def own_names(tree: ast.AST) -> set[str]:
    """The private names that a module defines itself: functions, variables, attributes of ``self`` and fields."""
    own = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and of_self(node):
            own.add(node.attr)
    return {name for name in own if private(name)}


def of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def of_super(node: ast.Attribute) -> bool:
    called = node.value
    return isinstance(called, ast.Call) and isinstance(called.func, ast.Name) and called.func.id == "super"


def libraries(source: str) -> bool:
    """Whether a module's source imports one of them."""
    return bool(re.search(rf"^ *(?:from|import) (?:{'|'.join(LIBRARIES)})\b", source, re.MULTILINE))


def reached(source: str, others: frozenset[str] = frozenset()) -> Iterator[str]:
    """The private names of others that a module's source reaches; ``others`` are those of our other modules."""
    tree = ast.parse(source)
    ours = own_names(tree) | others
    keeps_names = libraries(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from (part for part in alias.name.split(".") if private(part))
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] != "shoal":
                parts = [*node.module.split("."), *(alias.name for alias in node.names)]
                yield from (part for part in parts if private(part))
                if node.module.startswith("dask.dataframe") and "dask_expr" in parts:
                    yield "dask_expr"
        elif isinstance(node, ast.Attribute) and private(node.attr):
            if of_super(node) or (not of_self(node) and node.attr not in ours):
                yield node.attr
        elif isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.func, ast.Name):
            name = node.args[1]
            by_name = node.func.id in ("getattr", "setattr", "hasattr", "delattr")
            if by_name and isinstance(name, ast.Constant) and private(str(name.value)):
                yield from {str(name.value)} - ours
        elif isinstance(node, (ast.Tuple, ast.List, ast.Set)) and keeps_names:  # names kept for getattr
            words = {e.value for e in node.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)}
            yield from {word for word in words if private(word) and word.isidentifier()} - ours
    if re.search(r"import dask\.dataframe\.dask_expr|dask\.dataframe\.dask_expr[. ]", source):
        yield "dask_expr"


def inherited(module: ModuleType) -> Iterator[str]:
    """The private names of others' classes that classes of a module override or use as their own."""
    for each in vars(module).values():
        if not inspect.isclass(each) or each.__module__ != module.__name__:
            continue
        theirs: set[str] = set()
        for base in each.__mro__:
            if base.__module__.split(".")[0] in LIBRARIES:
                theirs |= {name for name in vars(base) if name != "_abc_impl"}
                theirs |= set(re.findall(r"self\.(_\w+)\b(?:: [^=\n]+)? = ", inspect.getsource(base)))
        tree = ast.parse(textwrap.dedent(inspect.getsource(each))) if theirs else ast.Module([], [])
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in theirs and private(node.attr):
                yield node.attr
        yield from (name for name in vars(each) if name in theirs and private(name))


def modules() -> list[str]:
    return sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def found() -> dict[str, set[str]]:
    sources = {name: (PACKAGE / name).read_text() for name in modules()}
    # What a module with private parts of others defines is named as those are: no excuse for other modules.
    ours = frozenset[str]().union(
        *(own_names(ast.parse(sources[name])) for name in sources if name not in KNOWN)
    )
    reaches = {
        name: set(reached(source, frozenset() if name in KNOWN else ours)) for name, source in sources.items()
    }
    for name, source in sources.items():
        room = name.split("/")[0]
        if room in ("client", "engines", "head", "tables") and re.search(
            r"^class \w+\(", source, re.MULTILINE
        ):
            module = importlib.import_module("shoal." + name.removesuffix(".py").replace("/", "."))
            reaches[name] |= set(inherited(module))
    return {name: names for name, names in reaches.items() if names}


@pytest.fixture(scope="module")
def everything() -> dict[str, set[str]]:
    """By module, the private names of others that it reaches; not at import, for every lane imports this."""
    return found()


def test_private_parts_of_others_are_reached_where_it_is_known_and_why(
    everything: dict[str, set[str]],
) -> None:
    known = {module: names for module, (_whose, _why, names) in KNOWN.items()}
    gone = sorted(known.keys() - everything.keys())
    assert gone == [], "they reach nothing private any more: take them from the list"
    more = {module: names for module, names in everything.items() if known.get(module) not in (names, {ALL})}
    assert more == {}, "they reach what is not in the list, or no longer all of it"
    assert all(whose and why for whose, why, _names in KNOWN.values())


def test_each_private_part_is_reached_from_one_module(everything: dict[str, set[str]]) -> None:
    times = Counter((KNOWN[module][0], name) for module in KNOWN for name in everything[module])
    assert {part for part, n in times.items() if n > 1} == set()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import dask.dataframe.dask_expr", "dask_expr"),
        ("from dask.dataframe import dask_expr", "dask_expr"),
        ("from dask.dataframe.dask_expr import new_collection", "dask_expr"),
        ("def f():\n    from dask.dataframe.dask_expr._expr import Expr", "_expr"),
        ("from pyiceberg.io.pyarrow import _read_deletes", "_read_deletes"),
        ("import dask._task_spec", "_task_spec"),
        ("def f(transaction):\n    return transaction._table.io", "_table"),
        ("import distributed\ndistributed.nanny._x = 1", "_x"),
        ("def f(client):\n    client.cluster._adaptive.stop()", "_adaptive"),
        ("def f(x):\n    return getattr(x, '_meta', None)", "_meta"),
        ("class A(B):\n    def _start(self):\n        super()._start()", "_start"),
        ("import multiprocessing\nNAMES = ('_forkserver_pid',)", "_forkserver_pid"),
    ],
)
def test_every_way_of_reaching_is_found(source: str, name: str) -> None:
    assert name in set(reached(source))


@pytest.mark.parametrize(
    "source",
    [
        "import dask.dataframe as dd",
        "from pyiceberg.io.pyarrow import PyArrowFileIO",
        "import os\nos._exit(0)",
        "class A:\n    def __init__(self):\n        self._x = 1\n    def __eq__(self, other):\n        return other._x",
        "from shoal.tables.catalogs.opening import _complete",
    ],
)
def test_what_is_public_or_ours_is_not_found(source: str) -> None:
    assert set(reached(source)) == set()


def test_an_overridden_method_is_found() -> None:
    assert "_close" in set(inherited(importlib.import_module("shoal.client.dask_ending")))


def kinds_compared(source: str) -> Iterator[str]:
    """What a module compares with the name of a home of Shoal's own, written as text or as a HomeKind."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides: list[ast.AST] = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        else:
            continue
        for side in sides:
            for part in ast.walk(side):
                if isinstance(part, ast.Constant) and part.value in set(HomeKind):
                    yield f"text: {ast.unparse(node)}"
                elif isinstance(part, ast.Attribute) and ast.unparse(part.value) == "HomeKind":
                    yield f"kind: {ast.unparse(node)}"


def test_above_the_homes_nobody_compares_their_kinds() -> None:
    """A target says what follows from its home (``in_pods``, ...); ``homes/choose.py`` maps a kind to a home."""
    compared = {name: list(kinds_compared((PACKAGE / name).read_text())) for name in modules()}
    assert [said for all_ in compared.values() for said in all_ if said.startswith("text")] == []
    may = {"project/targets.py", "homes/choose.py", "homes/local/ahead.py"}
    assert {name for name, found in compared.items() if found} == may


def test_states_and_reasons_are_not_compared_as_text() -> None:
    words = {*State, *Reason}
    for name in modules():
        if name.startswith("homes/kubernetes/"):
            continue  # a pod has phases of its own, some of which are called the same
        for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
            if isinstance(node, ast.Compare):
                sides = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not {side for side in sides if isinstance(side, str)} & words, (
                    f"{name}: {ast.unparse(node)}"
                )


@pytest.mark.parametrize(
    "source",
    [
        "target.home == 'kubernetes'",
        "'local' != target.home",
        "home.name in ('local', 'fake')",
        "home.name == HomeKind.LOCAL",
        "match home:\n    case 'kubernetes':\n        pass",
    ],
)
def test_every_way_of_comparing_a_kind_is_found(source: str) -> None:
    assert len(list(kinds_compared(source))) == 1


def test_no_file_is_long() -> None:
    long = {name: n for name in modules() if (n := len((PACKAGE / name).read_text().splitlines())) > 400}
    assert long == {}
