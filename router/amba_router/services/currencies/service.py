"""Currencies as operations on the store: definitions, grants, spends, what users have.

Every method that changes something is one transaction, so that of any number of spenders none
takes what another has taken. Source: contract E.9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from amba_router.api import faults
from amba_router.services.currencies import ledger
from amba_router.store import currency_rows, user_rows
from amba_router.store.currency_rows import Balance, Currency, Transaction
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock, time_ms

_FORGET_EVERY = 100
"""Transactions between two looks for those that are too old to be kept."""


@dataclass(frozen=True, slots=True)
class Order:
    """A grant or a spend, as it was asked for; `amount` is above zero."""

    user_id: str
    code: str
    amount: int
    reason: str | None = None
    reference_id: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """A transaction, and whether it had been made before with the same `reference_id`."""

    transaction: Transaction
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Some transactions, and how many there are in all."""

    transactions: list[Transaction]
    total: int


_Check = Callable[[Currency, Balance], None]
"""Raises `Refused` for what the balance does not allow."""


class CurrencyService:
    """Grants and spends; recharges are made when somebody looks or spends."""

    def __init__(self, store: ProjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    # definitions

    async def create(self, project_id: str, values: Mapping[str, Any]) -> Currency:
        """A new one. Args: values: of all its columns but ids and times.

        Raises:
            Refused: INVALID_INPUT, CONFLICT (its code is taken, or there are too many).
        """
        now_ms = time_ms(self._clock)
        currency = Currency(
            **values,
            id=entropy.uuid4(),
            recharging_ms=now_ms,
            created_ms=now_ms,
            updated_ms=now_ms,
        )
        _check(currency)

        def work(scoped: Scoped) -> None:
            if currency_rows.of_code(scoped, currency.code) is not None:
                raise faults.CONFLICT.refuse(
                    f"the project has a currency {currency.code!r}; PATCH changes it",
                    {"field": "$.code"},
                )
            had = currency_rows.count(scoped)
            if had >= limits.CURRENCIES.value:
                raise faults.CONFLICT.refuse(
                    f"the project has {had} currencies; delete one that is not needed any more"
                )
            currency_rows.add(scoped, currency)

        await self._store.write(project_id, work)
        return currency

    async def change(self, project_id: str, id_: str, values: Mapping[str, Any]) -> Currency:
        """Other values for some columns; what users have stays as it is.

        Raises:
            Refused: CURRENCY_NOT_FOUND, INVALID_INPUT.
        """
        now_ms = time_ms(self._clock)

        def work(scoped: Scoped) -> Currency:
            old = _found(currency_rows.get(scoped, id_), id_)
            new = replace(old, **values, updated_ms=now_ms)
            _check(new)
            if new.code != old.code:
                raise faults.INVALID_INPUT.refuse(
                    f"a currency's code stays what it is, {old.code!r}; create another one",
                    {"field": "$.code"},
                )
            if _rate(new) != _rate(old):
                new = replace(new, recharging_ms=now_ms)
            currency_rows.put(scoped, new)
            return new

        return await self._store.write(project_id, work)

    async def remove(self, project_id: str, id_: str) -> None:
        """Without it and all that users have of it. Raises `Refused` CURRENCY_NOT_FOUND."""

        def work(scoped: Scoped) -> None:
            currency_rows.drop(scoped, _found(currency_rows.get(scoped, id_), id_))

        await self._store.write(project_id, work)

    async def page(self, project_id: str, offset: int, limit: int) -> tuple[list[Currency], int]:
        """Some definitions ordered by code, and how many there are in all."""

        def work(scoped: Scoped) -> tuple[list[Currency], int]:
            return currency_rows.page(scoped, offset, limit), currency_rows.count(scoped)

        return await self._store.read(project_id, work)

    # what users have

    async def grant(self, project_id: str, order: Order) -> Done:
        """More of it for a user.

        Raises:
            Refused: USER_NOT_FOUND, CURRENCY_NOT_FOUND, MAX_BALANCE_EXCEEDED, CONFLICT (the
                reference belongs to another amount).
        """

        def check(currency: Currency, balance: Balance) -> None:
            room = ledger.room_of(currency, balance)
            if order.amount > room:
                raise faults.MAX_BALANCE_EXCEEDED.refuse(
                    f"{order.amount} {currency.code} is more than the {max(room, 0)} there is "
                    "room for; grant less, or raise max_balance",
                    {
                        "currency_code": currency.code,
                        "amount": order.amount,
                        "balance": balance.balance,
                        "max_balance": currency.max_balance,
                    },
                )

        return await self._move(project_id, order, "grant", order.amount, check)

    async def spend(self, project_id: str, order: Order) -> Done:
        """Less of it for a user, never less than nothing.

        Raises:
            Refused: USER_NOT_FOUND, CURRENCY_NOT_FOUND, INSUFFICIENT_BALANCE, CONFLICT.
        """

        def check(currency: Currency, balance: Balance) -> None:
            if order.amount > balance.balance:
                raise faults.INSUFFICIENT_BALANCE.refuse(
                    f"the user has {balance.balance} {currency.code}, and not {order.amount}",
                    {
                        "currency_code": currency.code,
                        "amount": order.amount,
                        "balance": balance.balance,
                    },
                )

        return await self._move(project_id, order, "spend", -order.amount, check)

    async def balances(self, project_id: str, user_id: str) -> list[tuple[Currency, Balance]]:
        """What a user has of each currency, by code, with what is due by now.

        A read, unless something is due. The user is known to be one.
        """
        now_ms = time_ms(self._clock)

        def look(scoped: Scoped) -> list[tuple[Currency, Balance | None]]:
            had = currency_rows.balances_of(scoped, user_id)
            every = currency_rows.page(scoped, 0, limits.CURRENCIES.value)
            return [(currency, had.get(currency.code)) for currency in every]

        def settle(scoped: Scoped) -> list[tuple[Currency, Balance]]:
            return [(c, _settled(scoped, c, user_id, b, now_ms)) for c, b in look(scoped)]

        seen = await self._store.read(project_id, look)
        if any(ledger.due(currency, balance, now_ms) for currency, balance in seen):
            return await self._store.write(project_id, settle)
        return [(c, b or ledger.opened(c, user_id, now_ms)) for c, b in seen]

    async def transactions(
        self,
        project_id: str,
        user_id: str,
        code: str | None,
        offset: int,
        limit: int,
        *,
        known: bool,
    ) -> Page:
        """A user's, the newest first. Args: known: the user need not be looked for.

        Raises:
            Refused: USER_NOT_FOUND, CURRENCY_NOT_FOUND.
        """

        def work(scoped: Scoped) -> Page:
            if not known:
                _check_user(scoped, user_id)
            if code is not None:
                _found(currency_rows.of_code(scoped, code), code)
            return Page(
                currency_rows.transactions(scoped, user_id, code, offset, limit),
                currency_rows.transaction_count(scoped, user_id, code),
            )

        return await self._store.read(project_id, work)

    async def _move(
        self, project_id: str, order: Order, type_: str, amount: int, check: _Check
    ) -> Done:
        now_ms = time_ms(self._clock)

        def work(scoped: Scoped) -> Done:
            _check_user(scoped, order.user_id)
            currency = _found(currency_rows.of_code(scoped, order.code), order.code)
            if order.reference_id is not None:
                made = currency_rows.referred(
                    scoped, order.user_id, order.code, type_, order.reference_id
                )
                if made is not None:
                    return _again(made, amount)
            had = currency_rows.balance(scoped, order.user_id, order.code)
            balance = _settled(scoped, currency, order.user_id, had, now_ms)
            check(currency, balance)
            transaction = _transaction(
                balance,
                amount,
                type_,
                "admin",
                now_ms,
                reason=order.reason,
                reference_id=order.reference_id,
            )
            _write(scoped, ledger.moved(balance, amount), transaction)
            return Done(transaction)

        return await self._store.write(project_id, work)


def _check(currency: Currency) -> None:
    """What the members say of each other. Raises `Refused` INVALID_INPUT."""
    if currency.max_balance is not None and currency.initial_balance > currency.max_balance:
        raise faults.INVALID_INPUT.refuse(
            f"initial_balance is {currency.initial_balance} and max_balance "
            f"{currency.max_balance}; nobody may begin with more than the maximum",
            {"field": "$.initial_balance"},
        )
    if (currency.auto_recharge_amount is None) != (currency.auto_recharge_interval_hours is None):
        raise faults.INVALID_INPUT.refuse(
            "auto_recharge_amount and auto_recharge_interval_hours go together; send both or none",
            {"field": "$.auto_recharge_amount"},
        )


def _rate(currency: Currency) -> tuple[int | None, int | None]:
    return currency.auto_recharge_amount, currency.auto_recharge_interval_hours


def _found(currency: Currency | None, named: str) -> Currency:
    if currency is None:
        raise faults.CURRENCY_NOT_FOUND.refuse(
            f"the project has no currency {named[:64]!r}",
            {"resource": "currency", "id": named[:64]},
        )
    return currency


def _check_user(scoped: Scoped, user_id: str) -> None:
    if not user_rows.exists(scoped, user_id):
        raise faults.no_user(user_id)


def _again(made: Transaction, amount: int) -> Done:
    if made.amount != amount:
        raise faults.CONFLICT.refuse(
            f"reference_id {made.reference_id!r} belongs to a {made.type} of "
            f"{abs(made.amount)}; another one needs a reference of its own",
            {"field": "$.reference_id"},
        )
    return Done(made, repeated=True)


def _settled(
    scoped: Scoped, currency: Currency, user_id: str, had: Balance | None, now_ms: int
) -> Balance:
    """With what time has brought, written."""
    due = ledger.due(currency, had, now_ms)
    balance = had or ledger.opened(currency, user_id, now_ms)
    if due is None:
        return balance
    balance = replace(balance, recharged_ms=due.recharged_ms)
    if due.amount == 0:
        currency_rows.put_balance(scoped, balance)
        return balance
    transaction = _transaction(balance, due.amount, "recharge", "system", now_ms)
    balance = ledger.moved(balance, due.amount)
    _write(scoped, balance, transaction)
    return balance


def _transaction(
    before: Balance,
    amount: int,
    type_: str,
    source: str,
    now_ms: int,
    *,
    reason: str | None = None,
    reference_id: str | None = None,
) -> Transaction:
    return Transaction(
        id=entropy.uuid4(),
        user_id=before.user_id,
        currency_code=before.currency_code,
        amount=amount,
        balance_after=before.balance + amount,
        type=type_,
        source=source,
        reason=reason,
        reference_id=reference_id,
        created_ms=now_ms,
    )


def _write(scoped: Scoped, after: Balance, transaction: Transaction) -> None:
    """Both, and now and then without what is too old."""
    currency_rows.put_balance(scoped, after)
    currency_rows.add_transaction(scoped, transaction)
    keep = limits.CURRENCY_TRANSACTIONS.value
    if after.transactions > keep and after.transactions % _FORGET_EVERY == 0:
        currency_rows.forget_transactions(scoped, after.user_id, after.currency_code, keep)
