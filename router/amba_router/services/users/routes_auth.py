"""Signing in on the client plane, and its diagnostics. Source: contract E.0, E.3."""

from __future__ import annotations

from amba_router.api import faults
from amba_router.api.asked import project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Reads
from amba_router.services.users.models import (
    AnonymousSignIn,
    EmailSignIn,
    LoggedOut,
    LoggedOutAnswer,
    Ping,
    PingAnswer,
    RefreshedAnswer,
    RefreshedSession,
    RefreshSession,
    Session,
    SessionAnswer,
)
from amba_router.services.users.service import Users
from amba_router.services.users.sign_in import SignedIn, SignIn
from amba_router.services.users.wire import session_user

_AUTH = "/client/auth"


def operations(sign_in: SignIn, users: Users) -> tuple[Operation, ...]:
    """Their part of the table."""
    auth = _Auth(sign_in, users)
    return (
        Operation(
            "signInAnonymously",
            "POST",
            f"{_AUTH}/anonymous",
            Auth.CLIENT,
            "A new user without an address, signed in.",
            auth.anonymous,
            {201: SessionAnswer},
            (faults.MAU_CAP_REACHED, *faults.WRITES),
            reads=Reads.MAYBE_JSON,
            request=AnonymousSignIn,
        ),
        Operation(
            "signUpWithEmail",
            "POST",
            f"{_AUTH}/email/signup",
            Auth.CLIENT,
            "A new user with an address and a password, signed in.",
            auth.sign_up,
            {201: SessionAnswer},
            (
                *(faults.INVALID_EMAIL, faults.WEAK_PASSWORD, faults.USER_EXISTS),
                *(faults.MAU_CAP_REACHED, *faults.WRITES),
            ),
            reads=Reads.JSON,
            request=EmailSignIn,
        ),
        Operation(
            "logInWithEmail",
            "POST",
            f"{_AUTH}/email/login",
            Auth.CLIENT,
            "A session for who has this address and password.",
            auth.log_in,
            {200: SessionAnswer},
            (faults.INVALID_CREDENTIALS, *faults.WRITES),
            reads=Reads.JSON,
            request=EmailSignIn,
        ),
        Operation(
            "refreshSession",
            "POST",
            f"{_AUTH}/refresh",
            Auth.CLIENT,
            "Both tokens anew; used a second time, a refresh token ends its sign-in.",
            auth.refresh,
            {200: RefreshedAnswer},
            faults.WRITES,
            reads=Reads.JSON,
            request=RefreshSession,
        ),
        Operation(
            "logOut",
            "POST",
            f"{_AUTH}/logout",
            Auth.CLIENT,
            "End the sign-in that a refresh token is of; again is the same.",
            auth.log_out,
            {200: LoggedOutAnswer},
            faults.WRITES,
            reads=Reads.JSON,
            request=RefreshSession,
        ),
        Operation(
            "pingClient",
            "GET",
            "/client/ping",
            Auth.CLIENT,
            "Which project and environment a key is of, and that the server answers.",
            auth.ping,
            {200: PingAnswer},
        ),
    )


class _Auth:
    def __init__(self, sign_in: SignIn, users: Users) -> None:
        self._sign_in = sign_in
        self._users = users

    async def anonymous(self, asked: Asked) -> Answer:
        return Answer(201, _session(await self._sign_in.anonymous(project_of(asked).id)))

    async def sign_up(self, asked: Asked) -> Answer:
        body: EmailSignIn = asked.body
        project_id = project_of(asked).id
        signed_in = await self._sign_in.sign_up(project_id, body.email, body.password, asked.still)
        return Answer(201, _session(signed_in))

    async def log_in(self, asked: Asked) -> Answer:
        body: EmailSignIn = asked.body
        project_id = project_of(asked).id
        signed_in = await self._sign_in.log_in(project_id, body.email, body.password, asked.still)
        return Answer(200, _session(signed_in))

    async def refresh(self, asked: Asked) -> Answer:
        body: RefreshSession = asked.body
        tokens = await self._sign_in.refresh(project_of(asked).id, body.refresh_token)
        return Answer(200, RefreshedAnswer(RefreshedSession(tokens.session, tokens.refresh)))

    async def log_out(self, asked: Asked) -> Answer:
        body: RefreshSession = asked.body
        await self._sign_in.log_out(project_of(asked).id, body.refresh_token)
        return Answer(200, LoggedOutAnswer(LoggedOut(logged_out=True)))

    async def ping(self, asked: Asked) -> Answer:
        project = project_of(asked)
        assert asked.caller is not None
        ping = Ping(
            ok=True,
            server_project_id=project.id,
            environment=asked.caller.environment or project.environment,
            key_fingerprint=asked.caller.digest.hex()[-4:],
            latency_ms=await self._users.latency_ms(project.id),
            error=None,
        )
        return Answer(200, PingAnswer(ping))


def _session(signed_in: SignedIn) -> SessionAnswer:
    user, tokens = signed_in.user, signed_in.tokens
    return SessionAnswer(
        Session(
            session_token=tokens.session,
            refresh_token=tokens.refresh,
            user=session_user(user),
            anonymous_id=user.anonymous_id,
        )
    )
