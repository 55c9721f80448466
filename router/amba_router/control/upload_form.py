"""What the OpenAPI document says of two bodies that no model describes whole.

Source: RFC 7578 (multipart); contract D.2; `Rollback` names one of two.
"""

from __future__ import annotations

from typing import Any

from amba_router.control.multipart import SCRIPT_TYPES
from amba_runtime import limits

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
        "rate_limit": {"anyOf": [{"$ref": "#/components/schemas/RateLimitBody"}, {"type": "null"}]},
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
                            "cron": {"type": "string", "examples": ["0 9 * * 1-5"]},
                            "timezone": {"type": "string", "examples": ["Europe/Berlin"]},
                            "missed": {"enum": ["skip", "run_once"]},
                        },
                    },
                },
                {"type": "null"},
            ],
            "description": "ours; replaces those of the deploy before",
        },
        "engine": {"enum": ["auto", "workerd", None], "description": "ours"},
    },
}
_FORM: dict[str, Any] = {
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
UPLOAD = {"multipart/form-data": _FORM}
ROLLBACK = {
    "application/json": {"schema": {"allOf": [{"$ref": "#/components/schemas/Rollback"}, _EITHER]}}
}
