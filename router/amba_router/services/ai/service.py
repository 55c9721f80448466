"""Providers' keys, prompts, and calls of either; what a prompt may spend. Source: contract E.10."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from amba_router.api import faults
from amba_router.api.operations import Fields
from amba_router.services.ai.canned import Usage
from amba_router.services.ai.completions import complete, failed
from amba_router.services.ai.embeddings import (
    SHORTENED,
    AiEmbed,
    AiEmbeddings,
    canned_embeddings,
    check,
    real_embeddings,
)
from amba_router.services.ai.fixtures import Fixtures
from amba_router.services.ai.templates import fill
from amba_router.services.ai.upstream import (
    JSON,
    Meter,
    Metered,
    Provider,
    Reply,
    Upstream,
    UpstreamError,
)
from amba_router.store import ai_rows
from amba_router.store.ai_rows import PromptRecord, ProviderRecord
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_runtime import limits
from amba_runtime.clock import Clock, time_ms
from amba_runtime.secret import SecretText

INPUT_USD = 3e-6
OUTPUT_USD = 15e-6
"""What a token is taken to cost, of any model: budgets are to be tried, not to be billed. Ours."""

SEARCHES = "find-nearest"
"""The prompt whose budget pays for texts that are searched for by their vectors. Ours."""

_NAMED = 10
_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller adds to a prompt.

    Attributes:
        messages: in the provider's form, after the prompt's own.
        trusted: may use prompts that are not for clients.
    """

    variables: Mapping[str, Any]
    messages: tuple[dict[str, Any], ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    cache: bool = False
    stream: bool = False
    trusted: bool = False


class AiService:
    """For all projects.

    Args:
        upstream: asks real providers; None never does.
    """

    def __init__(
        self,
        store: ProjectStore,
        states: OnDemand,
        clock: Clock,
        *,
        fixtures: Fixtures,
        upstream: Upstream | None = None,
    ) -> None:
        self._store = store
        self._states = states
        self._clock = clock
        self._fixtures = fixtures
        self._upstream = upstream

    def close(self) -> None:
        """End kept connections to providers. Idempotent."""
        if self._upstream is not None:
            self._upstream.close()

    # --- providers ---

    async def set_key(self, project_id: str, name: str, key: SecretText) -> ProviderRecord:
        """Seal a provider's API key; another one takes its place."""
        sealer = (await self._states.state()).sealer
        shown = f"****{key.reveal()[-4:]}"
        now_ms = time_ms(self._clock)
        return await self._store.write(
            project_id, lambda s: ai_rows.set_key(s, sealer, name, key, shown, now_ms)
        )

    async def providers(self, project_id: str) -> list[ProviderRecord]:
        """Those that have a key."""
        return await self._store.read(project_id, ai_rows.providers)

    async def drop_key(self, project_id: str, name: str) -> None:
        """Raises `Refused` PROVIDER_NOT_FOUND, PROVIDER_HAS_PROMPTS."""

        def work(s: Scoped) -> None:
            if not ai_rows.drop_key(s, name):
                raise faults.PROVIDER_NOT_FOUND.refuse(
                    "this provider has no key here", {"resource": "provider", "id": name[:64]}
                )
            count, names = ai_rows.prompts_of(s, name, most=_NAMED)
            if count:
                raise faults.PROVIDER_HAS_PROMPTS.refuse(
                    f"{count} prompts are for {name}: delete or change them first "
                    f"({', '.join(names)}{', ...' if count > _NAMED else ''})",
                    {"prompts": names, "count": count},
                )

        await self._store.write(project_id, work)

    # --- prompts ---

    async def add_prompt(self, project_id: str, record: PromptRecord) -> PromptRecord:
        """Raises `Refused` PROMPT_EXISTS, CONFLICT where there are too many."""
        now_ms = time_ms(self._clock)
        record = replace(record, created_ms=now_ms, updated_ms=now_ms)

        def work(s: Scoped) -> None:
            if ai_rows.count_prompts(s) >= limits.AI_PROMPTS.value:
                raise faults.CONFLICT.refuse(
                    f"the project has {limits.AI_PROMPTS.value} prompts; "
                    "delete one that is not needed any more"
                )
            if not ai_rows.add_prompt(s, record):
                raise faults.PROMPT_EXISTS.refuse(
                    f"there is a prompt {record.name} already; change it with PATCH",
                    {"resource": "prompt", "id": record.name},
                )

        await self._store.write(project_id, work)
        return record

    async def prompt(self, project_id: str, name: str) -> PromptRecord:
        """Raises `Refused` PROMPT_NOT_FOUND."""
        return await self._store.read(project_id, lambda s: _prompt(s, name))

    async def prompts(
        self, project_id: str, *, offset: int, limit: int
    ) -> tuple[list[PromptRecord], int]:
        """A page of them by name, and how many there are."""
        return await self._store.read(
            project_id, lambda s: ai_rows.prompts(s, offset=offset, limit=limit)
        )

    async def change_prompt(
        self, project_id: str, name: str, changes: Mapping[str, Any], *, reset: bool = False
    ) -> PromptRecord:
        """Other values for some of its members; `reset` forgets what it spent.

        Raises:
            Refused: PROMPT_NOT_FOUND.
        """
        now_ms = time_ms(self._clock)

        def work(s: Scoped) -> PromptRecord:
            record = replace(_prompt(s, name), updated_ms=now_ms, **changes)
            ai_rows.put_prompt(s, record)
            if reset:
                ai_rows.forget_spending(s, name)
            return _prompt(s, name)

        return await self._store.write(project_id, work)

    async def drop_prompt(self, project_id: str, name: str) -> None:
        """Raises `Refused` PROMPT_NOT_FOUND."""

        def work(s: Scoped) -> None:
            if not ai_rows.drop_prompt(s, name):
                raise _no_prompt(name)

        await self._store.write(project_id, work)

    # --- calls ---

    async def call(
        self, project_id: str, provider: Provider, raw: bytes, headers: Fields = ()
    ) -> Reply:
        """One call with a body in the provider's own form. Raises as `complete`."""
        key = await self._key(project_id, provider)
        return await complete(
            provider, raw, fixture=None, key=key, upstream=self._upstream, headers=headers
        )

    async def chat(
        self, project_id: str, provider: Provider, model: str, system: str, wanted: Wanted
    ) -> Reply:
        """One call with messages and without a prompt. Raises as `complete`."""
        raw = body_of(provider, model, system, wanted.messages, wanted, {})
        return await self.call(project_id, provider, raw, ((b"content-type", JSON),))

    async def embed(self, project_id: str, body: AiEmbed) -> AiEmbeddings | Reply:
        """Vectors; or what a real provider refused, as it said it. Raises `Refused`."""
        check(body)
        key = await self._key(project_id, body.provider)
        if key is None:
            return await canned_embeddings(body)
        return await real_embeddings(body, key, self._upstream)

    async def vector(
        self, project_id: str, text: str, *, provider: str, model: str, dimension: int
    ) -> Sequence[float]:
        """One text's vector, for a search by text.

        What it costs is counted with the prompt SEARCHES, where there is one: its budget bounds
        what those who search may spend.

        Args:
            dimension: how many numbers are wanted; a real model may give as many as it has.

        Raises:
            Refused: INVALID_INPUT, PAYLOAD_TOO_LARGE, NOT_EMULATED, AI_PROVIDER_FAILED,
                AI_BUDGET_EXCEEDED.
        """
        if provider not in set(Provider):
            raise faults.INVALID_INPUT.refuse(
                f"{provider[:64]!r} is no provider of embeddings: {', '.join(Provider)}",
                {"field": "$.embedding_provider"},
            )
        body = AiEmbed(provider=Provider(provider), model=model, input=text)
        check(body)
        sealer = (await self._states.state()).sealer
        payer, key = await self._store.read(
            project_id,
            lambda s: (ai_rows.prompt(s, SEARCHES), ai_rows.key_of(s, sealer, body.provider)),
        )
        if payer is not None and payer.exhausted:
            raise _spent(payer)
        if key is None or model.startswith(SHORTENED):
            body.dimensions = dimension
        made = await (
            canned_embeddings(body) if key is None else real_embeddings(body, key, self._upstream)
        )
        if isinstance(made, Reply):
            raise failed(provider, f"it answered {made.status}")
        if payer is not None:
            usage = Usage(input_tokens=made.usage.input_tokens)
            within = key is None  # nothing was paid for yet: nobody gets more than is left
            if not await self._spend(project_id, SEARCHES, usage, within=within) and within:
                raise _spent(payer)
        if not made.embeddings:
            raise failed(provider, "its reply has no vector")
        return made.embeddings[0]

    async def invoke(
        self, project_id: str, name: str, wanted: Wanted, *, only: Provider | None = None
    ) -> Reply:
        """One call of a prompt; it is paid for before its reply leaves, or as its stream ends.

        Args:
            only: the provider whose form the caller reads.

        Raises:
            Refused: PROMPT_NOT_FOUND, NOT_CLIENT_INVOKABLE, MISSING_VARIABLES,
                AI_BUDGET_EXCEEDED, INVALID_INPUT, and as `complete`.
        """
        record = await self.prompt(project_id, name)
        if not (record.client_invokable or wanted.trusted):
            raise faults.NOT_CLIENT_INVOKABLE.refuse(
                f"the prompt {name} is not for clients; set client_invokable, "
                "or call it from a function"
            )
        provider = Provider(record.provider)
        if only not in (None, provider):
            raise faults.INVALID_INPUT.refuse(
                f"the prompt {name} is for {provider}: use POST /client/ai/prompts/{name}/invoke",
                {"field": "$.prompt_slug"},
            )
        system, text = fill((record.system, record.template), wanted.variables)
        messages = [{"role": "user", "content": text}, *wanted.messages]
        raw = body_of(provider, record.model, system, messages, wanted, record.options)
        if record.exhausted:
            raise _spent(record)
        fixture = await self._fixtures.of(name)
        reply = await complete(
            provider,
            raw,
            fixture=fixture,
            key=await self._key(project_id, provider) if fixture is None else None,
            upstream=self._upstream,
            headers=((b"content-type", JSON),),
        )
        return await self._paid(project_id, record, reply)

    async def _paid(self, project_id: str, record: PromptRecord, reply: Reply) -> Reply:
        if reply.usage is not None:  # known beforehand: nobody gets more than is left
            within, usage = reply.emulated, reply.usage
            if not await self._spend(project_id, record.name, usage, within=within):
                raise _spent(record)
            return reply
        assert not isinstance(reply.content, bytes), "a real provider's reply comes in pieces"
        if reply.content_type.startswith(b"text/event-stream"):

            async def told(usage: Usage) -> None:
                await self._spend(project_id, record.name, usage, within=False)

            return replace(reply, content=Metered(reply.content, told))
        meter = Meter()
        try:
            whole = await reply.whole()
        except UpstreamError as error:
            raise failed(record.provider, str(error)) from None
        meter.see(whole)
        await self._spend(project_id, record.name, meter.usage, within=False)
        return replace(reply, content=whole, usage=meter.usage)

    async def _spend(self, project_id: str, name: str, usage: Usage, *, within: bool) -> bool:
        usd = cost_usd(usage)
        return not usd or await self._store.write(
            project_id, lambda s: ai_rows.spend(s, name, usd, within=within)
        )

    async def _key(self, project_id: str, provider: Provider) -> SecretText | None:
        sealer = (await self._states.state()).sealer
        return await self._store.read(project_id, lambda s: ai_rows.key_of(s, sealer, provider))


def cost_usd(usage: Usage) -> float:
    """An estimate."""
    return usage.input_tokens * INPUT_USD + usage.output_tokens * OUTPUT_USD


def body_of(
    provider: Provider,
    model: str,
    system: str,
    messages: Sequence[Mapping[str, Any]],
    wanted: Wanted,
    options: Mapping[str, Any],
) -> bytes:
    """What a provider is sent.

    Args:
        system: "" is none.
        wanted: its `max_tokens` and `temperature` win over those of `options`.
    """
    temperature = wanted.temperature
    if temperature is None:
        temperature = options.get("temperature")
    most = wanted.max_tokens or options.get("max_tokens", _TOKENS)
    stop = options.get("stop")
    body: dict[str, Any] = {"model": model}
    if provider is Provider.ANTHROPIC:
        body["max_tokens"] = most
        if system:
            cached = {"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}
            body["system"] = [cached] if wanted.cache else system
        if stop:
            body["stop_sequences"] = stop
    else:
        body["max_completion_tokens"] = most
        if system:
            messages = [{"role": "system", "content": system}, *messages]
        if stop:
            body["stop"] = stop
    if temperature is not None:
        body["temperature"] = temperature
    if wanted.stream:
        body["stream"] = True
    return json.dumps({**body, "messages": list(messages)}, ensure_ascii=False).encode()


def _prompt(s: Scoped, name: str) -> PromptRecord:
    record = ai_rows.prompt(s, name)
    if record is None:
        raise _no_prompt(name)
    return record


def _no_prompt(name: str) -> faults.Refused:
    return faults.PROMPT_NOT_FOUND.refuse(
        "this project has no prompt of this name", {"resource": "prompt", "id": name[:64]}
    )


def _spent(record: PromptRecord) -> faults.Refused:
    return faults.AI_BUDGET_EXCEEDED.refuse(
        f"the prompt {record.name} has spent its budget of {record.budget_usd} US dollars; "
        "set another one, or reset what was spent",
        {"budget_usd": record.budget_usd, "spent_usd": record.spent_usd},
    )
