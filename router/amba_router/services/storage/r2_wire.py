"""The R2 wire form that workerd speaks: JSON in, JSON and bytes out, over one Unix socket.

    GET  cf-r2-request: {"version":1,"method":"head"|"get"|"list", ...}
    PUT  cf-r2-metadata-size: N, body: N bytes of JSON {"version":1,"method":"put", ...}, value
    answer  cf-r2-metadata-size: N, body: N bytes of JSON, value
    refusal status >= 400, cf-r2-error: {"version":1,"v4code":10007,"message":"..."}

Source: engines.md section 3; r2-rpc.c++ in workerd. `r2_decode` reads the JSON.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amba_router.services.storage.body import ObjectBody
from amba_router.services.storage.cursor import encode_cursor
from amba_router.services.storage.r2_decode import (
    Json,
    array,
    checksums,
    condition,
    items,
    metadata,
    number,
    parse,
    refuse_customer_keys,
    text,
    texts,
    wanted_range,
)
from amba_router.services.storage.rules import Fault, R2Error
from amba_router.store.blobs import ALGORITHMS
from amba_router.store.records import Page, StoredObject
from amba_runtime import limits
from amba_runtime.errors import AmbaRunError
from amba_runtime.manifest import ProjectId
from amba_runtime.wire import Handler, Request, Response, WireError

if TYPE_CHECKING:
    from amba_router.services.storage.service import StorageService

logger = logging.getLogger("amba.storage")

_INCLUDE_HTTP, _INCLUDE_CUSTOM = 0, 1


def bucket_handler(service: StorageService, project_id: ProjectId) -> Handler:
    """What answers one project's `STORAGE` on a socket. Never raises for a guest's mistake."""
    bucket = _Bucket(service, project_id)

    async def handle(request: Request) -> Response:
        body = request.chunks()
        try:
            if request.method == "PUT":
                return await bucket.put(request, body)
            return await bucket.get(request)
        except R2Error as error:
            response = _refusal(error)
        except WireError:
            raise
        except Exception as error:
            # UserError and InternalError say all there is to say; anything else wants its stack.
            stack = not isinstance(error, AmbaRunError)
            logger.error("storage of project %s failed: %s", project_id, error, exc_info=stack)
            response = _refusal(R2Error(Fault.INTERNAL_ERROR))
        await _drain(body)
        return response

    return handle


class _Bucket:
    """The operations of one project, from JSON to JSON."""

    def __init__(self, service: StorageService, project_id: ProjectId) -> None:
        self._service = service
        self._project_id = project_id

    async def get(self, request: Request) -> Response:
        asked = parse(request.header(b"cf-r2-request") or b"")
        method = asked.get("method")
        if method == "head":
            found = await self._service.head(self._project_id, text(asked, "object"))
            return _answer(_object_json(found, span=(0, found.size)))
        if method == "get":
            return await self._get(asked)
        if method == "list":
            return await self._list(asked)
        raise R2Error(Fault.INVALID_ARGUMENT)

    async def put(self, request: Request, body: AsyncIterator[bytes]) -> Response:
        asked, value = await _split(request, body)
        service, project_id = self._service, self._project_id
        method = asked.get("method")
        if method == "delete":
            keys = [text(asked, "object")] if "object" in asked else texts(asked, "objects")
            await service.delete(project_id, keys)
            return Response(200)
        refuse_customer_keys(asked)
        key = text(asked, "object")
        if method == "put":
            new = await service.put(
                project_id,
                key,
                value,
                metadata=metadata(asked),
                condition=condition(asked),
                checksums=checksums(asked),
            )
            return _answer(_object_json(new))
        if method == "createMultipartUpload":
            upload_id = await service.create_upload(project_id, key, metadata(asked))
            return _answer(_dump({"uploadId": upload_id}))
        upload_id = text(asked, "uploadId")
        if method == "uploadPart":
            part = number(asked, "partNumber") or 0
            etag = await service.upload_part(project_id, key, upload_id, part, value)
            return _answer(_dump({"etag": etag}))
        if method == "completeMultipartUpload":
            wanted = [(number(p, "part") or 0, text(p, "etag")) for p in items(asked, "parts")]
            new = await service.complete_upload(project_id, key, upload_id, wanted)
            return _answer(_object_json(new))
        if method == "abortMultipartUpload":
            await service.abort_upload(project_id, key, upload_id)
            return Response(200)
        raise R2Error(Fault.INVALID_ARGUMENT)

    async def _get(self, asked: Json) -> Response:
        refuse_customer_keys(asked)
        read = await self._service.get(
            self._project_id,
            text(asked, "object"),
            asked=wanted_range(asked),
            condition=condition(asked),
        )
        body = read.body
        head = _object_json(read.found, span=(read.offset, body.length))
        if body.length <= limits.STORE_CHUNK.value:
            return _answer(head, await body.read())
        return Response(
            200,
            [*_head(head), (b"content-length", b"%d" % (len(head) + body.length))],
            _HeadThenBody(head, body),
        )

    async def _list(self, asked: Json) -> Response:
        page = await self._service.list(
            self._project_id,
            prefix=text(asked, "prefix", ""),
            delimiter=text(asked, "delimiter", ""),
            start_after=text(asked, "startAfter", ""),
            cursor=text(asked, "cursor", ""),
            limit=number(asked, "limit"),
        )
        include = array(asked, "include")
        return _answer(
            _page_json(
                self._project_id,
                page,
                http=_INCLUDE_HTTP in include,
                custom=_INCLUDE_CUSTOM in include,
            )
        )


class _HeadThenBody:
    """An answer's bytes: its JSON, then the object's."""

    def __init__(self, head: bytes, body: ObjectBody) -> None:
        self._head = head
        self._body = body

    def __aiter__(self) -> _HeadThenBody:
        return self

    async def __anext__(self) -> bytes:
        head, self._head = self._head, b""
        return head or await self._body.__anext__()

    async def aclose(self) -> None:
        await self._body.aclose()


# --- requests ---------------------------------------------------------------------------------


async def _split(request: Request, body: AsyncIterator[bytes]) -> tuple[Json, AsyncIterator[bytes]]:
    """The JSON in front of a body, and the value behind it."""
    announced = request.header(b"cf-r2-metadata-size") or b""
    if not announced.isdigit() or int(announced) > limits.STORAGE_REQUEST_JSON.value:
        raise R2Error(Fault.INVALID_ARGUMENT)
    size = int(announced)
    parts: list[bytes] = []
    have = 0
    while have < size:
        data = await anext(body, b"")
        if not data:
            raise R2Error(Fault.INVALID_ARGUMENT)
        parts.append(data)
        have += len(data)
    start = b"".join(parts)
    return parse(start[:size]), _value(start[size:], body)


async def _value(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for data in rest:
        yield data


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Take what is left of a refused body: workerd reads no answer before it has sent all.

    A value past the limit is not worth taking: the server then closes the connection.
    """
    size = 0
    async for data in body:
        size += len(data)
        if size > limits.STORAGE_VALUE.value:
            return


# --- answers ----------------------------------------------------------------------------------


def _head(json_bytes: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"cf-r2-metadata-size", b"%d" % len(json_bytes)),
        (b"content-type", b"application/json"),
    ]


def _answer(json_bytes: bytes, value: bytes = b"") -> Response:
    return Response(200, _head(json_bytes), json_bytes + value)


def _refusal(error: R2Error) -> Response:
    said = _dump({"version": 1, "v4code": error.fault.code, "message": error.message}, ascii_=True)
    headers = [(b"cf-r2-error", said)]
    if error.found is None:
        return Response(error.fault.status, headers)
    found = _object_json(error.found, span=(0, error.found.size))
    return Response(error.fault.status, [*headers, *_head(found)], found)


def _object_json(
    found: StoredObject,
    *,
    span: tuple[int, int] | None = None,
    http: bool = True,
    custom: bool = True,
) -> bytes:
    """An object as workerd reads it. `span` is (offset, length) of the bytes that follow."""
    fields: dict[str, Any] = {
        "name": found.key.decode(),
        "version": found.version,
        "size": found.size,
        "etag": found.etag,
        "uploaded": found.uploaded_ms,
        "checksums": {
            str(at): found.checksums[a] for at, a in enumerate(ALGORITHMS) if a in found.checksums
        },
        "storageClass": found.metadata.storage_class,
    }
    if http:
        fields["httpFields"] = dict(found.metadata.http)
    if custom:
        fields["customFields"] = [{"k": k, "v": v} for k, v in found.metadata.custom]
    if span is not None:
        fields["range"] = {"offset": span[0], "length": span[1]}
    return _dump(fields)


def _page_json(project_id: ProjectId, page: Page, *, http: bool, custom: bool) -> bytes:
    """A page, cut short where workerd would refuse the answer as too large."""
    objects: list[bytes] = []
    prefixes: list[bytes] = []
    truncated = page.truncated
    size = 0
    last: StoredObject | bytes | None = None
    for entry in page.entries:
        if isinstance(entry, bytes):
            item, kind = _dump(entry.decode()), prefixes
        else:
            item, kind = _object_json(entry, http=http, custom=custom), objects
        size += len(item) + 1
        if size > limits.STORAGE_LIST_JSON.value and last is not None:
            truncated = True
            break
        kind.append(item)
        last = entry
    answer = b'{"objects":[%b],"delimitedPrefixes":[%b],"truncated":%b' % (
        b",".join(objects),
        b",".join(prefixes),
        b"true" if truncated else b"false",
    )
    if truncated and last is not None:
        answer += b',"cursor":%b' % _dump(encode_cursor(project_id, last))
    return answer + b"}"


def _dump(value: Mapping[str, Any] | Sequence[Any] | str, *, ascii_: bool = False) -> bytes:
    dumped = json.dumps(value, ensure_ascii=ascii_, separators=(",", ":"))
    return dumped.encode("utf-8", "surrogatepass")
