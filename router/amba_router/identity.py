"""Who is calling: credentials -> user, developer or nobody. Source: contract A.6, H-4."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from amba_router.pages import Pages
from amba_router.signing import check_id
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock
from amba_runtime.errors import UserCode, UserError
from amba_runtime.wire import Headers

logger = logging.getLogger("amba.identity")

SESSION_S = 30 * 86400
"""A session token lives this long. Source: contract H-27."""

REFRESH_S = 90 * 86400
"""A refresh token lives this long. Source: contract E.3 (SH)."""

_PAT = re.compile(r"amb_dpat_[A-Za-z0-9_-]{32}\Z")
_ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True)
class Identity:
    """At most one of the two is set; "" means nobody. Source: contract A.6 (mutually exclusive)."""

    user_id: str = ""
    developer_id: str = ""

    @property
    def text(self) -> str:
        """As `parse_persona` reads it."""
        if self.user_id:
            return f"user:{self.user_id}"
        return f"developer:{self.developer_id}" if self.developer_id else "anonymous"


NOBODY = Identity()


def parse_persona(text: str) -> Identity:
    """`user:u_42`, `developer:d_1` or `anonymous`.

    Raises:
        UserError: INVALID_PERSONA.
    """
    kind, _, id_ = text.partition(":")
    try:
        if kind == "user" and id_:
            return Identity(user_id=check_id("user id", id_))
        if kind == "developer" and id_:
            return Identity(developer_id=check_id("developer id", id_))
    except UserError as error:
        raise UserError(UserCode.INVALID_PERSONA, error.message) from error
    if text == "anonymous":
        return NOBODY
    raise UserError(
        UserCode.INVALID_PERSONA,
        f"{text[:80]!r} is not a persona",
        hint="use user:ID, developer:ID or anonymous, such as --as user:u_42",
    )


class Identities:
    """The credentials of one project.

    Args:
        session_key: signs session tokens (HS256), 32 bytes or more; `set_session_keys` has more.
        persona: who a request without any credential is; the pages of other sites, which bring
            none either, never are.
        pages: whose pages may be that persona; None is loopback's alone.
    """

    def __init__(
        self,
        project_id: str,
        *,
        session_key: bytes,
        clock: Clock,
        persona: Identity = NOBODY,
        pages: Pages | None = None,
    ) -> None:
        self._project_id = project_id
        self._keys: tuple[bytes, ...] = (session_key,)
        self._clock = clock
        self._persona = persona
        self._pages = pages or Pages()
        self._pats: Mapping[bytes, str] = {}
        self._seen: dict[bytes, tuple[Identity, float]] = {}

    def add_pat(self, pat: str, developer_id: str) -> None:
        """Let a personal access token speak for a developer; only its hash is kept."""
        hashed = hashlib.sha256(pat.encode()).digest()
        self.set_pats({**self._pats, hashed: check_id("developer id", developer_id)})

    def set_pats(self, pats: Mapping[bytes, str]) -> None:
        """All that hold: SHA-256 of the token -> developer id. Kept, not copied."""
        self._pats = pats
        self._seen.clear()

    def set_session_keys(self, keys: tuple[bytes, ...]) -> None:
        """Newest first: the newest signs, all verify; at least one."""
        if not keys:
            raise ValueError("a project has at least one session key")
        self._keys = keys
        self._seen.clear()

    def mint_session(self, user_id: str, *, anonymous_id: str | None = None) -> str:
        """A session token for an end user: a JWT with `sub`, `pid`, `anon`, `iat`, `exp`.

        Source: contract A.6, H-27.
        """
        return self._sign({"sub": user_id, "anon": anonymous_id}, SESSION_S)

    def mint_refresh(self, user_id: str, *, anonymous_id: str | None, session_id: str) -> str:
        """A refresh token: as `mint_session`, with `sid`, and `jti` so that no two are the same.

        It is good for what the store knows of it alone; as a session token it is nobody's.

        Source: contract A.6 (a refresh token adds `sid`), E.3.
        """
        claims = {"sub": user_id, "anon": anonymous_id, "sid": session_id, "jti": entropy.uuid4()}
        return self._sign(claims, REFRESH_S)

    def _sign(self, claims: dict[str, Any], seconds: int) -> str:
        import jwt

        now = int(self._clock.time_s())
        check_id("user id", claims["sub"])
        whole = {**claims, "pid": self._project_id, "iat": now, "exp": now + seconds}
        # pyjwt leaves a type open here and in `decode`
        encode = cast(Callable[..., str], jwt.encode)  # pyright: ignore[reportUnknownMemberType]
        return encode(whole, self._keys[0], algorithm=_ALGORITHM)

    def of(self, fields: Headers) -> Identity:
        """Who sent these headers. Nobody for a bad credential: never an error (H-4)."""
        for name, value in fields:
            if name == b"authorization":
                return self._credential(value)
        if self._persona is NOBODY or self._pages.foreign(fields):
            return NOBODY
        return self._persona

    def _credential(self, value: bytes) -> Identity:
        known = self._seen.get(value)
        if known is not None and self._clock.time_s() < known[1]:
            return known[0]
        scheme, _, token = value.partition(b" ")
        if scheme.lower() != b"bearer":
            return NOBODY  # Basic, Stripe signatures, ...: the function's own business
        identity, until_s, why = self._verify(token.strip())
        if why:
            logger.warning("a request's credential was ignored: %s", why)
            return NOBODY
        if len(self._seen) >= limits.TOKEN_CACHE.value:
            self._seen.clear()
        self._seen[value] = (identity, until_s)
        return identity

    def _verify(self, token: bytes) -> tuple[Identity, float, str]:
        """(who, good until, "" or why not)."""
        text = token.decode("latin-1")
        if text.startswith("amb_dpat_"):
            developer = self._pats.get(hashlib.sha256(token).digest())
            if _PAT.match(text) is None or developer is None:
                return NOBODY, 0.0, "unknown personal access token"
            return Identity(developer_id=developer), float("inf"), ""
        if text.count(".") != 2:
            return NOBODY, 0.0, "the bearer token is neither a session token nor a PAT"
        return self._session(text)

    def _session(self, text: str) -> tuple[Identity, float, str]:
        import jwt

        try:
            claims = self._claims(text)
            until_s = float(claims["exp"])
            if until_s <= self._clock.time_s():
                return NOBODY, 0.0, "the session token has expired"
            if claims["pid"] != self._project_id:
                return NOBODY, 0.0, "the session token belongs to another project"
            if "sid" in claims:
                return NOBODY, 0.0, "a refresh token is no session token"
            if not claims["sub"]:
                return NOBODY, 0.0, "the session token names no user"
            return Identity(user_id=check_id("user id", claims["sub"])), until_s, ""
        except (jwt.InvalidTokenError, UserError, ValueError, TypeError, OverflowError) as error:
            return NOBODY, 0.0, f"the session token is not valid ({error})"

    def _claims(self, text: str) -> dict[str, Any]:
        import jwt

        decode = cast(
            Callable[..., dict[str, Any]],
            jwt.decode,  # pyright: ignore[reportUnknownMemberType]
        )
        fault = jwt.InvalidSignatureError("there is no key")
        for key in self._keys:
            try:
                return decode(
                    text,
                    key,
                    algorithms=[_ALGORITHM],
                    options={
                        "require": ["sub", "pid", "exp"],
                        "verify_exp": False,
                        "verify_iat": False,
                    },
                )
            except jwt.InvalidSignatureError as error:
                fault = error
        raise fault
