"""The only place that draws random bits: ids, tokens, keys."""

from __future__ import annotations

import os
import secrets
import uuid

_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


def uuid4() -> str:
    """A random UUID in its usual spelling: project ids, object versions."""
    return str(uuid.UUID(bytes=os.urandom(16), version=4))


class RequestIds:
    """UUIDv7 request ids: time-ordered, made at one microsecond a piece.

    Random bits are drawn in blocks; an instance belongs to one event loop.
    Source: contract A.6 (the trace id is a UUIDv7); RFC 9562 section 5.7.
    """

    __slots__ = ("_at", "_ms", "_pool", "_prefix")

    def __init__(self) -> None:
        self._pool = ""
        self._at = 0
        self._ms = -1
        self._prefix = ""

    def new(self, time_s: float) -> str:
        """The id for a request that arrived at `time_s` (Unix seconds)."""
        at = self._at
        pool = self._pool
        if at >= len(pool):
            pool = self._pool = os.urandom(4000).hex()
            at = 0
        self._at = at + 20
        r = pool[at : at + 20]
        ms = int(time_s * 1000)
        if ms != self._ms:
            self._ms = ms
            t = f"{ms:012x}"
            self._prefix = f"{t[:8]}-{t[8:]}-7"
        return f"{self._prefix}{r[:3]}-{_VARIANT[r[3]]}{r[4:7]}-{r[7:19]}"


def token(prefix: str) -> str:
    """`prefix` and 32 URL-safe characters (192 random bits).

    Source: contract A.6 (PAT format `amb_dpat_[A-Za-z0-9_-]{32}`).
    """
    return prefix + secrets.token_urlsafe(24)


def pat() -> str:
    """A developer's token. Source: contract A.6."""
    return token("amb_dpat_")


def api_key(key_type: str, environment: str) -> str:
    """A client or server key.

    Args:
        key_type: `client` or `server`.
        environment: `development` or `production`.

    Source: contract E.0 (`amb_dev_ck_`, `amb_live_ck_`, `amb_dev_sk_`, `amb_live_sk_`), H-20.
    """
    stage = "live" if environment == "production" else "dev"
    return token(f"amb_{stage}_{'sk' if key_type == 'server' else 'ck'}_")


def internal_token() -> str:
    """What a project's functions call their own control plane with (256 random bits).

    Source: contract C.1, E.0 (`amb_int_`), H-24.
    """
    return "amb_int_" + secrets.token_urlsafe(32)


def signing_secret() -> str:
    """The key of a project's dispatch signatures, as text (256 random bits).

    Source: contract A.4, J (`whsec_`).
    """
    return "whsec_" + secrets.token_urlsafe(32)


def session_key() -> str:
    """The key of a project's session tokens: 64 hex characters."""
    return os.urandom(32).hex()


def key_bytes(size: int = 32) -> bytes:
    """Random key material."""
    return os.urandom(size)


def mark() -> str:
    """Sixteen hex characters that a guest cannot guess: the name under which a shim tells us."""
    return secrets.token_hex(8)


def short_id() -> str:
    """Eight hex characters for names of private directories and sockets."""
    return secrets.token_hex(4)


def fraction() -> float:
    """From 0 up to, and without, 1: for jitter."""
    return int.from_bytes(os.urandom(7)) / 2**56
