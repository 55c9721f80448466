"""Sizes as people write them on a command line: `500KB`, `1.5MiB`, `10%`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(B|[KMG]B|[KMG]iB|%)?", re.IGNORECASE)
_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}


@dataclass(frozen=True, slots=True)
class Size:
    """So many bytes, or so many percent."""

    value: float
    is_percent: bool = False


def parse_size(text: str, *, percent: bool = False) -> Size:
    """Read a size. KB is 1,000 bytes, KiB 1,024; a bare number is bytes.

    Args:
        percent: `10%` may be written too.

    Raises:
        ValueError: it is no size; the message says what may be written.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = (match[2] or "").lower() if match else ""
    if match is None or (unit == "%" and not percent):
        also = " or 10%" if percent else ""
        raise ValueError(f"{text[:40]!r} is no size: write 500KB, 1.5MiB{also}")
    number = float(match[1])
    return Size(number, is_percent=True) if unit == "%" else Size(int(number * _UNITS[unit]))


def shown_size(size: Size) -> str:
    """`10 %`, or `1024 bytes`."""
    return f"{size.value:g} %" if size.is_percent else f"{size.value:.0f} bytes"
