"""Currencies at rest: definitions, balances of users, and the transactions that made them.

Source: contract E.9.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row

from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import (
    balances,
    currencies,
    currency_transactions,
)


@dataclass(frozen=True, slots=True)
class Currency:
    """A definition.

    Attributes:
        max_balance: None is no other maximum than that of all amounts.
        auto_recharge_amount, auto_recharge_interval_hours: both, or both None.
        recharging_ms: since when those two are what they are.
    """

    id: str
    code: str
    name: str
    description: str | None
    is_premium: bool
    initial_balance: int
    max_balance: int | None
    auto_recharge_amount: int | None
    auto_recharge_interval_hours: int | None
    recharging_ms: int
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Balance:
    """Of one user in one currency; `lifetime_earned - lifetime_spent` is `balance`.

    Attributes:
        recharged_ms: up to when recharges were worked out.
        transactions: how many there have been, kept or not.
    """

    user_id: str
    currency_code: str
    balance: int
    lifetime_earned: int
    lifetime_spent: int
    recharged_ms: int
    transactions: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """One change of a balance; `amount` has its sign."""

    id: str
    user_id: str
    currency_code: str
    amount: int
    balance_after: int
    type: str
    source: str
    reason: str | None
    reference_id: str | None
    created_ms: int


# --- definitions ---


def add(scoped: Scoped, currency: Currency) -> None:
    """A new one."""
    scoped.add(currencies, asdict(currency))


def put(scoped: Scoped, currency: Currency) -> None:
    """One that is there, changed."""
    scoped.change(currencies, currencies.c.id == currency.id, **asdict(currency))


def get(scoped: Scoped, id_: str) -> Currency | None:
    """By its id."""
    row = scoped.row(scoped.query(currencies).where(currencies.c.id == id_))
    return None if row is None else _currency(row)


def of_code(scoped: Scoped, code: str) -> Currency | None:
    """By its code."""
    row = scoped.row(scoped.query(currencies).where(currencies.c.code == code))
    return None if row is None else _currency(row)


def page(scoped: Scoped, offset: int, limit: int) -> list[Currency]:
    """Some of them, ordered by code."""
    query = scoped.query(currencies).order_by(currencies.c.code)
    return [_currency(row) for row in scoped.rows(query.offset(offset).limit(limit))]


def count(scoped: Scoped) -> int:
    """How many there are."""
    return scoped.count(currencies)


def drop(scoped: Scoped, currency: Currency) -> None:
    """Without one, and all that anybody has of it."""
    code = currency.code
    scoped.drop(currencies, currencies.c.code == code)
    scoped.drop(balances, balances.c.currency_code == code)
    scoped.drop(currency_transactions, currency_transactions.c.currency_code == code)


# --- balances ---


def balance(scoped: Scoped, user_id: str, code: str) -> Balance | None:
    """One user's in one currency."""
    column = balances.c
    query = scoped.query(balances).where(column.user_id == user_id, column.currency_code == code)
    row = scoped.row(query)
    return None if row is None else _balance(row)


def balances_of(scoped: Scoped, user_id: str) -> dict[str, Balance]:
    """One user's, by currency."""
    query = scoped.query(balances).where(balances.c.user_id == user_id)
    return {row.currency_code: _balance(row) for row in scoped.rows(query)}


def put_balance(scoped: Scoped, balance: Balance) -> None:
    """A new one, or what became of an old one."""
    scoped.put(balances, ("user_id", "currency_code"), asdict(balance))


# --- transactions ---


def add_transaction(scoped: Scoped, transaction: Transaction) -> None:
    """One more."""
    scoped.add(currency_transactions, asdict(transaction))


def referred(
    scoped: Scoped, user_id: str, code: str, type_: str, reference_id: str
) -> Transaction | None:
    """The one that was made with this `reference_id`, if it is kept."""
    column = currency_transactions.c
    query = scoped.query(currency_transactions).where(
        *_of(user_id, code),
        column.type == type_,
        column.reference_id == reference_id,
    )
    row = scoped.row(query)
    return None if row is None else _transaction(row)


def transactions(
    scoped: Scoped, user_id: str, code: str | None, offset: int, limit: int
) -> list[Transaction]:
    """One user's that are kept, the newest first. Args: code: None is all currencies."""
    query = scoped.query(currency_transactions).where(*_of(user_id, code))
    newest = query.order_by(currency_transactions.c.seq.desc())
    return [_transaction(row) for row in scoped.rows(newest.offset(offset).limit(limit))]


def transaction_count(scoped: Scoped, user_id: str, code: str | None) -> int:
    """How many of them are kept."""
    return scoped.count(currency_transactions, *_of(user_id, code))


def forget_transactions(scoped: Scoped, user_id: str, code: str, keep: int) -> None:
    """Without all but the newest of one user in one currency."""
    column = currency_transactions.c
    query = scoped.query(currency_transactions, column.seq).where(*_of(user_id, code))
    last = scoped.value(query.order_by(column.seq.desc()).offset(keep))
    if last is not None:
        scoped.drop(currency_transactions, *_of(user_id, code), column.seq <= last)


def _of(user_id: str, code: str | None) -> tuple[ColumnElement[bool], ...]:
    column = currency_transactions.c
    mine: ColumnElement[bool] = column.user_id == user_id
    return (mine,) if code is None else (mine, column.currency_code == code)


def _currency(row: Row[Any]) -> Currency:
    return Currency(
        id=row.id,
        code=row.code,
        name=row.name,
        description=row.description,
        is_premium=row.is_premium,
        initial_balance=row.initial_balance,
        max_balance=row.max_balance,
        auto_recharge_amount=row.auto_recharge_amount,
        auto_recharge_interval_hours=row.auto_recharge_interval_hours,
        recharging_ms=row.recharging_ms,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
    )


def _balance(row: Row[Any]) -> Balance:
    return Balance(
        user_id=row.user_id,
        currency_code=row.currency_code,
        balance=row.balance,
        lifetime_earned=row.lifetime_earned,
        lifetime_spent=row.lifetime_spent,
        recharged_ms=row.recharged_ms,
        transactions=row.transactions,
    )


def _transaction(row: Row[Any]) -> Transaction:
    return Transaction(
        id=row.id,
        user_id=row.user_id,
        currency_code=row.currency_code,
        amount=row.amount,
        balance_after=row.balance_after,
        type=row.type,
        source=row.source,
        reason=row.reason,
        reference_id=row.reference_id,
        created_ms=row.created_ms,
    )
