"""Secrets over the wire: set, list, unset; never read back. Source: contract C.2, E.2."""

from __future__ import annotations

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, iso_ms, page, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Query, Reads
from amba_router.control.function_models import (
    DeletedSecret,
    DeletedSecretAnswer,
    SecretAnswer,
    SecretList,
    SecretRow,
    SecretSet,
    SetSecret,
    SyncSecret,
)
from amba_router.control.metadata import check_name
from amba_router.control.services import Services
from amba_router.store.control_records import SecretRecord
from amba_runtime import limits
from amba_runtime.bindings.secrets import check_secret_name, check_secret_value
from amba_runtime.errors import UserCode
from amba_runtime.secret import SecretText

_BASE = "/admin/projects/{project_id}/secrets"
_FUNCTION = Query("function", {"type": "string"}, "of this function alone; else project-wide")


def operations(services: Services) -> tuple[Operation, ...]:
    """Their part of the table."""
    secrets = _Secrets(services)
    bad = (faults.INVALID_NAME, faults.RESERVED_NAME, faults.INVALID_VALUE)
    return (
        Operation(
            "setSecret",
            "POST",
            _BASE,
            Auth.PROJECT,
            "Set or replace a value; running functions have it within a second.",
            secrets.set,
            {201: SecretAnswer},
            (*bad, faults.TOO_MANY_DEPLOYS, *faults.WRITES),
            reads=Reads.JSON,
            request=SetSecret,
        ),
        Operation(
            "listSecrets",
            "GET",
            _BASE,
            Auth.PROJECT,
            "Names and sync status; never a value.",
            secrets.list,
            {200: SecretList},
            (faults.INVALID_LIMIT, faults.INVALID_INPUT),
            query=(OFFSET, LIMIT),
        ),
        Operation(
            "unsetSecret",
            "DELETE",
            f"{_BASE}/{{name}}",
            Auth.PROJECT,
            "Unset a value; what serves keeps it until its next deploy.",
            secrets.unset,
            {200: DeletedSecretAnswer},
            (
                *(faults.SECRET_NOT_FOUND, faults.INVALID_NAME, faults.INVALID_INPUT),
                *(faults.TOO_MANY_DEPLOYS, *faults.WRITES),
            ),
            query=(_FUNCTION,),
        ),
        Operation(
            "listSecretSync",
            "GET",
            f"{_BASE}/sync",
            Auth.PROJECT,
            "Secrets that some running function does not have yet.",
            secrets.pending,
            {200: SecretList},
            (faults.INVALID_LIMIT, faults.INVALID_INPUT),
            query=(OFFSET, LIMIT),
        ),
        Operation(
            "syncSecret",
            "POST",
            f"{_BASE}/sync",
            Auth.PROJECT,
            "Push a value into running functions again; then as `listSecretSync`.",
            secrets.sync,
            {200: SecretList},
            (
                *(faults.SECRET_NOT_FOUND, faults.INVALID_NAME, faults.CONFLICT),
                *(faults.INVALID_LIMIT, faults.TOO_MANY_DEPLOYS, *faults.READS),
            ),
            reads=Reads.JSON,
            request=SyncSecret,
            query=(OFFSET, LIMIT),
        ),
    )


class _Secrets:
    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._pushes = services.pushes
        self._turns = services.turns

    async def set(self, asked: Asked) -> Answer:
        project = project_of(asked)
        body: SetSecret = asked.body
        fault = check_secret_name(body.name)
        if fault is not None:
            reserved = fault.code is UserCode.RESERVED_NAME
            refusal = faults.RESERVED_NAME if reserved else faults.INVALID_NAME
            raise refusal.refuse(f"{fault.message}; {fault.hint}", {"field": "$.name"})
        fault = check_secret_value(body.value)
        if fault is not None:
            raise faults.INVALID_VALUE.refuse(
                f"{fault.message}; {fault.hint}", {"field": "$.value"}
            )
        if body.function is not None:
            check_name(body.function)
        value = SecretText(body.value)
        async with self._turns.take((project.id, "secrets")):
            asked.still()
            await self._room(project.id, body.name, body.function)
            record = await self._store.set_secret(project.id, body.name, value, body.function)
            await self._pushes.push(project.id, body.function, body.name, value)
        shown = self._pushes.shown(record)
        scope = f"functions/{body.function}" if body.function else "project"
        return Answer(
            201,
            SecretAnswer(
                SecretSet(
                    name=record.name,
                    function=record.function,
                    version=record.version,
                    version_path=f"{scope}/secrets/{record.name}/versions/{record.version}",
                    sync_status=shown.sync_status,
                    created_at=iso_ms(record.created_ms),
                )
            ),
        )

    async def _room(self, project_id: str, name: str, function: str | None) -> None:
        """Raises `Refused` CONFLICT when one more secret is too many."""
        had = await self._store.secrets(project_id)
        new = (function, name) not in {(record.function, record.name) for record in had}
        if new and len(had) >= limits.SECRETS.value:
            raise faults.CONFLICT.refuse(
                f"the project has {len(had)} secrets; unset one that is not needed any more"
            )

    async def list(self, asked: Asked) -> Answer:
        records = [self._pushes.shown(r) for r in await self._store.secrets(project_of(asked).id)]
        return _page(asked, records)

    async def pending(self, asked: Asked) -> Answer:
        records = [self._pushes.shown(r) for r in await self._store.secrets(project_of(asked).id)]
        return _page(asked, [record for record in records if record.sync_status != "synced"])

    async def sync(self, asked: Asked) -> Answer:
        project, body = project_of(asked), asked.body
        function, name = body.function_name, body.secret_name
        if function is not None:
            check_name(function)
        async with self._turns.take((project.id, "secrets")):
            asked.still()
            found = await self._store.secret(project.id, name, function)
            if found is None:
                raise _not_set(name, function)
            record, value = found
            if record.version != body.expected_version:
                raise faults.CONFLICT.refuse(
                    f"its version is {record.version}, not {body.expected_version}: it was set "
                    "anew meanwhile",
                    {"field": "$.expected_version", "version": record.version},
                )
            await self._pushes.push(project.id, function, name, value)
        return await self.pending(asked)

    async def unset(self, asked: Asked) -> Answer:
        project, name = project_of(asked), asked.path["name"]
        function = asked.query.get("function")
        if function is not None:
            check_name(function)
        async with self._turns.take((project.id, "secrets")):
            asked.still()
            found = await self._store.unset_secret(project.id, name, function)
            if found:
                self._pushes.forget(project.id, function, name)
        if not found:
            raise _not_set(name, function)
        return Answer(
            200, DeletedSecretAnswer(DeletedSecret(name=name, function=function, deleted=True))
        )


def _not_set(name: str, function: str | None) -> faults.Refused:
    where = "project-wide" if function is None else f"for function {function}"
    return faults.SECRET_NOT_FOUND.refuse(
        f"no secret of this name is set {where}", {"resource": "secret", "id": name[:64]}
    )


def _page(asked: Asked, records: list[SecretRecord]) -> Answer:
    offset, limit = page(asked)
    return Answer(
        200,
        SecretList(
            [_row(record) for record in records[offset : offset + limit]],
            len(records),
            offset,
            limit,
        ),
    )


def _row(record: SecretRecord) -> SecretRow:
    return SecretRow(
        function=record.function,
        name=record.name,
        version=record.version,
        sync_status=record.sync_status,
        attempts=record.attempts,
        last_error=record.last_error,
        updated_at=iso_ms(record.updated_ms),
    )
