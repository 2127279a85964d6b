"""Fairness: whose turn it is when not everybody can have what they ask for.

Why it exists: whoever asks often must not get more than whoever asks rarely, and a large request must not
wait for ever while small ones slip past it.

The rules:
 1. Between teams: the team with the lowest use for its weight comes first. Use is the dominant share: of
    memory, cores and GPUs, the one of which the team holds the largest part (Ghodsi et al., Dominant Resource
    Fairness, NSDI 2011), and as much again what it held on average over the recent past
    (``account.HALF_LIFE``), so that it is time and not luck that is shared. Users without a team are together
    one team of weight 1.
 2. Within a team: the higher priority first, then the user with the lowest use, by the same measure.
 3. Within a user: the higher priority first, then the older request.
 4. Whoever got nothing for :data:`PATIENCE` though asking comes nearer to the front with every hour.

What it must not do: hold anything against limits (``admission``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shoal.account import SHARED, Account, Amounts
from shoal.policy import Limits
from shoal.units import Seconds

PATIENCE = Seconds(8 * 3600)
# Past PATIENCE, use counts half after each of these.
IMPATIENCE = Seconds(3600)
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


def use(account: Account, of: Mapping[str, float], now: float) -> float:
    """The account's dominant share of ``of``: what it holds now plus what it held lately; from 0 to 2."""
    held, average = account.held_now(), account.average_at(now)
    return max(((held[what] + average[what]) / total for what, total in of.items()), default=0.0)


def share(amounts: Amounts, of: Mapping[str, float]) -> float:
    """The dominant share of ``amounts`` in ``of``."""
    return max((amounts.of(what) / total for what, total in of.items()), default=0.0)


class Order:
    """The order of turns; :meth:`admitted` moves whoever got something back."""

    def __init__(
        self,
        turns: Sequence[Turn],
        users: Mapping[str, Account],
        teams: Mapping[str, Account],
        of: Mapping[str, float],
        now: float,
    ) -> None:
        self._now = now
        self._of = of
        self._accounts = {("team", turn.team): teams.get(turn.team, Account()).at(now) for turn in turns} | {
            ("user", turn.user): users.get(turn.user, Account()).at(now) for turn in turns
        }
        self._waiting: dict[str, list[Turn]] = {}
        for turn in turns:
            self._waiting.setdefault(turn.team, []).append(turn)
        self._since = {
            ("team", team): min(turn.since for turn in mine) for team, mine in self._waiting.items()
        }
        for turn in turns:
            key = ("user", turn.user)
            self._since[key] = min(self._since.get(key, turn.since), turn.since)
        self._use = {key: self._used(key) for key in self._accounts}

    def _used(self, key: tuple[str, str]) -> float:
        account = self._accounts[key]
        # A clock that went back makes nobody wait a negative time.
        waited = max(0.0, self._now - max(self._since[key], account.last))
        impatience: float = 0.5 ** (max(0.0, waited - PATIENCE) / IMPATIENCE)
        return use(account, self._of, self._now) * impatience

    def next(self) -> Turn | None:
        """Whose turn it is; each request comes once. None at the end."""
        if not self._waiting:
            return None
        team = min(
            self._waiting,
            key=lambda name: (
                self._use["team", name] / self._waiting[name][0].weight,
                self._since["team", name],
                name,
            ),
        )
        mine = self._waiting[team]
        turn = min(
            mine,
            key=lambda each: (-each.priority, self._use["user", each.user], each.since, each.cluster),
        )
        mine.remove(turn)
        if not mine:
            del self._waiting[team]
        return turn

    def admitted(self, turn: Turn, more: float) -> None:
        """``turn`` was admitted, and holds ``more`` (a dominant share) from now on."""
        self._use["team", turn.team] += more
        self._use["user", turn.user] += more
