"""Credentials, API keys and PATs of projects: their rows, and what is done with them.

Values are sealed with what they belong to as associated data, and found by an HMAC of the value;
a PAT is never handed out again, so only its SHA-256 is kept. Source: contract C.1, E.0.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, insert, select, update

from amba_router.store.control_records import (
    ApiKey,
    Credential,
    CredentialKind,
    Credentials,
    KeyType,
)
from amba_router.store.schema import amba_meta, api_keys, credentials, pats, projects
from amba_router.store.sealing import Sealer
from amba_router.store.state import State
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock, time_ms
from amba_runtime.errors import UserCode, UserError
from amba_runtime.manifest import ProjectId
from amba_runtime.secret import SecretText

MINT = {
    CredentialKind.INTERNAL_TOKEN: entropy.internal_token,
    CredentialKind.HEADER_SIGNING_SECRET: entropy.signing_secret,
    CredentialKind.SESSION_KEY: entropy.session_key,
}

_FIRST_PAT = "first_pat"
"""Row of `amba_meta`: `told`, or the hashes of tokens that nobody may have seen yet."""
_TOLD = "told"


class CredentialRows:
    """For ControlStore, where each method is documented."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._database = state.database
        self._sealer = state.sealer
        self._clock = clock

    async def add_api_key(
        self, project_id: str, key_type: str, environment: str
    ) -> tuple[ApiKey, str]:
        now_ms = time_ms(self._clock)

        def work(c: Connection) -> tuple[ApiKey, str]:
            require_project(c, project_id)
            return mint_key(c, self._sealer, project_id, key_type, environment, now_ms)

        return await self._database.write(work)

    async def revoke_api_key(self, project_id: str, key_id: str) -> bool:
        table = api_keys
        statement = delete(table).where(table.c.id == key_id, table.c.project_id == project_id)
        return await self._database.write(lambda c: c.execute(statement).rowcount > 0)

    async def add_pat(self, developer_id: str) -> str:
        value = entropy.pat()
        row = {
            "hash": hashlib.sha256(value.encode()).digest(),
            "developer_id": developer_id,
            "created_ms": time_ms(self._clock),
        }
        await self._database.write(lambda c: c.execute(insert(pats).values(row)))
        return value

    async def mint_first_pat(self, developer_id: str) -> str | None:
        value = entropy.pat()
        hash_ = hashlib.sha256(value.encode()).digest()
        now_ms = time_ms(self._clock)

        def work(c: Connection) -> str | None:
            meta = amba_meta
            known = c.scalar(select(meta.c.value).where(meta.c.name == _FIRST_PAT))
            if known == _TOLD:
                return None
            untold = [*(known or "").split(), hash_.hex()]
            # somebody may have seen an earlier one after all: it holds, within a bound
            for old in untold[: -limits.UNTOLD_PATS.value]:
                c.execute(delete(pats).where(pats.c.hash == bytes.fromhex(old)))
            untold = untold[-limits.UNTOLD_PATS.value :]
            c.execute(insert(pats).values(hash=hash_, developer_id=developer_id, created_ms=now_ms))
            c.execute(delete(meta).where(meta.c.name == _FIRST_PAT))
            c.execute(insert(meta).values(name=_FIRST_PAT, value=" ".join(untold)))
            return value

        return await self._database.write(work)

    async def first_pat_told(self) -> None:
        statement = update(amba_meta).where(amba_meta.c.name == _FIRST_PAT).values(value=_TOLD)
        await self._database.write(lambda c: c.execute(statement))

    async def revoke_pat(self, pat_id: str) -> bool:
        try:
            hash_ = bytes.fromhex(pat_id)
        except ValueError:
            return False
        statement = delete(pats).where(pats.c.hash == hash_)
        return await self._database.write(lambda c: c.execute(statement).rowcount > 0)

    async def has_pat(self) -> bool:
        return await self._database.read(lambda c: bool(c.scalar(select(exists(select(pats))))))

    async def rotate_internal(self, project_id: str, *, which: str) -> Credentials:
        kind = CredentialKind(which)
        now_ms = time_ms(self._clock)

        def work(c: Connection) -> Credentials:
            require_project(c, project_id)
            mint_credential(c, self._sealer, project_id, kind, now_ms)
            return credentials_of(c, self._sealer, project_id)

        return await self._database.write(work)

    async def revoke_internal(self, project_id: str, credential_id: str) -> bool:
        table = credentials

        def work(c: Connection) -> bool:
            same = (table.c.id == credential_id) & (table.c.project_id == project_id)
            kind = c.scalar(select(table.c.kind).where(same))
            if kind is None:
                return False
            others = (
                (table.c.project_id == project_id)
                & (table.c.kind == kind)
                & (table.c.id != credential_id)
            )
            if c.scalar(select(table.c.id).where(others).limit(1)) is None:
                raise UserError(
                    UserCode.CONFLICT,
                    f"this {kind} is the project's only one: its functions would be without",
                    hint="rotate it first, then revoke the old one",
                )
            c.execute(delete(table).where(same))
            return True

        return await self._database.write(work)


def require_project(c: Connection, project_id: str) -> None:
    """Raises UserError CONFLICT when it was deleted since the caller looked."""
    if c.scalar(select(projects.c.seq).where(projects.c.id == project_id)) is None:
        raise UserError(
            UserCode.CONFLICT,
            f"project {project_id} is not there (any more)",
            details={"project_id": project_id},
        )


def mint_credential(
    c: Connection, sealer: Sealer, project_id: str, kind: CredentialKind, now_ms: int
) -> Credential:
    """A new one, the newest of its kind from now on."""
    value, id_ = MINT[kind](), entropy.uuid4()
    c.execute(
        insert(credentials).values(
            id=id_,
            project_id=project_id,
            kind=kind,
            sealed=sealer.seal(value.encode(), _credential_aad(project_id, kind, id_)),
            lookup=sealer.index(value),
            created_ms=now_ms,
        )
    )
    return Credential(id_, kind, SecretText(value), now_ms)


def credentials_of(c: Connection, sealer: Sealer, project_id: str) -> Credentials:
    """All of a project, newest first."""
    table = credentials
    rows = c.execute(
        select(table).where(table.c.project_id == project_id).order_by(table.c.seq.desc())
    )
    return group([open_credential(row, sealer) for row in rows])


def open_credential(row: Row[Any], sealer: Sealer) -> Credential:
    """A row with its value. Raises InternalError SECRET_DAMAGED."""
    value = sealer.open(row.sealed, _credential_aad(row.project_id, row.kind, row.id))
    return Credential(row.id, row.kind, SecretText(value.decode()), row.created_ms)


def group(found: list[Credential]) -> Credentials:
    """By kind, in the order given."""

    def of(kind: CredentialKind) -> tuple[Credential, ...]:
        return tuple(one for one in found if one.kind == kind)

    return Credentials(
        internal=of(CredentialKind.INTERNAL_TOKEN),
        signing=of(CredentialKind.HEADER_SIGNING_SECRET),
        session=of(CredentialKind.SESSION_KEY),
    )


def mint_key(
    c: Connection, sealer: Sealer, project_id: str, key_type: str, environment: str, now_ms: int
) -> tuple[ApiKey, str]:
    """A new API key and its value."""
    value = entropy.api_key(KeyType(key_type), environment)
    shown = value.index("k_") + len("k_") + limits.KEY_PREFIX_CHARS.value
    key = ApiKey(
        entropy.uuid4(), ProjectId(project_id), key_type, environment, value[:shown], now_ms
    )
    c.execute(
        insert(api_keys).values(
            id=key.id,
            project_id=project_id,
            key_type=key_type,
            environment=environment,
            prefix=key.prefix,
            sealed=sealer.seal(value.encode(), _key_aad(project_id, key.id)),
            lookup=sealer.index(value),
            created_ms=now_ms,
        )
    )
    return key, value


def api_key(row: Row[Any]) -> ApiKey:
    """A row without its value."""
    return ApiKey(
        row.id,
        ProjectId(row.project_id),
        row.key_type,
        row.environment,
        row.prefix,
        row.created_ms,
    )


def open_key(row: Row[Any], sealer: Sealer) -> SecretText:
    """The value of a row. Raises InternalError SECRET_DAMAGED."""
    return SecretText(sealer.open(row.sealed, _key_aad(row.project_id, row.id)).decode())


def _credential_aad(project_id: str, kind: str, id_: str) -> tuple[str, ...]:
    return "credential", project_id, kind, id_


def _key_aad(project_id: str, id_: str) -> tuple[str, ...]:
    return "api_key", project_id, id_
