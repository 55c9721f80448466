"""Talks to a server's control plane: what `deploy`, `functions`, `secrets` and the rest say to it.

Plain `http.client`: nothing is followed, retried or decoded behind the caller's back.
Source: interface.md section 2 (where server, token and project come from); contract D, E.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from amba_run import __version__
from amba_run.config import Environment
from amba_runtime import entropy, limits
from amba_runtime.errors import UserCode, UserError
from amba_runtime.secret import SecretText

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart body."""

    name: str
    filename: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class ApiClient:
    """One server, as one caller. Blocking; a connection per call.

    Attributes:
        origin: without `/v1`, without a trailing slash.
        project: its id; "" where the command needs none.
    """

    origin: str
    token: SecretText
    project: str = ""

    def get(self, path: str, **query: str | int | None) -> JSON:
        """GET; parameters that are None are left out."""
        return self._call("GET", path, query=query)

    def post(
        self,
        path: str,
        body: Mapping[str, object] | str | None = None,
        *,
        within_s: float = limits.API_ANSWER_S.value,
    ) -> JSON:
        """POST a JSON object; text is one that is written already, and sent as it is."""
        text = body if isinstance(body, str) else json.dumps(body or {})
        raw = text.encode("utf-8", "surrogatepass")
        return self._call("POST", path, raw, "application/json", within_s=within_s)

    def put(self, path: str, body: Mapping[str, object]) -> JSON:
        """PUT a JSON object."""
        return self._call("PUT", path, json.dumps(body).encode(), "application/json")

    def delete(self, path: str, **query: str | int | None) -> JSON:
        """DELETE."""
        return self._call("DELETE", path, query=query)

    def upload(self, path: str, parts: Iterable[Part]) -> JSON:
        """POST as `multipart/form-data`. Source: contract D.2."""
        boundary = f"amba-run-{entropy.key_bytes(16).hex()}"
        return self._call(
            "POST", path, encode_parts(parts, boundary), f"multipart/form-data; boundary={boundary}"
        )

    def at(self, *segments: str) -> str:
        """A path below this project."""
        tail = "/".join(quote(segment, safe="") for segment in segments)
        return f"/v1/admin/projects/{quote(self.project, safe='')}/{tail}"

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "",
        *,
        query: Mapping[str, str | int | None] | None = None,
        within_s: float = limits.API_ANSWER_S.value,
    ) -> JSON:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        headers = {
            "Authorization": f"Bearer {self.token.reveal()}",
            "User-Agent": f"amba-run/{__version__}",
            "Accept": "application/json",
        }
        if content_type:
            headers["Content-Type"] = content_type
        connection = _connection(self.origin, within_s)
        try:
            connection.request(method, target, body, headers)
            with connection.getresponse() as answer:
                status, raw = answer.status, answer.read(limits.API_ANSWER_BYTES.value + 1)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(self.origin, error, within_s) from error
        finally:
            connection.close()
        if len(raw) > limits.API_ANSWER_BYTES.value:
            raise _unreadable(self.origin, status, "more than we read")
        return _answer(self.origin, f"{method} {path}", status, raw)


def pages(client: ApiClient, path: str, **query: str | int | None) -> list[JSON]:
    """Every row of a list, page by page, up to `limits.API_ROWS`."""
    rows: list[JSON] = []
    while len(rows) < limits.API_ROWS.value:
        page = client.get(path, offset=len(rows), limit=limits.API_PAGE.value, **query)
        new = cast(list[JSON], page.get("data") or [])
        rows += new
        if len(new) < limits.API_PAGE.value:
            break
    return rows


def encode_parts(parts: Iterable[Part], boundary: str) -> bytes:
    """A multipart body, in the order given. Source: RFC 7578."""
    out: list[bytes] = []
    for part in parts:
        out.append(
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="{part.name}"; filename="{part.filename}"\r\n'
            f"Content-Type: {part.content_type}\r\n\r\n".encode()
        )
        out += (part.body, b"\r\n")
    return b"".join((*out, f"--{boundary}--\r\n".encode()))


def find_api(
    *,
    api: str | None,
    token: str | None,
    project: str | None,
    state: Path | None = None,
    need_project: bool = True,
) -> ApiClient:
    """The server, caller and project that a command means.

    Each comes from its option, else from the environment (AMBA_API_URL, AMBA_PAT,
    AMBA_PROJECT_ID), else from the dev server that runs for this folder.

    Args:
        state: the state directory of a dev server, which then comes before the environment.

    Raises:
        UserError: NO_SERVER, NO_TOKEN or NO_PROJECT.
    """
    from amba_run.dev_state import find_running, read_running

    environment = Environment.of_process() if state is None else Environment()
    named = api or environment.api_url
    running = None
    if named is None:
        running = find_running(Path()) if state is None else read_running(state)
        if running is None:
            where = "for this folder" if state is None else f"from {state}"
            raise UserError(
                UserCode.NO_SERVER,
                f"no server is named, and no dev server runs {where}",
                hint="give --api URL or set AMBA_API_URL, or start: amba-run dev",
            )
    origin = (named or (running.origin if running else "")).rstrip("/").removesuffix("/v1")
    if urlsplit(origin).scheme not in ("http", "https") or not urlsplit(origin).hostname:
        raise UserError(
            UserCode.NO_SERVER,
            f"{origin!r} is no server's address",
            hint="such as http://127.0.0.1:8788, without a path",
        )
    secret = SecretText(token) if token else environment.pat
    if secret is None and running is not None:
        secret = SecretText(running.pat)
    if secret is None:
        raise UserError(
            UserCode.NO_TOKEN,
            f"there is no token for {origin}",
            hint="give --token T or set AMBA_PAT (a node prints one at its first start)",
        )
    id_ = project or environment.project_id or (running.project_id if running else "")
    if need_project and not id_:
        raise UserError(
            UserCode.NO_PROJECT,
            f"no project of {origin} is named",
            hint="give --project ID or set AMBA_PROJECT_ID; amba-run projects list shows them",
        )
    return ApiClient(origin, secret, id_)


def _connection(origin: str, within_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(origin)
    try:
        port = parts.port
    except ValueError as error:
        raise _unreachable(origin, error, within_s) from error
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", port, timeout=within_s)


def _answer(origin: str, asked: str, status: int, raw: bytes) -> JSON:
    try:
        value: object = json.loads(raw) if raw else {}
    except ValueError as error:
        raise _unreadable(origin, status, "no JSON") from error
    if not isinstance(value, dict):
        raise _unreadable(origin, status, "no JSON object")
    answer = cast(JSON, value)
    if 200 <= status < 300:
        return answer
    told = answer.get("error")
    fault: JSON = cast(JSON, told) if isinstance(told, dict) else {}
    code = str(fault.get("code", "")) or f"status {status}"
    details = fault.get("details")
    raise UserError(
        UserCode.REJECTED if code == "DEPLOY_REJECTED" else UserCode.API_REFUSED,
        f"{asked}: {code}: {fault.get('message') or 'no reason was given'}",
        hint=_HINTS.get(code, ""),
        details={
            "status": status,
            "code": code,
            "request_id": fault.get("request_id"),
            **(cast(JSON, details) if isinstance(details, dict) else {}),
        },
    )


_HINTS = {
    "NOT_EMULATED": "dev has no control plane in this release: start amba-run node, and name it "
    "with --api or AMBA_API_URL",
    "INVALID_TOKEN": "the server does not know this token: check --token or AMBA_PAT",
    "UNAUTHORIZED": "give --token T or set AMBA_PAT",
    "PROJECT_NOT_FOUND": "amba-run projects list shows the projects of this token",
    "PROJECT_FORBIDDEN": "this token's developer does not own the project",
    "QUEUE_NOT_BOUND": "amba-run queues list shows the queues that have a consumer; "
    "amba-run queues bind QUEUE FUNCTION gives one to another",
    "WRONG_PROJECT": "an internal token is good for its own project only",
}


def _unreachable(origin: str, error: Exception, within_s: float) -> UserError:
    slow = isinstance(error, TimeoutError | socket.timeout)
    why = f"no answer in {within_s:g} s" if slow else str(error) or repr(error)
    return UserError(
        UserCode.NO_SERVER,
        f"{origin} cannot be reached: {why}",
        hint="is the server running, and is the address right?",
    )


def _unreadable(origin: str, status: int, what: str) -> UserError:
    return UserError(
        UserCode.API_REFUSED,
        f"{origin} answered with status {status} and {what}",
        hint="is it an amba-run server's address?",
        details={"status": status},
    )
