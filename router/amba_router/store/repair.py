"""What is put right when a state directory is opened, in the opener's thread, before any request.

Hashes are not computed here (1,000 bundles would take seconds): existence and size are looked at,
and `ControlStore.load_bundle` compares the hash.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, delete, exists, insert, or_, select, update

from amba_router.store import keyfile
from amba_router.store.blobs import Blobs
from amba_router.store.control_records import Status
from amba_router.store.database import Database
from amba_router.store.queries import all_referenced, forget_uploads
from amba_router.store.schema import (
    amba_meta,
    api_keys,
    credentials,
    deployments,
    projects,
    secrets,
)
from amba_router.store.sealing import Sealer
from amba_router.store.secret_rows import destroy_unset
from amba_router.store.service_schema import ai_providers
from amba_router.store.state import Quarantined
from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError

_KEY_CHECK = "key_check"


def load_sealer(folder: Path, database: Database) -> tuple[Sealer, int]:
    """The sealer of this directory, its key made when nothing is sealed yet; scratch files gone.

    The key file becomes durable before the row that tells which key it is.

    Raises:
        UserError: STATE_KEY: the key is missing, another one, or may be read by others.
    """
    scratch = keyfile.sweep(folder)
    key = keyfile.read_key(folder)

    def work(c: Connection) -> Sealer:
        known = c.scalar(select(amba_meta.c.value).where(amba_meta.c.name == _KEY_CHECK))
        if key is None and _sealed(c):
            raise UserError(
                UserCode.STATE_KEY,
                f"{folder / keyfile.NAME} is missing; values in the database are sealed with it",
                hint="restore it from a copy of this state directory: nothing else opens the rest",
            )
        sealer = Sealer(keyfile.make_key(folder) if key is None else key)
        check = sealer.index(_KEY_CHECK).hex()
        if known != check:
            if _sealed(c):
                raise UserError(
                    UserCode.STATE_KEY,
                    f"{folder / keyfile.NAME} is not the key of this database",
                    hint="restore the one that belongs to it from a copy of this state directory",
                )
            c.execute(delete(amba_meta).where(amba_meta.c.name == _KEY_CHECK))
            c.execute(insert(amba_meta).values(name=_KEY_CHECK, value=check))
        return sealer

    return database.write_here(work, opening=True), scratch


def _sealed(c: Connection) -> bool:
    """Whether anything needs the key."""
    tables = (credentials, api_keys, secrets, ai_providers)
    return bool(c.scalar(select(or_(*(exists(select(t.c.project_id)) for t in tables)))))


def repair(database: Database, blobs: Blobs, now_ms: int) -> tuple[int, tuple[Quarantined, ...]]:
    """Forget old uploads, disable what cannot serve, remove blobs that nobody refers to."""

    def work(c: Connection) -> tuple[set[str], tuple[Quarantined, ...]]:
        forget_uploads(c, now_ms - int(limits.STORAGE_UPLOAD_S.value * 1000))
        return all_referenced(c), _quarantine(c, blobs)

    swept: list[int] = []
    _, quarantined = database.write_here(
        work, then=lambda r: swept.append(blobs.sweep(r[0])), opening=True
    )
    return swept[0], quarantined


def _quarantine(c: Connection, blobs: Blobs) -> tuple[Quarantined, ...]:
    table = deployments
    rows = c.execute(
        select(
            table.c.id,
            table.c.project_id,
            table.c.name,
            table.c.version,
            table.c.bundle_sha,
            table.c.bytes,
            projects.c.slug,
        )
        .join(projects, projects.c.id == table.c.project_id)
        .where(table.c.status == Status.ACTIVE)
        .order_by(table.c.seq)
    ).all()
    found: list[Quarantined] = []
    for row in rows:
        size = blobs.size(row.bundle_sha) if row.bytes else 0
        if size == row.bytes:
            continue
        reason = (
            "the file of its bundle is gone"
            if size is None
            else f"the file of its bundle has {size} bytes instead of {row.bytes}"
        )
        c.execute(
            update(table).where(table.c.id == row.id).values(status=Status.DISABLED, note=reason)
        )
        found.append(Quarantined(row.project_id, row.slug, row.name, row.version, row.id, reason))
        destroy_unset(c, row.project_id)
    return tuple(found)
