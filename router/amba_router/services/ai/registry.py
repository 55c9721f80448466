"""Prompts with their budgets, and providers' keys, over the admin plane. Source: contract E.10."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, to_builtins

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, iso_ms, page, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Reads
from amba_router.services.ai.models import (
    AiBudget,
    AiBudgetAnswer,
    AiDeleted,
    AiDeletedAnswer,
    AiNewPrompt,
    AiPromptAnswer,
    AiPromptChange,
    AiPromptList,
    AiPromptOptions,
    AiPromptRow,
    AiProviderAnswer,
    AiProviderList,
    AiProviderRow,
    AiSetBudget,
    AiSetProvider,
)
from amba_router.services.ai.service import AiService
from amba_router.services.ai.templates import variables_of
from amba_router.store.ai_rows import PromptRecord, ProviderRecord
from amba_runtime import entropy
from amba_runtime.secret import SecretText

_BASE = "/admin/projects/{project_id}/ai"
_PROMPTS = f"{_BASE}/prompts"
_PROMPT = f"{_PROMPTS}/{{name}}"
_PAGE = (faults.INVALID_LIMIT, faults.INVALID_INPUT)
_MISSING = (faults.PROMPT_NOT_FOUND,)


def operations(service: AiService) -> tuple[Operation, ...]:
    """Their part of the table."""
    prompts, keys = _Prompts(service), _Providers(service)
    return (
        Operation(
            "createAiPrompt",
            "POST",
            _PROMPTS,
            Auth.PROJECT,
            "Keep a prompt under a name.",
            prompts.create,
            {201: AiPromptAnswer},
            (faults.PROMPT_EXISTS, *faults.WRITES),
            reads=Reads.JSON,
            request=AiNewPrompt,
        ),
        Operation(
            "listAiPrompts",
            "GET",
            _PROMPTS,
            Auth.PROJECT,
            "Prompts by name; `limit` says how many where large ones end the page early.",
            prompts.list,
            {200: AiPromptList},
            _PAGE,
            query=(OFFSET, LIMIT),
        ),
        Operation(
            "getAiPrompt",
            "GET",
            _PROMPT,
            Auth.PROJECT,
            "One prompt.",
            prompts.get,
            {200: AiPromptAnswer},
            _MISSING,
        ),
        Operation(
            "changeAiPrompt",
            "PATCH",
            _PROMPT,
            Auth.PROJECT,
            "Change what is sent; the rest stays.",
            prompts.change,
            {200: AiPromptAnswer},
            (*_MISSING, *faults.WRITES),
            reads=Reads.JSON,
            request=AiPromptChange,
        ),
        Operation(
            "deleteAiPrompt",
            "DELETE",
            _PROMPT,
            Auth.PROJECT,
            "Delete a prompt.",
            prompts.delete,
            {200: AiDeletedAnswer},
            (*_MISSING, *faults.WRITES),
        ),
        Operation(
            "setAiPromptBudget",
            "PUT",
            f"{_PROMPT}/budget",
            Auth.PROJECT,
            "What a prompt may spend, in US dollars; `null` is no budget.",
            prompts.set_budget,
            {200: AiBudgetAnswer},
            (*_MISSING, *faults.WRITES),
            reads=Reads.JSON,
            request=AiSetBudget,
        ),
        *(
            Operation(
                f"getAiPrompt{what.title()}",
                "GET",
                f"{_PROMPT}/{what}",
                Auth.PROJECT,
                "What a prompt has spent, and may.",
                prompts.budget,
                {200: AiBudgetAnswer},
                _MISSING,
            )
            for what in ("budget", "spend")
        ),
        Operation(
            "setAiProvider",
            "POST",
            f"{_BASE}/providers",
            Auth.PROJECT,
            "Set a provider's API key: its calls go to it from here on.",
            keys.set,
            {201: AiProviderAnswer},
            faults.WRITES,
            reads=Reads.JSON,
            request=AiSetProvider,
        ),
        Operation(
            "listAiProviders",
            "GET",
            f"{_BASE}/providers",
            Auth.PROJECT,
            "Providers that have a key, which is never shown.",
            keys.list,
            {200: AiProviderList},
            _PAGE,
            query=(OFFSET, LIMIT),
        ),
        Operation(
            "deleteAiProvider",
            "DELETE",
            f"{_BASE}/providers/{{name}}",
            Auth.PROJECT,
            "Delete a provider's key: its calls are canned from here on.",
            keys.delete,
            {200: AiDeletedAnswer},
            (faults.PROVIDER_NOT_FOUND, faults.PROVIDER_HAS_PROMPTS, *faults.WRITES),
        ),
    )


class _Prompts:
    def __init__(self, service: AiService) -> None:
        self._service = service

    async def create(self, asked: Asked) -> Answer:
        body: AiNewPrompt = asked.body
        record = PromptRecord(
            id=entropy.uuid4(),
            name=body.name,
            provider=body.provider,
            model=body.model,
            system=body.system or "",
            template=body.template,
            options=to_builtins(body.options or AiPromptOptions()),
            client_invokable=body.client_invokable,
            budget_usd=body.budget_usd,
            spent_usd=0.0,
            created_ms=0,
            updated_ms=0,
        )
        record = await self._service.add_prompt(project_of(asked).id, record)
        return Answer(201, AiPromptAnswer(_row(record)))

    async def list(self, asked: Asked) -> Answer:
        offset, limit = page(asked)
        records, total = await self._service.prompts(
            project_of(asked).id, offset=offset, limit=limit
        )
        rows = [_row(record) for record in records]
        if offset + len(rows) < total:  # large ones end a page: offset + limit is the next one's
            limit = len(rows) or limit
        return Answer(200, AiPromptList(rows, total, offset, limit))

    async def get(self, asked: Asked) -> Answer:
        record = await self._service.prompt(project_of(asked).id, asked.path["name"])
        return Answer(200, AiPromptAnswer(_row(record)))

    async def change(self, asked: Asked) -> Answer:
        body: AiPromptChange = asked.body
        members = (name for name in body.__struct_fields__ if getattr(body, name) is not UNSET)
        changes: dict[str, Any] = {name: getattr(body, name) for name in members}
        if "options" in changes:
            changes["options"] = to_builtins(body.options or AiPromptOptions())
        if "system" in changes:
            changes["system"] = body.system or ""
        record = await self._service.change_prompt(
            project_of(asked).id, asked.path["name"], changes
        )
        return Answer(200, AiPromptAnswer(_row(record)))

    async def delete(self, asked: Asked) -> Answer:
        name = asked.path["name"]
        await self._service.drop_prompt(project_of(asked).id, name)
        return Answer(200, AiDeletedAnswer(AiDeleted(name, True)))

    async def budget(self, asked: Asked) -> Answer:
        record = await self._service.prompt(project_of(asked).id, asked.path["name"])
        return Answer(200, AiBudgetAnswer(_budget(record)))

    async def set_budget(self, asked: Asked) -> Answer:
        body: AiSetBudget = asked.body
        record = await self._service.change_prompt(
            project_of(asked).id,
            asked.path["name"],
            {"budget_usd": body.budget_usd},
            reset=body.reset,
        )
        return Answer(200, AiBudgetAnswer(_budget(record)))


class _Providers:
    def __init__(self, service: AiService) -> None:
        self._service = service

    async def set(self, asked: Asked) -> Answer:
        body: AiSetProvider = asked.body
        record = await self._service.set_key(
            project_of(asked).id, body.name, SecretText(body.api_key)
        )
        return Answer(201, AiProviderAnswer(_provider(record)))

    async def list(self, asked: Asked) -> Answer:
        offset, limit = page(asked)
        records = await self._service.providers(project_of(asked).id)
        shown = [_provider(record) for record in records[offset : offset + limit]]
        return Answer(200, AiProviderList(shown, len(records), offset, limit))

    async def delete(self, asked: Asked) -> Answer:
        name = asked.path["name"]
        await self._service.drop_key(project_of(asked).id, name)
        return Answer(200, AiDeletedAnswer(AiDeleted(name, True)))


def _row(record: PromptRecord) -> AiPromptRow:
    return AiPromptRow(
        id=record.id,
        name=record.name,
        provider=record.provider,
        model=record.model,
        template=record.template,
        system=record.system or None,
        options=record.options,
        variables=variables_of(record.system, record.template),
        client_invokable=record.client_invokable,
        budget_usd=record.budget_usd,
        spent_usd=record.spent_usd,
        created_at=iso_ms(record.created_ms),
        updated_at=iso_ms(record.updated_ms),
    )


def _budget(record: PromptRecord) -> AiBudget:
    left = None if record.budget_usd is None else max(0.0, record.budget_usd - record.spent_usd)
    return AiBudget(record.name, record.budget_usd, record.spent_usd, left)


def _provider(record: ProviderRecord) -> AiProviderRow:
    return AiProviderRow(
        record.name, record.preview, iso_ms(record.created_ms), iso_ms(record.updated_ms)
    )
