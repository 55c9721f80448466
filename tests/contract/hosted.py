"""A node as its callers meet it: real processes, real engine, bytes on a socket."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.drills.nodes import NodeProcess

GUESTS = Path(__file__).parents[1] / "guests"
BOUNDARY = "----formdata-undici-012345678901"


@dataclass(frozen=True, slots=True)
class Told:
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def data(self) -> Any:
        assert self.status in (200, 201), self.body
        return self.body["data"]

    @property
    def said(self) -> tuple[int, str]:
        return self.status, self.body["error"]["code"]


@dataclass(frozen=True, slots=True)
class Shop:
    """One project of the node."""

    node: NodeProcess
    id: str
    slug: str
    server_key: str

    def api(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        project: str | None = None,
    ) -> Told:
        """A call of the admin plane. Args: path: below the project, or from `/` on."""
        base = f"/v1/admin/projects/{project or self.id}/"
        raw = b"" if body is None else json.dumps(body).encode()
        headers = {
            "Authorization": f"Bearer {token or self.node.pat}",
            # the platform's own command line says so even where it sends nothing
            "Content-Type": "application/json",
        }
        return ask(self.node, method, path if path[0] == "/" else base + path, raw, headers)

    def upload(self, name: str, code: bytes, *, prefix: str = "/v1", **more: object) -> Told:
        """As the platform's own command line does, byte for byte (contract D.2)."""
        metadata = json.dumps({"name": name, "rate_limit": None, **more}).encode()
        body = b"".join(
            (
                f"--{BOUNDARY}\r\nContent-Disposition: form-data; "
                f'name="{part}"; filename="{file}"\r\nContent-Type: {type_}\r\n\r\n'
            ).encode()
            + data
            + b"\r\n"
            for part, file, type_, data in (
                ("script", f"{name}.js", "application/javascript+module", code),
                ("metadata", "metadata.json", "application/json", metadata),
            )
        )
        headers = {
            "Authorization": f"Bearer {self.node.pat}",
            "User-Agent": "amba-cli/0.1.1",
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        }
        path = f"{prefix}/admin/projects/{self.id}/functions/deploy"
        return ask(self.node, "POST", path, body + f"--{BOUNDARY}--\r\n".encode(), headers)

    def call(self, target: str, **headers: str) -> Told:
        """A request to a function: `name` or `name/rest`."""
        return ask(self.node, "GET", f"/fn/{self.slug}/{target}", b"", headers)


def ask(
    node: NodeProcess, method: str, target: str, body: bytes, headers: Mapping[str, str]
) -> Told:
    """One request on a connection of its own; the body is JSON where it can be."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
    try:
        connection.request(method, target, body or None, dict(headers))
        with connection.getresponse() as response:
            raw = response.read()
            fields = {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()
    is_json = fields.get("content-type", "").startswith("application/json")
    return Told(response.status, fields, json.loads(raw) if is_json and raw else raw)


def make_shop(node: NodeProcess, name: str) -> Shop:
    """A new project."""
    headers = {"Authorization": f"Bearer {node.pat}", "Content-Type": "application/json"}
    body = json.dumps({"name": name}).encode()
    data = ask(node, "POST", "/v1/admin/projects", body, headers).data
    return Shop(node, data["id"], data["slug"], data["api_keys"]["server"]["key"])


def guest(name: str) -> bytes:
    """A guest that needs no bundling."""
    return (GUESTS / name / "index.js").read_bytes()
