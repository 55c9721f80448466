"""Bodies of currencies. Source: contract E.9."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from amba_router.api.models import Count, Iso, Label
from amba_runtime import limits

_MOST = limits.CURRENCY_AMOUNT.value
Code = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=limits.CURRENCY_CODE_CHARS.value,
        pattern=r"^[A-Za-z][A-Za-z0-9_-]*$(?!\n)",
    ),
]
"""Ours; `$` alone would take a line feed at the end."""

Text = Annotated[str, Meta(max_length=limits.CURRENCY_TEXT_CHARS.value)]
Reference = Annotated[str, Meta(min_length=1, max_length=limits.CURRENCY_REFERENCE_CHARS.value)]
Some = Annotated[int, Meta(ge=1, le=_MOST)]
Amount = Annotated[int, Meta(ge=0, le=_MOST)]
Hours = Annotated[int, Meta(ge=1, le=limits.CURRENCY_RECHARGE_HOURS.value)]
Named = Annotated[str, Meta(min_length=1, max_length=200)]


class CreateCurrency(Struct, kw_only=True):
    """`auto_recharge_*`: both or neither."""

    code: Code
    name: Label
    description: Text | None = None
    is_premium: bool = False
    initial_balance: Amount = 0
    max_balance: Some | None = None
    auto_recharge_amount: Some | None = None
    auto_recharge_interval_hours: Hours | None = None


class UpdateCurrency(Struct, kw_only=True):
    """Any of them; a code stays what it is."""

    code: Code | UnsetType = UNSET
    name: Label | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    is_premium: bool | UnsetType = UNSET
    initial_balance: Amount | UnsetType = UNSET
    max_balance: Some | UnsetType | None = UNSET
    auto_recharge_amount: Some | UnsetType | None = UNSET
    auto_recharge_interval_hours: Hours | UnsetType | None = UNSET


class CurrencyRow(Struct, kw_only=True):
    id: str
    code: str
    name: str
    description: str | None
    is_premium: bool
    initial_balance: int
    max_balance: int | None
    auto_recharge_amount: int | None
    auto_recharge_interval_hours: int | None
    created_at: Iso
    updated_at: Iso


class CurrencyAnswer(Struct):
    data: CurrencyRow


class CurrencyList(Struct):
    data: list[CurrencyRow]
    total: Count
    offset: Count
    limit: Count


class DeletedCurrency(Struct):
    id: str
    deleted: bool


class DeletedCurrencyAnswer(Struct):
    data: DeletedCurrency


class Move(Struct, kw_only=True):
    """A grant or a spend; `reference_id` (ours) makes a repetition harmless."""

    app_user_id: Named
    currency_code: Named
    amount: Some
    reason: Text | None = None
    reference_id: Reference | None = None


class TransactionRow(Struct, kw_only=True):
    """`amount` has the sign of what it did to the balance; `reason` (ours) where one was given."""

    id: str
    app_user_id: str
    currency_code: str
    amount: int
    balance_after: int
    transaction_type: str
    source: str
    reference_id: str | None
    created_at: Iso
    reason: str | UnsetType = UNSET


class TransactionAnswer(Struct):
    data: TransactionRow


class TransactionList(Struct):
    data: list[TransactionRow]
    total: Count
    offset: Count
    limit: Count


class BalanceRow(Struct, kw_only=True):
    currency_code: str
    name: str
    is_premium: bool
    balance: int
    lifetime_earned: int
    lifetime_spent: int


class BalanceList(Struct):
    data: list[BalanceRow]
