"""Who calls the control plane: credentials in memory, found by digest, and what each may do.

Source: contract C.1, E.0 and its "Rulings of ours"; H-9 (server keys).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.api.operations import Auth
from amba_router.headers import AS_USER, PROJECT_ID
from amba_router.identity import Identities
from amba_router.store.control_records import (
    ApiKey,
    Credentials,
    KeyType,
    ProjectRecord,
    ProjectState,
    Snapshot,
)
from amba_runtime.clock import Clock
from amba_runtime.secret import SecretText

if TYPE_CHECKING:
    from collections.abc import Iterable

SESSION_MISSING = "session token missing or expired"
"""In the platform's own words. Source: contract E.0 (S0)."""

_INTERNAL_PREFIX = "amb_int_"


class Kind(Enum):
    """What a credential is."""

    DEVELOPER = "personal access token"
    INTERNAL = "internal token"
    SERVER = "server key"
    CLIENT = "client key"


@dataclass(frozen=True, slots=True)
class Caller:
    """One credential that holds.

    Attributes:
        digest: SHA-256 of it.
        developer_id: "" but for a PAT. project_id: "" for a PAT.
        id: of the stored key or credential; a PAT's is its digest in hex.
    """

    kind: Kind
    digest: bytes
    id: str
    developer_id: str = ""
    project_id: str = ""
    environment: str = ""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Who asks, about which project, and for which of its users ("" is nobody).

    Attributes:
        as_user: a trusted credential asks for that user (contract H-9).
    """

    caller: Caller | None = None
    project: ProjectRecord | None = None
    user_id: str = ""
    as_user: bool = False


_TRUSTED = frozenset({Kind.INTERNAL, Kind.SERVER})
_CLIENT_PLANE = frozenset({Auth.CLIENT, Auth.SESSION, Auth.TELLING})


class Directory:
    """Every credential of a node. A change is in force when the method returns.

    Changed only by the operations that change the store, after the store has.
    """

    def __init__(self, snapshot: Snapshot, clock: Clock) -> None:
        self._clock = clock
        self.projects: dict[str, ProjectRecord] = {}
        self.credentials: dict[str, Credentials] = {}
        self._by_digest: dict[bytes, Caller] = {}
        self._sessions: dict[str, tuple[Identities, ...]] = {}
        for digest, developer_id in snapshot.pats:
            self._put(Caller(Kind.DEVELOPER, digest, digest.hex(), developer_id=developer_id))
        for state in snapshot.projects:
            self.add_project(state)

    # what there is

    def add_project(self, state: ProjectState) -> None:
        """A project with its credentials."""
        self.projects[state.record.id] = state.record
        self.set_credentials(state.record.id, state.credentials)
        for key, value in state.api_keys:
            self.add_key(key, value)

    def set_project(self, record: ProjectRecord) -> None:
        """Its record changed."""
        self.projects[record.id] = record

    def remove_project(self, project_id: str) -> None:
        """The project and all its credentials."""
        self.projects.pop(project_id, None)
        self.credentials.pop(project_id, None)
        self._sessions.pop(project_id, None)
        self._drop(c for c in self._by_digest.values() if c.project_id == project_id)

    def set_credentials(self, project_id: str, credentials: Credentials) -> None:
        """All internal tokens and session keys that hold now; others hold no more."""
        self._drop(
            caller
            for caller in self._by_digest.values()
            if caller.project_id == project_id and caller.kind is Kind.INTERNAL
        )
        self.credentials[project_id] = credentials
        for one in credentials.internal:
            digest = _digest(one.value.reveal())
            self._put(Caller(Kind.INTERNAL, digest, one.id, project_id=project_id))
        self._sessions[project_id] = tuple(
            Identities(project_id, session_key=_key(one.value), clock=self._clock)
            for one in credentials.session
        )

    def add_key(self, key: ApiKey, value: SecretText) -> None:
        """A client or server key."""
        kind = Kind.SERVER if key.key_type == KeyType.SERVER else Kind.CLIENT
        self._put(
            Caller(
                kind,
                _digest(value.reveal()),
                key.id,
                project_id=key.project_id,
                environment=key.environment,
            )
        )

    def add_pat(self, pat: str, developer_id: str) -> Caller:
        """A personal access token."""
        digest = _digest(pat)
        return self._put(Caller(Kind.DEVELOPER, digest, digest.hex(), developer_id=developer_id))

    def remove(self, id_: str) -> None:
        """A key or PAT by its id."""
        self._drop(caller for caller in self._by_digest.values() if caller.id == id_)

    def pats(self, developer_id: str | None = None) -> list[Caller]:
        """The personal access tokens of a developer, or all."""
        return [
            caller
            for caller in self._by_digest.values()
            if caller.kind is Kind.DEVELOPER and developer_id in (None, caller.developer_id)
        ]

    def count(self, project_id: str) -> int:
        """How many API keys a project has."""
        return sum(
            caller.project_id == project_id and caller.kind is not Kind.INTERNAL
            for caller in self._by_digest.values()
        )

    def find(self, token: str) -> Caller | None:
        """Whose this is. The same work for any token: a digest, a look-up, a comparison."""
        digest = _digest(token)
        caller = self._by_digest.get(digest)
        if caller is None or not hmac.compare_digest(caller.digest, digest):
            return None
        return caller

    def holds(self, caller: Caller) -> bool:
        """Whether it has not been revoked."""
        return self._by_digest.get(caller.digest) is caller

    def _put(self, caller: Caller) -> Caller:
        self._by_digest[caller.digest] = caller
        return caller

    def _drop(self, callers: Iterable[Caller]) -> None:
        for caller in list(callers):
            self._by_digest.pop(caller.digest, None)

    # who may do what

    def authorize(
        self, auth: Auth, fields: tuple[tuple[bytes, bytes], ...], project_id: str
    ) -> Allowed:
        """Who asks, and about which project; the whole decision is here.

        Args:
            project_id: from the path, "" where it has none.

        Raises:
            Refused: 401, 403, or 404 for a project that this developer cannot have.
        """
        if auth is Auth.NOBODY:
            return Allowed()
        if auth in _CLIENT_PLANE:
            return self._client(auth, fields)
        caller = self._bearer(fields)
        if auth is Auth.FUNCTION:
            project_id = _one(fields, PROJECT_ID) or caller.project_id
        if caller.kind is Kind.CLIENT:
            raise faults.INVALID_TOKEN.refuse(
                "a client key does not open the admin plane; use a personal access token, "
                "the project's internal token or a server key"
            )
        if auth is Auth.DEVELOPER:
            if caller.kind is Kind.INTERNAL:
                raise faults.INVALID_INTERNAL_TOKEN.refuse(
                    "an internal token is good for its own project's paths alone"
                )
            if caller.kind is Kind.SERVER:
                raise faults.PROJECT_FORBIDDEN.refuse(
                    "a server key is good for its own project's paths alone; "
                    "use a personal access token"
                )
            return Allowed(caller)
        if caller.kind is not Kind.DEVELOPER:
            record = self.projects.get(caller.project_id)
            if caller.project_id != project_id or record is None:
                raise faults.WRONG_PROJECT.refuse(f"this {caller.kind.value} is another project's")
            return Allowed(caller, record)
        record = self.projects.get(project_id)
        if record is None:
            raise faults.PROJECT_NOT_FOUND.refuse(
                f"no project has the id {project_id[:64]!r}",
                {"resource": "project", "id": project_id[:64]},
            )
        if record.developer_id != caller.developer_id:
            raise faults.PROJECT_FORBIDDEN.refuse("this project belongs to another developer")
        return Allowed(caller, record)

    def still(self, caller: Caller | None) -> None:
        """Raises `Refused` when a credential that was good has been revoked since."""
        if caller is not None and not self.holds(caller):
            raise _unknown(caller.kind is Kind.INTERNAL)

    def _bearer(self, fields: tuple[tuple[bytes, bytes], ...]) -> Caller:
        """Of `Authorization: Bearer`, else of `X-Api-Key` (a server key may come so: H-9)."""
        token = _bearer_token(fields) or _one(fields, b"x-api-key")
        if token is None:
            raise faults.UNAUTHORIZED.refuse(
                "no credential; send Authorization: Bearer with a personal access token"
            )
        return self._known(token)

    def _known(self, token: str) -> Caller:
        caller = self.find(token)
        if caller is None:
            raise _unknown(token.startswith(_INTERNAL_PREFIX))
        return caller

    def _client(self, auth: Auth, fields: tuple[tuple[bytes, bytes], ...]) -> Allowed:
        key = _one(fields, b"x-api-key")
        bearer = _bearer_token(fields)
        caller = self._key_or_trusted(key, bearer)
        project = self.projects.get(caller.project_id)
        if any(name == AS_USER for name, _ in fields):
            return Allowed(caller, project, _as_user(caller, fields), as_user=True)
        spoken = bearer if key is not None or caller.kind not in _TRUSTED else None
        user_id = self._session(caller.project_id, spoken) if spoken else ""
        telling = auth is Auth.TELLING and caller.kind is Kind.INTERNAL
        if auth is not Auth.CLIENT and not user_id and not telling:
            raise faults.UNAUTHORIZED.refuse(SESSION_MISSING)
        return Allowed(caller, project, user_id)

    def _key_or_trusted(self, key: str | None, bearer: str | None) -> Caller:
        if key is not None:
            caller = self.find(key)
            if caller is None or caller.kind not in (Kind.CLIENT, Kind.SERVER):
                raise faults.INVALID_TOKEN.refuse("the API key is not known")
            return caller
        # functions of the 0.1.x SDK come with their internal token alone (contract E.6)
        trusted = self.find(bearer) if bearer else None
        if trusted is not None and trusted.kind in _TRUSTED:
            return trusted
        if bearer is not None and bearer.startswith(_INTERNAL_PREFIX):
            raise _unknown(True)
        raise faults.UNAUTHORIZED.refuse("no API key; send it as X-Api-Key")

    def _session(self, project_id: str, bearer: str) -> str:
        """Whose session token this is; "" where it is none, or holds no more."""
        wanted = [(b"authorization", b"Bearer " + bearer.encode("latin-1"))]
        users = (s.of(wanted).user_id for s in self._sessions.get(project_id, ()))
        return next((user_id for user_id in users if user_id), "")

    def mint_session(self, project_id: str, user_id: str, *, anonymous_id: str | None) -> str:
        """A session token for a user of a project, signed with its newest key."""
        return self._sessions[project_id][0].mint_session(user_id, anonymous_id=anonymous_id)

    def mint_refresh(
        self, project_id: str, user_id: str, *, anonymous_id: str | None, session_id: str
    ) -> str:
        """A refresh token beside it; what it is good for, the store of users says."""
        return self._sessions[project_id][0].mint_refresh(
            user_id, anonymous_id=anonymous_id, session_id=session_id
        )


def _as_user(caller: Caller, fields: tuple[tuple[bytes, bytes], ...]) -> str:
    """For whom a trusted credential asks. Source: contract H-9, H-15 (the header is ours)."""
    if caller.kind not in _TRUSTED:
        raise faults.PROJECT_FORBIDDEN.refuse("asking as a user needs a server key")
    user_id = _one(fields, AS_USER)
    if user_id is None:
        raise faults.INVALID_INPUT.refuse(f"{AS_USER.decode()} names no user")
    return user_id


def _unknown(internal: bool) -> Refused:
    if internal:
        return faults.INVALID_INTERNAL_TOKEN.refuse("the internal token is unknown or was revoked")
    return faults.INVALID_TOKEN.refuse("the token or key is not known, or was revoked")


def _one(fields: tuple[tuple[bytes, bytes], ...], name: bytes) -> str | None:
    """A header's value; None when absent or empty. Said twice, it is not to be trusted."""
    values = [value for key, value in fields if key == name]
    if len(values) > 1:
        raise faults.INVALID_TOKEN.refuse(f"{name.decode()} was sent {len(values)} times")
    return values[0].decode("latin-1").strip() or None if values else None


def _bearer_token(fields: tuple[tuple[bytes, bytes], ...]) -> str | None:
    value = _one(fields, b"authorization")
    if value is None:
        return None
    scheme, _, token = value.partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _key(value: SecretText) -> bytes:
    """Session keys are kept as hex."""
    return bytes.fromhex(value.reveal())
