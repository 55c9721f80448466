"""The platform API as one ASGI app: what answers under /v1 and the same without it.

One table of operations drives routing, auth, bodies, answers and the OpenAPI document; an answer
that its operation does not name never leaves the house. Source: contract A.7, A.8, D, E.0 to E.2.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl

from amba_router.api import elsewhere, faults
from amba_router.api.callers import Allowed, Directory
from amba_router.api.faults import Refused
from amba_router.api.intake import Body, Budget, media_type, upload_bomb
from amba_router.api.operations import (
    Answer,
    Asked,
    Auth,
    Fields,
    Found,
    Operation,
    Part,
    Plain,
    Reads,
    Table,
    split_path,
)
from amba_router.asgi import Message, Receive, Scope, Send
from amba_runtime import limits
from amba_runtime.errors import AmbaRunError, InternalError

if TYPE_CHECKING:
    from amba_runtime.clock import Clock

logger = logging.getLogger("amba.control")

_JSON = (b"content-type", b"application/json")
_NO_STORE = (b"cache-control", b"no-store")
_CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"ETag"),
)
_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
    (b"access-control-max-age", b"600"),
)
_DOCUMENT = ("openapi.json",)


class Register(Protocol):
    """Knows the end users of projects."""

    async def admit(self, project_id: str, user_id: str, *, make: bool) -> bool:
        """Whether this project has that user. Args: make: from here on it has."""
        ...


class Api:
    """Mounted by `Platform` for `/v1/...` and the planes without it.

    Args:
        parts: what it answers, each made at the first request: a start does not wait for models.
        users: who may be named by sessions and server keys; None asks nobody.
        node: the control plane is among the parts; else its paths are 501.
        version: of this program, for the OpenAPI document.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        directory: Directory,
        clock: Clock,
        *,
        users: Register | None = None,
        node: bool = True,
        version: str = "0",
    ) -> None:
        self.directory = directory
        self._parts = tuple(parts)
        self._clock = clock
        self._users = users
        self._node = node
        self._version = version
        self._bodies = Budget(limits.CONTROL_UPLOADS_BYTES.value)
        self._made: tuple[Table, dict[str, frozenset[faults.Fault]], bytes] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; `scope["amba.request_id"]` names it in every error."""
        request_id: str | None = scope.get("amba.request_id")
        fields: Fields = tuple((name.lower(), value) for name, value in scope["headers"])
        method: str = scope.get("method", "GET")
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        segments = split_path(raw)
        shared: Fields = _CORS if segments is not None and segments[0] == "client" else ()
        try:
            if scope["type"] != "http" or segments is None:
                raise _nothing_at(raw)
            answer = await self._answer(method, segments, scope, fields, receive, request_id)
        except Refused as refusal:
            problem = refusal.problem
            # made whole once: HEAD says the length of what GET would have been told
            body = Plain(_JSON[1], problem.body(request_id))
            extra = tuple(f for f in problem.headers(0) if f[0] not in _OWN)
            answer = Answer(problem.status, body, extra)
        await _send(send, answer, shared, head=method == "HEAD")

    async def _answer(
        self,
        method: str,
        segments: tuple[str, ...],
        scope: Scope,
        fields: Fields,
        receive: Receive,
        request_id: str | None,
    ) -> Answer:
        table, allowed, document = self._table()
        found = table.find(method, segments)
        if found is None and segments == _DOCUMENT:
            found = Found(None, {}, ("GET", "HEAD", "OPTIONS"))
            if method in ("GET", "HEAD"):
                return Answer(200, Plain(_JSON[1], document))
        if found is None or found.operation is None:
            needed = elsewhere.needed_for(segments)
            if needed is None and not self._node:
                needed = elsewhere.of_a_node(segments)
            if needed is not None:
                if method == "OPTIONS":
                    return Answer(204, None, _preflight(segments, fields))
                raise self._not_emulated(method, segments, fields, *needed)
            if found is None:
                raise _nothing_at(scope.get("raw_path") or scope["path"].encode())
            allow = ", ".join(found.methods)
            if method == "OPTIONS":
                return Answer(
                    204, None, _preflight(segments, fields) or ((b"allow", allow.encode()),)
                )
            raise _not_allowed(method, allow)
        operation = found.operation
        try:
            return await self._run(operation, found, scope, fields, receive, request_id)
        except Refused as refusal:
            said = refusal
        except AmbaRunError as error:
            said = faults.refusal_of(error)
            busy = said.fault is faults.OVERLOADED  # as often as somebody likes to ask
            if not busy and (isinstance(error, InternalError) or said.fault.status >= 500):
                logger.error("%s failed, request %s: %s", operation.id, request_id, error)
        except Exception:  # a mistake of ours is answered, too, in the platform's shape
            logger.exception("%s failed, request %s", operation.id, request_id)
            said = faults.INTERNAL.refuse("amba-run failed; its log says why")
        if said.fault not in allowed[operation.id]:
            logger.error(
                "%s gave %s, which it does not name; request %s",
                *(operation.id, said.fault.code, request_id),
            )
            said = faults.INTERNAL.refuse("amba-run failed; its log says why")
        raise said

    async def _run(
        self,
        operation: Operation,
        found: Found,
        scope: Scope,
        fields: Fields,
        receive: Receive,
        request_id: str | None,
    ) -> Answer:
        from amba_router.api.decoding import decode_json, encode_json

        allowed = self.directory.authorize(
            operation.auth, fields, found.values.get("project_id", "")
        )
        caller, project = allowed.caller, allowed.project
        query = _query(operation, scope.get("query_string", b""))
        upload = operation.reads is Reads.UPLOAD
        body: Body | None = None
        decoded: Any = None
        try:
            if upload or operation.request is not None:
                most = limits.CONTROL_UPLOAD_BYTES if upload else limits.CONTROL_JSON_BYTES
                body = Body(
                    receive,
                    fields,
                    clock=self._clock,
                    bytes_max=operation.bytes_max or most.value,
                    bomb=upload_bomb if upload else None,
                    budget=self._bodies,
                )
            if body is not None and operation.request is not None:
                _check_json_type(body.content_type)
                raw = await body.whole()
                if not raw and operation.reads is Reads.MAYBE_JSON:
                    raw = b"{}"
                decoded = decode_json(raw, operation.request)

            def still() -> None:
                self.directory.still(caller)
                if project is not None and project.id not in self.directory.projects:
                    raise faults.PROJECT_NOT_FOUND.refuse("the project was deleted meanwhile")

            if allowed.user_id:
                await self._admit(allowed)
            still()
            asked = Asked(
                found.values,
                query,
                caller,
                project,
                decoded,
                body if upload else None,
                still,
                fields,
                request_id,
                allowed.user_id,
                allowed.as_user,
            )
            answer = await operation.handler(asked)
        finally:
            if body is not None:
                body.release()
        _check(operation, answer)
        if answer.body is None or isinstance(answer.body, Plain):
            return answer
        return replace(answer, body=Plain(_JSON[1], encode_json(answer.body)))

    async def _admit(self, allowed: Allowed) -> None:
        """A session of ours names its user; one that we do not know yet is made."""
        if self._users is None or allowed.project is None:
            return
        known = await self._users.admit(
            allowed.project.id, allowed.user_id, make=not allowed.as_user
        )
        if not known:
            raise faults.no_user(allowed.user_id)

    def _not_emulated(
        self,
        method: str,
        segments: tuple[str, ...],
        fields: Fields,
        auth: Auth,
        project_id: str,
    ) -> Refused:
        self.directory.authorize(auth, fields, project_id)
        path = "/" + "/".join(segments)[:200]
        return faults.NOT_EMULATED.refuse(
            f"{method} {path} is not emulated {'in this release' if self._node else 'here'}",
            {"feature": path},
        )

    def _table(self) -> tuple[Table, dict[str, frozenset[faults.Fault]], bytes]:
        if self._made is None:
            import json

            from amba_router.api import openapi

            table = Table(operation for part in self._parts for operation in part())
            allowed = {one.id: openapi.faults_of(one) for one in table.operations}
            text = json.dumps(openapi.document(table, version=self._version))
            self._made = (table, allowed, text.encode())
        return self._made


_OWN = (b"content-type", b"content-length", b"cache-control")


async def _send(send: Send, answer: Answer, shared: Fields, *, head: bool) -> None:
    """An answer as ASGI has it; a stream that fails breaks off."""
    own = () if any(name == b"cache-control" for name, _ in answer.headers) else (_NO_STORE,)
    headers = [*own, *shared, *answer.headers]
    start: Message = {"type": "http.response.start", "status": answer.status, "headers": headers}
    body = answer.body
    assert body is None or isinstance(body, Plain)
    if body is None:
        if answer.status not in _BODILESS:
            headers.append((b"content-length", b"0"))
        await send(start)
        await send({"type": "http.response.body", "body": b""})
        return
    headers.append((b"content-type", body.content_type))
    if isinstance(body.content, bytes):
        headers.append((b"content-length", b"%d" % len(body.content)))
        await send(start)
        await send({"type": "http.response.body", "body": b"" if head else body.content})
        return
    try:
        await send(start)
        if not head:
            async for piece in body.content:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:  # whoever asked may have left: what feeds it ends now, not when memory is swept
        closing = getattr(body.content, "aclose", None)
        if closing is not None:
            await closing()
    await send({"type": "http.response.body", "body": b""})


_BODILESS = frozenset({204, 304})


def _nothing_at(raw: bytes) -> Refused:
    shown = raw[:200].decode("latin-1")
    return faults.NOT_FOUND.refuse(f"nothing answers at {shown!r}")


def _not_allowed(method: str, allow: str) -> Refused:
    refusal = faults.METHOD_NOT_ALLOWED.refuse(f"{method[:20]} is not done here; use {allow}")
    refusal.problem = replace(refusal.problem, allow=allow)
    return refusal


def _preflight(segments: tuple[str, ...], fields: Fields) -> Fields:
    """What a browser wants to know before it asks the client plane. Source: contract A.8."""
    asked = any(name == b"access-control-request-method" for name, _ in fields)
    if segments[0] != "client" or not asked:
        return ()
    from amba_router.headers import CLIENT_ALLOWED

    return (*_PREFLIGHT, (b"access-control-allow-headers", CLIENT_ALLOWED))


def _query(operation: Operation, raw: bytes) -> dict[str, str]:
    """The declared parameters, each at most once; others are ignored."""
    declared = {query.name for query in operation.query}
    if not declared or not raw:
        return {}
    values: dict[str, str] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        if name not in declared:
            continue
        if name in values:
            raise faults.INVALID_INPUT.refuse(f"{name} was sent twice", {"parameter": name})
        if "\0" in value:
            raise faults.INVALID_INPUT.refuse(f"{name} holds a NUL", {"parameter": name})
        values[name] = value
    return values


def _check_json_type(header: str) -> None:
    type_, parameters = media_type(header)
    charset = parameters.get("charset", "utf-8").lower()
    if header and (type_ != "application/json" or charset not in ("utf-8", "utf8")):
        raise faults.UNSUPPORTED_MEDIA_TYPE.refuse(
            f"the body is application/json in UTF-8, not {header[:60]!r}"
        )


_UNDOCUMENTED = object()


def _check(operation: Operation, answer: Answer) -> None:
    wanted = operation.answers.get(answer.status, _UNDOCUMENTED)
    given = None if isinstance(answer.body, Plain) or answer.body is None else type(answer.body)
    if wanted is not given:
        raise TypeError(f"{operation.id} gave {answer.status} {type(answer.body).__name__}")
