"""The OpenAPI document: complete, self-consistent, made from what is enforced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from tests.router.control.world import World

from amba_router.api.openapi import faults_of


def documented(tmp_path: Path) -> tuple[Any, Any]:
    """The document as it is served, and the table it was made from."""

    async def main() -> tuple[Any, Any]:
        async with World(tmp_path) as world:
            got = await world.get("/v1/openapi.json", token=None)
            assert got.status == 200
            assert (await world.get("/openapi.json", token=None)).raw == got.raw
            return got.body, world.app._table()[0]  # pyright: ignore[reportPrivateUsage]

    return asyncio.run(main())


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in cast(dict[str, Any], node).items():
            if key == "$ref":
                yield value
            yield from references(value)
    elif isinstance(node, list):
        for value in node:  # pyright: ignore[reportUnknownVariableType]
            yield from references(value)


def test_every_operation_is_in_it(tmp_path: Path) -> None:
    """With its id, its security, and every status it can answer (item 3)."""
    document, table = documented(tmp_path)
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == "1.2.3"
    ids: list[str] = []
    for operation in table.operations:
        described = document["paths"][f"/v1{operation.path}"][operation.method.lower()]
        ids.append(described["operationId"])
        statuses = {str(status) for status in operation.answers}
        statuses |= {str(fault.status) for fault in faults_of(operation)}
        assert set(described["responses"]) == statuses
        assert (described["security"] == []) == (operation.auth.value == "nobody")
        named = [p["name"] for p in described.get("parameters", ()) if p["in"] == "path"]
        assert named == [part[1:-1] for part in operation.path.split("/") if part[0:1] == "{"]
    assert len(ids) == len(set(ids)) >= 28


def test_every_reference_leads_somewhere(tmp_path: Path) -> None:
    """No dangling `$ref`, and nothing in it but JSON."""
    document, _ = documented(tmp_path)
    schemas = document["components"]["schemas"]
    found = set(references(document))
    assert {f"#/components/schemas/{name}" for name in schemas} >= found
    assert json.loads(json.dumps(document)) == document


def test_the_upload(tmp_path: Path) -> None:
    """The multipart body has its parts, their content types and an example (D.2)."""
    document, _ = documented(tmp_path)
    path = "/v1/admin/projects/{project_id}/functions/deploy"
    body = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert body["schema"]["required"] == ["script", "metadata"]
    assert set(body["schema"]["properties"]) == {"script", "metadata", "sourcemap"}
    assert body["encoding"]["script"]["contentType"].startswith("application/javascript+module")
    assert body["example"]["metadata"]["name"] == "hello"
