"""The machine that uses Shoal as a person does: hypothesis draws what comes next, all of it on real clusters.

A machine is one home with one person (and somebody elsewhere, who connects by name). Its schedule says how often
each usage comes; which of those that are still due comes next, and its details, is drawn. Where none of them
can come now, a cluster is opened or closed first. After each step the ledger, the processes, the handles and
what Shoal says have to agree with the model, each within ``PATIENCE``.
"""

from __future__ import annotations

import os
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from shoal.client.clusters import open_project
from shoal.engines.spark.archive import MAKING
from shoal.homes.choose import open_home
from shoal.homes.local.home import LocalHome

from . import world
from .model import MINE, Expected, Model

ROOM = 3  # clusters that live at once; the tier gives one more
# s until all agree: what is usual is counted, and told. A JVM that writes its class archive at its end takes a while.
PATIENCE = MAKING + 30.0
NAMES = ("alpha", "beta", "gamma", "delta", "epsilon")


@dataclass(frozen=True)
class Use:
    """One thing that a person does. ``needs``: "dask", "any" (a live cluster), "room" or "room 2", or "mine"."""

    name: str
    act: Callable[[Usage, int], object]
    needs: str
    times: dict[str, int]  # per machine, by its engine


USES: dict[str, Use] = {}


def use(*needs: str, dask: int, spark: int = 0) -> Callable[[Callable[..., object]], Callable[..., Any]]:
    """Register what a person does, with how often it comes in a machine of either engine."""

    def register(act: Callable[..., object]) -> Callable[..., Any]:
        USES[act.__name__] = Use(act.__name__, act, " ".join(needs), {"dask": dask, "spark": spark})
        return act

    return register


@dataclass
class Seen:
    """What came of all machines of a run."""

    counts: Counter[str] = field(default_factory=Counter)
    took: Counter[str] = field(default_factory=Counter)
    machines: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    longest: float = 0.0  # s until all agreed
    only: tuple[str, ...] = ()  # these usages and engines alone (SHOAL_USAGE_ONLY), to try one

    @property
    def steps(self) -> int:
        return sum(self.counts.values())


class Usage(RuleBasedStateMachine):
    """One home, one person. ``engine``: of which clusters it opens."""

    engine: ClassVar[str] = "dask"
    seen: ClassVar[Seen]
    fresh: ClassVar[Callable[[], tuple[Path, Path, Path]]]  # folders: of the person, and of two projects

    @initialize()
    def begin(self) -> None:
        self.script: list[str] = []
        self.broken, self.steps = False, 0
        self.model = Model()
        self.user = os.environ["SHOAL_USER"]
        self.folder, self.here, self.there = type(self).fresh()
        self.home_folder = Path(os.environ["SHOAL_DATA"])
        self.seen.machines[self.engine] += 1
        self.due = Counter({name: each.times[self.engine] for name, each in USES.items()})
        if only := USES.keys() & set(self.seen.only):
            self.due = Counter({name: n for name, n in self.due.items() if name in only})
        self.due = +self.due
        self.me, self.elsewhere = self.person("me"), self.person("elsewhere")
        self.onlooker: LocalHome = open_home(open_project(self.here))

    def person(self, name: str) -> world.Person:
        """Somebody new, who knows the projects."""
        person = world.Person(self.folder, name, self.engine)
        person.run(f"HERE, THERE = {str(self.here)!r}, {str(self.there)!r}")
        return person

    @rule(pick=st.integers(0, 2**16), detail=st.integers(0, 2**16))
    def step(self, pick: int, detail: int) -> None:
        if self.broken or not self.due:
            return
        name = self.next(pick)
        self.steps += 1
        self.script.append(f"\n# {self.steps}: {name}")
        begin = time.monotonic()
        try:
            USES[name].act(self, detail)
            self.agree()
        except Exception as error:
            self.fail(name, error)
        except BaseException:  # Ctrl-C: nothing is waited for any more
            self.broken = True
            raise
        self.due[name] -= 1
        self.due = +self.due
        self.seen.counts[name] += 1
        self.seen.took[name] += time.monotonic() - begin  # type: ignore[assignment]

    def next(self, pick: int) -> str:
        """One of those that are due and can come now, else what has to come before."""
        now = [name for name in sorted(self.due) if self.can(USES[name].needs)]
        if now:
            # The simplest draw is always 0: it, too, is to have a life of its own.
            return now[(pick + 7 * self.steps) % len(now)]
        wanting = {USES[name].needs for name in self.due}
        return "opens" if self.room(1) and any("room" not in needs for needs in wanting) else "closes"

    def can(self, needs: str) -> bool:
        if needs.startswith("room"):
            return self.room(int(needs.partition(" ")[2] or 1))
        return bool(self.fit(needs)) if needs else True

    def room(self, count: int) -> bool:
        return len(self.model.live()) + count <= ROOM

    def fit(self, needs: str) -> list[Expected]:
        """Live clusters that a usage may be about: "any", "mine", or the person's of that engine."""
        if needs == "any":
            return self.model.live()
        mine = self.model.live(MINE)
        return mine if needs == "mine" else [each for each in mine if each.engine == needs]

    def one(self, needs: str, detail: int) -> Expected:
        found = self.fit(needs)
        return found[detail % len(found)]

    def free_name(self, detail: int) -> str:
        """Often one that an ended cluster had."""
        taken = {each.name for each in self.model.live()}
        free = [name for name in NAMES if name not in taken]
        return free[detail % min(2, len(free))]

    # -- acts, each of which is noted --------------------------------------------------------------------

    def run(self, cell: str, person: world.Person | None = None) -> Any:
        """A cell of the person's; its value. AssertionError where it fails."""
        answer = self.attempt(cell, person)
        assert "error" not in answer, f"{answer['error']}: {answer['said']}"
        return answer["value"]

    def refused(self, cell: str, *errors: str) -> str:
        """A cell that has to fail with one of these errors; what it said."""
        answer = self.attempt(cell)
        assert answer.get("error") in errors, f"expected {' or '.join(errors)}, and not {answer}"
        return str(answer["said"])

    def attempt(self, cell: str, person: world.Person | None = None) -> dict[str, Any]:
        who = person or self.me
        cell = cell.strip()
        self.script.append(cell if who is self.me else f"# in another process:\n{cell}")
        return who.run(cell)

    def until(self, cell: str, good: Callable[[Any], bool]) -> None:
        """Run a cell of the person's until its value is good, at the latest after ``PATIENCE``."""
        begin = time.monotonic()
        while not good(value := self.run(cell)):
            assert time.monotonic() - begin < PATIENCE, f"{cell} is still {value!r}"
            self.script.pop()
            time.sleep(0.1)

    def shell(self, *words: str) -> Any:
        self.script.append(f"# $ shoal {' '.join(words)}")
        return world.command(*words)

    def from_outside(self, what: str) -> None:
        self.script.append(f"# from outside: {what}")

    def rows(self) -> dict[str, world.Row]:
        return world.rows(self.home_folder)

    # -- what has to be true ---------------------------------------------------------------------------

    def agree(self) -> None:
        """Ledger, processes, handles and model agree, at the latest after ``PATIENCE``."""
        begin = time.monotonic()
        while wrong := self.wrong():
            assert time.monotonic() - begin < PATIENCE, "\n".join(wrong)
            time.sleep(0.1)
        self.seen.longest = max(self.seen.longest, time.monotonic() - begin)

    def wrong(self) -> list[str]:
        said = {
            cluster.id: (cluster.state.value, cluster.workers)
            for cluster in self.onlooker.clusters(ended=True)
        }
        held = self.onlooker.held(self.user)
        handles = self.me.run(
            "{name: [each.id, each.record.state.value, each.record.workers] for name, each in globals().items()"
            " if isinstance(each, (shoal.DaskCluster, shoal.SparkCluster))}"
        )
        if "error" in handles:
            return [f"handles cannot be asked: {handles}"]
        rows, marked = self.rows(), world.marked(self.home_folder)
        pids = {row.head for row in rows.values()}.union(*marked.values())
        pids |= {child for each in self.model.clusters.values() for child in each.children}
        alive = {pid: world.lives(pid) for pid in pids if pid}
        found = self.model.wrong(rows, marked, alive)
        found += self.model.wrong_handles(handles["value"], rows)
        if said != {its_id: (row.state, row.workers) for its_id, row in rows.items()}:
            found.append(f"Shoal says {said}, and the ledger has other records")
        live = {its_id: row.memory for its_id, row in rows.items() if not row.ended}
        if held.admitted.keys() != live.keys() or int(held.held.memory) != sum(live.values()):
            found.append(f"held is {held.admitted}; the live records are {live}")
        return found

    def fail(self, name: str, error: Exception) -> None:
        """Note it with the way there. This machine does no more; the others go on."""
        self.broken = True
        said = str(error) if isinstance(error, AssertionError) else "".join(traceback.format_exception(error))
        way = "\n".join(self.script)
        told = (
            f"In {name} of a machine on {self.engine}: {said}\n\n"
            f"The way there (in an empty SHOAL_DATA, HERE and THERE being folders with the project of "
            f"tests/usage/test_usage.py):\n{way}\n\n{self.me.last_words()}"
        )
        (self.folder / "failure.txt").write_text(told)
        self.seen.failures.append(told)

    def teardown(self) -> None:
        """The script comes to its end: what the person held ends, then what was detached."""
        if not hasattr(self, "me"):
            return
        begin = time.monotonic()
        try:
            if not self.broken:
                self.script.append("\n# the script ends")
                self.me.leave()
                self.elsewhere.leave()
                for each in self.model.live(MINE):
                    self.model.ended(each, "ClientGone", "StoppedByUser")
                self.shell("down", "--all", "--yes")
                for each in self.model.live():
                    self.model.ended(each, "StoppedByUser")
                self.model.handles.clear()
                self.me = self.person("me")
                self.agree()
        except Exception as error:
            self.fail("the end", error)
        finally:
            self.me.kill()
            self.elsewhere.kill()
            self.clean()
            self.seen.took["(end)"] += time.monotonic() - begin  # type: ignore[assignment]

    def clean(self) -> None:
        """Nothing of a machine that failed stays to be found by the next."""
        if self.broken:
            for pids in world.marked(self.home_folder).values():
                for pid in pids:
                    world.kill(pid)
