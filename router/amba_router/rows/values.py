"""One value at a time: from JSON to what the database keeps, and back.

Each `*_in` raises `ValueError` for what is not of its type, with words where the type's own are
not enough. Source: contract E.5 (types); the stored forms are ours.
"""

from __future__ import annotations

import math
import re
import struct
from datetime import UTC, date, datetime, timedelta

import msgspec

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.rows.shapes import is_array, is_object
from amba_runtime import limits

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIME_TEXT_MAX = 64


def refuse(place: str, column: str, type_: str, wanted: str) -> Refused:
    """INVALID_VALUE, for one column."""
    return faults.INVALID_VALUE.refuse(
        f"{place}: column {column} is {type_}; send {wanted}",
        {"field": place, "column": column, "type": type_},
    )


def text_in(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    if len(value.encode()) > limits.COLLECTION_TEXT_BYTES.value:
        raise ValueError(f"text of {limits.COLLECTION_TEXT_BYTES.value} bytes at most")
    return value


def uuid_in(value: object) -> str:
    if not isinstance(value, str) or not _UUID.match(value.lower()):
        raise ValueError
    return value.lower()


def int32_in(value: object) -> int:
    return _whole(value, 32)


def int64_in(value: object) -> int:
    return _whole(value, 64)


def _whole(value: object, bits: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise ValueError
    return value


def numeric_in(value: object) -> int | float:
    """A whole number of more than 64 bits becomes the nearest double."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return _finite(value)


def _finite(value: int | float) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise ValueError from None
    if not math.isfinite(number):
        raise ValueError
    return number


def boolean_in(value: object) -> int:
    if not isinstance(value, bool):
        raise ValueError
    return int(value)


def time_in(value: object) -> int:
    """Unix microseconds; UTC where no offset is given."""
    if not isinstance(value, str) or len(value) > _TIME_TEXT_MAX or not value.isascii():
        raise ValueError
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment.astimezone(UTC) - _EPOCH) // _MICROSECOND
    except OverflowError:
        raise ValueError("a time of the years 1 to 9999") from None
    except ValueError:
        raise ValueError from None


def time_out(stored: object) -> str:
    """ISO 8601 in UTC, to the millisecond where that is all of it, else to the microsecond.

    What is shown finds its row again, and `gt` of the last one seen does not.
    """
    assert isinstance(stored, int)
    moment = _EPOCH + stored * _MICROSECOND
    whole, rest = divmod(moment.microsecond, 1000)
    digits = f"{moment.microsecond:06d}" if rest else f"{whole:03d}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + f".{digits}Z"


def date_in(value: object) -> str:
    if not isinstance(value, str) or not _DATE.match(value):
        raise ValueError
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise ValueError from None


def json_in(value: object) -> str:
    """Members are sorted by name: equal values are equal text."""
    text = msgspec.json.encode(value, order="deterministic").decode()
    # JSON text has no NUL of its own: it stands escaped
    if "\\u0000" in text and _has_nul(value):
        raise ValueError
    return text


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if is_object(value):
        return any(_has_nul(name) or _has_nul(member) for name, member in value.items())
    return is_array(value) and any(_has_nul(member) for member in value)


def json_out(stored: object) -> object:
    assert isinstance(stored, str)
    return msgspec.json.decode(stored)


def texts_in(value: object) -> str:
    return json_in([text_in(member) for member in _array(value)])


def integers_in(value: object) -> str:
    return json_in([int32_in(member) for member in _array(value)])


def vector_in(value: object) -> bytes:
    numbers: list[float] = []
    for member in _array(value):
        if isinstance(member, bool) or not isinstance(member, int | float):
            raise ValueError
        numbers.append(_finite(member))
    try:
        return struct.pack(f"<{len(numbers)}f", *numbers)
    except OverflowError:
        raise ValueError("numbers of 32 bits") from None


def vector_out(stored: object) -> list[float]:
    """The shortest numbers that are these of 32 bits: 0.1, not 0.10000000149011612."""
    assert isinstance(stored, bytes)
    form = f"<{len(stored) // 4}f"
    exact = struct.unpack(form, stored)
    short = [float(f"{number:.7g}") for number in exact]
    back = struct.unpack(form, struct.pack(form, *short))
    return [s if b == e else float(f"{e:.9g}") for s, b, e in zip(short, back, exact, strict=True)]


def _array(value: object) -> list[object]:
    if not is_array(value):
        raise ValueError
    return value
