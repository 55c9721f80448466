"""What the store hands out: frozen values, free of SQL, cheap to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Segment:
    """One blob's place in an object: its SHA-256 (lower-case hex) and its size in bytes."""

    blob: str
    size: int


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a function says about an object.

    Attributes:
        http: any of contentType, contentLanguage, contentDisposition, contentEncoding,
            cacheControl (text) and cacheExpiry (Unix milliseconds).
        custom: names and values in the order given.
        storage_class: `Standard` or `InfrequentAccess`.
    """

    http: Mapping[str, str | int] = field(default_factory=lambda: dict[str, str | int]())
    custom: tuple[tuple[str, str], ...] = ()
    storage_class: str = "Standard"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it is listed: everything but its bytes.

    Attributes:
        key: UTF-8, 1 to 1,024 bytes, opaque.
        version: 32 hex characters, new with every put.
        etag: MD5 in hex, or `MD5-PARTS` after a multipart upload; without quotes.
        uploaded_ms: Unix milliseconds.
        checksums: algorithm (`md5`, `sha1`, ...) to lower-case hex.
    """

    key: bytes
    version: str
    size: int
    etag: str
    uploaded_ms: int
    checksums: Mapping[str, str]
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload; `open` is False once it was completed or aborted."""

    upload_id: str
    key: bytes
    metadata: Metadata
    open: bool


@dataclass(frozen=True, slots=True)
class Part:
    """One uploaded part; `etag` is the MD5 of its bytes in hex."""

    number: int
    etag: str
    segment: Segment


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    Attributes:
        entries: objects and delimited prefixes (bytes) together, in the order of their bytes.
        truncated: there is more after the last entry.
    """

    entries: tuple[StoredObject | bytes, ...]
    truncated: bool


def after_prefix(prefix: bytes) -> bytes:
    """The least bytes greater than everything that begins with `prefix` (UTF-8, not empty).

    The last byte of UTF-8 text is never 0xFF, so raising it is enough.
    """
    return prefix[:-1] + bytes([prefix[-1] + 1])
