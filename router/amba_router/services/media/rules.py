"""What uploads and assets agree on: whose they are, how many, how long, and how one is refused."""

from __future__ import annotations

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.store import media_rows
from amba_router.store.media_rows import AssetRecord
from amba_router.store.scoped import Scoped
from amba_runtime import limits
from amba_runtime.clock import DAY_MS


def theirs(record: AssetRecord, user_id: str | None) -> bool:
    """Whether it is this user's (None: everybody's are)."""
    return user_id is None or record.user_id == user_id


def purge_ms(now_ms: int, retention_days: int | None) -> int | None:
    """From when on the purge takes what is kept so long; None is never."""
    return None if retention_days is None else now_ms + retention_days * DAY_MS


def room(scope: Scoped) -> None:
    """Raises `Refused` CONFLICT where one more asset is too many."""
    most = limits.MEDIA_ASSETS.value
    if media_rows.count(scope) >= most:
        raise faults.CONFLICT.refuse(f"the project has {most} assets; delete some")


def no_upload(upload_id: str) -> Refused:
    """UPLOAD_NOT_FOUND."""
    return faults.UPLOAD_NOT_FOUND.refuse(
        "no such upload; presign anew", {"resource": "upload", "id": upload_id[:64]}
    )


def done() -> Refused:
    """UPLOAD_DONE."""
    return faults.UPLOAD_DONE.refuse("the object is there already; presign anew for another one")


def no_object(key: str) -> Refused:
    """object_not_found."""
    return faults.OBJECT_NOT_FOUND.refuse(
        "this project's STORAGE has no such object", {"resource": "object", "id": key[:200]}
    )
