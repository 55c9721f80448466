"""Everything a node must not forget of projects, credentials, deployments and secrets.

Each write is one transaction, durable when its await returns: it survives `kill -9` and a power
cut, and is visible whole or not at all. Source: contract C.1, C.2, D.2, D.4; architecture.md 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amba_router.store.control_records import (
    ApiKey,
    CreatedProject,
    Credentials,
    Deployment,
    NewDeployment,
    NewProject,
    ProjectRecord,
    SecretRecord,
    Snapshot,
)
from amba_runtime.clock import Clock
from amba_runtime.manifest import Bundle
from amba_runtime.secret import SecretText

if TYPE_CHECKING:
    from amba_router.store.state import State


class ControlStore:
    """A node's memory. Owns nothing: the `State` is closed by who opened it.

    Every method may raise UserError DISK_FULL or STATE_READ_ONLY (nothing was written; the next
    write works once there is space) and InternalError STATE_FAILED.
    """

    def __init__(self, state: State, clock: Clock) -> None:
        # An open state has loaded SQLAlchemy; this module is imported where that would cost.
        from amba_router.store.credential_rows import CredentialRows
        from amba_router.store.deployment_rows import DeploymentRows
        from amba_router.store.project_rows import ProjectRows
        from amba_router.store.secret_rows import SecretRows

        self._state = state
        self._clock = clock
        self._projects = ProjectRows(state, clock)
        self._credentials = CredentialRows(state, clock)
        self._deployments = DeploymentRows(state, clock)
        self._secrets = SecretRows(state, clock)

    async def snapshot(self) -> Snapshot:
        """All that a node keeps in memory, as of one moment."""
        from amba_router.store import snapshot_rows

        return await snapshot_rows.take(self._state, self._clock)

    # projects

    async def create_project(self, new: NewProject) -> CreatedProject:
        """A project with its credentials and a first key of each type.

        Raises:
            UserError: INVALID_NAME (the slug's form) or NAME_TAKEN (a given slug).
        """
        return await self._projects.create(new)

    async def update_project(
        self,
        project_id: str,
        *,
        name: str | None = None,
        platform: str | None = None,
        environment: str | None = None,
        bundle_id: str | None = None,
        storage: bool | None = None,
    ) -> ProjectRecord | None:
        """Change what is not None; None when there is no such project."""
        changes = {
            "name": name,
            "platform": platform,
            "environment": environment,
            "bundle_id": bundle_id,
            "storage": storage,
        }
        return await self._projects.update(project_id, changes)

    async def delete_project(self, project_id: str) -> bool:
        """Forget it with all it has, STORAGE included; False when there was none."""
        return await self._projects.delete(project_id)

    # credentials

    async def add_api_key(
        self, project_id: str, key_type: str, environment: str
    ) -> tuple[ApiKey, str]:
        """A new key and its value.

        Raises:
            UserError: CONFLICT when the project is not there (any more).
        """
        return await self._credentials.add_api_key(project_id, key_type, environment)

    async def revoke_api_key(self, project_id: str, key_id: str) -> bool:
        """Destroy a key; False when this project has no such key."""
        return await self._credentials.revoke_api_key(project_id, key_id)

    async def add_pat(self, developer_id: str) -> str:
        """A new PAT, told here and never again: only its SHA-256 is stored."""
        return await self._credentials.add_pat(developer_id)

    async def mint_first_pat(self, developer_id: str) -> str | None:
        """The token of a new state directory: another one at each call until `first_pat_told`.

        Those before it hold too, up to `limits.UNTOLD_PATS`: somebody may have seen them.
        """
        return await self._credentials.mint_first_pat(developer_id)

    async def first_pat_told(self) -> None:
        """Somebody was shown the token."""
        await self._credentials.first_pat_told()

    async def revoke_pat(self, pat_id: str) -> bool:
        """Forget a PAT. Args: pat_id: lower-case hex of its SHA-256, as in `Snapshot.pats`."""
        return await self._credentials.revoke_pat(pat_id)

    async def has_pat(self) -> bool:
        """Whether any PAT is valid: False on the first start of a state directory."""
        return await self._credentials.has_pat()

    async def rotate_internal(self, project_id: str, *, which: str) -> Credentials:
        """Add a new newest credential of one kind; the older ones stay valid until revoked.

        Raises:
            UserError: CONFLICT when the project is not there (any more).
        """
        return await self._credentials.rotate_internal(project_id, which=which)

    async def revoke_internal(self, project_id: str, credential_id: str) -> bool:
        """Destroy a credential; False when this project has no such one.

        Raises:
            UserError: CONFLICT when it is the last of its kind: rotate first.
        """
        return await self._credentials.revoke_internal(project_id, credential_id)

    # functions

    async def next_version(self, project_id: str, name: str) -> int:
        """The number the next deployment of this function has; 1 for the first."""
        return await self._deployments.next_version(project_id, name)

    async def add_deployment(self, new: NewDeployment) -> Deployment:
        """Make a version active and the former one superseded.

        Raises:
            UserError: CONFLICT when the version is not the next one (another deploy won), or the
                project is not there any more.
        """
        return await self._deployments.add(new)

    async def disable_deployment(
        self, project_id: str, deployment_id: str, *, note: str = ""
    ) -> Deployment | None:
        """Serve it no more; None when this project has no such one. Idempotent."""
        return await self._deployments.disable(project_id, deployment_id, note)

    async def delete_function(self, project_id: str, name: str) -> int | None:
        """Disable every deployment; how many were not yet, None when there never was one."""
        return await self._deployments.delete_function(project_id, name)

    async def deployments(
        self, project_id: str, *, active: bool, name: str | None, offset: int, limit: int
    ) -> tuple[list[Deployment], int]:
        """A page, newest first, and how many there are in all."""
        return await self._deployments.page(
            project_id, active=active, name=name, offset=offset, limit=limit
        )

    async def find_deployment(
        self,
        project_id: str,
        *,
        name: str | None = None,
        version: int | None = None,
        deployment_id: str | None = None,
    ) -> Deployment | None:
        """The newest deployment that has all that is given."""
        return await self._deployments.find(
            project_id, name=name, version=version, deployment_id=deployment_id
        )

    async def load_bundle(self, deployment_id: str) -> Bundle:
        """The code and its map, checked against their hashes. A damaged map is left out.

        Raises:
            InternalError: BLOB_DAMAGED.
            UserError: CONFLICT when the deployment is not there (any more).
        """
        return await self._deployments.load_bundle(deployment_id)

    # secrets

    async def set_secret(
        self, project_id: str, name: str, value: SecretText, function: str | None
    ) -> SecretRecord:
        """Set or replace a value; the name and size were checked.

        Raises:
            UserError: CONFLICT when the project is not there (any more).
        """
        return await self._secrets.set(project_id, name, value, function)

    async def unset_secret(self, project_id: str, name: str, function: str | None) -> bool:
        """Hide a secret at once; False when it is not set.

        Deployments made before keep the value until they are superseded or disabled; with the
        last of them it is destroyed. Source: contract C.2.
        """
        return await self._secrets.unset(project_id, name, function)

    async def secrets(self, project_id: str) -> list[SecretRecord]:
        """Those that are set, by name, project-wide ones first."""
        return await self._secrets.list(project_id)

    async def secret(
        self, project_id: str, name: str, function: str | None
    ) -> tuple[SecretRecord, SecretText] | None:
        """One that is set in this very scope, with its value.

        Raises:
            InternalError: SECRET_DAMAGED.
        """
        return await self._secrets.one(project_id, name, function)

    async def secrets_for(self, deployment_id: str) -> tuple[tuple[str, SecretText], ...]:
        """What the env of this deployment has, by name.

        Project-wide values, then the function's own, which win (H-12); one that was unset only
        when the deployment is older than that.

        Raises:
            InternalError: SECRET_DAMAGED.
        """
        return await self._secrets.of_deployment(deployment_id)

    async def secrets_for_new(
        self, project_id: str, name: str
    ) -> tuple[tuple[str, SecretText], ...]:
        """What the env of this function's next deployment has: for a trial before it is one."""
        return await self._secrets.of_new(project_id, name)
