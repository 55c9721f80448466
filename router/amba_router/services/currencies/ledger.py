"""How a balance changes: what a recharge brings by now, and what one transaction does.

Pure: no store, no clock. `lifetime_earned - lifetime_spent` is the balance, and the sum of all
transactions, at any time. Source: contract E.9; how recharges count is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from amba_router.store.currency_rows import Balance, Currency
from amba_runtime import limits

_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Due:
    """What time has brought: an amount (0 is none), and up to when it is worked out."""

    amount: int
    recharged_ms: int


def opened(currency: Currency, user_id: str, now_ms: int) -> Balance:
    """A zero balance, whose recharges count from now."""
    return Balance(user_id, currency.code, 0, 0, 0, now_ms, 0)


def due(currency: Currency, balance: Balance | None, now_ms: int) -> Due | None:
    """None where nothing is to be written: no interval has passed, nothing starts.

    One that nobody has touched gets the initial balance, and its clock starts. Later each interval
    that has passed since brings its amount, as far as there is room.
    """
    amount, hours = currency.auto_recharge_amount, currency.auto_recharge_interval_hours
    if balance is None:
        starts = currency.initial_balance > 0 or amount is not None
        return Due(currency.initial_balance, now_ms) if starts else None
    if amount is None or hours is None:
        return None
    since_ms = max(balance.recharged_ms, currency.recharging_ms)
    intervals = (now_ms - since_ms) // (hours * _HOUR_MS)
    if intervals <= 0:
        return None
    room = max(0, room_of(currency, balance))
    return Due(min(intervals * amount, room), since_ms + intervals * hours * _HOUR_MS)


def room_of(currency: Currency, balance: Balance) -> int:
    """How much more there may be; below zero where the maximum was lowered since."""
    most = limits.CURRENCY_AMOUNT.value
    top = most if currency.max_balance is None else currency.max_balance
    return min(top - balance.balance, most - balance.lifetime_earned)


def moved(balance: Balance, amount: int) -> Balance:
    """After a transaction. Args: amount: below zero is spent."""
    return replace(
        balance,
        balance=balance.balance + amount,
        lifetime_earned=balance.lifetime_earned + max(amount, 0),
        lifetime_spent=balance.lifetime_spent + max(-amount, 0),
        transactions=balance.transactions + 1,
    )
