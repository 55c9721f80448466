"""What a server has to know of a project: its fixed facts, and the keys it is recognised by."""

from __future__ import annotations

from dataclasses import dataclass

from amba_router.identity import NOBODY, Identity
from amba_router.signing import Keyring
from amba_runtime.manifest import ProjectId


@dataclass(frozen=True, slots=True)
class Tenant:
    """The fixed facts and keys of one project. Secrets: never printed, never logged."""

    id: ProjectId
    slug: str
    internal_token: str
    signing_secret: str
    session_key: bytes
    persona: Identity = NOBODY
    pats: tuple[tuple[str, str], ...] = ()
    """(token, developer id)."""
    older_signing: tuple[str, ...] = ()
    older_sessions: tuple[bytes, ...] = ()
    """Newest first; they verify, and sign nothing."""

    def keyring(self) -> Keyring:
        secrets = (self.signing_secret, *self.older_signing)
        return Keyring(tuple(secret.encode() for secret in secrets))
