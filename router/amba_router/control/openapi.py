"""The OpenAPI 3.1 document, made from the table of operations and the models of their bodies.

Nothing in it is written a second time: what an operation may answer is what it is checked
against. Source: the OpenAPI specification 3.1.1; RFC 7578 (multipart).
"""

from __future__ import annotations

from typing import Any

import msgspec

from amba_router.control import elsewhere, faults
from amba_router.control.faults import Fault
from amba_router.control.function_models import RateLimitBody, Rollback
from amba_router.control.models import ErrorAnswer
from amba_router.control.multipart import SCRIPT_TYPES
from amba_router.control.operations import Auth, Operation, Reads, Table
from amba_runtime import limits

_REF = "#/components/schemas/{name}"
_SECURITY: dict[Auth, list[dict[str, list[str]]]] = {
    Auth.NOBODY: [],
    Auth.DEVELOPER: [{"developer": []}],
    Auth.PROJECT: [{"developer": []}, {"internal": []}, {"server": []}],
    Auth.CLIENT: [{"client": []}],
    Auth.SESSION: [{"client": [], "session": []}],
}
_SCHEMES = {
    "developer": ("bearer", "a personal access token, `amb_dpat_...`"),
    "internal": ("bearer", "the project's internal token: its own paths alone"),
    "server": ("bearer", "a server key, `amb_*_sk_...`: its project's paths alone"),
    "session": ("bearer", "a user's session token"),
}
_AUTH_FAULTS: dict[Auth, tuple[Fault, ...]] = {
    Auth.NOBODY: (),
    Auth.DEVELOPER: (
        *(faults.UNAUTHORIZED, faults.INVALID_TOKEN, faults.INVALID_INTERNAL_TOKEN),
        faults.PROJECT_FORBIDDEN,
    ),
    Auth.PROJECT: (
        *(faults.UNAUTHORIZED, faults.INVALID_TOKEN, faults.INVALID_INTERNAL_TOKEN),
        *(faults.WRONG_PROJECT, faults.PROJECT_FORBIDDEN, faults.PROJECT_NOT_FOUND),
    ),
    Auth.CLIENT: (faults.UNAUTHORIZED, faults.INVALID_TOKEN, faults.INVALID_INTERNAL_TOKEN),
    Auth.SESSION: (faults.UNAUTHORIZED, faults.INVALID_TOKEN, faults.INVALID_INTERNAL_TOKEN),
}


def faults_of(operation: Operation) -> frozenset[Fault]:
    """Every refusal an operation may answer with; another one is our mistake."""
    body = () if operation.reads is Reads.NOTHING else faults.BODIES
    # a parameter can be sent twice
    query = (faults.INVALID_INPUT,) if operation.query else ()
    return frozenset(
        (*faults.ALWAYS, *_AUTH_FAULTS[operation.auth], *body, *query, *operation.faults)
    )


def document(table: Table, *, version: str) -> dict[str, Any]:
    """The whole document, ready for JSON."""
    models = {type_ for operation in table.operations for type_ in operation.answers.values()}
    models |= {operation.request for operation in table.operations if operation.request}
    models |= {ErrorAnswer, RateLimitBody}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    components[Rollback.__name__].update(_EITHER)
    schemes: dict[str, Any] = {
        name: {"type": "http", "scheme": scheme, "description": means}
        for name, (scheme, means) in _SCHEMES.items()
    }
    schemes["client"] = {"type": "apiKey", "in": "header", "name": "X-Api-Key"}
    paths: dict[str, dict[str, Any]] = {}
    for operation in table.operations:
        paths.setdefault(f"/v1{operation.path}", {})[operation.method.lower()] = _operation(
            operation
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Amba control plane, as amba-run answers it",
            "version": version,
            "description": (
                "Every path answers without `/v1`, too. What the platform has and this release "
                "does not is 501 `NOT_EMULATED` after authentication, under a project: "
                f"{_listed(elsewhere.ADMIN_LATER | elsewhere.OUT_OF_SCOPE)}, functions/schedules; "
                f"under /client: {_listed(elsewhere.CLIENT_LATER | elsewhere.OUT_OF_SCOPE)}."
            ),
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": schemes},
    }


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.means,
        "security": _SECURITY[operation.auth],
        "responses": _responses(operation),
    }
    if operation.ours:
        described["x-extension"] = True
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(name)}
        for name in _names(operation.path)
    ]
    parameters += [
        {
            "name": query.name,
            "in": "query",
            "required": query.required,
            "description": query.means,
            "schema": dict(query.schema),
        }
        for query in operation.query
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.reads is Reads.JSON and operation.request is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(operation.request)}},
        }
    elif operation.reads is Reads.UPLOAD:
        described["requestBody"] = {"required": True, "content": {"multipart/form-data": _UPLOAD}}
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(status): {
            "description": operation.means,
            "content": {"application/json": {"schema": _ref(model)}},
        }
        for status, model in operation.answers.items()
    }
    by_status: dict[int, list[Fault]] = {}
    for fault in sorted(faults_of(operation), key=lambda fault: fault.code):
        by_status.setdefault(fault.status, []).append(fault)
    for status, group in sorted(by_status.items()):
        responses[str(status)] = {
            "description": "; ".join(f"`{fault.code}`: {fault.when}" for fault in group),
            "content": {"application/json": {"schema": _error(group)}},
        }
    return responses


def _error(group: list[Fault]) -> dict[str, Any]:
    codes = {"properties": {"code": {"enum": [fault.code for fault in group]}}}
    return {"allOf": [_ref(ErrorAnswer), {"properties": {"error": codes}}]}


def _ref(model: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=model.__name__)}


def _names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _path_schema(name: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "description": name.replace("_", " ")}


_EITHER: dict[str, Any] = {
    "oneOf": [
        {"required": [one], "properties": {one: {"not": {"type": "null"}}, other: {"type": "null"}}}
        for one, other in (("version", "deployment_id"), ("deployment_id", "version"))
    ]
}
_METADATA: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,57}$"},
        "rate_limit": {"anyOf": [{"$ref": _REF.format(name="RateLimitBody")}, {"type": "null"}]},
        "limits": {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        setting.name: {
                            "type": "integer",
                            "minimum": 0 if setting.off else setting.minimum,
                            "maximum": setting.maximum,
                            "description": setting.bounds,
                        }
                        for setting in limits.SETTINGS
                    },
                    "additionalProperties": False,
                },
                {"type": "null"},
            ],
            "description": "ours; 0 switches a clock off",
        },
        "schedules": {
            "anyOf": [
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["cron"],
                        "properties": {
                            "cron": {"type": "string", "pattern": r"^\S+( \S+){4}$"},
                            "timezone": {"type": "string", "pattern": "^[A-Za-z]+$"},
                        },
                    },
                },
                {"type": "null"},
            ],
            "description": "ours",
        },
        "engine": {"enum": ["auto", "workerd", None], "description": "ours"},
    },
}
_UPLOAD: dict[str, Any] = {
    "schema": {
        "type": "object",
        "required": ["script", "metadata"],
        "properties": {
            "script": {
                "type": "string",
                "description": "the bundle, UTF-8",
                "contentMediaType": SCRIPT_TYPES[0],
                "examples": ["export default { fetch() { return new Response('hello') } }"],
            },
            "metadata": _METADATA,
            "sourcemap": {
                "type": "string",
                "contentMediaType": "application/json",
                "description": "ours: leads violations and stacks back to the user's files",
            },
        },
    },
    "encoding": {
        "script": {"contentType": ", ".join(SCRIPT_TYPES)},
        "metadata": {"contentType": "application/json"},
        "sourcemap": {"contentType": "application/json"},
    },
    "example": {
        "script": "export default { fetch() { return new Response('hello') } }",
        "metadata": {"name": "hello", "rate_limit": None},
    },
}
