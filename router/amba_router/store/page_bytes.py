"""How much of a page fits: lists of large rows end early, before the rows are read.

A list asks for sizes first and then for the rows that fit: what is cut off is never in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, cast, func


def octets(*columns: ColumnElement[Any]) -> ColumnElement[int]:
    """The bytes of a row's texts together; NULL is none."""
    sizes = [func.coalesce(func.length(cast(column, LargeBinary)), 0) for column in columns]
    total: ColumnElement[int] = sizes[0]
    for size in sizes[1:]:
        total = total + size
    return total


def fitting(sizes: Iterable[int], bytes_max: int) -> int:
    """How many rows of these sizes a page may have, in order; one at least where there is one."""
    held = rows = 0
    for size in sizes:
        held += size
        if rows and held > bytes_max:
            break
        rows += 1
    return rows
