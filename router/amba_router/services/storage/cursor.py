"""List cursors: opaque text that says where in its own bucket a list goes on."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode

from amba_router.services.storage.rules import Fault, R2Error
from amba_router.store.records import StoredObject, after_prefix
from amba_runtime.manifest import ProjectId


def encode_cursor(project_id: ProjectId, last: StoredObject | bytes) -> str:
    """The cursor that goes on after the last entry of a page."""
    # A prefix stands for all keys rolled up into it.
    start = after_prefix(last) if isinstance(last, bytes) else last.key + b"\0"
    return urlsafe_b64encode(_cursor_sum(project_id, start) + start).decode()


def decode_cursor(project_id: ProjectId, cursor: str) -> bytes:
    """The first key that may follow. Raises R2Error for a cursor this bucket did not give out.

    The sum catches a cursor of another bucket and a damaged one; it guards nothing, since a
    cursor only says where in its own bucket a list goes on.
    """
    try:
        data = urlsafe_b64decode(cursor.encode())
    except ValueError:
        data = b""
    given, start = data[:8], data[8:]
    if not start or given != _cursor_sum(project_id, start):
        raise R2Error(Fault.INVALID_ARGUMENT, "The cursor is not one that this bucket gave out.")
    return start


def _cursor_sum(project_id: ProjectId, start: bytes) -> bytes:
    return hashlib.blake2b(start, digest_size=8, key=project_id.encode()[:64]).digest()
