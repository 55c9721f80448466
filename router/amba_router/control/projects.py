"""Projects: create, list, show, change, delete, and how far they are provisioned.

Source: contract E.1, H-19 (both shapes of a creation, merged).
"""

from __future__ import annotations

from typing import Any

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, iso_ms, page, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Reads
from amba_router.control.models import (
    CreateProject,
    Deleted,
    DeletedAnswer,
    FirstKey,
    FirstKeys,
    NewProjectAnswer,
    NewProjectRow,
    ProjectAnswer,
    ProjectList,
    ProjectRow,
    ProjectSummary,
    Provisioning,
    ProvisioningAnswer,
    UpdateProject,
)
from amba_router.control.services import Services
from amba_router.store.control_records import ApiKey, NewProject, ProjectRecord, ProjectState
from amba_runtime.secret import SecretText

_PROJECT = "/admin/projects/{project_id}"
READY = "active"
"""What a project is from its creation on: there is nothing to wait for here."""


def operations(services: Services) -> tuple[Operation, ...]:
    """Their part of the table."""
    projects = _Projects(services)
    return (
        Operation(
            "createProject",
            "POST",
            "/admin/projects",
            Auth.DEVELOPER,
            "A project with its first two keys, told here alone.",
            projects.create,
            {201: NewProjectAnswer},
            (faults.NAME_TAKEN, faults.INVALID_NAME, *faults.WRITES),
            reads=Reads.JSON,
            request=CreateProject,
        ),
        Operation(
            "listProjects",
            "GET",
            "/admin/projects",
            Auth.DEVELOPER,
            "The caller's projects, newest first.",
            projects.list,
            {200: ProjectList},
            (faults.INVALID_LIMIT, faults.INVALID_INPUT),
            query=(OFFSET, LIMIT),
        ),
        Operation(
            "getProject",
            "GET",
            _PROJECT,
            Auth.PROJECT,
            "One project.",
            projects.show,
            {200: ProjectAnswer},
        ),
        Operation(
            "updateProject",
            "PATCH",
            _PROJECT,
            Auth.PROJECT,
            "Change what is given.",
            projects.update,
            {200: ProjectAnswer},
            (faults.TOO_MANY_DEPLOYS, *faults.WRITES),
            reads=Reads.JSON,
            request=UpdateProject,
        ),
        Operation(
            "deleteProject",
            "DELETE",
            _PROJECT,
            Auth.PROJECT,
            "Forget a project with all it has.",
            projects.delete,
            {200: DeletedAnswer},
            (faults.TOO_MANY_DEPLOYS, *faults.WRITES),
        ),
        Operation(
            "provisioningStatus",
            "GET",
            f"{_PROJECT}/provisioning-status",
            Auth.PROJECT,
            "Always `active`: nothing is provisioned here.",
            projects.provisioning,
            {200: ProvisioningAnswer},
        ),
        Operation(
            "reprovision",
            "POST",
            f"{_PROJECT}/reprovision",
            Auth.PROJECT,
            "Nothing to do; says the status.",
            projects.provisioning,
            {200: ProvisioningAnswer},
        ),
    )


class _Projects:
    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._host = services.host
        self._directory = services.directory
        self._pushes = services.pushes
        self._turns = services.turns

    async def create(self, asked: Asked) -> Answer:
        body: CreateProject = asked.body
        assert asked.caller is not None
        created = await self._store.create_project(
            NewProject(
                name=body.name,
                slug=body.slug,
                platform=body.platform,
                environment=body.environment,
                bundle_id=body.bundle_id,
                developer_id=asked.caller.developer_id,
            )
        )
        state = ProjectState(
            created.record,
            created.credentials,
            tuple(
                (key, SecretText(value)) for key, value in (created.client_key, created.server_key)
            ),
            (),
        )
        self._directory.add_project(state)
        self._host.add_project(state)
        record = created.record
        return Answer(
            201,
            NewProjectAnswer(
                NewProjectRow(
                    **_members(record),
                    project=ProjectSummary(
                        id=record.id,
                        name=record.name,
                        developer_id=record.developer_id,
                        platform=record.platform,
                        created_at=iso_ms(record.created_ms),
                    ),
                    api_keys=FirstKeys(_key(*created.client_key), _key(*created.server_key)),
                )
            ),
        )

    async def list(self, asked: Asked) -> Answer:
        assert asked.caller is not None
        offset, limit = page(asked)
        # the directory has them oldest first
        own = [
            record
            for record in reversed(self._directory.projects.values())
            if record.developer_id == asked.caller.developer_id
        ]
        rows = [_row(record) for record in own[offset : offset + limit]]
        return Answer(200, ProjectList(rows, len(own), offset, limit))

    async def show(self, asked: Asked) -> Answer:
        return Answer(200, ProjectAnswer(_row(project_of(asked))))

    async def update(self, asked: Asked) -> Answer:
        body: UpdateProject = asked.body
        async with self._turns.take((project_of(asked).id, "project")):
            asked.still()
            record = await self._store.update_project(
                project_of(asked).id,
                name=body.name,
                platform=body.platform,
                environment=body.environment,
                bundle_id=body.bundle_id,
            )
            if record is None:
                raise gone()
            self._directory.set_project(record)
        return Answer(200, ProjectAnswer(_row(record)))

    async def delete(self, asked: Asked) -> Answer:
        id_ = project_of(asked).id
        async with self._turns.take((id_, "project")):
            asked.still()
            if not await self._store.delete_project(id_):
                raise gone()
            self._directory.remove_project(id_)
            self._host.remove_project(id_)
            self._pushes.forget_project(id_)
        return Answer(200, DeletedAnswer(Deleted(id_, deleted=True)))

    async def provisioning(self, asked: Asked) -> Answer:
        return Answer(200, ProvisioningAnswer(Provisioning(project_of(asked).id, READY)))


def gone() -> faults.Refused:
    """The project went while the request was under way."""
    return faults.CONFLICT.refuse("the project was deleted meanwhile")


def _members(record: ProjectRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "slug": record.slug,
        "platform": record.platform,
        "environment": record.environment,
        "bundle_id": record.bundle_id,
        "developer_id": record.developer_id,
        "status": READY,
        "provisioning_status": READY,
        "created_at": iso_ms(record.created_ms),
    }


def _row(record: ProjectRecord) -> ProjectRow:
    return ProjectRow(**_members(record))


def _key(key: ApiKey, value: str) -> FirstKey:
    return FirstKey(id=key.id, key=value, prefix=key.prefix, type=key.key_type)
