"""What a head does at each look at its engine: it tells what is new, and keeps as many workers as wanted and granted.

Why it exists: the loop of a head's life reads as a list of steps; what they remember from look to look is here.

What it must not do: end anything, or decide what is granted (its home does).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shoal.engines.port import EngineHost, Sample
from shoal.errors import InfrastructureError
from shoal.governor.ends import serving
from shoal.head.adapt import Adapt
from shoal.homes.base import Wishes
from shoal.model.cluster import Reason, State
from shoal.model.workload import Plan
from shoal.words import count

if TYPE_CHECKING:
    from shoal.homes.base import Desk

_log = logging.getLogger("shoal.head")


def counts(plan: Plan) -> dict[str, int]:
    """Workers by group."""
    return {group.name: group.count for group in plan.groups}


@contextmanager
def tried_again(what: str) -> Iterator[None]:
    """A home that does not answer now is no reason to end: the next look does it."""
    try:
        yield
    except InfrastructureError as error:
        _log.warning("%s failed, trying again: %s", what, error)


class News:
    """Tells a home what is new in a look. What it could not be told is told at the next one."""

    def __init__(self, desk: Desk, look: Sample) -> None:
        self._desk = desk
        self._ready, self._noted = look.workers, (look.restarts, look.note)
        self._retired = frozenset[str]()

    def tell(self, look: Sample) -> None:
        """A restart, how many workers there are once these are all, and which are retired."""
        if look.note and (news := (look.restarts, look.note)) != self._noted:
            with tried_again("telling of a restart"):
                self._desk.say(Reason.WORKER_RESTARTED, look.note, State.READY)
                self._noted = news
        if look.workers not in (self._ready, 0) and look.workers == self._desk.cluster.plan.workers:
            with tried_again("telling how many workers there are"):
                state, reason, said = serving(look.workers)
                self._desk.say(reason, said, state)
                self._ready = look.workers
        if self._retired != (names := frozenset(look.retired)):
            with tried_again("telling who is retired"):
                self._desk.retired(names)
                self._retired = names


class Scaling:
    """How many workers the engine is to have. The steps come in this order at each look."""

    def __init__(self, engine: EngineHost, desk: Desk) -> None:
        self._engine, self._desk = engine, desk
        first = desk.cluster.plan.groups[0]
        self._first = first.name
        self._adapt = Adapt(first.minimum, first.maximum) if first.minimum < first.maximum else None
        self._wanted: dict[str, int] = {}
        self._had = counts(desk.cluster.plan)

    def give_back(self, look: Sample) -> None:
        """Ask for less where workers that are not wanted are gone: now, and not before, others may have that."""
        for name, many in self._wanted.items():
            if look.groups.get(name, look.workers) <= many < self._had[name]:
                with tried_again("giving back"):
                    self._desk.resize(many, name)

    def follow(self, wishes: Wishes) -> None:
        """Do what a person wishes."""
        asked = {} if wishes.workers is None else {self._first: wishes.workers}
        for name, many in (asked | dict(wishes.groups)).items():
            if self._wanted.get(name) == many:
                continue
            if name == self._first:
                self._adapt = None  # a person said how many: from now on it stays at that
            with tried_again("following a wish"):
                self._desk.look()  # what counts may have grown with the wish
                self._wanted[name] = many
                self._engine.scale(many, name)

    def adapt(self, now: float) -> None:
        """Ask for more, or go on with less, by what the work could use."""
        if self._adapt is None:
            return
        there = counts(self._desk.cluster.plan)
        desired = self._engine.desired()
        if desired is not None:  # less what other groups give: these have as many as a person says
            desired -= sum(there.values()) - there[self._first]
        self._adapt, target = self._adapt.seen(there[self._first], desired, now)
        if target is not None and target > there[self._first]:
            with tried_again("growing"):
                self._desk.resize(target)
        elif target is not None:
            self._wanted[self._first] = target
            self._engine.scale(target)

    def grow(self) -> None:
        """Start what was asked for and is granted, just now or meanwhile."""
        have, self._had = self._had, counts(self._desk.cluster.plan)
        if self._adapt is not None and self._had[self._first] > have[self._first]:
            many = self._had[self._first]
            _log.info("grows from %s to %s", have[self._first], count(many, "worker"))
            self._wanted[self._first] = many
            self._engine.scale(many)
