"""What buckets, keys, files and types may be called. Source: contract E.7; the bounds are ours."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_runtime import limits

ANY_TYPE = "application/octet-stream"

BUCKET = r"^[A-Za-z0-9][A-Za-z0-9._-]*(?![\s\S])"
TYPE = r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+( ?;[\x20-\x7e]*)?(?![\s\S])"
PLAIN = r"^[^\x00-\x1f\x7f]*(?![\s\S])"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ODD = re.compile(r"[^A-Za-z0-9._-]+")


def key_of(asset_id: str, filename: str | None) -> str:
    """Where an upload's object lies in its bucket: nobody else's, and readable."""
    name = _ODD.sub("_", filename or "").strip("._")
    return f"{asset_id}/{name}" if name else asset_id


def check_key(bucket: str, key: str) -> None:
    """Of an object that a caller names. Raises `Refused` INVALID_INPUT.

    `.` and `..` would be taken out of its URL by whoever asks for it.
    """
    if (
        len(f"{bucket}/{key}".encode()) > limits.STORAGE_KEY.value
        or _CONTROL.search(key)
        or any(part in ("", ".", "..") for part in key.split("/"))
    ):
        raise wrong(
            "$.key",
            f"a key has segments between slashes, none of them empty or dots alone, and with its "
            f"bucket {limits.STORAGE_KEY.value} bytes at most",
        )


def check_metadata(metadata: dict[str, Any]) -> str:
    """As JSON. Raises `Refused` INVALID_INPUT."""
    encoded = msgspec.json.encode(metadata)
    most = limits.MEDIA_METADATA.value
    if len(encoded) > most:
        raise wrong("$.metadata", f"metadata has {most} bytes as JSON at most", bytes_max=most)
    return encoded.decode()


def check_size(size: int | None) -> None:
    """Raises `Refused` PAYLOAD_TOO_LARGE."""
    most = limits.MEDIA_OBJECT.value
    if size is not None and size > most:
        raise faults.PAYLOAD_TOO_LARGE.refuse(
            f"one PUT has {most} bytes at most", {"field": "$.size_bytes", "bytes_max": most}
        )


def same_type(one: str, other: str) -> bool:
    """Whether two content types say the same, blanks and case aside."""
    return "".join(one.split()).lower() == "".join(other.split()).lower()


def wrong(place: str, message: str, **details: Any) -> Refused:
    """The refusal of a member of a body."""
    return faults.INVALID_INPUT.refuse(message, {"field": place, **details})
