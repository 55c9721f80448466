"""Providers' sealed keys and prompts: their rows. Source: contract E.10."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, or_

from amba_router.store.page_bytes import fitting, octets
from amba_router.store.scoped import Scoped
from amba_router.store.sealing import Sealer
from amba_router.store.service_schema import ai_prompts, ai_providers
from amba_runtime import limits
from amba_runtime.secret import SecretText

_PROMPTS = ai_prompts.c
_PROVIDERS = ai_providers.c


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """A provider that has a key; `preview` is the key, masked."""

    name: str
    preview: str
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """A prompt by its name.

    Attributes:
        system, template: texts with `{{variable}}`; "" is no system text.
        options: what goes to the provider besides, such as `max_tokens`.
        budget_usd: None is no budget.
    """

    id: str
    name: str
    provider: str
    model: str
    system: str
    template: str
    options: dict[str, Any]
    client_invokable: bool
    budget_usd: float | None
    spent_usd: float
    created_ms: int
    updated_ms: int

    @property
    def exhausted(self) -> bool:
        """Nothing of its budget is left."""
        return self.budget_usd is not None and self.spent_usd >= self.budget_usd


# --- providers ---


def set_key(
    scoped: Scoped, sealer: Sealer, name: str, key: SecretText, preview: str, now_ms: int
) -> ProviderRecord:
    """A provider's key, or another one in its place."""
    sealed = sealer.seal(key.reveal().encode(), _aad(scoped, name))
    values = {"sealed": sealed, "preview": preview, "updated_ms": now_ms}
    if not scoped.change(ai_providers, _PROVIDERS.name == name, **values):
        scoped.add(ai_providers, {"name": name, "created_ms": now_ms, **values})
    row = scoped.row(scoped.query(ai_providers).where(_PROVIDERS.name == name))
    assert row is not None
    return _provider(row)


def key_of(scoped: Scoped, sealer: Sealer, name: str) -> SecretText | None:
    """The key itself; None where there is none. Raises `InternalError` SECRET_DAMAGED."""
    sealed = scoped.value(
        scoped.query(ai_providers, _PROVIDERS.sealed).where(_PROVIDERS.name == name)
    )
    if sealed is None:
        return None
    return SecretText(sealer.open(sealed, _aad(scoped, name)).decode())


def providers(scoped: Scoped) -> list[ProviderRecord]:
    """Those that have a key, by name."""
    return [_provider(row) for row in scoped.rows(scoped.query(ai_providers).order_by("name"))]


def drop_key(scoped: Scoped, name: str) -> bool:
    """Whether there was one."""
    return scoped.drop(ai_providers, _PROVIDERS.name == name) == 1


def prompts_of(scoped: Scoped, provider: str, *, most: int) -> tuple[int, list[str]]:
    """How many prompts a provider has, and the names of the first."""
    names = scoped.rows(
        scoped.query(ai_prompts, _PROMPTS.name)
        .where(_PROMPTS.provider == provider)
        .order_by(_PROMPTS.name)
        .limit(most)
    )
    count = scoped.count(ai_prompts, _PROMPTS.provider == provider)
    return count, [str(row.name) for row in names]


# --- prompts ---


def add_prompt(scoped: Scoped, record: PromptRecord) -> bool:
    """False where the name is taken."""
    return scoped.add_missing(ai_prompts, {"id": record.id, "name": record.name, **_values(record)})


def put_prompt(scoped: Scoped, record: PromptRecord) -> None:
    """Other values for the prompt of this name; `spent_usd` stays as it is in the table."""
    values = _values(record)
    del values["spent_usd"]
    scoped.change(ai_prompts, _PROMPTS.name == record.name, **values)


def prompt(scoped: Scoped, name: str) -> PromptRecord | None:
    """By its name."""
    row = scoped.row(scoped.query(ai_prompts).where(_PROMPTS.name == name))
    return None if row is None else _prompt(row)


def prompts(scoped: Scoped, *, offset: int, limit: int) -> tuple[list[PromptRecord], int]:
    """A page of them by name, and how many there are.

    Ends early after AI_PROMPTS_PAGE bytes of texts; one prompt is always given.
    """
    size = octets(_PROMPTS.system, _PROMPTS.template, _PROMPTS.options).label("size")
    sizes = scoped.query(ai_prompts, _PROMPTS.seq, size).order_by(_PROMPTS.name)
    found = scoped.rows(sizes.offset(offset).limit(limit))
    fits = fitting((row.size for row in found), limits.AI_PROMPTS_PAGE.value)
    mine = _PROMPTS.seq.in_([row.seq for row in found[:fits]])
    query = scoped.query(ai_prompts).where(mine).order_by(_PROMPTS.name)
    return [_prompt(row) for row in scoped.rows(query)], count_prompts(scoped)


def count_prompts(scoped: Scoped) -> int:
    """Of this project."""
    return scoped.count(ai_prompts)


def drop_prompt(scoped: Scoped, name: str) -> bool:
    """Whether it was there."""
    return scoped.drop(ai_prompts, _PROMPTS.name == name) == 1


def spend(scoped: Scoped, name: str, usd: float, *, within: bool) -> bool:
    """Add to what a prompt has spent.

    Args:
        within: only while something of its budget is left.

    Returns:
        False where nothing was, or the prompt is gone.
    """
    left = or_(_PROMPTS.budget_usd.is_(None), _PROMPTS.spent_usd < _PROMPTS.budget_usd)
    where = (_PROMPTS.name == name, *((left,) if within else ()))
    return scoped.change(ai_prompts, *where, spent_usd=_PROMPTS.spent_usd + usd) == 1


def forget_spending(scoped: Scoped, name: str) -> None:
    """It has spent nothing."""
    scoped.change(ai_prompts, _PROMPTS.name == name, spent_usd=0.0)


def _aad(scoped: Scoped, name: str) -> tuple[str, ...]:
    return "ai_provider", scoped.project_id, name


def _provider(row: Row[Any]) -> ProviderRecord:
    return ProviderRecord(row.name, row.preview, row.created_ms, row.updated_ms)


def _values(record: PromptRecord) -> dict[str, Any]:
    return {
        "provider": record.provider,
        "model": record.model,
        "system": record.system,
        "template": record.template,
        "options": json.dumps(record.options),
        "client_invokable": record.client_invokable,
        "budget_usd": record.budget_usd,
        "spent_usd": record.spent_usd,
        "created_ms": record.created_ms,
        "updated_ms": record.updated_ms,
    }


def _prompt(row: Row[Any]) -> PromptRecord:
    return PromptRecord(
        id=row.id,
        name=row.name,
        provider=row.provider,
        model=row.model,
        system=row.system or "",
        template=row.template,
        options=json.loads(row.options),
        client_invokable=row.client_invokable,
        budget_usd=row.budget_usd,
        spent_usd=row.spent_usd,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
    )
