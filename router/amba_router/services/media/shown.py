"""How assets look on the wire. Source: contract E.7."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET

from amba_router.api.asked import iso_ms
from amba_router.services.media.models import Asset
from amba_router.services.media.objects import Places
from amba_router.store.control_records import ProjectRecord
from amba_router.store.media_rows import AssetRecord


class Shown:
    """Args: places: asked anew each time: a server learns its port when it opens."""

    def __init__(self, places: Callable[[], Places]) -> None:
        self._places = places

    def url(self, project: ProjectRecord, record: AssetRecord) -> str:
        """Where an asset's object is served."""
        return self._places().cdn_url(project.slug, record.object_key)

    def asset(self, project: ProjectRecord, record: AssetRecord) -> Asset:
        """All of it."""
        url = self.url(project, record)
        return Asset(
            id=record.id,
            asset_id=record.id,
            bucket=record.bucket,
            key=record.key,
            url=url,
            storage_url=url,
            mime_type=record.mime_type,
            size_bytes=record.size_bytes,
            filename=record.filename,
            folder_id=record.folder_id,
            metadata=msgspec.json.decode(record.metadata, type=dict[str, Any]),
            created_at=iso_ms(record.created_ms),
            retention_days=UNSET if record.retention_days is None else record.retention_days,
        )
