"""The bodies of the AI endpoints, both ways. Source: contract E.10; what it does not name, ours."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from amba_router.api.models import Count, Iso
from amba_router.services.ai.embeddings import AiEmbeddings
from amba_router.services.ai.upstream import Provider
from amba_runtime import limits

Slug = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,63}$", examples=["daily-summary"])]
"""A prompt's name: of a file, too."""

Key = Annotated[
    str,
    Meta(
        min_length=limits.AI_KEY_CHARS_MIN.value,
        max_length=limits.AI_KEY_CHARS.value,
        pattern=r"^[\x21-\x7e]*$",
    ),
]
Words = Annotated[str, Meta(max_length=limits.AI_TEMPLATE_CHARS.value)]
ModelName = Annotated[str, Meta(min_length=1, max_length=200)]
Usd = Annotated[float, Meta(ge=0, le=1_000_000)]
Tokens = Annotated[int, Meta(ge=1, le=1_000_000)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Variables = Annotated[dict[str, Any], Meta(max_length=limits.AI_VARIABLES.value)]
Chat = Literal["anthropic", "openai"]
MessageList = Annotated[list[dict[str, Any]], Meta(max_length=limits.AI_MESSAGES.value)]


# --- providers ---


class AiSetProvider(Struct, forbid_unknown_fields=True):
    name: Provider
    api_key: Key


class AiProviderRow(Struct):
    name: str
    api_key_preview: str
    created_at: Iso
    updated_at: Iso


class AiProviderAnswer(Struct):
    data: AiProviderRow


class AiProviderList(Struct):
    data: list[AiProviderRow]
    total: Count
    offset: Count
    limit: Count


class AiDeleted(Struct):
    name: str
    deleted: bool


class AiDeletedAnswer(Struct):
    data: AiDeleted


# --- prompts ---


class AiPromptOptions(Struct, forbid_unknown_fields=True):
    """What goes to the provider with every call."""

    max_tokens: Tokens = 1024
    temperature: Temperature | None = None
    stop: Annotated[list[str], Meta(max_length=16)] = []


class AiNewPrompt(Struct, kw_only=True, forbid_unknown_fields=True):
    name: Slug
    provider: Chat = "anthropic"
    model: ModelName
    template: Annotated[Words, Meta(min_length=1)]
    system: Words | None = None
    options: AiPromptOptions | None = None
    client_invokable: bool = False
    budget_usd: Usd | None = None


class AiPromptChange(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is absent stays as it is."""

    provider: Chat | UnsetType = UNSET
    model: ModelName | UnsetType = UNSET
    template: Annotated[Words, Meta(min_length=1)] | UnsetType = UNSET
    system: Words | UnsetType | None = UNSET
    options: AiPromptOptions | UnsetType | None = UNSET
    client_invokable: bool | UnsetType = UNSET
    budget_usd: Usd | UnsetType | None = UNSET


class AiPromptRow(Struct, kw_only=True):
    id: str
    name: str
    provider: str
    model: str
    template: str
    system: str | None
    options: dict[str, Any]
    variables: list[str]
    client_invokable: bool
    budget_usd: float | None
    spent_usd: float
    created_at: Iso
    updated_at: Iso


class AiPromptAnswer(Struct):
    data: AiPromptRow


class AiPromptList(Struct):
    data: list[AiPromptRow]
    total: Count
    offset: Count
    limit: Count


class AiSetBudget(Struct, forbid_unknown_fields=True):
    """`reset` forgets what was spent."""

    budget_usd: Usd | None
    reset: bool = False


class AiBudget(Struct):
    name: str
    budget_usd: float | None
    spent_usd: float
    remaining_usd: float | None


class AiBudgetAnswer(Struct):
    data: AiBudget


# --- calls ---


class AiClientMessages(Struct, kw_only=True):
    """Of the client plane, by a prompt's name (contract E.10, S0); `stream` is ours."""

    prompt_slug: Slug
    variables: Variables = {}
    max_tokens: Tokens | None = None
    temperature: Temperature | None = None
    enable_prompt_cache: bool = False
    stream: bool = False


class AiInvoke(Struct, kw_only=True):
    """`context` has the variables; `messages` follow the prompt's own."""

    context: Variables = {}
    messages: MessageList = []
    max_tokens: Tokens | None = None


class AiAdminMessages(Struct, kw_only=True):
    """By a prompt's name, or with messages of one's own."""

    prompt_slug: Slug | None = None
    variables: Variables = {}
    provider: Chat = "anthropic"
    model: ModelName | None = None
    messages: MessageList = []
    system: Words | None = None
    max_tokens: Tokens | None = None
    temperature: Temperature | None = None


class AiReply(Struct):
    """What the provider said, in its own shape."""

    data: dict[str, Any]


class AiEmbeddingsAnswer(Struct):
    data: AiEmbeddings
