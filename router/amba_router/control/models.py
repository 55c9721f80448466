"""The bodies of the control plane, both ways: what is decoded, encoded and documented.

Those about functions are in `function_models`. Imported when the first API request comes, as
msgspec is. Unknown members of a request are ignored. Source: contract D.2, D.4, D.5, E.0 to E.2.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from amba_router.api.models import TEXT, Count, Environment, Iso, Label

# --- projects ---


class CreateProject(Struct, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=200, pattern=TEXT, examples=["Shop"])]
    bundle_id: Annotated[str, Meta(max_length=255, pattern=TEXT)] | None = None
    platform: Literal["ios", "android", "all"] = "all"
    environment: Environment = "production"
    slug: (
        Annotated[
            str,
            Meta(
                pattern="^[a-z0-9][a-z0-9-]{1,62}$",
                description="ours: the label in host names; else derived from the name",
            ),
        ]
        | None
    ) = None


class UpdateProject(Struct, kw_only=True):
    name: Label | None = None
    platform: Literal["ios", "android", "all"] | None = None
    environment: Environment | None = None
    bundle_id: Annotated[str, Meta(max_length=255, pattern=TEXT)] | None = None


class ProjectRow(Struct, kw_only=True):
    id: str
    name: str
    slug: str
    platform: str
    environment: str
    bundle_id: str | None
    developer_id: str
    status: str
    provisioning_status: str
    created_at: Iso


class ProjectSummary(Struct, kw_only=True):
    id: str
    name: str
    developer_id: str
    platform: str
    created_at: Iso


class FirstKey(Struct, kw_only=True):
    id: str
    key: str
    prefix: str
    type: str


class FirstKeys(Struct):
    client: FirstKey
    server: FirstKey


class NewProjectRow(ProjectRow, kw_only=True):
    """Both shapes of the documentation, merged (contract H-19)."""

    project: ProjectSummary
    api_keys: FirstKeys


class NewProjectAnswer(Struct):
    data: NewProjectRow


class ProjectAnswer(Struct):
    data: ProjectRow


class ProjectList(Struct):
    data: list[ProjectRow]
    total: Count
    offset: Count
    limit: Count


class Deleted(Struct):
    id: str
    deleted: bool


class DeletedAnswer(Struct):
    data: Deleted


class Provisioning(Struct):
    projectId: str
    status: str


class ProvisioningAnswer(Struct):
    data: Provisioning


# --- keys and credentials ---


class CreateKey(Struct, kw_only=True):
    """Without an `environment` it is the project's."""

    key_type: Literal["client", "server"]
    environment: Environment | None = None


class NewKey(Struct, kw_only=True):
    id: str
    key: str
    key_prefix: str
    key_type: str
    environment: str


class NewKeyAnswer(Struct):
    data: NewKey


class Validate(Struct):
    api_key: str


class Validated(Struct, kw_only=True):
    valid: bool
    project_id: str | None
    environment: str | None


class ValidatedAnswer(Struct):
    data: Validated


class Internal(Struct, kw_only=True):
    """Ours beside the four of the platform: `credentials`, without values, newest first."""

    internal_token: str
    header_signing_secret: str
    internal_token_fingerprint: str
    header_signing_secret_fingerprint: str
    credentials: list[InternalRow]


class InternalRow(Struct, kw_only=True):
    id: str
    kind: str
    fingerprint: str
    created_at: Iso


class InternalAnswer(Struct):
    data: Internal


class Rotate(Struct):
    which: Literal["internal_token", "header_signing_secret", "session_key"]


class Revoked(Struct):
    id: str
    revoked: bool


class RevokedAnswer(Struct):
    data: Revoked


class Developer(Struct):
    id: str


class DeveloperAnswer(Struct):
    data: Developer


class NewPat(Struct):
    id: str
    token: str
    developer_id: str


class NewPatAnswer(Struct):
    data: NewPat


class PatRow(Struct):
    id: str
    developer_id: str
    current: bool


class PatList(Struct):
    data: list[PatRow]
    total: Count
    offset: Count
    limit: Count
