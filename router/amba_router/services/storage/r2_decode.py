"""What a request in R2's wire form asks for: JSON to values, or a refusal.

64-bit numbers arrive as decimal text; absent members are left out. Everything was shaped by a
guest and is checked. Source: r2-api.capnp in workerd.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from amba_router.services.storage.rules import (
    Condition,
    ETag,
    Fault,
    R2Error,
    Range,
    Strength,
    parse_range,
)
from amba_router.store.blobs import ALGORITHMS
from amba_router.store.records import Metadata

Json = Mapping[str, Any]

_HTTP_FIELDS = (
    "contentType",
    "contentLanguage",
    "contentDisposition",
    "contentEncoding",
    "cacheControl",
)


def parse(data: bytes) -> Json:
    try:
        asked = json.loads(data)
    except ValueError as error:
        raise R2Error(Fault.INVALID_ARGUMENT) from error
    if not isinstance(asked, dict):
        raise R2Error(Fault.INVALID_ARGUMENT)
    return asked  # pyright: ignore[reportUnknownVariableType]


def text(asked: Json, name: str, default: str | None = None) -> str:
    value = asked.get(name, default)
    if not isinstance(value, str):
        raise R2Error(Fault.INVALID_ARGUMENT)
    return value


def texts(asked: Json, name: str) -> list[str]:
    return [text({name: v}, name) for v in array(asked, name)]


def number(asked: Json, name: str) -> int | None:
    """A whole number of at most 64 bits, as JSON writes it or as text; None when absent."""
    value = asked.get(name)
    if value is None:
        return None
    if isinstance(value, str) and value.isdecimal() and len(value) <= 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise R2Error(Fault.INVALID_ARGUMENT)
    # A time before 1970 was written as if it had no sign.
    return value - (1 << 64) if value >= 1 << 63 else value


def _object(asked: Json, name: str) -> Json | None:
    value = asked.get(name)
    if value is not None and not isinstance(value, dict):
        raise R2Error(Fault.INVALID_ARGUMENT)
    return value  # pyright: ignore[reportUnknownVariableType]


def items(asked: Json, name: str) -> list[Json]:
    return [_object({name: v}, name) or {} for v in array(asked, name)]


def array(asked: Json, name: str) -> list[Any]:
    values = asked.get(name)
    if values is None:
        return []
    if not isinstance(values, list):
        raise R2Error(Fault.INVALID_ARGUMENT)
    return values  # pyright: ignore[reportUnknownVariableType]


def metadata(asked: Json) -> Metadata:
    fields = _object(asked, "httpFields") or {}
    http: dict[str, str | int] = {n: text(fields, n) for n in _HTTP_FIELDS if n in fields}
    expiry = number(fields, "cacheExpiry")
    if expiry is not None:
        http["cacheExpiry"] = expiry
    custom = tuple((text(r, "k"), text(r, "v")) for r in items(asked, "customFields"))
    return Metadata(http, custom, text(asked, "storageClass", "") or "Standard")


def condition(asked: Json) -> Condition | None:
    given = _object(asked, "onlyIf")
    if given is None:
        return None
    return Condition(
        etag_matches=_etags(given, "etagMatches"),
        etag_differs=_etags(given, "etagDoesNotMatch"),
        uploaded_before_ms=number(given, "uploadedBefore"),
        uploaded_after_ms=number(given, "uploadedAfter"),
        whole_seconds=given.get("secondsGranularity") is True,
    )


def _etags(given: Json, name: str) -> tuple[ETag, ...] | None:
    if name not in given:
        return None
    try:
        return tuple(ETag(Strength(e.get("type")), e.get("value", "")) for e in items(given, name))
    except ValueError as error:
        raise R2Error(Fault.INVALID_ARGUMENT) from error


def wanted_range(asked: Json) -> Range | None:
    if "rangeHeader" in asked:
        return parse_range(text(asked, "rangeHeader"))
    given = _object(asked, "range")
    if given is None:
        return None
    return Range(number(given, "offset"), number(given, "length"), number(given, "suffix"))


def checksums(asked: Json) -> dict[str, str]:
    """Lower-case hex by algorithm. On the wire MD5 is base64, all others are hex."""
    sums: dict[str, str] = {}
    try:
        for algorithm in ALGORITHMS:
            if algorithm in asked:
                given = text(asked, algorithm)
                data = base64.b64decode(given) if algorithm == "md5" else bytes.fromhex(given)
                sums[algorithm] = data.hex()
    except ValueError as error:
        raise R2Error(Fault.INVALID_ARGUMENT) from error
    return sums


def refuse_customer_keys(asked: Json) -> None:
    if "ssec" in asked:
        raise R2Error(
            Fault.INVALID_ARGUMENT, "Encryption with customer keys (ssecKey) is not emulated."
        )
