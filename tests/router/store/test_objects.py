"""Listing: order, prefixes, groups and pages, checked against the plain definition."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amba_router.store.blobs import Blobs
from amba_router.store.database import Database
from amba_router.store.objects import Objects
from amba_router.store.records import Metadata, Page, StoredObject, after_prefix

KEYS = st.text(alphabet="ab/é\U0010ffff", min_size=1, max_size=5)


def stored(key: str) -> StoredObject:
    return StoredObject(key.encode(), key, 0, "e", 0, {}, Metadata())


async def fill(objects: Objects, keys: set[str]) -> None:
    old = await objects.list("p", prefix=b"", start=b"", delimiter=b"", limit=1000)
    await objects.delete("p", [e.key for e in old.entries if isinstance(e, StoredObject)])
    for key in keys:
        staged = objects.stage()
        await objects.put("p", stored(key), staged, admit=lambda _old: None)


def expected(keys: set[str], prefix: str, delimiter: str, start: bytes) -> list[bytes]:
    """The definition: every key from `start` on, each group once, in the order of bytes."""
    seen: set[bytes] = set()
    for key in keys:
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        entry = key if cut < 0 else key[: cut + len(delimiter)]
        if key.startswith(prefix) and key.encode() >= start:
            seen.add(entry.encode())
    return sorted(seen)


def names(page: Page) -> list[bytes]:
    return [e if isinstance(e, bytes) else e.key for e in page.entries]


@pytest.mark.slow
def test_pages_together_are_the_whole_list(tmp_path: Path) -> None:
    """Any keys, prefix, delimiter and page size: nothing missing, nothing twice (H8)."""
    blobs = Blobs(tmp_path / "blobs")
    assert blobs.try_open()
    database = Database(tmp_path / "amba.db")
    objects = Objects(database, blobs)

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(
        keys=st.sets(KEYS, max_size=12),
        prefix=st.sampled_from(["", "a", "a/", "é", "\U0010ffff"]),
        delimiter=st.sampled_from(["", "/", "b", "é", "//"]),
        start=st.sampled_from([b"", b"a", b"a/b", b"b\0"]),
        limit=st.integers(1, 4),
    )
    def check(keys: set[str], prefix: str, delimiter: str, start: bytes, limit: int) -> None:
        async def main() -> None:
            await fill(objects, keys)
            got: list[bytes] = []
            at, truncated = start, True
            while truncated:
                page = await objects.list(
                    "p", prefix=prefix.encode(), start=at, delimiter=delimiter.encode(), limit=limit
                )
                got += names(page)
                truncated = page.truncated
                assert len(page.entries) <= limit
                if page.entries:
                    last = page.entries[-1]
                    at = after_prefix(last) if isinstance(last, bytes) else last.key + b"\0"
            assert got == expected(keys, prefix, delimiter, start)

        asyncio.run(main())

    check()
    database.close()
    blobs.close()
