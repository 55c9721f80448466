"""What the control plane needs of the server around it: starting, switching, removing, logs.

The node implements `Host` over its pool and routes (`amba_run.hosting`); tests use a fake.
All calls come from the one event loop. Source: architecture.md section 4, steps 6 to 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from amba_runtime.manifest import Bundle, FunctionName
from amba_runtime.secret import SecretText

if TYPE_CHECKING:
    from amba_router.store.control_records import (
        Credentials,
        Deployment,
        ProjectRecord,
        ProjectState,
    )
    from amba_runtime.egress_rules import EgressRules


class Trial(Protocol):
    """A version that was started and may serve, but does not yet. Ends by `activate` or `discard`.

    Attributes:
        handlers: what its default export has, of `manifest.HANDLERS`.
        warnings: sentences for the person who deploys; the answer carries them.
    """

    @property
    def handlers(self) -> tuple[str, ...]: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...


class Host(Protocol):
    """The node as the control plane sees it."""

    async def trial(
        self,
        project: ProjectRecord,
        name: FunctionName,
        bundle: Bundle,
        *,
        version: int,
        limits: Mapping[str, int],
        env: tuple[tuple[str, SecretText], ...],
        storage: bool,
        egress: EgressRules,
    ) -> Trial:
        """Admit a bundle and start it where it will serve, egress shut.

        Args:
            limits: names of `limits.SETTINGS`, already within what may be written; the host
                clamps them to its own maxima.
            env: the secrets alone; the host adds the platform's bindings.
            egress: what the function may reach at most; its secrets that stay outside of it.

        Raises:
            admission.Rejected: with all violations.
        """
        ...

    async def discard(self, trial: Trial) -> None:
        """End a version that never served. Idempotent."""
        ...

    def activate(self, deployment: Deployment, trial: Trial, *, stale: bool = False) -> None:
        """Let it serve: the route and its rate limit switch at once; the version before drains.

        Args:
            stale: what was tried has secrets that the deployment has not: it serves from an
                isolate of its own, which reads them anew.
        """
        ...

    def remove(self, project_id: str, name: str) -> None:
        """404 from now on; what has begun drains. Nothing when there is no such function."""
        ...

    def add_project(self, state: ProjectState) -> None:
        """Make a new project reachable."""
        ...

    def remove_project(self, project_id: str) -> None:
        """404 from now on, its functions too."""
        ...

    def set_credentials(self, project_id: str, credentials: Credentials) -> None:
        """Newest signs and is handed to isolates, all that are not revoked verify."""
        ...

    def set_pats(self, pats: Sequence[tuple[bytes, str]]) -> None:
        """All personal access tokens that hold: (SHA-256 of the token, developer id)."""
        ...

    async def push_secret(
        self, project_id: str, function: str | None, name: str, value: SecretText
    ) -> None:
        """Into the env of running isolates: no restart, no failed request, within a second.

        Args:
            function: None is all of the project's, but those that have a secret of this name
                of their own.

        Raises:
            Exception: some isolate could not be told; the control plane tries again.
        """
        ...

    def fn_url(self, slug: str, name: str) -> str:
        """Where the function answers, as it works when pasted."""
        ...


class Logs(Protocol):
    """Where the journal's events are kept."""

    async def events(
        self,
        project_id: str,
        name: str,
        *,
        since_ms: int,
        until_ms: int,
        limit: int,
        request_id: str | None = None,
    ) -> tuple[list[dict[str, Any]], bool]:
        """Events in the shape of contract D.5, newest first, and whether there were more.

        Args:
            since_ms: Unix milliseconds, inclusive. until_ms: exclusive.
            request_id: only this invocation's (ours).
        """
        ...
