"""The OpenAPI 3.1 document, made from the table of operations and the models of their bodies.

Nothing in it is written a second time: what an operation may answer is what it is checked
against. Source: the OpenAPI specification 3.1.1; RFC 7578 (multipart).
"""

from __future__ import annotations

from typing import Any

import msgspec

from amba_router.api import elsewhere, faults
from amba_router.api.faults import Fault
from amba_router.api.models import ErrorAnswer
from amba_router.api.operations import Auth, Operation, Reads, Table

_REF = "#/components/schemas/{name}"
_SECURITY: dict[Auth, list[dict[str, list[str]]]] = {
    Auth.NOBODY: [],
    Auth.DEVELOPER: [{"developer": []}],
    Auth.PROJECT: [{"developer": []}, {"internal": []}, {"server": []}],
    Auth.CLIENT: [{"client": []}],
    Auth.SESSION: [{"client": [], "session": []}, {"server": []}],
    Auth.TELLING: [{"client": [], "session": []}, {"server": []}, {"internal": []}],
    Auth.FUNCTION: [{"developer": []}, {"internal": []}, {"server": []}],
}
_SCHEMES = {
    "developer": ("bearer", "a personal access token, `amb_dpat_...`"),
    "internal": ("bearer", "the project's internal token: its own paths alone"),
    "server": ("bearer", "a server key, `amb_*_sk_...`: its project's paths alone"),
    "session": ("bearer", "a user's session token"),
}
_CLIENT = (
    *(faults.UNAUTHORIZED, faults.INVALID_TOKEN, faults.INVALID_INTERNAL_TOKEN),
    *(faults.PROJECT_FORBIDDEN, faults.INVALID_INPUT, faults.USER_NOT_FOUND),
    # a session's user is made at its first use
    *(faults.MAU_CAP_REACHED, faults.STATE_READ_ONLY, faults.DISK_FULL),
)
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
    Auth.CLIENT: _CLIENT,
    Auth.SESSION: _CLIENT,
    Auth.TELLING: _CLIENT,
    Auth.FUNCTION: (
        *(faults.UNAUTHORIZED, faults.INVALID_TOKEN, faults.INVALID_INTERNAL_TOKEN),
        *(faults.WRONG_PROJECT, faults.PROJECT_FORBIDDEN, faults.PROJECT_NOT_FOUND),
    ),
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
    models: set[Any] = {ErrorAnswer}
    for operation in table.operations:
        models |= {model for model in operation.answers.values() if model is not None}
        models |= set(operation.also)
        if operation.request is not None:
            models.add(operation.request)
    ordered = sorted(models, key=str)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    schema_of = dict(zip(ordered, schemas, strict=True))
    schemes: dict[str, Any] = {
        name: {"type": "http", "scheme": scheme, "description": means}
        for name, (scheme, means) in _SCHEMES.items()
    }
    schemes["client"] = {"type": "apiKey", "in": "header", "name": "X-Api-Key"}
    paths: dict[str, dict[str, Any]] = {}
    for operation in table.operations:
        described = _operation(operation, schema_of)
        paths.setdefault(f"/v1{operation.path}", {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Amba platform API, as amba-run answers it",
            "version": version,
            "description": (
                "Every path answers without `/v1`, too. What the platform has and this release "
                "does not is 501 `NOT_EMULATED` after authentication, under a project: "
                f"{_listed(elsewhere.ADMIN_LATER | elsewhere.OUT_OF_SCOPE)}, "
                f"users/({_listed(elsewhere.USERS_LATER)}), users/*/entitlements; "
                f"under /client: {_listed(elsewhere.CLIENT_LATER | elsewhere.OUT_OF_SCOPE)}, "
                f"auth/({_listed(elsewhere.SIGN_INS_LATER)})."
            ),
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": schemes},
    }


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _operation(operation: Operation, schema_of: dict[Any, Any]) -> dict[str, Any]:
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
    content: Any = operation.content
    if content is None and operation.request is not None:
        content = {"application/json": {"schema": schema_of[operation.request]}}
    if content is not None:
        required = operation.reads is not Reads.MAYBE_JSON
        described["requestBody"] = {"required": required, "content": content}
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, model in operation.answers.items():
        responses[str(status)] = {"description": operation.means}
        if model is not None:
            content = {"application/json": {"schema": _ref(model)}}
            responses[str(status)]["content"] = content
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
