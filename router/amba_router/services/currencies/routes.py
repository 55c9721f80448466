"""Currencies over the wire: definitions, grants and spends of the admin plane, a user's own.

Source: contract E.9.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, iso_ms, number, page, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Query, Reads
from amba_router.services.currencies.models import (
    BalanceList,
    BalanceRow,
    CreateCurrency,
    CurrencyAnswer,
    CurrencyList,
    CurrencyRow,
    DeletedCurrency,
    DeletedCurrencyAnswer,
    Move,
    TransactionAnswer,
    TransactionList,
    TransactionRow,
    UpdateCurrency,
)
from amba_router.services.currencies.service import CurrencyService, Done, Order, Page
from amba_router.store.currency_rows import Balance, Currency, Transaction
from amba_runtime import limits

_BASE = "/admin/projects/{project_id}/currencies"
_ROWS = 50
"""Transactions of a page, where none says how many. Source: contract E.9."""

_LIMIT = Query(LIMIT.name, {**LIMIT.schema, "default": _ROWS}, LIMIT.means)
_CODE = Query("currency_code", {"type": "string"}, "of this currency alone")
_MOVES = (faults.USER_NOT_FOUND, faults.CURRENCY_NOT_FOUND, *faults.WRITES)


def operations(service: CurrencyService) -> tuple[Operation, ...]:
    """Their part of the table."""
    return (*_definitions(_Definitions(service)), *_ledger(_Ledger(service)))


def _definitions(definitions: _Definitions) -> tuple[Operation, ...]:
    return (
        Operation(
            "createCurrency",
            "POST",
            _BASE,
            Auth.PROJECT,
            "Define a currency.",
            definitions.create,
            {201: CurrencyAnswer},
            faults.WRITES,
            reads=Reads.JSON,
            request=CreateCurrency,
        ),
        Operation(
            "listCurrencies",
            "GET",
            _BASE,
            Auth.PROJECT,
            "All currencies, by code.",
            definitions.list,
            {200: CurrencyList},
            (faults.INVALID_LIMIT,),
            query=(OFFSET, LIMIT),
        ),
        Operation(
            "updateCurrency",
            "PATCH",
            f"{_BASE}/{{id}}",
            Auth.PROJECT,
            "Change a currency; what users have of it stays.",
            definitions.update,
            {200: CurrencyAnswer},
            (faults.CURRENCY_NOT_FOUND, *faults.WRITES),
            reads=Reads.JSON,
            request=UpdateCurrency,
        ),
        Operation(
            "deleteCurrency",
            "DELETE",
            f"{_BASE}/{{id}}",
            Auth.PROJECT,
            "Delete a currency, its balances and its transactions.",
            definitions.delete,
            {200: DeletedCurrencyAnswer},
            (faults.CURRENCY_NOT_FOUND, *faults.WRITES),
        ),
    )


def _ledger(ledger: _Ledger) -> tuple[Operation, ...]:
    return (
        Operation(
            "grantCurrency",
            "POST",
            f"{_BASE}/grant",
            Auth.PROJECT,
            "Give a user some of a currency; 200 where its reference_id was granted before.",
            ledger.grant,
            {201: TransactionAnswer, 200: TransactionAnswer},
            (faults.MAX_BALANCE_EXCEEDED, *_MOVES),
            reads=Reads.JSON,
            request=Move,
        ),
        Operation(
            "spendCurrency",
            "POST",
            f"{_BASE}/spend",
            Auth.PROJECT,
            "Take some of a currency from a user; 200 where its reference_id was spent before.",
            ledger.spend,
            {201: TransactionAnswer, 200: TransactionAnswer},
            (faults.INSUFFICIENT_BALANCE, *_MOVES),
            reads=Reads.JSON,
            request=Move,
        ),
        Operation(
            "listUserTransactions",
            "GET",
            f"{_BASE}/transactions/{{user_id}}",
            Auth.PROJECT,
            "A user's transactions, the newest first.",
            ledger.of_user,
            {200: TransactionList},
            (faults.INVALID_LIMIT, faults.USER_NOT_FOUND, faults.CURRENCY_NOT_FOUND),
            query=(_CODE, OFFSET, _LIMIT),
        ),
        Operation(
            "listBalances",
            "GET",
            "/client/currencies",
            Auth.SESSION,
            "What the session's user has of each currency.",
            ledger.balances,
            {200: BalanceList},
            faults.WRITES,
        ),
        Operation(
            "listTransactions",
            "GET",
            "/client/currencies/transactions",
            Auth.SESSION,
            "The session's user's transactions, the newest first.",
            ledger.own,
            {200: TransactionList},
            (faults.INVALID_LIMIT, faults.CURRENCY_NOT_FOUND),
            query=(_CODE, OFFSET, _LIMIT),
        ),
    )


class _Definitions:
    def __init__(self, service: CurrencyService) -> None:
        self._service = service

    async def create(self, asked: Asked) -> Answer:
        values = msgspec.structs.asdict(asked.body)
        currency = await self._service.create(project_of(asked).id, values)
        return Answer(201, CurrencyAnswer(_currency(currency)))

    async def list(self, asked: Asked) -> Answer:
        offset, limit = page(asked)
        found, total = await self._service.page(project_of(asked).id, offset, limit)
        return Answer(200, CurrencyList([_currency(one) for one in found], total, offset, limit))

    async def update(self, asked: Asked) -> Answer:
        values: dict[str, Any] = {
            name: value
            for name, value in msgspec.structs.asdict(asked.body).items()
            if value is not UNSET
        }
        if not values:
            raise faults.INVALID_INPUT.refuse(
                "nothing to change: send at least one member", {"field": "$"}
            )
        currency = await self._service.change(project_of(asked).id, asked.path["id"], values)
        return Answer(200, CurrencyAnswer(_currency(currency)))

    async def delete(self, asked: Asked) -> Answer:
        id_ = asked.path["id"]
        await self._service.remove(project_of(asked).id, id_)
        return Answer(200, DeletedCurrencyAnswer(DeletedCurrency(id=id_, deleted=True)))


class _Ledger:
    def __init__(self, service: CurrencyService) -> None:
        self._service = service

    async def grant(self, asked: Asked) -> Answer:
        return _done(await self._service.grant(project_of(asked).id, _order(asked.body)))

    async def spend(self, asked: Asked) -> Answer:
        return _done(await self._service.spend(project_of(asked).id, _order(asked.body)))

    async def of_user(self, asked: Asked) -> Answer:
        return await self._page(asked, asked.path["user_id"], known=False)

    async def own(self, asked: Asked) -> Answer:
        return await self._page(asked, asked.user_id, known=True)

    async def balances(self, asked: Asked) -> Answer:
        rows = await self._service.balances(project_of(asked).id, asked.user_id)
        return Answer(200, BalanceList([_balance(currency, had) for currency, had in rows]))

    async def _page(self, asked: Asked, user_id: str, *, known: bool) -> Answer:
        offset, _ = page(asked)
        limit = number(asked, "limit", _ROWS, least=1, most=limits.LIST_ROWS.value)
        code = asked.query.get("currency_code")
        found: Page = await self._service.transactions(
            project_of(asked).id, user_id, code, offset, limit, known=known
        )
        rows = [_transaction(one) for one in found.transactions]
        return Answer(200, TransactionList(rows, found.total, offset, limit))


def _order(body: Move) -> Order:
    return Order(
        user_id=body.app_user_id,
        code=body.currency_code,
        amount=body.amount,
        reason=body.reason,
        reference_id=body.reference_id,
    )


def _done(done: Done) -> Answer:
    status = 200 if done.repeated else 201
    return Answer(status, TransactionAnswer(_transaction(done.transaction)))


def _transaction(one: Transaction) -> TransactionRow:
    return TransactionRow(
        id=one.id,
        app_user_id=one.user_id,
        currency_code=one.currency_code,
        amount=one.amount,
        balance_after=one.balance_after,
        transaction_type=one.type,
        source=one.source,
        reference_id=one.reference_id,
        created_at=iso_ms(one.created_ms),
        reason=UNSET if one.reason is None else one.reason,
    )


def _balance(currency: Currency, had: Balance) -> BalanceRow:
    return BalanceRow(
        currency_code=currency.code,
        name=currency.name,
        is_premium=currency.is_premium,
        balance=had.balance,
        lifetime_earned=had.lifetime_earned,
        lifetime_spent=had.lifetime_spent,
    )


def _currency(one: Currency) -> CurrencyRow:
    return CurrencyRow(
        id=one.id,
        code=one.code,
        name=one.name,
        description=one.description,
        is_premium=one.is_premium,
        initial_balance=one.initial_balance,
        max_balance=one.max_balance,
        auto_recharge_amount=one.auto_recharge_amount,
        auto_recharge_interval_hours=one.auto_recharge_interval_hours,
        created_at=iso_ms(one.created_ms),
        updated_at=iso_ms(one.updated_ms),
    )
