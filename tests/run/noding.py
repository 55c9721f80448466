"""`amba-run node` as a process of its own, and what a deployer and callers do to it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.run.serving import Answer, Server


def upload(name: str, code: str, metadata: Mapping[str, Any] | None = None) -> tuple[str, bytes]:
    """Content type and body of an upload, as the public CLI writes it (contract D.2)."""
    boundary = uuid.uuid4().hex
    parts = [
        (f'name="script"; filename="{name}.js"', "application/javascript+module", code),
        (
            'name="metadata"; filename="metadata.json"',
            "application/json",
            json.dumps({"name": name, "rate_limit": None, **(metadata or {})}),
        ),
    ]
    body = "".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n"
        f"Content-Type: {kind}\r\n\r\n{text}\r\n"
        for disposition, kind, text in parts
    )
    return f"multipart/form-data; boundary={boundary}", f"{body}--{boundary}--\r\n".encode()


class NodeProcess(Server):
    """A running node with a project `acme`.

    Attributes:
        pat: the developer token of the state directory's first start.
        project: the id of `acme`; "" until there is one.
    """

    def __init__(
        self,
        state: Path,
        *options: str,
        data_home: Path,
        pat: str = "",
        project: str = "",
        json_: bool = True,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(
            # strict would not start where the machine gives no tier 3; the last one given holds
            [
                *("node", "--listen", "127.0.0.1:0", "--state", str(state)),
                *("--sandbox", "best-effort", *options),
            ],
            data_home=data_home,
            json_=json_,
            environment=environment,
            prefix=prefix,
        )
        self.pat = pat or self.ready.get("keys", {}).get("pat", "")
        self.project = project
        if self.pat and not project:
            self.project = self.api("POST", "/admin/projects", {"name": "Acme"})["data"]["id"]

    def send(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """One request on a connection of its own, with the developer's token."""
        fields = {"Authorization": f"Bearer {self.pat}"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        with self.connection() as connection:
            connection.request(method, target, body=body or None, headers=fields)
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())

    def api(self, method: str, path: str, value: object = None, *, status: int = 0) -> Any:
        """A call of the platform API that succeeds, or ends with `status`."""
        body = b"" if value is None else json.dumps(value).encode()
        answer = self.send(method, f"/v1{path}", body, Content_Type="application/json")
        assert answer.status == status or (not status and answer.status < 300), answer
        return json.loads(answer.body)

    def admin(self, method: str, path: str, value: object = None, *, status: int = 0) -> Any:
        """The same below the project `acme`."""
        return self.api(method, f"/admin/projects/{self.project}{path}", value, status=status)

    def deploy(self, name: str, code: str, **metadata: Any) -> Any:
        """Upload a bundle; `data` of the answer."""
        kind, body = upload(name, code, metadata)
        path = f"/v1/admin/projects/{self.project}/functions/deploy"
        answer = self.send("POST", path, body, Content_Type=kind)
        assert answer.status == 201, answer
        return json.loads(answer.body)["data"]

    def call(self, name: str, rest: str = "", **headers: str) -> Answer:
        """One request to a function of `acme`, with no credential of ours."""
        return self.get(f"/fn/acme/{name}{rest}", **headers)
