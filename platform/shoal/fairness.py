"""Fairness: whose turn it is when not everybody can have what they ask for.

Why it exists: whoever asks often must not get more than whoever asks rarely, and a large request must not
wait for ever while small ones slip past it.

The rules:
 1. Between teams: the team that was served least for its weight comes first. What was served is measured in
    share x seconds; the share is the dominant one: of memory, cores and GPUs, the one of which a cluster
    takes the largest part (Ghodsi et al., Dominant Resource Fairness, NSDI 2011). What runs counts ahead with
    half of the life it has left. Users without a team are together one team of weight 1.
 2. Nobody saves up while asking for nothing: whoever comes anew starts with what the one ahead of all others
    was served (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996).
 3. Within a team: the higher priority first, then the user who was served least, by the same measure.
 4. Within a user: the higher priority first, then the older request.
 5. A team, or a user within a team, that got nothing for :data:`PATIENCE` though asking comes first, once.

What it must not do: hold anything against limits (``admission``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from shoal.account import SHARED, Account, Amounts
from shoal.policy import Limits
from shoal.units import Seconds

PATIENCE = Seconds(8 * 3600)
NO_TEAM = ""


@dataclass(frozen=True)
class Turn:
    """What decides about one request's turn: who asks, since when, how urgent."""

    cluster: str
    user: str
    team: str
    weight: float
    since: float
    priority: int = 0


def capacity(limits: Iterable[Limits]) -> dict[str, float]:
    """What all those present may have together: that of which shares are taken."""
    total = dict.fromkeys(SHARED, 0.0)
    for each in limits:
        for what in SHARED:
            if what in each.totals:
                total[what] += each.totals[what].value
    return {what: value for what, value in total.items() if value > 0}


def share(amounts: Amounts, of: Mapping[str, float]) -> float:
    """The dominant share of ``amounts`` in ``of``."""
    return max((amounts.of(what) / total for what, total in of.items()), default=0.0)


_Key = tuple[str, str]


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
        self._since: dict[_Key, float] = {}
        weights: dict[_Key, float] = {}
        for turn in turns:
            self._waiting.setdefault(turn.team, []).append(turn)
            weights["team", turn.team], weights["user", turn.user] = turn.weight, 1.0
            for key in (("team", turn.team), ("user", turn.user)):
                self._since[key] = min(self._since.get(key, turn.since), turn.since)
        self._weights = weights
        self._accounts = {
            key: (teams if key[0] == "team" else users).get(key[1], Account()) for key in weights
        }
        # What was served and promised, for the weight: whoever has least is first.
        self._level = {
            key: (account.served_at(now) + account.promised_at(now)) / weights[key]
            for key, account in self._accounts.items()
        }
        self._lift([key for key in weights if key[0] == "team"])
        for team in self._waiting.values():
            self._lift(list({("user", turn.user) for turn in team}))
        self._floor = {
            key: self._level[key] * weights[key] - account.promised_at(now)
            for key, account in self._accounts.items()
        }

    def _lift(self, keys: Sequence[_Key]) -> None:
        """Whoever comes anew starts level with those who have been waiting."""
        # Something was admitted to them after their oldest request here: they never stopped asking.
        asking = [key for key in keys if self._accounts[key].last > self._since[key]]
        if not asking:
            return
        level = min(self._level[key] for key in asking)
        for key in keys:
            if key not in asking:
                self._level[key] = max(self._level[key], level)

    def _urgent(self, key: _Key) -> float:
        """0 for whoever got nothing for too long, else 1. A clock that went back makes nobody urgent."""
        return 0.0 if self._now - max(self._since[key], self._accounts[key].last) > PATIENCE else 1.0

    def next(self) -> Turn | None:
        """Whose turn it is; each request comes once. None at the end."""
        if not self._waiting:
            return None
        team = min(self._waiting, key=lambda name: (*self._rank(("team", name)), name))
        mine = self._waiting[team]
        turn = min(
            mine,
            key=lambda each: (-each.priority, *self._rank(("user", each.user)), each.since, each.cluster),
        )
        mine.remove(turn)
        if not mine:
            del self._waiting[team]
        return turn

    def _rank(self, key: _Key) -> tuple[float, float, float]:
        return self._urgent(key), self._level[key], self._since[key]

    def admitted(self, turn: Turn, most: float) -> tuple[float, float]:
        """``turn`` was admitted, and takes at most ``most`` (share x seconds) from now on.

        Returns the least that counts as served from now on, for the team and the user: where they came anew
        it is more than they were served.
        """
        for key in (("team", turn.team), ("user", turn.user)):
            self._level[key] += most / 2 / self._weights[key]
            self._accounts[key] = replace(self._accounts[key], last=max(self._accounts[key].last, self._now))
        return self._floor["team", turn.team], self._floor["user", turn.user]
