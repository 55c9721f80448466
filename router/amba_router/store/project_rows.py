"""Projects: their rows, and what is done with them. Source: contract A.1, E.1, H-24."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from amba_router.store.adoption import Adoption
from amba_router.store.control_records import (
    CreatedProject,
    CredentialKind,
    KeyType,
    NewProject,
    ProjectRecord,
)
from amba_router.store.credential_rows import group, mint_credential, mint_key
from amba_router.store.queries import forget_project
from amba_router.store.schema import deployments, projects
from amba_router.store.state import State
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock, time_ms
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError
from amba_runtime.manifest import PROJECT_SLUG, DeveloperId, ProjectId

_SLUG_MAX = 50  # leaves room for what makes it unique


class ProjectRows:
    """For ControlStore, where each method is documented."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._database = state.database
        self._sealer = state.sealer
        self._adoption = Adoption(state.database, state.blobs)
        self._clock = clock

    async def create(self, new: NewProject) -> CreatedProject:
        if new.slug is not None and not PROJECT_SLUG.match(new.slug):
            raise UserError(
                UserCode.INVALID_NAME,
                f"{new.slug!r} cannot be a project's slug: it is 2 to 63 of a-z, 0-9 and -, "
                "not beginning with -",
            )
        now_ms = time_ms(self._clock)
        id_ = entropy.uuid4()

        def work(c: Connection) -> CreatedProject:
            record = ProjectRecord(
                id=ProjectId(id_),
                slug=_free_slug(c, new, id_),
                name=new.name,
                platform=new.platform,
                environment=new.environment,
                bundle_id=new.bundle_id,
                developer_id=DeveloperId(new.developer_id),
                storage=new.storage,
                created_ms=now_ms,
            )
            c.execute(
                insert(projects).values(
                    id=id_,
                    slug=record.slug,
                    name=new.name,
                    platform=new.platform,
                    environment=new.environment,
                    bundle_id=new.bundle_id,
                    developer_id=new.developer_id,
                    storage=new.storage,
                    created_ms=now_ms,
                )
            )
            made = [mint_credential(c, self._sealer, id_, kind, now_ms) for kind in CredentialKind]
            client, server = (
                mint_key(c, self._sealer, id_, key_type, new.environment, now_ms)
                for key_type in KeyType
            )
            return CreatedProject(record, group(made), client, server)

        return await self._database.write(work)

    async def update(self, project_id: str, changes: dict[str, Any]) -> ProjectRecord | None:
        """Args: changes: column to value; a value of None leaves it as it is."""
        values = {column: value for column, value in changes.items() if value is not None}

        def work(c: Connection) -> ProjectRecord | None:
            same = projects.c.id == project_id
            if values:
                c.execute(update(projects).where(same).values(values))
            row = c.execute(select(projects).where(same)).one_or_none()
            return None if row is None else project(row)

        return await self._database.write(work)

    async def delete(self, project_id: str) -> bool:
        # a start, which loads this module, waits for nothing of a service
        from amba_router.store.collection_rows import drop_all

        def work(c: Connection, _adopt: object) -> tuple[bool, set[str]]:
            table = deployments
            mine = table.c.project_id == project_id
            gone = set(c.scalars(select(table.c.bundle_sha).where(mine)))
            gone |= {blob for blob in c.scalars(select(table.c.map_sha).where(mine)) if blob}
            drop_all(c, project_id)
            if not c.execute(delete(projects).where(projects.c.id == project_id)).rowcount:
                return False, set()
            return True, gone | forget_project(c, project_id)

        return await self._adoption.run((), work)


def exists(c: Connection, project_id: str) -> bool:
    """Whether there is such a project."""
    return c.scalar(select(projects.c.seq).where(projects.c.id == project_id)) is not None


def ensure(c: Connection, record: ProjectRecord) -> None:
    """The one project of a dev server, whose keys lie elsewhere; its slug may have changed."""
    values = asdict(record)
    if c.scalar(select(projects.c.seq).where(projects.c.id == record.id)) is None:
        c.execute(insert(projects).values(values))
    else:
        c.execute(update(projects).where(projects.c.id == record.id).values(slug=record.slug))


def project(row: Row[Any]) -> ProjectRecord:
    """A row as a record."""
    return ProjectRecord(
        id=ProjectId(row.id),
        slug=row.slug,
        name=row.name,
        platform=row.platform,
        environment=row.environment,
        bundle_id=row.bundle_id,
        developer_id=DeveloperId(row.developer_id),
        storage=row.storage,
        created_ms=row.created_ms,
    )


def _free_slug(c: Connection, new: NewProject, id_: str) -> str:
    if new.slug is not None:
        if _taken(c, new.slug):
            raise UserError(
                UserCode.NAME_TAKEN,
                f"the slug {new.slug!r} belongs to another project",
                hint="choose another one, or leave it out to have one made from the name",
                details={"slug": new.slug},
            )
        return new.slug
    base = slug_of(new.name) or id_[:8]
    for turn in range(limits.SLUG_TRIES.value):
        slug = base if turn == 0 else f"{base}-{entropy.short_id()}"
        if not _taken(c, slug):
            return slug
    raise InternalError(InternalCode.INVARIANT, f"no free slug was found for {base!r}")


def _taken(c: Connection, slug: str) -> bool:
    return c.scalar(select(projects.c.seq).where(projects.c.slug == slug)) is not None


def slug_of(name: str) -> str:
    """A slug made from a project's name; "" when nothing of it can be one."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_SLUG_MAX].strip("-")
    return slug if PROJECT_SLUG.match(slug) else ""
