"""Contract part E as a table: one row per method and path of priority 1 and 2, each with a call
that succeeds and one that is refused.

`{name}` in paths and bodies stands for what `test_e_endpoints` has made: ids, keys, tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CLIENT = "client"  # an API key and the session of a user
VISITOR = "visitor"  # an API key alone
ADMIN = "admin"  # the developer's token
INTERNAL = "internal"  # the project's internal token
NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and what it is answered.

    Attributes:
        code: of the refusal; "" for a success.
        headers: besides the credentials.
        without: no credentials at all.
    """

    status: int
    code: str = ""
    body: Any = None
    query: str = ""
    path: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    headers: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    without: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one path (without `/v1`), for one kind of caller."""

    method: str
    path: str
    who: str
    good: Call
    bad: Call

    @property
    def id(self) -> str:
        return f"{self.method} {self.path}"


P = "/admin/projects/{project}"
NO_LOGIN = Call(401, "UNAUTHORIZED", without=True)
PNG = {"bucket": "pictures", "filename": "a.png", "mime_type": "image/png", "size_bytes": 5}


def rows() -> list[Row]:
    """All of them, in the order in which they can be called."""
    return [*_projects(), *_auth(), *_users(), *_collections(), *_events(), *_storage(),
            *_config(), *_currencies(), *_ai(), *_email(), *_segments(), *_fan_out(), *_push(),
            *_queues()]  # fmt: skip


def _projects() -> list[Row]:
    return [
        Row("POST", "/admin/projects", ADMIN, Call(201, body={"name": "Another"}),
            Call(400, "INVALID_INPUT", {"name": ""})),
        Row("GET", "/admin/projects", ADMIN, Call(200), NO_LOGIN),
        Row("GET", P, ADMIN, Call(200), Call(404, "PROJECT_NOT_FOUND", path={"project": "nope"})),
        Row("PATCH", P, ADMIN, Call(200, body={"name": "Renamed"}),
            Call(400, "INVALID_INPUT", {"platform": "toaster"})),
        Row("DELETE", "/admin/projects/{doomed}", ADMIN, Call(200),
            Call(404, "PROJECT_NOT_FOUND", path={"doomed": "nope"})),
        Row("POST", f"{P}/api-keys", ADMIN,
            Call(201, body={"key_type": "client", "environment": "development"}),
            Call(400, "INVALID_INPUT", {"key_type": "skeleton"})),
        Row("DELETE", f"{P}/api-keys/{{spare_key}}", ADMIN, Call(200),
            Call(404, "API_KEY_NOT_FOUND", path={"spare_key": "nope"})),
        Row("GET", f"{P}/provisioning-status", ADMIN, Call(200), NO_LOGIN),
        Row("POST", f"{P}/reprovision", ADMIN, Call(200), NO_LOGIN),
        Row("POST", "/auth/validate", NOBODY, Call(200, body={"api_key": "{client_key}"}),
            Call(400, "INVALID_INPUT", {"api_key": 1})),
        Row("GET", f"{P}/internal-credentials", ADMIN, Call(200), NO_LOGIN),
    ]  # fmt: skip


def _auth() -> list[Row]:
    login = {"email": "ann@example.com", "password": "correct horse"}
    return [
        Row("POST", "/client/auth/anonymous", VISITOR, Call(201, body={}), NO_LOGIN),
        Row("POST", "/client/auth/email/signup", VISITOR, Call(201, body=login),
            Call(400, "INVALID_EMAIL", {**login, "email": "not an address"})),
        Row("POST", "/client/auth/email/login", VISITOR, Call(200, body=login),
            Call(401, "INVALID_CREDENTIALS", {**login, "password": "wrong battery"})),
        Row("POST", "/client/auth/refresh", VISITOR, Call(200, body={"refresh_token": "{refresh}"}),
            Call(401, "INVALID_TOKEN", {"refresh_token": "nope"})),
        Row("POST", "/client/auth/logout", VISITOR, Call(200, body={"refresh_token": "nope"}),
            Call(400, "INVALID_INPUT", {})),
    ]  # fmt: skip


def _users() -> list[Row]:
    return [
        Row("GET", "/client/ping", VISITOR, Call(200), NO_LOGIN),
        Row("GET", "/client/users/me", CLIENT, Call(200), NO_LOGIN),
        Row("PATCH", "/client/users/me", CLIENT, Call(200, body={"timezone": "Europe/Paris"}),
            Call(400, "INVALID_TIMEZONE", {"timezone": "Mars/Olympus"})),
        Row("GET", f"{P}/users", ADMIN, Call(200, query="limit=2&search=ann"),
            Call(400, "INVALID_LIMIT", query="limit=many")),
        Row("GET", f"{P}/users/{{user}}", ADMIN, Call(200),
            Call(404, "USER_NOT_FOUND", path={"user": "nope"})),
        Row("GET", f"{P}/users/{{user}}/events", ADMIN, Call(200),
            Call(404, "USER_NOT_FOUND", path={"user": "nope"})),
    ]  # fmt: skip


def _collections() -> list[Row]:
    made = {
        "name": "books",
        "columns": [
            {"name": "title", "type": "text"},
            {"name": "pages", "type": "integer", "nullable": True},
            {"name": "embedding", "type": "vector", "dimension": 3},
        ],
        "indexes": [{"columns": ["pages desc"]}],
    }
    row = {"title": "Walden", "pages": 352, "embedding": [1, 0, 0]}
    query = "query=%7B%22where%22%3A%7B%22pages%22%3A%7B%22gt%22%3A1%7D%7D%7D"
    bad_query = "query=%7B%22where%22%3A%7B%22nope%22%3A1%7D%7D"
    admin, client = f"{P}/collections", "/client/collections/books"
    nearest = {"to_vector": [1, 0, 0], "k": 2}
    return [
        Row("POST", admin, ADMIN, Call(201, body=made),
            Call(400, "RESERVED_NAME", {**made, "name": "pg_books"})),
        Row("GET", admin, ADMIN, Call(200), NO_LOGIN),
        Row("GET", f"{admin}/{{collection}}", ADMIN, Call(200, path={"collection": "books"}),
            Call(404, "COLLECTION_NOT_FOUND", path={"collection": "nope"})),
        Row("PATCH", f"{admin}/{{collection}}", ADMIN,
            Call(200, body={"add_column": {"name": "note", "type": "text", "nullable": True}},
                 path={"collection": "books"}),
            Call(400, "CONFIRM_REQUIRED", {"drop_column": "pages"}, path={"collection": "books"})),
        Row("GET", f"{admin}/books/rows", ADMIN, Call(200, query=query),
            Call(400, "INVALID_FILTER", query=bad_query)),
        Row("POST", f"{admin}/books/rows", ADMIN, Call(201, body=row),
            Call(400, "INVALID_VALUE", {**row, "pages": "many"})),
        Row("GET", f"{admin}/books/rows/{{row}}", ADMIN, Call(200),
            Call(404, "ROW_NOT_FOUND", path={"row": "00000000-0000-4000-8000-000000000000"})),
        Row("PATCH", f"{admin}/books/rows/{{row}}", ADMIN, Call(200, body={"pages": 353}),
            Call(400, "INVALID_VALUE", {"pages": [1]})),
        Row("DELETE", f"{admin}/books/rows/{{row}}", ADMIN, Call(200),
            Call(404, "ROW_NOT_FOUND", path={"row": "00000000-0000-4000-8000-000000000000"})),
        Row("POST", f"{admin}/books/rows:batch", ADMIN, Call(201, body={"rows": [row, row]}),
            Call(413, "BATCH_TOO_LARGE", {"rows": [row] * 501})),
        Row("POST", client, CLIENT, Call(201, body=row), NO_LOGIN),
        Row("GET", client, CLIENT, Call(200, query=query),
            Call(400, "INVALID_FILTER", query=bad_query)),
        Row("GET", f"{client}/count", CLIENT, Call(200, query=query),
            Call(400, "INVALID_FILTER", query=bad_query)),
        Row("POST", f"{client}/find", CLIENT, Call(200, body={"limit": 2}),
            Call(400, "INVALID_QUERY", {"limit": 0})),
        Row("POST", f"{client}/find-nearest", CLIENT, Call(200, body=nearest),
            Call(400, "INVALID_QUERY", {**nearest, "to_vector": [1]})),
        Row("GET", f"{client}/{{own_row}}", CLIENT, Call(200),
            Call(404, "ROW_NOT_FOUND", path={"own_row": "{row}"})),
        Row("PATCH", f"{client}/{{own_row}}", CLIENT, Call(200, body={"set": {"pages": 1}}),
            Call(404, "ROW_NOT_FOUND", {"set": {"pages": 1}}, path={"own_row": "{row}"})),
        Row("PATCH", client, CLIENT,
            Call(200, body={"where": {"pages": 1}, "set": {"pages": 2}}),
            Call(400, "INVALID_QUERY", {"where": {}, "set": {"pages": 2}, "limit": 10_001})),
        Row("DELETE", f"{client}/{{own_row}}", CLIENT, Call(200),
            Call(404, "ROW_NOT_FOUND", path={"own_row": "{row}"})),
        Row("DELETE", client, CLIENT, Call(200, body={"where": {"pages": 352}}),
            Call(400, "INVALID_FILTER", {"where": {"nope": 1}})),
        Row("DELETE", f"{admin}/{{collection}}", ADMIN,
            Call(200, query="confirm=books", path={"collection": "books"}),
            Call(400, "CONFIRM_REQUIRED", path={"collection": "letters"})),
    ]  # fmt: skip


def _events() -> list[Row]:
    sent = {"event": "opened", "user_id": "{user}", "properties": {"n": 1}}
    return [
        Row("POST", "/client/events", CLIENT, Call(200, body={"event": "opened"}),
            Call(413, "BATCH_TOO_LARGE", {"events": [{"event": "x"}] * 501})),
        Row("POST", f"{P}/events", ADMIN, Call(201, body=sent),
            Call(400, "INVALID_INPUT", {"user_id": "{user}"})),
        Row("GET", f"{P}/events", ADMIN, Call(200, query="limit=1"),
            Call(400, "INVALID_CURSOR", query="cursor=nope")),
        Row("GET", f"{P}/events/count", ADMIN, Call(200, query="since=2025-12-01T00:00:00Z"),
            Call(400, "INVALID_SINCE", query="since=yesterday")),
        Row("POST", f"{P}/audit-events", ADMIN, Call(201, body={"event_name": "x"}),
            Call(403, "PROJECT_FORBIDDEN", {"event_name": "x"},
                 headers={"authorization": "Bearer {internal}"})),
    ]  # fmt: skip


def _storage() -> list[Row]:
    track = {"bucket": "pictures", "key": "seen.png", "content_type": "image/png"}
    sign = {"bucket": "pictures", "key": "seen.png", "method": "GET"}
    return [
        Row("POST", "/client/storage/presign", CLIENT, Call(200, body=PNG),
            Call(413, "PAYLOAD_TOO_LARGE", {**PNG, "size_bytes": 200_000_000})),
        Row("POST", "/client/storage/commit", CLIENT,
            Call(200, body={"upload_id": "{upload}", "asset_id": "{asset}"}),
            Call(404, "UPLOAD_NOT_FOUND", {"upload_id": "nope", "asset_id": "nope"})),
        Row("POST", "/client/media/upload", CLIENT,
            Call(201, body={"filename": "b.png", "mime_type": "image/png", "size_bytes": 5}),
            Call(400, "INVALID_INPUT", {"filename": 1})),
        Row("GET", "/client/media", CLIENT, Call(200), NO_LOGIN),
        Row("GET", "/client/media/{asset}", CLIENT, Call(200),
            Call(404, "NOT_FOUND", path={"asset": "nope"})),
        Row("POST", "/client/media/presign", CLIENT, Call(200, body=sign),
            Call(400, "INVALID_INPUT", {**sign, "method": "TRACE"})),
        Row("DELETE", "/client/media/{asset}", CLIENT, Call(200),
            Call(404, "NOT_FOUND", path={"asset": "nope"})),
        Row("POST", f"{P}/media/track", INTERNAL, Call(200, body=track),
            Call(400, "INVALID_INPUT", {"bucket": "pictures"})),
        Row("POST", f"{P}/media/presign", INTERNAL, Call(200, body=sign),
            Call(400, "INVALID_INPUT", {**sign, "method": "TRACE"})),
        Row("POST", f"{P}/media/delete", INTERNAL,
            Call(200, body={"bucket": "pictures", "key": "seen.png"}),
            Call(404, "row_not_found", {"id": "nope"})),
    ]  # fmt: skip


def _config() -> list[Row]:
    key = f"{P}/config/{{config}}"
    value = {"key": "reward", "value": 5, "value_type": "number"}
    return [
        Row("POST", f"{P}/config", ADMIN, Call(201, body=value),
            Call(400, "INVALID_VALUE", {**value, "value": "five"})),
        Row("GET", f"{P}/config", ADMIN, Call(200), NO_LOGIN),
        Row("PATCH", key, ADMIN, Call(200, body={"value": 6}, path={"config": "reward"}),
            Call(404, "NOT_FOUND", {"value": 6}, path={"config": "nope"})),
        Row("PUT", key, ADMIN, Call(201, body={**value, "value": 7}, path={"config": "reward"}),
            Call(400, "INVALID_VALUE", {**value, "value": True}, path={"config": "reward"})),
        Row("GET", "/client/config", VISITOR, Call(200), NO_LOGIN),
        Row("DELETE", key, ADMIN, Call(200, path={"config": "reward"}),
            Call(401, "UNAUTHORIZED", path={"config": "reward"}, without=True)),
    ]  # fmt: skip


def _currencies() -> list[Row]:
    give = {"app_user_id": "{user}", "currency_code": "gems", "amount": 10}
    return [
        Row("POST", f"{P}/currencies", ADMIN, Call(201, body={"code": "stars", "name": "Stars"}),
            Call(400, "INVALID_INPUT", {"code": "stars"})),
        Row("GET", f"{P}/currencies", ADMIN, Call(200), NO_LOGIN),
        Row("PATCH", f"{P}/currencies/{{currency}}", ADMIN, Call(200, body={"name": "Jewels"}),
            Call(404, "CURRENCY_NOT_FOUND", {"name": "x"}, path={"currency": "nope"})),
        Row("POST", f"{P}/currencies/grant", ADMIN, Call(201, body=give),
            Call(404, "USER_NOT_FOUND", {**give, "app_user_id": "nope"})),
        Row("POST", f"{P}/currencies/spend", ADMIN, Call(201, body={**give, "amount": 1}),
            Call(409, "INSUFFICIENT_BALANCE", {**give, "amount": 1_000})),
        Row("GET", f"{P}/currencies/transactions/{{user}}", ADMIN, Call(200),
            Call(404, "USER_NOT_FOUND", path={"user": "nope"})),
        Row("GET", "/client/currencies", CLIENT, Call(200), NO_LOGIN),
        Row("GET", "/client/currencies/transactions", CLIENT, Call(200),
            Call(400, "INVALID_LIMIT", query="limit=0")),
        Row("DELETE", f"{P}/currencies/{{currency}}", ADMIN, Call(200),
            Call(404, "CURRENCY_NOT_FOUND", path={"currency": "nope"})),
    ]  # fmt: skip


def _ai() -> list[Row]:
    message = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": "hello"}],
    }
    embed = {"provider": "openai", "model": "text-embedding-3-small", "input": "hello"}
    provider = {"name": "mistral", "api_key": "sk-mis-0123456789"}
    prompt = {
        "name": "greet",
        "provider": "anthropic",
        "model": "claude-sonnet-4-5",
        "template": "Greet {{name}}",
    }
    one, none = f"{P}/ai/prompts/{{prompt}}", Call(404, "PROMPT_NOT_FOUND", path={"prompt": "nope"})
    greet = {"prompt": "greet"}
    return [
        Row("POST", "/ai/anthropic/messages", INTERNAL, Call(200, body=message), NO_LOGIN),
        Row("POST", "/ai/openai/chat/completions", INTERNAL, Call(200, body=message), NO_LOGIN),
        Row("POST", "/ai/embeddings", INTERNAL, Call(200, body=embed), NO_LOGIN),
        Row("POST", f"{P}/ai/prompts", ADMIN, Call(201, body=prompt),
            Call(409, "PROMPT_EXISTS", {**prompt, "name": "sum-up"})),
        Row("GET", f"{P}/ai/prompts", ADMIN, Call(200), NO_LOGIN),
        Row("GET", one, ADMIN, Call(200, path=greet), none),
        Row("PATCH", one, ADMIN, Call(200, body={"template": "Hail {{name}}"}, path=greet),
            Call(404, "PROMPT_NOT_FOUND", {"template": "x"}, path={"prompt": "nope"})),
        Row("PUT", f"{one}/budget", ADMIN, Call(200, body={"budget_usd": 5}, path=greet),
            Call(400, "INVALID_INPUT", {"budget_usd": -1}, path=greet)),
        Row("GET", f"{one}/budget", ADMIN, Call(200, path=greet), none),
        Row("GET", f"{one}/spend", ADMIN, Call(200, path=greet), none),
        Row("DELETE", one, ADMIN, Call(200, path=greet), none),
        Row("POST", "/client/ai/anthropic/messages", CLIENT,
            Call(200, body={"prompt_slug": "sum-up", "variables": {"title": "x"}}),
            Call(404, "PROMPT_NOT_FOUND", {"prompt_slug": "nope"})),
        Row("POST", "/client/ai/prompts/{prompt}/invoke", CLIENT,
            Call(200, body={"context": {"title": "x"}}, path={"prompt": "sum-up"}),
            Call(404, "PROMPT_NOT_FOUND", {}, path={"prompt": "nope"})),
        Row("POST", f"{P}/ai/messages", ADMIN, Call(200, body=message), NO_LOGIN),
        Row("POST", f"{P}/ai/embeddings", ADMIN, Call(200, body=embed), NO_LOGIN),
        Row("POST", f"{P}/ai/providers", ADMIN, Call(201, body=provider),
            Call(400, "INVALID_INPUT", {"name": "mistral", "api_key": "short"})),
        Row("GET", f"{P}/ai/providers", ADMIN, Call(200), NO_LOGIN),
        Row("DELETE", f"{P}/ai/providers/{{provider}}", ADMIN,
            Call(200, path={"provider": "mistral"}),
            Call(404, "PROVIDER_NOT_FOUND", path={"provider": "nope"})),
    ]  # fmt: skip


def _email() -> list[Row]:
    mail = {"to": {"email": "ann@example.com"}, "subject": "Hello", "text": "there"}
    bad = {**mail, "to": {"user_id": "nope"}}
    return [
        Row("POST", f"{P}/email/send", INTERNAL, Call(200, body=mail),
            Call(404, "USER_NOT_FOUND", bad)),
        Row("POST", "/client/email/send", CLIENT, Call(200, body={"template": "hi", "data": {}}),
            Call(400, "INVALID_BODY", {"data": {}})),
        Row("POST", "/admin/internal/email/send", INTERNAL, Call(200, body=mail),
            Call(404, "USER_NOT_FOUND", bad)),
    ]  # fmt: skip


def _segments() -> list[Row]:
    rules = {"operator": "AND", "conditions": [{"field": "timezone", "op": "exists"}]}
    segment = {"name": "Travellers", "rules": rules}
    one = f"{P}/segments/{{segment}}"
    return [
        Row("POST", f"{P}/segments", ADMIN, Call(201, body=segment),
            Call(400, "INVALID_SEGMENT_RULES", {**segment, "rules": {"operator": "XOR"}})),
        Row("GET", f"{P}/segments", ADMIN, Call(200), NO_LOGIN),
        Row("GET", one, ADMIN, Call(200), Call(404, "SEGMENT_NOT_FOUND", path={"segment": "nope"})),
        Row("PATCH", one, ADMIN, Call(200, body={"name": "Nomads"}),
            Call(404, "SEGMENT_NOT_FOUND", {"name": "x"}, path={"segment": "nope"})),
        Row("POST", f"{one}/evaluate", ADMIN, Call(200),
            Call(404, "SEGMENT_NOT_FOUND", path={"segment": "nope"})),
        Row("DELETE", one, ADMIN, Call(200),
            Call(404, "SEGMENT_NOT_FOUND", path={"segment": "nope"})),
    ]  # fmt: skip


def _fan_out() -> list[Row]:
    body = {"segment_id": "all", "invoke": {"function": "digest", "payload": {"n": 1}}}
    return [
        Row("POST", f"{P}/fan-out/segment", INTERNAL, Call(200, body=body),
            Call(404, "segment_or_function_not_found", {**body, "segment_id": "nope"})),
    ]  # fmt: skip


def _push() -> list[Row]:
    return [
        Row("POST", "/client/users/me/push-token", CLIENT,
            Call(201, body={"token": "t", "platform": "ios"}),
            Call(400, "INVALID_INPUT", {"token": "t", "platform": "toaster"})),
        Row("DELETE", "/client/users/me/push-token", CLIENT, Call(200, body={"token": "t"}),
            Call(400, "INVALID_INPUT", {})),
    ]  # fmt: skip


def _queues() -> list[Row]:
    bound = {"queue_name": "orders", "function_name": "worker"}
    return [
        Row("PUT", f"{P}/queue/bindings", ADMIN, Call(200, body=bound),
            Call(404, "FUNCTION_NOT_FOUND", {**bound, "function_name": "nope"})),
        Row("GET", f"{P}/queue/bindings", ADMIN, Call(200), NO_LOGIN),
        Row("POST", f"{P}/queue/send", INTERNAL, Call(200, body={"name": "orders", "payload": 1}),
            Call(404, "QUEUE_NOT_BOUND", {"name": "unbound"})),
        Row("DELETE", f"{P}/queue/bindings/{{queue}}", ADMIN, Call(200, query="confirm=orders"),
            Call(400, "CONFIRM_REQUIRED")),
    ]  # fmt: skip
