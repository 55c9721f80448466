"""The bodies of the control plane about functions, their logs and their secrets, both ways.

Decoded, encoded and documented as those of `models`. Source: contract D.2, D.4, D.5, E.0 to E.2.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct

from amba_router.api.models import Count, Iso, Version


class RateLimitBody(Struct):
    window: Annotated[str, Meta(pattern="^[0-9]+[smh]$", examples=["60s"])]
    max: Annotated[int, Meta(ge=1, le=100_000)]
    key: Literal["user_id", "ip"]


class Metadata(Struct, kw_only=True):
    """Of an upload. Checked by hand, so that each rule has its code; unknown keys are ignored."""

    name: Annotated[Any, Meta(extra_json_schema={"type": "string"})] = UNSET
    rate_limit: Any = None
    limits: Any = None
    schedules: Any = None
    engine: Any = None
    egress: Any = None


class DeploymentRow(Struct, kw_only=True):
    """The nine members of the platform, then ours."""

    id: str
    project_id: str
    name: str
    version: int
    cf_script_name: str
    cf_dispatch_namespace: str
    bundle_sha: str
    status: Literal["active", "superseded", "disabled"]
    created_at: Iso
    bytes: int
    bytes_gzip: int
    handlers: list[str]
    rate_limit: RateLimitBody | None
    limits: dict[str, int]
    egress: dict[str, Any]
    engine: str
    rolled_back_from: int | None
    note: str


class DeployAnswer(Struct):
    """`fn_url` stands beside `data` (contract D.2); `warnings` are ours."""

    data: DeploymentRow
    fn_url: str
    warnings: list[str]


class DeploymentList(Struct):
    data: list[DeploymentRow]
    total: Count
    offset: Count
    limit: Count


class Disabled(Struct):
    id: str
    status: str


class DisabledAnswer(Struct):
    data: Disabled


class Cascade(Struct):
    """Of the platform, but for the last."""

    cf_dispatch_script_deleted: bool
    function_deployments_marked_disabled: Count
    schedules_deleted: Count


class DeletedFunction(Struct):
    name: str
    deleted: bool
    cascade: Cascade


class DeletedFunctionAnswer(Struct):
    data: DeletedFunction


class Rollback(Struct, kw_only=True):
    """One of the two."""

    version: Version | None = None
    deployment_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class Namespace(Struct, kw_only=True):
    dispatch_namespace: str
    project_slug: str
    r2_bucket_name: str | None
    cf_hyperdrive_config_id: str | None


class NamespaceAnswer(Struct):
    data: Namespace


class LogPage(Struct, kw_only=True):
    events: list[dict[str, Any]]
    truncated: bool
    since: Iso
    until: Iso


class LogAnswer(Struct):
    data: LogPage


# --- secrets ---


class SetSecret(Struct, kw_only=True):
    """Checked by hand, in the platform's order: the patterns here are for readers."""

    name: Annotated[
        str,
        Meta(
            examples=["STRIPE_KEY"],
            extra_json_schema={
                "pattern": "^(?!AMBA_|EDGE_)[A-Z][A-Z0-9_]*$",
                "not": {"enum": ["STORAGE", "HYPERDRIVE", "EDGE_DB_PROXY"]},
                "minLength": 1,
                "maxLength": 64,
            },
        ),
    ]
    value: Annotated[
        str, Meta(extra_json_schema={"maxLength": 65536, "description": "64 KiB in UTF-8"})
    ]
    function: (
        Annotated[str, Meta(extra_json_schema={"pattern": "^[a-z][a-z0-9_-]{0,57}$"})] | None
    ) = None


class SyncSecret(Struct, kw_only=True):
    """One scope's secret at the version the caller knows; no `function_name` is project-wide."""

    secret_name: Annotated[str, Meta(max_length=200)]
    expected_version: Version
    function_name: (
        Annotated[str, Meta(extra_json_schema={"pattern": "^[a-z][a-z0-9_-]{0,57}$"})] | None
    ) = None


class SecretSet(Struct, kw_only=True):
    name: str
    function: str | None
    version: int
    version_path: str
    sync_status: Literal["pending", "syncing", "sync_failed_retrying", "synced"]
    created_at: Iso


class SecretAnswer(Struct):
    data: SecretSet


class SecretRow(Struct, kw_only=True):
    function: str | None
    name: str
    version: int
    sync_status: str
    attempts: Count
    last_error: str | None
    updated_at: Iso


class SecretList(Struct):
    data: list[SecretRow]
    total: Count
    offset: Count
    limit: Count


class DeletedSecret(Struct, kw_only=True):
    name: str
    function: str | None
    deleted: bool


class DeletedSecretAnswer(Struct):
    data: DeletedSecret
