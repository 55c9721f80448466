"""What the store knows of projects, credentials, deployments and secrets: frozen values.

Free of SQL and cheap to import. Times are Unix milliseconds by the node's wall clock; order never
comes from them (clocks jump) but from the order in which rows were written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from amba_runtime.egress_rules import NO_RULES, EgressRules
from amba_runtime.manifest import Bundle, DeveloperId, FunctionName, ProjectId
from amba_runtime.secret import SecretText

if TYPE_CHECKING:
    from amba_router.rate_limit import RateLimit

NAMESPACE = "amba_tenant_functions"
"""The dispatch namespace, the same for all. Source: contract A.2."""


SyncStatus = Literal["pending", "syncing", "sync_failed_retrying", "synced"]
"""How far a secret's value has got. Source: contract E.2."""


class CredentialKind(StrEnum):
    """What a project's functions and our own router hold for it."""

    INTERNAL_TOKEN = "internal_token"  # noqa: S105  a kind of key
    HEADER_SIGNING_SECRET = "header_signing_secret"  # noqa: S105  a kind of key
    SESSION_KEY = "session_key"


class KeyType(StrEnum):
    """`client` keys name a project, `server` keys are trusted with it. Source: contract E.0."""

    CLIENT = "client"
    SERVER = "server"


class Status(StrEnum):
    """Of a deployment. Source: contract D.2."""

    ACTIVE = "active"
    SUPERSEDED = "superseded"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class NewProject:
    """What a project is made of.

    Attributes:
        slug: None derives one from the name and makes it unique.
        platform: `ios`, `android` or `all`.
        environment: `development` or `production`; says which prefix its first keys have.
        developer_id: who owns it.
    """

    name: str
    slug: str | None
    platform: str
    environment: str
    bundle_id: str | None
    developer_id: str
    storage: bool = True


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """A project; `storage` says whether its functions get `STORAGE`."""

    id: ProjectId
    slug: str
    name: str
    platform: str
    environment: str
    bundle_id: str | None
    developer_id: DeveloperId
    storage: bool
    created_ms: int


@dataclass(frozen=True, slots=True)
class Credential:
    """One internal token, signing secret or session key.

    Attributes:
        kind: one of `CredentialKind`.
        revoked: always False in what the store hands out: a revoked value is destroyed.
    """

    id: str
    kind: str
    value: SecretText
    created_ms: int
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Credentials:
    """The valid ones of a project, newest first: the newest is given out, all are accepted."""

    internal: tuple[Credential, ...]
    signing: tuple[Credential, ...]
    session: tuple[Credential, ...]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A client or server key, without its value.

    Attributes:
        key_type: `client` or `server`.
        environment: `development` or `production`.
        prefix: the first characters, enough to know it again: `amb_dev_ck_AbCd`.
    """

    id: str
    project_id: ProjectId
    key_type: str
    environment: str
    prefix: str
    created_ms: int


@dataclass(frozen=True, slots=True, repr=False)
class CreatedProject:
    """A new project with its first keys and their values, which are shown once."""

    record: ProjectRecord
    credentials: Credentials
    client_key: tuple[ApiKey, str]
    server_key: tuple[ApiKey, str]


@dataclass(frozen=True, slots=True)
class NewDeployment:
    """What an admitted upload or a rollback becomes.

    Attributes:
        version: what `next_version` gave; another one is refused.
        limits: settings of this function alone, by name, already checked.
        rolled_back_from: the version whose bundle this is, for a rollback.
    """

    project_id: str
    name: str
    version: int
    bundle: Bundle
    handlers: tuple[str, ...]
    rate_limit: RateLimit | None = None
    limits: Mapping[str, int] = field(default_factory=lambda: dict[str, int]())
    engine: str = "workerd"
    rolled_back_from: int | None = None
    egress: EgressRules = NO_RULES


@dataclass(frozen=True, slots=True)
class Deployment:
    """The record that a version serves, served, or may not serve.

    Attributes:
        script_name: name, `-v`, version. Source: contract A.2.
        bundle_sha: lower-case hex SHA-256 of the code. Source: contract D.1.
        bytes, bytes_gzip: size of the code, as it is and at gzip level 9.
        status: one of `Status`; at most one row of a function is `active`.
        has_map: a source map was stored with it.
        note: why it was disabled, when it was not by an order; else "".
    """

    id: str
    project_id: ProjectId
    name: FunctionName
    version: int
    script_name: str
    namespace: str
    bundle_sha: str
    bytes: int
    bytes_gzip: int
    handlers: tuple[str, ...]
    status: Literal["active", "superseded", "disabled"]
    created_ms: int
    rate_limit: RateLimit | None
    limits: Mapping[str, int]
    engine: str
    has_map: bool
    rolled_back_from: int | None
    note: str
    egress: EgressRules = NO_RULES


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """A secret without its value.

    Attributes:
        function: None reaches every function of the project.
        version: 1 when first set, one more with each new value; an unset one starts at 1 again.
        sync_status: `synced`: whatever starts from now on has this value. Who pushes it into
            running isolates may `replace` it until that is done.
    """

    project_id: ProjectId
    function: str | None
    name: str
    version: int
    sync_status: SyncStatus
    attempts: int
    last_error: str | None
    updated_ms: int
    created_ms: int


@dataclass(frozen=True, slots=True)
class ProjectState:
    """What a node keeps in memory of one project; `active` has its serving deployments."""

    record: ProjectRecord
    credentials: Credentials
    api_keys: tuple[tuple[ApiKey, SecretText], ...]
    active: tuple[Deployment, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent read of all that.

    Attributes:
        projects: oldest first.
        pats: SHA-256 of each PAT (32 bytes), and whom it speaks for.
        problems: sentences about stored values that were damaged; what they say was left out,
            or made anew.
    """

    projects: tuple[ProjectState, ...]
    pats: tuple[tuple[bytes, DeveloperId], ...]
    problems: tuple[str, ...] = ()
