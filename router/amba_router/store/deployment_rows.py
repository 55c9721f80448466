"""Deployments and their bundles: their rows, and what is done with them. Source: contract D.2, D.4.

Bytes become durable first, then get their names, then the row that makes them active commits.
Rows stay when a function is deleted, so version numbers are never given twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from amba_router.rate_limit import stored_rate_limit
from amba_router.store.adoption import Adoption
from amba_router.store.blobs import Staged
from amba_router.store.control_records import NAMESPACE, Deployment, NewDeployment, Status
from amba_router.store.credential_rows import require_project
from amba_router.store.records import Segment
from amba_router.store.schema import deployments
from amba_router.store.secret_rows import destroy_unset
from amba_router.store.state import State
from amba_runtime import entropy
from amba_runtime.clock import Clock, time_ms
from amba_runtime.egress_rules import EgressRules
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError
from amba_runtime.manifest import Bundle, FunctionName, ProjectId

_EGRESS = "egress"


class DeploymentRows:
    """For ControlStore, where each method is documented."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._database = state.database
        self._blobs = state.blobs
        self._adoption = Adoption(state.database, state.blobs)
        self._clock = clock

    async def next_version(self, project_id: str, name: str) -> int:
        return await self._database.read(lambda c: _next_version(c, project_id, name))

    async def add(self, new: NewDeployment) -> Deployment:
        map_ = new.bundle.source_map
        parts = [new.bundle.code] if map_ is None else [new.bundle.code, map_]
        staged = tuple(self._blobs.stage() for _ in parts)
        now_ms = time_ms(self._clock)

        def write() -> int:
            for one, data in zip(staged, parts, strict=True):
                one.finish(data)
            return new.bundle.bytes_gzip()

        def work(c: Connection, adopt: Callable[[], None]) -> tuple[Deployment, set[str]]:
            require_project(c, new.project_id)
            _require_next(c, new)
            table = deployments
            c.execute(
                update(table)
                .where(_active(new.project_id, new.name))
                .values(status=Status.SUPERSEDED)
            )
            row = _row(new, staged, bytes_gzip, now_ms)
            c.execute(insert(table).values(row))
            destroy_unset(c, new.project_id)
            adopt()
            return _deployment(c.execute(select(table).where(table.c.id == row["id"])).one()), set()

        try:
            bytes_gzip = await self._database.in_thread(write)
            return await self._adoption.run(staged, work)
        finally:
            if not all(one.adopted for one in staged):
                with contextlib.suppress(RuntimeError):  # closed meanwhile: the next open clears it
                    await self._database.in_thread(lambda: _discard(staged))

    async def disable(self, project_id: str, deployment_id: str, note: str) -> Deployment | None:
        table = deployments

        def work(c: Connection) -> Deployment | None:
            same = (table.c.id == deployment_id) & (table.c.project_id == project_id)
            on = same & (table.c.status != Status.DISABLED)
            c.execute(update(table).where(on).values(status=Status.DISABLED, note=note))
            destroy_unset(c, project_id)
            row = c.execute(select(table).where(same)).one_or_none()
            return None if row is None else _deployment(row)

        return await self._database.write(work)

    async def delete_function(self, project_id: str, name: str) -> int | None:
        table = deployments

        def work(c: Connection) -> int | None:
            mine = (table.c.project_id == project_id) & (table.c.name == name)
            if c.scalar(select(table.c.seq).where(mine).limit(1)) is None:
                return None
            on = mine & (table.c.status != Status.DISABLED)
            disabled = c.execute(update(table).where(on).values(status=Status.DISABLED)).rowcount
            destroy_unset(c, project_id)
            return disabled

        return await self._database.write(work)

    async def page(
        self, project_id: str, *, active: bool, name: str | None, offset: int, limit: int
    ) -> tuple[list[Deployment], int]:
        table = deployments
        wanted = [table.c.project_id == project_id]
        if active:
            wanted.append(table.c.status == Status.ACTIVE)
        if name is not None:
            wanted.append(table.c.name == name)

        def work(c: Connection) -> tuple[list[Deployment], int]:
            total = c.scalar(select(func.count()).select_from(table).where(*wanted)) or 0
            rows = c.execute(
                select(table)
                .where(*wanted)
                .order_by(table.c.seq.desc())
                .offset(offset)
                .limit(limit)
            )
            return [_deployment(row) for row in rows], total

        return await self._database.read(work)

    async def find(
        self,
        project_id: str,
        *,
        name: str | None = None,
        version: int | None = None,
        deployment_id: str | None = None,
    ) -> Deployment | None:
        table = deployments
        wanted = [table.c.project_id == project_id]
        if name is not None:
            wanted.append(table.c.name == name)
        if version is not None:
            wanted.append(table.c.version == version)
        if deployment_id is not None:
            wanted.append(table.c.id == deployment_id)
        statement = select(table).where(*wanted).order_by(table.c.seq.desc()).limit(1)

        def work(c: Connection) -> Deployment | None:
            row = c.execute(statement).one_or_none()
            return None if row is None else _deployment(row)

        return await self._database.read(work)

    async def load_bundle(self, deployment_id: str) -> Bundle:
        table = deployments
        statement = select(table.c.bundle_sha, table.c.bytes, table.c.map_sha, table.c.map_bytes)

        def work(c: Connection) -> Bundle:
            row = c.execute(statement.where(table.c.id == deployment_id)).one_or_none()
            if row is None:
                raise UserError(
                    UserCode.CONFLICT, f"deployment {deployment_id} is not there (any more)"
                )
            code = Segment(row.bundle_sha, row.bytes)
            map_ = None if row.map_sha is None else Segment(row.map_sha, row.map_bytes)
            lease = self._blobs.pin([code] if map_ is None else [code, map_])
            try:
                return Bundle(self._read(code), code.blob, self._read_map(map_))
            finally:
                lease.close()

        return await self._database.read(work)

    def _read(self, segment: Segment) -> bytes:
        if not segment.size:
            return b""
        return self._blobs.read(segment.blob, 0, segment.size, hashlib.sha256())

    def _read_map(self, segment: Segment | None) -> bytes | None:
        """A map only makes stacks readable: a damaged one stops nothing."""
        if segment is None:
            return None
        try:
            return self._read(segment)
        except InternalError:
            return None


def _discard(staged: tuple[Staged, ...]) -> None:
    for one in staged:
        one.discard()


def active_deployments(c: Connection) -> list[Deployment]:
    """All that serve, in the order they were made."""
    table = deployments
    statement = select(table).where(table.c.status == Status.ACTIVE).order_by(table.c.seq)
    return [_deployment(row) for row in c.execute(statement)]


def _active(project_id: str, name: str) -> Any:
    table = deployments
    return (
        (table.c.project_id == project_id)
        & (table.c.name == name)
        & (table.c.status == Status.ACTIVE)
    )


def _next_version(c: Connection, project_id: str, name: str) -> int:
    table = deployments
    highest = c.scalar(
        select(func.max(table.c.version)).where(
            table.c.project_id == project_id, table.c.name == name
        )
    )
    return (highest or 0) + 1


def _require_next(c: Connection, new: NewDeployment) -> None:
    expected = _next_version(c, new.project_id, new.name)
    if new.version != expected:
        raise UserError(
            UserCode.CONFLICT,
            f"version {new.version} of {new.name} cannot be made: the next one is {expected}; "
            "another deploy came first",
            hint="deploy again",
            details={"version": new.version, "next_version": expected},
        )


def _row(
    new: NewDeployment, staged: tuple[Staged, ...], bytes_gzip: int, now_ms: int
) -> dict[str, Any]:
    code, map_ = staged[0].segment(), staged[1].segment() if len(staged) > 1 else None
    if code.blob != new.bundle.sha256:
        raise InternalError(InternalCode.INVARIANT, "a bundle does not have the hash it names")
    return {
        "id": entropy.uuid4(),
        "project_id": new.project_id,
        "name": new.name,
        "version": new.version,
        "bundle_sha": code.blob,
        "bytes": code.size,
        "bytes_gzip": bytes_gzip,
        "map_sha": map_ and map_.blob,
        "map_bytes": map_ and map_.size,
        "handlers": json.dumps(new.handlers),
        "status": Status.ACTIVE,
        "created_ms": now_ms,
        "rate_limit": None if new.rate_limit is None else json.dumps(new.rate_limit.wire()),
        "limits": json.dumps({**new.limits, **_ruled(new.egress)}),
        "engine": new.engine,
        "rolled_back_from": new.rolled_back_from,
        "note": "",
    }


def _ruled(rules: EgressRules) -> dict[str, Any]:
    """Beside the limits, under a name that no limit has."""
    told = rules.wire()
    return {_EGRESS: told} if told else {}


def _deployment(row: Row[Any]) -> Deployment:
    limits: dict[str, Any] = json.loads(row.limits)
    rules = EgressRules.of(limits.pop(_EGRESS, {}))
    return Deployment(
        id=row.id,
        project_id=ProjectId(row.project_id),
        name=FunctionName(row.name),
        version=row.version,
        script_name=f"{row.name}-v{row.version}",
        namespace=NAMESPACE,
        bundle_sha=row.bundle_sha,
        bytes=row.bytes,
        bytes_gzip=row.bytes_gzip,
        handlers=tuple(json.loads(row.handlers)),
        status=row.status,
        created_ms=row.created_ms,
        rate_limit=stored_rate_limit(
            None if row.rate_limit is None else json.loads(row.rate_limit)
        ),
        limits=limits,
        engine=row.engine,
        has_map=row.map_sha is not None,
        rolled_back_from=row.rolled_back_from,
        note=row.note,
        egress=rules,
    )
