"""Fairness: whose turn it is when not everybody can have what they ask for.

Why it exists: whoever asks often must not get more than whoever asks rarely, and a large request must not
wait for ever while small ones slip past it.

The rules:
 1. Between teams: the team that was served least for its weight comes first. What was served is measured in
    share x seconds; the share is the dominant one: of memory, cores and GPUs, the one of which a cluster
    takes the largest part (Ghodsi et al., Dominant Resource Fairness, NSDI 2011). What runs counts ahead with
    half of the life it has left. Users without a team are together one team of weight 1.
 2. Nobody saves up while asking for nothing: whoever comes again starts with what the one ahead of all others
    was served (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996).
 3. Within a team: the higher priority first, then the user who was served least, by the same measure.
 4. Within a user: the higher priority first, then the older request.
 5. A team, or a user within a team, that got nothing for :data:`PATIENCE` though asking comes first, once;
    of several, the one that waits longest.

 6. A request that waited for :data:`OVERDUE` comes before all others, the oldest first, unless its team is
    ahead of the last team by more than that request: a large one gathers what it needs and keeps it, and what
    it takes is counted, so that in the end the weights hold all the same.

What it must not do: hold anything against limits (``admission``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shoal.model.resource import Resource
from shoal.project.policy import Limits
from shoal.quota.account import SHARED, Account, Amounts, Fair
from shoal.units import Seconds

PATIENCE = Seconds(8 * 3600)
OVERDUE = Seconds(12 * 3600)
NO_TEAM = ""


@dataclass(frozen=True)
class Turn:
    """What decides about one request's turn: who asks, since when, how urgent.

    ``most``: what it takes if it lives as long as it may, in share x seconds.
    """

    cluster: str
    user: str
    team: str
    weight: float
    since: float
    priority: int = 0
    most: float = 0.0


def shared_total(limits: Iterable[Limits]) -> dict[Resource, float]:
    """What all those present may have together: that of which shares are taken."""
    total = dict.fromkeys(SHARED, 0.0)
    for each in limits:
        for what in SHARED:
            if what in each.totals:
                total[what] += each.totals[what].value
    return {what: value for what, value in total.items() if value > 0}


def share(amounts: Amounts, of: Mapping[Resource, float]) -> float:
    """The dominant share of ``amounts`` in ``of``."""
    return max((amounts.of(what) / total for what, total in of.items()), default=0.0)


_Party = tuple[str, str]


class Order:
    """The order of turns; :meth:`admitted` moves whoever got something back."""

    def __init__(
        self,
        turns: Sequence[Turn],
        users: Mapping[str, Account],
        teams: Mapping[str, Account],
        now: float,
    ) -> None:
        self._now = now
        self._waiting: dict[str, list[Turn]] = {}
        self._since: dict[_Party, float] = {}
        weights: dict[_Party, float] = {}
        for turn in turns:
            self._waiting.setdefault(turn.team, []).append(turn)
            weights["team", turn.team], weights["user", turn.user] = turn.weight, 1.0
            for key in (("team", turn.team), ("user", turn.user)):
                self._since[key] = min(self._since.get(key, turn.since), turn.since)
        self._weights = weights
        self._accounts = {
            key: (teams if key[0] == "team" else users).get(key[1], Account()) for key in weights
        }
        self._last = {key: account.last for key, account in self._accounts.items()}
        # What was served and promised, for the weight: whoever has least is first.
        self._level = {
            key: (account.served_at(now) + account.promised_at(now)) / weights[key]
            for key, account in self._accounts.items()
        }
        self._lift([("team", name) for name in self._waiting], teams.values())
        for mine in self._waiting.values():
            keys = list({("user", turn.user) for turn in mine})
            self._lift(keys, [self._accounts[key] for key in keys])
        self._floor = {
            key: self._level[key] * weights[key] - account.promised_at(now)
            for key, account in self._accounts.items()
        }

        self._overdue = sorted(
            (turn for turn in turns if now - turn.since > OVERDUE),
            key=lambda turn: (turn.since, turn.cluster),
        )

    def _lift(self, keys: Sequence[_Party], all_of_them: Iterable[Account]) -> None:
        """Whoever comes again starts level with those who have been waiting, or else with the last turn."""
        # Something was admitted to them after their oldest request here: they never stopped asking.
        asking = [key for key in keys if self._last[key] > self._since[key]]
        if asking:
            level = min(self._level[key] for key in asking)
        else:
            level = max((account.start for account in all_of_them), default=0.0)
        for key in keys:
            if key not in asking:
                self._level[key] = max(self._level[key], level)

    def next(self) -> Turn | None:
        """Whose turn it is; each request comes once. None at the end."""
        if not self._waiting:
            return None
        if (late := self._next_overdue()) is not None:
            return late
        team = min(self._waiting, key=lambda name: (*self._rank(("team", name)), name))
        mine = self._waiting[team]
        turn = min(
            mine,
            key=lambda each: (-each.priority, *self._rank(("user", each.user)), each.since, each.cluster),
        )
        return self._taken(turn)

    def _next_overdue(self) -> Turn | None:
        last = min(self._level["team", team] for team in self._waiting)
        for turn in self._overdue:
            key = "team", turn.team
            if self._level[key] - last <= turn.most / self._weights[key]:
                return self._taken(turn)
        return None

    def _taken(self, turn: Turn) -> Turn:
        mine = self._waiting[turn.team]
        mine.remove(turn)
        if not mine:
            del self._waiting[turn.team]
        if turn in self._overdue:
            self._overdue.remove(turn)
        return turn

    def _rank(self, key: _Party) -> tuple[float, float, float]:
        since = max(self._since[key], self._last[key])
        # A clock that went back makes nobody urgent.
        if self._now - since > PATIENCE:
            return 0.0, since, 0.0
        return 1.0, self._level[key], self._since[key]

    def admitted(self, turn: Turn, share: float) -> tuple[Fair, Fair]:
        """``turn`` was admitted with ``share``. Returns what the accounts of team and user keep of it."""
        kept = []
        for key in (("team", turn.team), ("user", turn.user)):
            kept.append(Fair(share, self._floor[key], self._level[key]))
            self._level[key] += turn.most / 2 / self._weights[key]
            self._last[key] = max(self._last[key], self._now)
        return kept[0], kept[1]
