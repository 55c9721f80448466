"""JSON into typed values and back: bounded in depth, and a wrong type is named with its place."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from amba_router.api import faults
from amba_router.api.faults import Fault
from amba_runtime import limits

T = TypeVar("T")

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)
"""Takes an unfinished string to its end, too: no text makes the search start over."""

_BRACKETS = re.compile(rb"[\[\]{}]")
_PLACE = re.compile(r"(.*?)(?: - at `(?:key in )?(\$[^`]*)`)?\Z", re.DOTALL)


def decode_json(
    raw: bytes,
    type_: type[T],
    *,
    what: str = "the body",
    not_json: Fault = faults.INVALID_JSON,
    wrong: Fault = faults.INVALID_INPUT,
) -> T:
    """Decode; of a member given twice the last counts.

    Raises:
        Refused: `not_json`, or `wrong` with `details.field` (`$.limits.cpu_ms`).
    """
    if _too_deep(raw):
        raise not_json.refuse(
            f"{what} is nested deeper than {limits.CONTROL_JSON_DEPTH.value} levels"
        )
    try:
        if not raw.isascii():
            raw.decode()  # what is not looked into, as `Raw` is not, is not checked either
        return msgspec.json.decode(raw, type=type_)
    except msgspec.ValidationError as error:
        match = _PLACE.match(str(error))
        said, place = (match[1], match[2]) if match is not None else (str(error), None)
        where = f" at {place}" if place else ""
        raise wrong.refuse(f"{what} is not right{where}: {said}", {"field": place or "$"}) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json.refuse(f"{what} is not JSON: {str(error)[:200]}") from None


def encode_json(value: msgspec.Struct) -> bytes:
    """UTF-8, without blanks."""
    return msgspec.json.encode(value)


def field_of(value: Any, default: Any) -> Any:
    """A member, or what stands for its absence."""
    return default if value is msgspec.UNSET else value


def _too_deep(raw: bytes) -> bool:
    most = limits.CONTROL_JSON_DEPTH.value
    if raw.count(b"[") + raw.count(b"{") <= most:
        return False
    depth = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", raw)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > most:
            return True
    return False
