"""Secrets of functions: their rows, and what is done with them. Source: contract C.2, H-12.

An unset secret is hidden at once. Its row stays, marked with the highest deployment of that
moment, as long as a deployment made before is active: that one keeps the value over restarts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, insert, or_, select, update

from amba_router.store.control_records import SecretRecord, Status
from amba_router.store.credential_rows import require_project
from amba_router.store.schema import deployments, secrets
from amba_router.store.sealing import Sealer
from amba_router.store.state import State
from amba_runtime.clock import Clock, time_ms
from amba_runtime.errors import UserCode, UserError
from amba_runtime.manifest import ProjectId
from amba_runtime.secret import SecretText

Env = tuple[tuple[str, SecretText], ...]


class SecretRows:
    """For ControlStore, where each method is documented."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._database = state.database
        self._sealer = state.sealer
        self._clock = clock

    async def set(
        self, project_id: str, name: str, value: SecretText, function: str | None
    ) -> SecretRecord:
        now_ms = time_ms(self._clock)
        plain = value.reveal().encode("utf-8", "surrogatepass")
        sealed = self._sealer.seal(plain, _aad(project_id, function or "", name))

        def work(c: Connection) -> SecretRecord:
            require_project(c, project_id)
            same = _same(project_id, name, function)
            old = c.execute(select(secrets).where(same)).one_or_none()
            going_on = old is not None and old.unset_seq is None
            c.execute(delete(secrets).where(same))
            c.execute(
                insert(secrets).values(
                    project_id=project_id,
                    function=function or "",
                    name=name,
                    version=old.version + 1 if old is not None and going_on else 1,
                    sealed=sealed,
                    created_ms=old.created_ms if old is not None and going_on else now_ms,
                    updated_ms=now_ms,
                )
            )
            return _record(c.execute(select(secrets).where(same)).one())

        return await self._database.write(work)

    async def unset(self, project_id: str, name: str, function: str | None) -> bool:
        def work(c: Connection) -> bool:
            newest = c.scalar(select(func.max(deployments.c.seq))) or 0
            live = _same(project_id, name, function) & secrets.c.unset_seq.is_(None)
            found = c.execute(update(secrets).where(live).values(unset_seq=newest)).rowcount
            destroy_unset(c, project_id)
            return found > 0

        return await self._database.write(work)

    async def list(self, project_id: str) -> list[SecretRecord]:
        statement = (
            select(secrets)
            .where(secrets.c.project_id == project_id, secrets.c.unset_seq.is_(None))
            .order_by(secrets.c.function, secrets.c.name)
        )
        return await self._database.read(lambda c: [_record(row) for row in c.execute(statement)])

    async def one(
        self, project_id: str, name: str, function: str | None
    ) -> tuple[SecretRecord, SecretText] | None:
        live = _same(project_id, name, function) & secrets.c.unset_seq.is_(None)

        def work(c: Connection) -> tuple[SecretRecord, SecretText] | None:
            row = c.execute(select(secrets).where(live)).one_or_none()
            return None if row is None else (_record(row), _value(row, self._sealer))

        return await self._database.read(work)

    async def of_deployment(self, deployment_id: str) -> Env:
        def work(c: Connection) -> Env:
            table = deployments
            row = c.execute(
                select(table.c.project_id, table.c.name, table.c.seq).where(
                    table.c.id == deployment_id
                )
            ).one_or_none()
            if row is None:
                raise UserError(
                    UserCode.CONFLICT, f"deployment {deployment_id} is not there (any more)"
                )
            kept = or_(secrets.c.unset_seq.is_(None), secrets.c.unset_seq >= row.seq)
            return self._env(c, row.project_id, row.name, kept)

        return await self._database.read(work)

    async def of_new(self, project_id: str, name: str) -> Env:
        return await self._database.read(
            lambda c: self._env(c, project_id, name, secrets.c.unset_seq.is_(None))
        )

    def _env(self, c: Connection, project_id: str, name: str, kept: Any) -> Env:
        rows = c.execute(
            select(secrets)
            .where(secrets.c.project_id == project_id, secrets.c.function.in_(["", name]), kept)
            .order_by(secrets.c.function)
        )
        return _merged(rows, self._sealer)


def _merged(rows: Iterable[Row[Any]], sealer: Sealer) -> Env:
    """By name; rows come project-wide first, so that the function's own win (H-12)."""
    last = {row.name: row for row in rows}
    return tuple((name, _value(last[name], sealer)) for name in sorted(last))


def _value(row: Row[Any], sealer: Sealer) -> SecretText:
    plain = sealer.open(row.sealed, _aad(row.project_id, row.function, row.name))
    return SecretText(plain.decode("utf-8", "surrogatepass"))


def destroy_unset(c: Connection, project_id: str) -> None:
    """Delete unset values that no active deployment keeps; after each change of what is active."""
    table = deployments
    keeper = exists(
        select(table.c.seq).where(
            table.c.project_id == secrets.c.project_id,
            table.c.status == Status.ACTIVE,
            table.c.seq <= secrets.c.unset_seq,
            or_(secrets.c.function == "", secrets.c.function == table.c.name),
        )
    )
    c.execute(
        delete(secrets).where(
            secrets.c.project_id == project_id, secrets.c.unset_seq.is_not(None), ~keeper
        )
    )


def _same(project_id: str, name: str, function: str | None) -> Any:
    return and_(
        secrets.c.project_id == project_id,
        secrets.c.function == (function or ""),
        secrets.c.name == name,
    )


def _aad(project_id: str, function: str, name: str) -> tuple[str, ...]:
    return "secret", project_id, function, name


def _record(row: Row[Any]) -> SecretRecord:
    return SecretRecord(
        project_id=ProjectId(row.project_id),
        function=row.function or None,
        name=row.name,
        version=row.version,
        sync_status="synced",
        attempts=1,
        last_error=None,
        updated_ms=row.updated_ms,
        created_ms=row.created_ms,
    )
