"""Remote config over the wire: an admin's keys, a client's bundle. Source: contract E.8."""

from __future__ import annotations

import re

from msgspec import UNSET, Raw

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, iso_ms, page, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Reads
from amba_router.headers import AS_USER
from amba_router.services.config import evaluation
from amba_router.services.config.models import (
    KEY,
    ConfigAnswer,
    ConfigBundle,
    ConfigList,
    ConfigRow,
    DeletedConfig,
    DeletedConfigAnswer,
    PatchConfig,
    PutConfig,
    SetConfig,
)
from amba_router.services.config.service import ConfigService, Draft
from amba_router.store.config_rows import Config
from amba_runtime import limits

_BASE = "/admin/projects/{project_id}/config"
_WRITES = (faults.INVALID_VALUE, faults.SEGMENT_NOT_FOUND, *faults.WRITES)


def operations(service: ConfigService) -> tuple[Operation, ...]:
    """Their part of the table."""
    config = _Config(service)
    return (
        Operation(
            "setConfig",
            "POST",
            _BASE,
            Auth.PROJECT,
            "Set a key, new or not.",
            config.set,
            {201: ConfigAnswer},
            _WRITES,
            reads=Reads.JSON,
            request=SetConfig,
        ),
        Operation(
            "listConfig",
            "GET",
            _BASE,
            Auth.PROJECT,
            "All keys in their order.",
            config.list,
            {200: ConfigList},
            (faults.INVALID_LIMIT,),
            query=(OFFSET, LIMIT),
        ),
        Operation(
            "putConfig",
            "PUT",
            f"{_BASE}/{{key}}",
            Auth.PROJECT,
            "Set a key, as the platform's command line does.",
            config.put,
            {201: ConfigAnswer},
            _WRITES,
            reads=Reads.JSON,
            request=PutConfig,
        ),
        Operation(
            "updateConfig",
            "PATCH",
            f"{_BASE}/{{key}}",
            Auth.PROJECT,
            "Change a key's value, description or conditions; a value counts the version up.",
            config.update,
            {200: ConfigAnswer},
            (faults.NOT_FOUND, *_WRITES),
            reads=Reads.JSON,
            request=PatchConfig,
        ),
        Operation(
            "deleteConfig",
            "DELETE",
            f"{_BASE}/{{key}}",
            Auth.PROJECT,
            "Delete a key, whether it is there or not.",
            config.delete,
            {200: DeletedConfigAnswer},
            faults.WRITES,
        ),
        Operation(
            "fetchConfig",
            "GET",
            "/client/config",
            Auth.CLIENT,
            "A value for each key: of the session's user, or the defaults.",
            config.fetch,
            {200: ConfigBundle, 304: None},
        ),
    )


class _Config:
    def __init__(self, service: ConfigService) -> None:
        self._service = service

    async def set(self, asked: Asked) -> Answer:
        body: SetConfig = asked.body
        return await self._put(asked, body.key, body)

    async def put(self, asked: Asked) -> Answer:
        body: PutConfig = asked.body
        key = asked.path["key"]
        if len(key) > limits.CONFIG_KEY_CHARS.value or not re.search(KEY, key):
            raise faults.INVALID_INPUT.refuse(
                "the key in the path must be letters, digits and _ . : -, the first no "
                f"punctuation but _, {limits.CONFIG_KEY_CHARS.value} characters at most",
                {"parameter": "key"},
            )
        if body.key not in (UNSET, key):
            raise faults.INVALID_INPUT.refuse(
                "the body's key is not the path's; send the same, or none", {"field": "$.key"}
            )
        return await self._put(asked, key, body)

    async def _put(self, asked: Asked, key: str, body: SetConfig | PutConfig) -> Answer:
        draft = Draft(body.value, body.value_type, body.description, body.conditions)
        config = await self._service.put(project_of(asked).id, key, draft)
        return Answer(201, ConfigAnswer(_row(config)))

    async def update(self, asked: Asked) -> Answer:
        body: PatchConfig = asked.body
        if body.value is UNSET and body.description is UNSET and body.conditions is UNSET:
            raise faults.INVALID_INPUT.refuse(
                "nothing to change: send value, description or conditions", {"field": "$"}
            )
        draft = Draft(body.value, None, body.description, body.conditions)
        config = await self._service.change(project_of(asked).id, asked.path["key"], draft)
        return Answer(200, ConfigAnswer(_row(config)))

    async def delete(self, asked: Asked) -> Answer:
        await self._service.remove(project_of(asked).id, asked.path["key"])
        return Answer(200, DeletedConfigAnswer(DeletedConfig(deleted=True)))

    async def list(self, asked: Asked) -> Answer:
        offset, limit = page(asked)
        configs, total = await self._service.page(project_of(asked).id, offset, limit)
        return Answer(200, ConfigList([_row(config) for config in configs], total, offset, limit))

    async def fetch(self, asked: Asked) -> Answer:
        found = await self._service.evaluate(project_of(asked).id, asked.user_id)
        age_s = limits.CONFIG_USER_AGE_S if asked.user_id else limits.CONFIG_AGE_S
        # the contract has Authorization alone; but the key says which project's bundle it is, and
        # a server key that asks for users says so in a header of ours
        vary = b"Authorization, X-Api-Key"
        if asked.as_user:
            vary += b", " + AS_USER
        headers = (
            (b"etag", found.etag.encode()),
            (b"cache-control", b"private, max-age=%d" % age_s.value),
            (b"vary", vary),
        )
        wanted = b", ".join(value for name, value in asked.fields if name == b"if-none-match")
        if evaluation.matches(wanted.decode("latin-1"), found.etag):
            return Answer(304, None, headers)
        return Answer(200, ConfigBundle(dict(found.values)), headers)


def _row(config: Config) -> ConfigRow:
    value = Raw(config.value.encode())
    return ConfigRow(
        id=config.id,
        key=config.key,
        value=value,
        value_type=config.value_type,
        description=config.description,
        conditions=Raw(config.conditions.encode()),
        default_value=value,
        is_active=True,
        version=config.version,
        created_at=iso_ms(config.created_ms),
        updated_at=iso_ms(config.updated_ms),
    )
