"""The control plane as one ASGI app: what answers under /v1 and the same without it.

One table of operations drives routing, auth, bodies, answers and the OpenAPI document; an answer
that its operation does not name never leaves the house. Source: contract A.7, A.8, D, E.0 to E.2.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from amba_router.asgi import Receive, Scope, Send
from amba_router.control import elsewhere, faults
from amba_router.control.callers import Directory
from amba_router.control.deploys import Deploys
from amba_router.control.faults import Refused
from amba_router.control.intake import Body, Budget, media_type, upload_bomb
from amba_router.control.operations import (
    Answer,
    Asked,
    Auth,
    Found,
    Operation,
    Reads,
    Table,
    split_path,
)
from amba_router.control.pushes import Pushes
from amba_router.control.services import Services
from amba_router.control.turns import Turns
from amba_runtime import limits
from amba_runtime.errors import AmbaRunError, InternalError

if TYPE_CHECKING:
    from amba_router.control.host import Host, Logs
    from amba_router.store.control import ControlStore
    from amba_router.store.control_records import Snapshot
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

_Fields = tuple[tuple[bytes, bytes], ...]


class ControlApp:
    """Mounted by `Platform` for `/v1/...` and the planes without it. `close` once, at the end.

    Args:
        store: what is remembered.
        snapshot: what `store.snapshot()` gave: the credentials in it are kept in memory.
        host: what starts and serves.
        logs: what `functions/:name/logs` reads.
        version: of this program, for the OpenAPI document.
    """

    def __init__(
        self,
        *,
        store: ControlStore,
        snapshot: Snapshot,
        host: Host,
        logs: Logs,
        clock: Clock,
        version: str = "0",
    ) -> None:
        self._clock = clock
        self._version = version
        self.directory = Directory(snapshot, clock)
        self._pushes = Pushes(host, clock)
        self._deploys = Deploys(store, host, self._pushes)
        self._services = Services(
            store=store,
            host=host,
            logs=logs,
            clock=clock,
            directory=self.directory,
            deploys=self._deploys,
            pushes=self._pushes,
            turns=Turns(limits.DEPLOY_WAITERS.value, _busy),
        )
        self._bodies = Budget(limits.CONTROL_UPLOADS_BYTES.value)
        # made at the first request: models need msgspec, which a start does not wait for
        self._made: tuple[Table, dict[str, frozenset[faults.Fault]], bytes] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; `scope["amba.request_id"]` names it in every error."""
        request_id: str | None = scope.get("amba.request_id")
        fields: _Fields = tuple((name.lower(), value) for name, value in scope["headers"])
        method: str = scope.get("method", "GET")
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        segments = split_path(raw)
        shared: _Fields = _CORS if segments is not None and segments[0] == "client" else ()
        try:
            if scope["type"] != "http" or segments is None:
                raise _nothing_at(raw)
            status, body, extra = await self._answer(
                method, segments, scope, fields, receive, request_id
            )
        except Refused as refusal:
            problem = refusal.problem
            # made whole once: HEAD says the length of what GET would have been told
            status, body = problem.status, problem.body(request_id)
            extra = tuple(f for f in problem.headers(0) if f[0] not in _OWN)
        headers = [_NO_STORE, *shared, *extra]
        if status != 204:
            headers += [_JSON, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    async def close(self) -> None:
        """Wait for commits that were begun; give up secret pushes. Idempotent."""
        await self._deploys.close()
        await self._pushes.close()

    async def _answer(
        self,
        method: str,
        segments: tuple[str, ...],
        scope: Scope,
        fields: _Fields,
        receive: Receive,
        request_id: str | None,
    ) -> tuple[int, bytes, _Fields]:
        table, allowed, document = self._table()
        found = table.find(method, segments)
        if found is None and segments == _DOCUMENT:
            found = Found(None, {}, ("GET", "HEAD", "OPTIONS"))
            if method in ("GET", "HEAD"):
                return 200, document, ()
        if found is None or found.operation is None:
            needed = elsewhere.needed_for(segments)
            if needed is not None:
                if method == "OPTIONS":
                    return 204, b"", _preflight(segments, fields)
                return self._not_emulated(method, segments, fields, *needed)
            if found is None:
                raise _nothing_at(scope.get("raw_path") or scope["path"].encode())
            allow = ", ".join(found.methods)
            if method == "OPTIONS":
                return 204, b"", ((b"allow", allow.encode()),)
            raise _not_allowed(method, allow)
        operation = found.operation
        try:
            return await self._run(operation, found, scope, fields, receive)
        except Refused as refusal:
            said = refusal
        except AmbaRunError as error:
            said = faults.refusal_of(error)
            if isinstance(error, InternalError) or said.fault.status >= 500:
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
        self, operation: Operation, found: Found, scope: Scope, fields: _Fields, receive: Receive
    ) -> tuple[int, bytes, _Fields]:
        from amba_router.control.decoding import decode_json, encode_json

        caller, project = self.directory.authorize(
            operation.auth, fields, found.values.get("project_id", "")
        )
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
                    bytes_max=most.value,
                    bomb=upload_bomb if upload else None,
                    budget=self._bodies,
                )
            if body is not None and operation.request is not None:
                _check_json_type(body.content_type)
                decoded = decode_json(await body.whole(), operation.request)

            def still() -> None:
                self.directory.still(caller)
                if project is not None and project.id not in self.directory.projects:
                    raise faults.PROJECT_NOT_FOUND.refuse("the project was deleted meanwhile")

            still()
            answer = await operation.handler(
                Asked(
                    found.values, query, caller, project, decoded, body if upload else None, still
                )
            )
        finally:
            if body is not None:
                body.release()
        _check(operation, answer)
        return answer.status, encode_json(answer.body), ()

    def _not_emulated(
        self,
        method: str,
        segments: tuple[str, ...],
        fields: _Fields,
        auth: Auth,
        project_id: str,
    ) -> tuple[int, bytes, _Fields]:
        self.directory.authorize(auth, fields, project_id)
        path = "/" + "/".join(segments)[:200]
        raise faults.NOT_EMULATED.refuse(
            f"{method} {path} is not emulated in this release", {"feature": path}
        )

    def _table(self) -> tuple[Table, dict[str, frozenset[faults.Fault]], bytes]:
        if self._made is None:
            import json

            from amba_router.control import credentials, functions, openapi, projects, secrets

            table = Table(
                operation
                for part in (projects, credentials, functions, secrets)
                for operation in part.operations(self._services)
            )
            allowed = {one.id: openapi.faults_of(one) for one in table.operations}
            text = json.dumps(openapi.document(table, version=self._version))
            self._made = (table, allowed, text.encode())
        return self._made


_OWN = (b"content-type", b"content-length", b"cache-control")


def _nothing_at(raw: bytes) -> Refused:
    shown = raw[:200].decode("latin-1")
    return faults.NOT_FOUND.refuse(f"nothing answers at {shown!r}")


def _not_allowed(method: str, allow: str) -> Refused:
    from dataclasses import replace

    refusal = faults.METHOD_NOT_ALLOWED.refuse(f"{method[:20]} is not done here; use {allow}")
    refusal.problem = replace(refusal.problem, allow=allow)
    return refusal


def _busy() -> Refused:
    return faults.TOO_MANY_DEPLOYS.refuse(
        "too many changes of this wait; try again", retry_after_s=1
    )


def _preflight(segments: tuple[str, ...], fields: _Fields) -> _Fields:
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


def _check(operation: Operation, answer: Answer) -> None:
    wanted = operation.answers.get(answer.status)
    if wanted is not type(answer.body):
        raise TypeError(f"{operation.id} gave {answer.status} {type(answer.body).__name__}")
