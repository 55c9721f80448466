"""Deployments of functions: upload, list, disable, delete, roll back, namespace, logs.

Source: contract D.2 to D.5.
"""

from __future__ import annotations

import asyncio

from amba_router.api import faults
from amba_router.api.asked import (
    LIMIT,
    OFFSET,
    confirmed,
    iso_ms,
    number,
    page,
    parse_ms,
    project_of,
)
from amba_router.api.operations import Answer, Asked, Auth, Operation, Query, Reads
from amba_router.control.deploys import Deployed, Wanted
from amba_router.control.function_models import (
    Cascade,
    DeletedFunction,
    DeletedFunctionAnswer,
    DeployAnswer,
    DeploymentList,
    DeploymentRow,
    Disabled,
    DisabledAnswer,
    LogAnswer,
    LogPage,
    Namespace,
    NamespaceAnswer,
    RateLimitBody,
    Rollback,
)
from amba_router.control.metadata import read_metadata
from amba_router.control.multipart import read_upload
from amba_router.control.services import Services
from amba_router.control.upload_form import ROLLBACK, UPLOAD
from amba_router.store.control_records import NAMESPACE, Deployment, ProjectRecord
from amba_runtime import limits
from amba_runtime.clock import time_ms
from amba_runtime.manifest import Bundle

_BASE = "/admin/projects/{project_id}/functions"
_TIME = {
    "type": "string",
    "anyOf": [{"format": "date-time"}, {"pattern": "^[0-9]{1,18}$"}],
}


def operations(services: Services) -> tuple[Operation, ...]:
    """Their part of the table."""
    functions = _Functions(services)
    return (
        Operation(
            "deployFunction",
            "POST",
            f"{_BASE}/deploy",
            Auth.PROJECT,
            "Upload a bundle; it serves when this answers.",
            functions.deploy,
            {201: DeployAnswer},
            (
                *(faults.DEPLOY_REJECTED, faults.INVALID_NAME, faults.INVALID_RATE_LIMIT),
                *(faults.INVALID_LIMITS, faults.INVALID_METADATA, faults.INVALID_UPLOAD),
                *(faults.TOO_MANY_DEPLOYS, *faults.READS, *faults.WRITES),
            ),
            reads=Reads.UPLOAD,
            content=UPLOAD,
            also=(RateLimitBody,),
        ),
        Operation(
            "listDeployments",
            "GET",
            f"{_BASE}/deployments",
            Auth.PROJECT,
            "Deployments, newest first.",
            functions.list,
            {200: DeploymentList},
            (faults.INVALID_LIMIT, faults.INVALID_INPUT),
            query=(
                Query("active", {"enum": ["1", "0", "true", "false"]}, "`1`: those that serve"),
                Query("name", {"type": "string"}, "ours: of one function"),
                OFFSET,
                LIMIT,
            ),
        ),
        Operation(
            "disableDeployment",
            "POST",
            f"{_BASE}/deployments/{{deployment_id}}/disable",
            Auth.PROJECT,
            "Serve one deployment no more.",
            functions.disable,
            {200: DisabledAnswer},
            (faults.DEPLOYMENT_NOT_FOUND, faults.TOO_MANY_DEPLOYS, *faults.WRITES),
        ),
        Operation(
            "deleteFunction",
            "DELETE",
            f"{_BASE}/{{name}}",
            Auth.PROJECT,
            "404 from now on; its history stays as `disabled`. Idempotent.",
            functions.delete,
            {200: DeletedFunctionAnswer},
            (
                *(faults.FUNCTION_NOT_FOUND, faults.CONFIRM_REQUIRED),
                *(faults.INVALID_INPUT, faults.TOO_MANY_DEPLOYS, *faults.WRITES),
            ),
            query=(Query("confirm", {"type": "string"}, "the name again", required=True),),
        ),
        Operation(
            "rollBackFunction",
            "POST",
            f"{_BASE}/{{name}}/rollback",
            Auth.PROJECT,
            "A new deployment of an old version.",
            functions.roll_back,
            {201: DeployAnswer},
            (
                *(faults.VERSION_NOT_FOUND, faults.FUNCTION_NOT_FOUND, faults.DEPLOY_REJECTED),
                *(faults.TOO_MANY_DEPLOYS, *faults.READS, *faults.WRITES),
            ),
            reads=Reads.JSON,
            request=Rollback,
            content=ROLLBACK,
            also=(Rollback,),
            ours=True,
        ),
        Operation(
            "functionLogs",
            "GET",
            f"{_BASE}/{{name}}/logs",
            Auth.PROJECT,
            "Events of a function, newest first.",
            functions.logs,
            {200: LogAnswer},
            (
                *(faults.FUNCTION_NOT_FOUND, faults.INVALID_SINCE, faults.INVALID_UNTIL),
                *(faults.INVALID_LIMIT, faults.INVALID_INPUT),
            ),
            query=(
                Query("since", _TIME, "ISO 8601 or Unix ms, inclusive; 1 hour ago"),
                Query("until", _TIME, "ISO 8601 or Unix ms, exclusive; now"),
                Query(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
                    "events to give",
                ),
                Query("request_id", {"type": "string"}, "ours: one invocation"),
            ),
        ),
        Operation(
            "functionNamespace",
            "GET",
            f"{_BASE}/namespace",
            Auth.PROJECT,
            "Where functions of this project live.",
            functions.namespace,
            {200: NamespaceAnswer},
        ),
    )


class _Functions:
    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._host = services.host
        self._clock = services.clock
        self._deploys = services.deploys
        self._timetable = services.timetable
        self._logs = services.logs

    async def deploy(self, asked: Asked) -> Answer:
        assert asked.upload is not None
        upload = await read_upload(asked.upload)
        asked.still()
        declared = read_metadata(upload.metadata, self._timetable.check)
        # hashing up to 64 MiB takes a while
        bundle = await asyncio.to_thread(Bundle.of, upload.script, source_map=upload.sourcemap)
        project = project_of(asked)
        wanted = Wanted(
            declared.name,
            bundle,
            declared.rate_limit,
            declared.limits,
            declared.engine,
            egress=declared.egress,
            schedules=declared.schedules,
        )
        done = await self._deploys.deploy(project, wanted, asked.still)
        return self._deployed(project, done)

    async def roll_back(self, asked: Asked) -> Answer:
        project, body = project_of(asked), asked.body
        name = asked.path["name"]
        if (body.version is None) == (body.deployment_id is None):
            raise faults.INVALID_INPUT.refuse("say either version or deployment_id")
        old = await self._store.find_deployment(
            project.id, name=name, version=body.version, deployment_id=body.deployment_id
        )
        if old is None:
            await self._known(project, name)
            wanted = f"version {body.version}" if body.version else "such deployment"
            raise faults.VERSION_NOT_FOUND.refuse(
                f"function {name[:64]!r} never had {wanted}; "
                "amba-run functions versions lists what there is",
                {"resource": "version", "id": body.version or body.deployment_id},
            )
        return self._deployed(project, await self._deploys.roll_back(project, old, asked.still))

    def _deployed(self, project: ProjectRecord, done: Deployed) -> Answer:
        deployment = done.deployment
        url = self._host.fn_url(project.slug, deployment.name)
        return Answer(201, DeployAnswer(_row(deployment), url, list(done.warnings)))

    async def list(self, asked: Asked) -> Answer:
        offset, limit = page(asked)
        active = asked.query.get("active", "0")
        if active not in ("1", "0", "true", "false"):
            raise faults.INVALID_INPUT.refuse("active must be 1 or 0")
        rows, total = await self._store.deployments(
            project_of(asked).id,
            active=active in ("1", "true"),
            name=asked.query.get("name"),
            offset=offset,
            limit=limit,
        )
        return Answer(200, DeploymentList([_row(row) for row in rows], total, offset, limit))

    async def disable(self, asked: Asked) -> Answer:
        project, id_ = project_of(asked), asked.path["deployment_id"]
        old = await self._store.find_deployment(project.id, deployment_id=id_)
        disabled = None if old is None else await self._deploys.disable(project, old, asked.still)
        if disabled is None:
            raise faults.DEPLOYMENT_NOT_FOUND.refuse(
                f"no deployment has the id {id_[:64]!r}", {"resource": "deployment", "id": id_[:64]}
            )
        return Answer(200, DisabledAnswer(Disabled(disabled.id, disabled.status)))

    async def delete(self, asked: Asked) -> Answer:
        name = asked.path["name"]
        confirmed(asked, name)
        deleted = await self._deploys.delete(project_of(asked), name, asked.still)
        if deleted is None:
            raise _no_function(name)
        return Answer(
            200,
            DeletedFunctionAnswer(
                DeletedFunction(
                    name,
                    deleted=True,
                    cascade=Cascade(
                        cf_dispatch_script_deleted=True,
                        function_deployments_marked_disabled=deleted.deployments,
                        schedules_deleted=deleted.schedules,
                    ),
                )
            ),
        )

    async def namespace(self, asked: Asked) -> Answer:
        project = project_of(asked)
        return Answer(
            200,
            NamespaceAnswer(
                Namespace(
                    dispatch_namespace=NAMESPACE,
                    project_slug=project.slug,
                    r2_bucket_name=project.id if project.storage else None,
                    cf_hyperdrive_config_id=None,
                )
            ),
        )

    async def logs(self, asked: Asked) -> Answer:
        project, name = project_of(asked), asked.path["name"]
        now_ms = time_ms(self._clock)
        default = limits.LOG_EVENTS_DEFAULT.value
        limit = number(asked, "limit", default, least=1, most=limits.LOGS_PAGE.value)
        # what happened in this very millisecond is over, too
        until_ms = now_ms + 1
        if "until" in asked.query:
            until_ms = _time(asked.query["until"], faults.INVALID_UNTIL, "until")
        since_ms = now_ms - int(limits.LOG_SINCE_S.value * 1000)
        if "since" in asked.query:
            since_ms = _time(asked.query["since"], faults.INVALID_SINCE, "since")
        await self._known(project, name)
        events, truncated = await self._logs.events(
            project.id,
            name,
            since_ms=since_ms,
            until_ms=until_ms,
            limit=limit,
            request_id=asked.query.get("request_id"),
        )
        return Answer(
            200,
            LogAnswer(
                LogPage(
                    events=events,
                    truncated=truncated,
                    since=iso_ms(since_ms),
                    until=iso_ms(until_ms),
                )
            ),
        )

    async def _known(self, project: ProjectRecord, name: str) -> None:
        if await self._store.find_deployment(project.id, name=name) is None:
            raise _no_function(name)


def _no_function(name: str) -> faults.Refused:
    return faults.FUNCTION_NOT_FOUND.refuse(
        f"no function is called {name[:64]!r}", {"resource": "function", "id": name[:64]}
    )


def _time(text: str, fault: faults.Fault, parameter: str) -> int:
    ms = parse_ms(text)
    if ms is None:
        raise fault.refuse(
            f"{parameter} must be a time such as 2026-01-01T00:00:00Z", {"parameter": parameter}
        )
    return ms


def _row(deployment: Deployment) -> DeploymentRow:
    limit = deployment.rate_limit
    return DeploymentRow(
        id=deployment.id,
        project_id=deployment.project_id,
        name=deployment.name,
        version=deployment.version,
        cf_script_name=deployment.script_name,
        cf_dispatch_namespace=deployment.namespace,
        bundle_sha=deployment.bundle_sha,
        status=deployment.status,
        created_at=iso_ms(deployment.created_ms),
        bytes=deployment.bytes,
        bytes_gzip=deployment.bytes_gzip,
        handlers=list(deployment.handlers),
        rate_limit=None if limit is None else RateLimitBody(limit.window, limit.max, limit.key),
        limits=dict(deployment.limits),
        egress=deployment.egress.wire(),
        engine=deployment.engine,
        rolled_back_from=deployment.rolled_back_from,
        note=deployment.note,
    )
