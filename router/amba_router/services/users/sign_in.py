"""Signing up, in and out, and refreshing a session. Source: contract E.3, A.6, H-27.

Tokens are JWTs. Of a refresh token the store has the digest, and that alone says what it is good
for: a session key that rotates ends session tokens, not sign-ins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from amba_router.api import faults
from amba_router.identity import REFRESH_S
from amba_router.services.users import rules
from amba_router.services.users.passwords import Passwords
from amba_router.store import refresh_rows, user_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.refresh_rows import RefreshToken
from amba_router.store.scoped import Scoped
from amba_router.store.user_rows import NewUser, User
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock, time_ms

if TYPE_CHECKING:
    from amba_router.api.callers import Directory


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client keeps of a session."""

    session: str = field(repr=False)
    refresh: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session that was begun."""

    user: User
    tokens: Tokens


class _Ended(Enum):
    """Why a refresh token is good for nothing."""

    UNKNOWN = "unknown"
    USED = "used"


class SignIn:
    """Sessions of users. `close` at the end; idempotent.

    Args:
        directory: mints tokens.
    """

    def __init__(self, store: ProjectStore, directory: Directory, clock: Clock) -> None:
        self._store = store
        self._directory = directory
        self._clock = clock
        self._passwords = Passwords()

    async def anonymous(self, project_id: str) -> SignedIn:
        """A new user without an address. Raises `Refused` MAU_CAP_REACHED."""
        return await self._begin(
            project_id,
            NewUser(
                id=entropy.uuid4(),
                now_ms=time_ms(self._clock),
                display_name=rules.display_name(),
                anonymous_id=entropy.uuid4(),
                auth_providers=("anonymous",),
            ),
        )

    async def sign_up(
        self, project_id: str, email: str, password: str, still: Callable[[], None]
    ) -> SignedIn:
        """A new user with an address and a password.

        Args:
            still: raises when the caller's key was revoked meanwhile: this takes a while.

        Raises:
            Refused: INVALID_EMAIL, WEAK_PASSWORD, USER_EXISTS, MAU_CAP_REACHED, OVERLOADED.
        """
        key = rules.email_key(email)
        if key is None:
            raise faults.INVALID_EMAIL.refuse(
                "the address is not valid; send one such as name@example.com", {"field": "$.email"}
            )
        if len(password) < limits.PASSWORD_LEAST.value:
            raise faults.WEAK_PASSWORD.refuse(
                f"a password has at least {limits.PASSWORD_LEAST.value} characters",
                {"field": "$.password"},
            )
        if await self._store.read(project_id, lambda s: user_rows.login(s, key)) is not None:
            raise _exists()
        hashed = await self._passwords.hash(project_id, password)
        still()
        return await self._begin(
            project_id,
            NewUser(
                id=entropy.uuid4(),
                now_ms=time_ms(self._clock),
                display_name=rules.display_name(),
                email=email.strip(),
                email_key=key,
                password=hashed,
                auth_providers=("email",),
            ),
        )

    async def log_in(
        self, project_id: str, email: str, password: str, still: Callable[[], None]
    ) -> SignedIn:
        """A session for who has this address and password.

        An address that nobody has takes as long as a password that is wrong.

        Raises:
            Refused: INVALID_CREDENTIALS, OVERLOADED.
        """
        key = rules.email_key(email) or ""  # nobody's
        found = await self._store.read(project_id, lambda s: user_rows.login(s, key))
        kept = found.password if found is not None else None
        good = await self._passwords.matches(project_id, password, kept)
        if found is None or not good:
            raise _wrong()
        still()
        user_id, now_ms = found.user_id, time_ms(self._clock)
        tokens = self._mint(project_id, user_id, found.anonymous_id, entropy.uuid4())

        def work(scoped: Scoped) -> User:
            user_rows.seen(scoped, [user_id], now_ms)
            user = user_rows.get(scoped, user_id)
            if user is None:
                raise _wrong()  # gone while the password was worked on, with the project
            refresh_rows.add(scoped, tokens[1])
            return user

        return SignedIn(await self._store.write(project_id, work), tokens[0])

    async def refresh(self, project_id: str, token: str) -> Tokens:
        """Both tokens anew; the old one is used up. Used again it ends its whole sign-in.

        Raises:
            Refused: INVALID_TOKEN.
        """
        digest, now_ms = _digest(token), time_ms(self._clock)

        def look(scoped: Scoped) -> tuple[RefreshToken, User] | None:
            old = refresh_rows.get(scoped, digest, now_ms)
            user = user_rows.get(scoped, old.user_id) if old is not None else None
            return None if old is None or user is None else (old, user)

        found = await self._store.read(project_id, look)
        if found is None:
            raise _unknown()
        # signed out of the transaction, which others wait for; it says whether they are good
        old, user = found
        tokens, kept = self._mint(project_id, user.id, user.anonymous_id, old.family)

        def work(scoped: Scoped) -> _Ended | None:
            if look(scoped) is None:
                return _Ended.UNKNOWN  # revoked or gone meanwhile
            if not refresh_rows.use(scoped, old, now_ms):
                return _Ended.USED
            refresh_rows.add(scoped, kept)
            user_rows.seen(scoped, [user.id], now_ms)
            return None

        ended = await self._store.write(project_id, work)
        if ended is _Ended.USED:
            raise faults.INVALID_TOKEN.refuse(
                "the refresh token was used before: its sign-in is ended; sign in again"
            )
        if ended is not None:
            raise _unknown()
        return tokens

    async def log_out(self, project_id: str, token: str) -> None:
        """The sign-in that a refresh token is of has ended; an unknown one changes nothing."""
        digest, now_ms = _digest(token), time_ms(self._clock)

        def work(scoped: Scoped) -> None:
            found = refresh_rows.get(scoped, digest, now_ms)
            if found is not None:
                refresh_rows.revoke(scoped, found.family)

        await self._store.write(project_id, work)

    async def close(self) -> None:
        """Idempotent."""
        await self._passwords.close()

    async def _begin(self, project_id: str, new: NewUser) -> SignedIn:
        """The user and their first refresh token, or neither."""
        tokens, kept = self._mint(project_id, new.id, new.anonymous_id, entropy.uuid4())

        def work(scoped: Scoped) -> User:
            room(scoped)
            if not user_rows.add(scoped, new):
                raise _exists()
            refresh_rows.add(scoped, kept)
            user = user_rows.get(scoped, new.id)
            assert user is not None, "it was added just now"
            return user

        return SignedIn(await self._store.write(project_id, work), tokens)

    def _mint(
        self, project_id: str, user_id: str, anonymous_id: str | None, family: str
    ) -> tuple[Tokens, RefreshToken]:
        """The tokens, and what is kept of the second."""
        now_ms = time_ms(self._clock)
        session = self._directory.mint_session(project_id, user_id, anonymous_id=anonymous_id)
        refresh = self._directory.mint_refresh(
            project_id, user_id, anonymous_id=anonymous_id, session_id=family
        )
        kept = RefreshToken(_digest(refresh), user_id, family, now_ms, now_ms + REFRESH_S * 1000)
        return Tokens(session, refresh), kept


def room(scoped: Scoped) -> None:
    """Raises `Refused` MAU_CAP_REACHED where one more user is too many."""
    if user_rows.count(scoped) >= limits.APP_USERS.value:
        raise faults.MAU_CAP_REACHED.refuse(
            f"the project has {limits.APP_USERS.value} users, as many as it may here"
        )


def _exists() -> faults.Refused:
    return faults.USER_EXISTS.refuse(
        "a user of this project has that address; log in instead", {"field": "$.email"}
    )


def _wrong() -> faults.Refused:
    return faults.INVALID_CREDENTIALS.refuse("the address or the password is wrong")


def _unknown() -> faults.Refused:
    return faults.INVALID_TOKEN.refuse(
        "the refresh token is unknown, expired or revoked; sign in again"
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
