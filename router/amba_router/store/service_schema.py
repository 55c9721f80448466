"""The tables of the emulated services. Every one has `project_id`: see `scoped`.

Rows of collections lie in tables of their own, `coll_N`, which `collections.seq` names.
Times are Unix milliseconds; what is JSON is text.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from amba_router.store.schema import metadata


def _project(*, primary_key: bool = False) -> Column[Any]:
    owner = ForeignKey("projects.id", ondelete="CASCADE")
    return Column("project_id", Text, owner, nullable=False, primary_key=primary_key)


def _seq() -> Column[Any]:
    return Column("seq", Integer, primary_key=True)


# --- users (contract E.3, E.4) ---

app_users = Table(
    "app_users",
    metadata,
    _seq(),
    _project(),
    Column("id", Text, nullable=False),
    Column("email", Text),
    Column("email_key", Text),
    Column("password", Text),
    Column("display_name", Text),
    Column("avatar_url", Text),
    Column("external_id", Text),
    Column("anonymous_id", Text),
    Column("auth_providers", Text, nullable=False),
    Column("properties", Text, nullable=False),
    Column("timezone", Text),
    Column("first_seen_ms", BigInteger, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False),
    UniqueConstraint("project_id", "id", name="app_users_id"),
    UniqueConstraint("project_id", "email_key", name="app_users_email"),
    Index("app_users_seen", "project_id", "last_seen_ms"),
    sqlite_autoincrement=True,
)
"""`email_key` is the address as it is compared; `password` a bcrypt hash."""

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    _project(),
    Column("user_id", Text, nullable=False),
    Column("family", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger),
    Column("revoked", Boolean, nullable=False),
    Index("refresh_tokens_family", "project_id", "family"),
    Index("refresh_tokens_user", "project_id", "user_id"),
)
"""By SHA-256. One that is used twice revokes its `family`: all that came of one sign-in."""

push_tokens = Table(
    "push_tokens",
    metadata,
    _seq(),
    _project(),
    Column("id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("bundle_id", Text),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    UniqueConstraint("project_id", "token", name="push_tokens_token"),
    sqlite_autoincrement=True,
)
"""Source: contract E.14."""

segments = Table(
    "segments",
    metadata,
    _seq(),
    _project(),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("rules", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("evaluated_ms", BigInteger),
    UniqueConstraint("project_id", "id", name="segments_id"),
    sqlite_autoincrement=True,
)
"""Source: contract E.13."""

segment_members = Table(
    "segment_members",
    metadata,
    _project(primary_key=True),
    Column("segment_id", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Index("segment_members_user", "project_id", "user_id"),
)
"""As of the last evaluation."""

# --- collections (contract E.5) ---

collections = Table(
    "collections",
    metadata,
    _seq(),
    _project(),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("columns", Text, nullable=False),
    Column("indexes", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("migrated_ms", BigInteger, nullable=False),
    UniqueConstraint("project_id", "name", name="collections_name"),
    sqlite_autoincrement=True,
)
"""`columns`, `indexes`: as declared, in order; `options` has `read_policy` and `search`."""

# --- remote config (contract E.8) ---

configs = Table(
    "configs",
    metadata,
    _seq(),
    _project(),
    Column("id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("value_type", Text, nullable=False),
    Column("description", Text),
    Column("conditions", Text, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    UniqueConstraint("project_id", "key", name="configs_key"),
    sqlite_autoincrement=True,
)

# --- events (contract E.6) ---

events = Table(
    "events",
    metadata,
    _seq(),
    _project(),
    Column("id", Text, nullable=False),
    Column("user_id", Text),
    Column("name", Text, nullable=False),
    Column("properties", Text, nullable=False),
    Column("occurred_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("event_id", Text),
    UniqueConstraint("project_id", "event_id", name="events_once"),
    Index("events_time", "project_id", "occurred_ms", "id"),
    Index("events_user", "project_id", "user_id", "occurred_ms"),
    sqlite_autoincrement=True,
)
"""`event_id` is the caller's: the same one is stored once."""

audit_events = Table(
    "audit_events",
    metadata,
    _seq(),
    _project(),
    Column("id", Text, nullable=False),
    Column("developer_id", Text, nullable=False),
    Column("user_id", Text),
    Column("name", Text, nullable=False),
    Column("properties", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index("audit_events_project", "project_id"),
    sqlite_autoincrement=True,
)
"""Only ever added to."""

# --- currencies (contract E.9) ---

currencies = Table(
    "currencies",
    metadata,
    _seq(),
    _project(),
    Column("id", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("is_premium", Boolean, nullable=False),
    Column("initial_balance", BigInteger, nullable=False),
    Column("max_balance", BigInteger),
    Column("auto_recharge_amount", BigInteger),
    Column("auto_recharge_interval_hours", Integer),
    Column("recharging_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    UniqueConstraint("project_id", "code", name="currencies_code"),
    sqlite_autoincrement=True,
)
"""`recharging_ms`: since when `auto_recharge_*` are what they are."""

balances = Table(
    "balances",
    metadata,
    _project(primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("currency_code", Text, primary_key=True),
    Column("balance", BigInteger, nullable=False),
    Column("lifetime_earned", BigInteger, nullable=False),
    Column("lifetime_spent", BigInteger, nullable=False),
    Column("recharged_ms", BigInteger, nullable=False),
    Column("transactions", Integer, nullable=False),
)
"""`transactions`: how many there have been; only the newest are kept."""

currency_transactions = Table(
    "currency_transactions",
    metadata,
    _seq(),
    _project(),
    Column("id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("currency_code", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("balance_after", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("reason", Text),
    Column("reference_id", Text),
    Column("created_ms", BigInteger, nullable=False),
    Index("currency_transactions_user", "project_id", "user_id", "seq"),
    Index("currency_transactions_kept", "project_id", "user_id", "currency_code", "seq"),
    Index(
        "currency_transactions_once",
        *("project_id", "user_id", "currency_code", "type", "reference_id"),
        unique=True,
    ),
    sqlite_autoincrement=True,
)
"""`amount` has the sign of what it does to the balance."""

# --- media (contract E.7) ---

media_assets = Table(
    "media_assets",
    metadata,
    _seq(),
    _project(),
    Column("id", Text, nullable=False),
    Column("upload_id", Text, nullable=False),
    Column("user_id", Text),
    Column("folder_id", Text),
    Column("bucket", Text, nullable=False),
    Column("object_key", Text, nullable=False),
    Column("filename", Text),
    Column("mime_type", Text, nullable=False),
    Column("size_bytes", BigInteger),
    Column("state", Text, nullable=False),
    Column("retention_days", Integer),
    Column("metadata", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("committed_ms", BigInteger),
    Column("purge_ms", BigInteger),
    UniqueConstraint("project_id", "id", name="media_assets_id"),
    UniqueConstraint("project_id", "upload_id", name="media_assets_upload"),
    Index("media_assets_object", "project_id", "object_key"),
    Index("media_assets_purge", "project_id", "purge_ms"),
    Index("media_assets_user", "project_id", "user_id", "seq"),
    sqlite_autoincrement=True,
)
"""`state`: presigned (a commit ends it), created (its PUT does), committed, gone (being deleted).

`object_key` is its object's in STORAGE, which begins with the bucket and a slash.
`expires_ms` is the presigned URL's end, `purge_ms` when the daily purge takes it.
"""

# --- email (contract E.11) ---

emails = Table(
    "emails",
    metadata,
    _seq(),
    _project(),
    Column("id", Text, nullable=False),
    Column("user_id", Text),
    Column("recipient", Text, nullable=False),
    Column("template", Text),
    Column("subject", Text, nullable=False),
    Column("html", Text),
    Column("text", Text),
    Column("data", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("project_id", "id", name="emails_id"),
    sqlite_autoincrement=True,
)
"""The outbox: nothing in it is ever sent."""

# --- AI (contract E.10) ---

ai_providers = Table(
    "ai_providers",
    metadata,
    _project(primary_key=True),
    Column("name", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("preview", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)
"""`sealed` is the API key, for its project and name alone."""

ai_prompts = Table(
    "ai_prompts",
    metadata,
    _seq(),
    _project(),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("system", Text),
    Column("template", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("client_invokable", Boolean, nullable=False),
    Column("budget_usd", Float),
    Column("spent_usd", Float, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    UniqueConstraint("project_id", "name", name="ai_prompts_name"),
    sqlite_autoincrement=True,
)

SERVICES = (
    *("app_users", "refresh_tokens", "push_tokens", "segments", "segment_members"),
    *("collections", "configs", "events", "audit_events", "currencies", "balances"),
    *("currency_transactions", "media_assets", "emails", "ai_providers", "ai_prompts"),
)
"""Their names; each has `project_id`."""
