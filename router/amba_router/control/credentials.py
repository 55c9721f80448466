"""API keys, internal credentials, personal access tokens: made, shown once, rotated, revoked.

A revocation is in force before it is answered. Source: contract C.1, E.0, E.1.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, iso_ms, page, project_of
from amba_router.api.callers import Kind
from amba_router.api.operations import Answer, Asked, Auth, Operation, Reads
from amba_router.control.models import (
    CreateKey,
    Deleted,
    DeletedAnswer,
    Developer,
    DeveloperAnswer,
    Internal,
    InternalAnswer,
    InternalRow,
    NewKey,
    NewKeyAnswer,
    NewPat,
    NewPatAnswer,
    PatList,
    PatRow,
    Revoked,
    RevokedAnswer,
    Rotate,
    Validate,
    Validated,
    ValidatedAnswer,
)
from amba_router.control.services import Services
from amba_router.store.control_records import CredentialKind
from amba_runtime import limits
from amba_runtime.secret import SecretText

if TYPE_CHECKING:
    from amba_router.api.callers import Caller
    from amba_router.store.control_records import Credential, Credentials

_PROJECT = "/admin/projects/{project_id}"
_INTERNAL = f"{_PROJECT}/internal-credentials"
_PATS = "/auth/developer/pats"


def operations(services: Services) -> tuple[Operation, ...]:
    """Their part of the table."""
    own = _Credentials(services)
    writes = (faults.TOO_MANY_DEPLOYS, *faults.WRITES)
    return (
        Operation(
            "createApiKey",
            "POST",
            f"{_PROJECT}/api-keys",
            Auth.PROJECT,
            "A client or server key, told here alone.",
            own.create_key,
            {201: NewKeyAnswer},
            writes,
            reads=Reads.JSON,
            request=CreateKey,
        ),
        Operation(
            "revokeApiKey",
            "DELETE",
            f"{_PROJECT}/api-keys/{{key_id}}",
            Auth.PROJECT,
            "Good for nothing from now on.",
            own.revoke_key,
            {200: DeletedAnswer},
            (faults.API_KEY_NOT_FOUND, *writes),
        ),
        Operation(
            "internalCredentials",
            "GET",
            _INTERNAL,
            Auth.PROJECT,
            "What functions of this project are given.",
            own.show,
            {200: InternalAnswer},
        ),
        Operation(
            "rotateInternalCredential",
            "POST",
            f"{_INTERNAL}/rotate",
            Auth.PROJECT,
            "A new one is given out from now on; older ones hold until they are revoked.",
            own.rotate,
            {201: InternalAnswer},
            writes,
            reads=Reads.JSON,
            request=Rotate,
            ours=True,
        ),
        Operation(
            "revokeInternalCredential",
            "DELETE",
            f"{_INTERNAL}/{{credential_id}}",
            Auth.PROJECT,
            "Good for nothing from now on; the last of its kind must be rotated first.",
            own.revoke,
            {200: RevokedAnswer},
            (faults.CREDENTIAL_NOT_FOUND, *writes),
            ours=True,
        ),
        Operation(
            "validateKey",
            "POST",
            "/auth/validate",
            Auth.NOBODY,
            "Whether a key holds, and for what.",
            own.validate,
            {200: ValidatedAnswer},
            reads=Reads.JSON,
            request=Validate,
        ),
        Operation(
            "whoAmI",
            "GET",
            "/auth/developer/me",
            Auth.DEVELOPER,
            "The developer this token speaks for.",
            own.me,
            {200: DeveloperAnswer},
        ),
        Operation(
            "listTokens",
            "GET",
            _PATS,
            Auth.DEVELOPER,
            "The caller's personal access tokens, without their values.",
            own.pats,
            {200: PatList},
            (faults.INVALID_LIMIT, faults.INVALID_INPUT),
            query=(OFFSET, LIMIT),
            ours=True,
        ),
        Operation(
            "createToken",
            "POST",
            _PATS,
            Auth.DEVELOPER,
            "One more personal access token of the caller, told here alone.",
            own.create_pat,
            {201: NewPatAnswer},
            writes,
            ours=True,
        ),
        Operation(
            "revokeToken",
            "DELETE",
            f"{_PATS}/{{pat_id}}",
            Auth.DEVELOPER,
            "Good for nothing from now on; the last one stays.",
            own.revoke_pat,
            {200: RevokedAnswer},
            (faults.PAT_NOT_FOUND, *writes),
            ours=True,
        ),
    )


class _Credentials:
    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._host = services.host
        self._directory = services.directory
        self._turns = services.turns

    # keys

    async def create_key(self, asked: Asked) -> Answer:
        project, body = project_of(asked), asked.body
        async with self._turns.take((project.id, "keys")):
            asked.still()
            _room(self._directory.count(project.id), limits.API_KEYS, "keys of this project")
            environment = body.environment or project.environment
            key, value = await self._store.add_api_key(project.id, body.key_type, environment)
            self._directory.add_key(key, SecretText(value))
        return Answer(
            201,
            NewKeyAnswer(
                NewKey(
                    id=key.id,
                    key=value,
                    key_prefix=key.prefix,
                    key_type=key.key_type,
                    environment=key.environment,
                )
            ),
        )

    async def revoke_key(self, asked: Asked) -> Answer:
        project, id_ = project_of(asked), asked.path["key_id"]
        async with self._turns.take((project.id, "keys")):
            asked.still()
            if not await self._store.revoke_api_key(project.id, id_):
                raise faults.API_KEY_NOT_FOUND.refuse(
                    f"no key has the id {id_[:64]!r}", {"resource": "api_key", "id": id_[:64]}
                )
            self._directory.remove(id_)
        return Answer(200, DeletedAnswer(Deleted(id_, deleted=True)))

    async def validate(self, asked: Asked) -> Answer:
        body: Validate = asked.body
        caller = self._directory.find(body.api_key)
        if caller is None or caller.kind not in (Kind.CLIENT, Kind.SERVER):
            return Answer(
                200, ValidatedAnswer(Validated(valid=False, project_id=None, environment=None))
            )
        return Answer(
            200,
            ValidatedAnswer(
                Validated(valid=True, project_id=caller.project_id, environment=caller.environment)
            ),
        )

    # what functions are given

    async def show(self, asked: Asked) -> Answer:
        return Answer(200, self._shown(project_of(asked).id))

    async def rotate(self, asked: Asked) -> Answer:
        project = project_of(asked)
        async with self._turns.take((project.id, "internal")):
            asked.still()
            had = self._directory.credentials.get(project.id)
            if had is not None:
                most = max(len(had.internal), len(had.signing), len(had.session))
                _room(most, limits.CREDENTIALS_VALID, "credentials of one kind")
            credentials = await self._store.rotate_internal(project.id, which=asked.body.which)
            self._changed(project.id, credentials)
        return Answer(201, self._shown(project.id))

    async def revoke(self, asked: Asked) -> Answer:
        project, id_ = project_of(asked), asked.path["credential_id"]
        async with self._turns.take((project.id, "internal")):
            asked.still()
            if not await self._store.revoke_internal(project.id, id_):
                raise faults.CREDENTIAL_NOT_FOUND.refuse(
                    f"no credential has the id {id_[:64]!r}",
                    {"resource": "credential", "id": id_[:64]},
                )
            had = self._directory.credentials.get(project.id)
            if had is not None:
                self._changed(project.id, _without(had, id_))
        return Answer(200, RevokedAnswer(Revoked(id_, revoked=True)))

    def _changed(self, project_id: str, credentials: Credentials) -> None:
        if project_id in self._directory.projects:
            self._directory.set_credentials(project_id, credentials)
            self._host.set_credentials(project_id, credentials)

    def _shown(self, project_id: str) -> InternalAnswer:
        had = self._directory.credentials.get(project_id)
        if had is None:
            raise faults.CONFLICT.refuse("the project was deleted meanwhile")
        rows = sorted((*had.internal, *had.signing, *had.session), key=lambda one: -one.created_ms)
        token, signing = had.internal[0], had.signing[0]
        return InternalAnswer(
            Internal(
                internal_token=token.value.reveal(),
                header_signing_secret=signing.value.reveal(),
                internal_token_fingerprint=_fingerprint(token),
                header_signing_secret_fingerprint=_fingerprint(signing),
                credentials=[
                    InternalRow(
                        id=one.id,
                        kind=str(one.kind),
                        fingerprint=_fingerprint(one),
                        created_at=iso_ms(one.created_ms),
                    )
                    for one in rows
                ],
            )
        )

    # developers

    async def me(self, asked: Asked) -> Answer:
        assert asked.caller is not None
        return Answer(200, DeveloperAnswer(Developer(asked.caller.developer_id)))

    async def pats(self, asked: Asked) -> Answer:
        assert asked.caller is not None
        offset, limit = page(asked)
        own = self._directory.pats(asked.caller.developer_id)
        rows = [PatRow(pat.id, pat.developer_id, pat is asked.caller) for pat in own]
        return Answer(200, PatList(rows[offset : offset + limit], len(rows), offset, limit))

    async def create_pat(self, asked: Asked) -> Answer:
        assert asked.caller is not None
        developer_id = asked.caller.developer_id
        async with self._turns.take((developer_id, "pats")):
            asked.still()
            _room(len(self._directory.pats(developer_id)), limits.PATS, "tokens of this developer")
            token = await self._store.add_pat(developer_id)
            made = self._directory.add_pat(token, developer_id)
            self._told_pats()
        return Answer(201, NewPatAnswer(NewPat(made.id, token, developer_id)))

    async def revoke_pat(self, asked: Asked) -> Answer:
        assert asked.caller is not None
        developer_id, id_ = asked.caller.developer_id, asked.path["pat_id"]
        async with self._turns.take((developer_id, "pats")):
            asked.still()
            own = self._directory.pats(developer_id)
            if id_ not in [pat.id for pat in own] or not await self._revoked(own, id_):
                raise faults.PAT_NOT_FOUND.refuse(
                    "this developer has no such token", {"resource": "pat", "id": id_[:64]}
                )
            self._directory.remove(id_)
            self._told_pats()
        return Answer(200, RevokedAnswer(Revoked(id_, revoked=True)))

    async def _revoked(self, own: list[Caller], id_: str) -> bool:
        if len(own) == 1:
            raise faults.CONFLICT.refuse(
                "this is the developer's last token; create another one first"
            )
        return await self._store.revoke_pat(id_)

    def _told_pats(self) -> None:
        self._host.set_pats([(pat.digest, pat.developer_id) for pat in self._directory.pats()])


def _room(count: int, limit: limits.Limit, what: str) -> None:
    """Raises `Refused` CONFLICT when there is no room for one more."""
    if count >= limit.value:
        raise faults.CONFLICT.refuse(f"there are {count} {what}; revoke one first")


def _without(had: Credentials, id_: str) -> Credentials:
    return replace(
        had,
        internal=tuple(one for one in had.internal if one.id != id_),
        signing=tuple(one for one in had.signing if one.id != id_),
        session=tuple(one for one in had.session if one.id != id_),
    )


def _fingerprint(one: Credential) -> str:
    """The first four characters of the random part (contract C.1); of a session key's hash."""
    value = one.value.reveal()
    if one.kind == CredentialKind.SESSION_KEY:
        return hashlib.sha256(value.encode()).hexdigest()[:4]
    for prefix in ("amb_int_", "whsec_"):
        value = value.removeprefix(prefix)
    return value[:4]
