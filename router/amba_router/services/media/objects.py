"""What media wants of STORAGE and of the server's addresses; the wiring passes both in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Held:
    """An object that is there. Attributes: etag: MD5 in hex, without quotes."""

    size: int
    etag: str
    content_type: str


class Taken(Exception):
    """An object is there already. Attributes: etag: that one's."""

    def __init__(self, etag: str) -> None:
        super().__init__("an object is there already")
        self.etag = etag


class Objects(Protocol):
    """The objects of all projects."""

    async def put(
        self,
        project_id: str,
        key: str,
        body: AsyncIterator[bytes],
        *,
        content_type: str,
        fresh: bool,
    ) -> Held:
        """Store one; it survives a power cut. An exception of `body` leaves all as it was.

        Args:
            fresh: raises `Taken` where one is there, at the moment of storing.
        """
        ...

    async def head(self, project_id: str, key: str) -> Held | None:
        """One without its bytes."""
        ...

    async def open(self, project_id: str, key: str) -> tuple[Held, AsyncIterator[bytes]] | None:
        """One with its bytes, which are read to their end or closed."""
        ...

    async def delete(self, project_id: str, keys: list[str]) -> None:
        """Delete them, all or none; those that are not there are passed over."""
        ...


class Places(Protocol):
    """By which addresses others reach this server."""

    @property
    def api_url(self) -> str:
        """Origin of the platform API."""
        ...

    def cdn_url(self, slug: str, key: str) -> str:
        """Where an object of a project is served."""
        ...
