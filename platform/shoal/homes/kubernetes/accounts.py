"""Accounts as whoever asks may read them: their own, their team's, and the place's.

Why it exists: what a request would be told, and what is held, is answered without the governor.

What it must not do: write one (``store`` does).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from shoal.errors import NotFoundError
from shoal.governor.ports import AccountKey
from shoal.homes.kubernetes.api import Api
from shoal.homes.kubernetes.errors import RightsError
from shoal.homes.kubernetes.names import ACCOUNT, account_of
from shoal.homes.kubernetes.objects import account_read
from shoal.quota.account import Account


def held_by(api: Api, system: str, key: AccountKey) -> Account:
    """What is admitted there, by the clusters' uids; nothing where nothing ever was.

    Raises:
        RightsError: it may not be read by whoever asks.
    """
    try:
        return account_read(api.get(ACCOUNT.path(system, account_of(*key))))
    except NotFoundError:
        return Account()


def readable(api: Api, system: str, keys: Iterable[AccountKey]) -> dict[AccountKey, Account]:
    """Those of ``keys`` that may be read."""
    found = {}
    for key in keys:
        with contextlib.suppress(RightsError):
            found[key] = held_by(api, system, key)
    return found
