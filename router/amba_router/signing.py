"""The dispatch signature: canonical string, then MAC. Source: contract A.4 and J."""

from __future__ import annotations

import hmac
import re
from typing import NamedTuple

from amba_runtime.errors import UserCode, UserError

REPLAY_WINDOW_S = 60
"""A stamp is good for this many seconds either way, inclusive. Source: contract A.5."""

_ID = re.compile(r"[\x21-\x7e]{0,512}\Z")


class Stamp(NamedTuple):
    """What a dispatched request says about itself; "" where there is no user or developer.

    A tuple, as one is made per request and a frozen dataclass takes three times as long to make.
    """

    project_id: str
    user_id: str
    developer_id: str
    request_id: str
    function_name: str
    timestamp_s: int


def check_id(kind: str, value: str) -> str:
    """An id that may be stamped: visible ASCII, 512 characters at most, "" for nobody.

    Raises:
        UserError: INVALID_STAMP; a line feed in an id would forge the fields behind it.
    """
    if _ID.match(value) is None:
        raise UserError(
            UserCode.INVALID_STAMP,
            f"the {kind} {value[:60]!r} cannot be signed: ids are visible ASCII, "
            "without spaces, 512 characters at most",
        )
    return value


def canonical_string(stamp: Stamp) -> bytes:
    """Build the exact bytes that the dispatch signature covers.

    Seven fields in fixed order, joined by LF, UTF-8, no LF at the end.
    An absent identity is an empty line, never a missing one.

    Args:
        stamp: ids have passed `check_id`, so that no field can hold a line feed.

    Source: contract A.4; golden vector J.
    """
    return (
        f"v1\n{stamp.project_id}\n{stamp.user_id}\n{stamp.developer_id}\n"
        f"{stamp.request_id}\n{stamp.function_name}\n{stamp.timestamp_s}"
    ).encode()


def mac_hex(secret: bytes, stamp: Stamp) -> str:
    """HMAC-SHA256 of the canonical string, 64 lower-case hex digits.

    Args:
        secret: the UTF-8 bytes of `EDGE_HEADER_SIGNING_SECRET`, as they are.
    """
    return hmac.digest(secret, canonical_string(stamp), "sha256").hex()


class Keyring:
    """A project's signing secrets, newest first: the newest signs, all verify. Immutable.

    Args:
        secrets: the UTF-8 bytes of each `EDGE_HEADER_SIGNING_SECRET`; at least one.

    Attributes:
        newest: the one that signs. Secret.
    """

    __slots__ = ("_keyed", "newest")

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        if not secrets:
            raise ValueError("a keyring holds at least one secret")
        self.newest = secrets[0]
        # a keyed hash is copied per signature, which spares hashing the key each time
        self._keyed = tuple(hmac.new(secret, digestmod="sha256") for secret in secrets)

    def sign(self, stamp: Stamp) -> str:
        """The MAC under the newest secret, 64 lower-case hex digits."""
        mac = self._keyed[0].copy()
        mac.update(canonical_string(stamp))
        return mac.hexdigest()

    def verify(self, stamp: Stamp, mac: str) -> bool:
        """True when any secret made this MAC; compared in constant time."""
        given = mac.encode("ascii", "replace")
        message = canonical_string(stamp)
        for keyed in self._keyed:
            own = keyed.copy()
            own.update(message)
            if hmac.compare_digest(own.hexdigest().encode(), given):
                return True
        return False
