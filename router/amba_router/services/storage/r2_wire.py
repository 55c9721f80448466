"""The R2 wire form that workerd speaks: JSON in, JSON and bytes out, over one Unix socket.

    GET  cf-r2-request: {"version":1,"method":"head"|"get"|"list", ...}
    PUT  cf-r2-metadata-size: N, body: N bytes of JSON {"version":1,"method":"put", ...}, value
    answer  cf-r2-metadata-size: N, body: N bytes of JSON, value
    refusal status >= 400, cf-r2-error: {"version":1,"v4code":10007,"message":"..."}

64-bit numbers arrive as decimal text; absent members are left out. Source: r2-api.capnp in
workerd; engines.md section 3. What arrives was shaped by a guest: everything is checked.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amba_router.services.storage.body import ObjectBody
from amba_router.services.storage.rules import (
    Condition,
    ETag,
    Fault,
    R2Error,
    Range,
    Strength,
    parse_range,
)
from amba_router.services.storage.service import encode_cursor
from amba_router.store.blobs import ALGORITHMS
from amba_router.store.records import Metadata, Page, StoredObject
from amba_runtime import limits
from amba_runtime.errors import AmbaRunError
from amba_runtime.manifest import ProjectId
from amba_runtime.wire import Handler, Request, Response, WireError

if TYPE_CHECKING:
    from amba_router.services.storage.service import StorageService

logger = logging.getLogger("amba.storage")

Json = Mapping[str, Any]

_HTTP_FIELDS = (
    "contentType",
    "contentLanguage",
    "contentDisposition",
    "contentEncoding",
    "cacheControl",
)
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
        asked = _parse(request.header(b"cf-r2-request") or b"")
        method = asked.get("method")
        if method == "head":
            found = await self._service.head(self._project_id, _text(asked, "object"))
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
            keys = [_text(asked, "object")] if "object" in asked else _texts(asked, "objects")
            await service.delete(project_id, keys)
            return Response(200)
        _no_customer_keys(asked)
        key = _text(asked, "object")
        if method == "put":
            new = await service.put(
                project_id,
                key,
                value,
                metadata=_metadata(asked),
                condition=_condition(asked),
                checksums=_checksums(asked),
            )
            return _answer(_object_json(new))
        if method == "createMultipartUpload":
            upload_id = await service.create_upload(project_id, key, _metadata(asked))
            return _answer(_dump({"uploadId": upload_id}))
        upload_id = _text(asked, "uploadId")
        if method == "uploadPart":
            number = _number(asked, "partNumber")
            etag = await service.upload_part(project_id, key, upload_id, number or 0, value)
            return _answer(_dump({"etag": etag}))
        if method == "completeMultipartUpload":
            wanted = [(_number(p, "part") or 0, _text(p, "etag")) for p in _list(asked, "parts")]
            new = await service.complete_upload(project_id, key, upload_id, wanted)
            return _answer(_object_json(new))
        if method == "abortMultipartUpload":
            await service.abort_upload(project_id, key, upload_id)
            return Response(200)
        raise R2Error(Fault.INVALID_ARGUMENT)

    async def _get(self, asked: Json) -> Response:
        _no_customer_keys(asked)
        read = await self._service.get(
            self._project_id,
            _text(asked, "object"),
            asked=_range(asked),
            condition=_condition(asked),
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
            prefix=_text(asked, "prefix", ""),
            delimiter=_text(asked, "delimiter", ""),
            start_after=_text(asked, "startAfter", ""),
            cursor=_text(asked, "cursor", ""),
            limit=_number(asked, "limit"),
        )
        include = _array(asked, "include")
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
    return _parse(start[:size]), _value(start[size:], body)


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


def _parse(data: bytes) -> Json:
    try:
        asked = json.loads(data)
    except ValueError as error:
        raise R2Error(Fault.INVALID_ARGUMENT) from error
    if not isinstance(asked, dict):
        raise R2Error(Fault.INVALID_ARGUMENT)
    return asked  # pyright: ignore[reportUnknownVariableType]


def _text(asked: Json, name: str, default: str | None = None) -> str:
    value = asked.get(name, default)
    if not isinstance(value, str):
        raise R2Error(Fault.INVALID_ARGUMENT)
    return value


def _texts(asked: Json, name: str) -> list[str]:
    return [_text({name: v}, name) for v in _array(asked, name)]


def _number(asked: Json, name: str) -> int | None:
    """A whole number of at most 64 bits, as JSON writes it or as text; None when absent."""
    value = asked.get(name)
    if value is None:
        return None
    if isinstance(value, str) and value.isdecimal() and len(value) <= 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise R2Error(Fault.INVALID_ARGUMENT)
    # A time before 1970 was written as if it had no sign.
    return value - (1 << 64) if value >= 1 << 63 else value


def _object(asked: Json, name: str) -> Json | None:
    value = asked.get(name)
    if value is not None and not isinstance(value, dict):
        raise R2Error(Fault.INVALID_ARGUMENT)
    return value  # pyright: ignore[reportUnknownVariableType]


def _list(asked: Json, name: str) -> list[Json]:
    return [_object({name: v}, name) or {} for v in _array(asked, name)]


def _array(asked: Json, name: str) -> list[Any]:
    values = asked.get(name)
    if values is None:
        return []
    if not isinstance(values, list):
        raise R2Error(Fault.INVALID_ARGUMENT)
    return values  # pyright: ignore[reportUnknownVariableType]


def _metadata(asked: Json) -> Metadata:
    fields = _object(asked, "httpFields") or {}
    http: dict[str, str | int] = {n: _text(fields, n) for n in _HTTP_FIELDS if n in fields}
    expiry = _number(fields, "cacheExpiry")
    if expiry is not None:
        http["cacheExpiry"] = expiry
    custom = tuple((_text(r, "k"), _text(r, "v")) for r in _list(asked, "customFields"))
    return Metadata(http, custom, _text(asked, "storageClass", "") or "Standard")


def _condition(asked: Json) -> Condition | None:
    given = _object(asked, "onlyIf")
    if given is None:
        return None
    return Condition(
        etag_matches=_etags(given, "etagMatches"),
        etag_differs=_etags(given, "etagDoesNotMatch"),
        uploaded_before_ms=_number(given, "uploadedBefore"),
        uploaded_after_ms=_number(given, "uploadedAfter"),
        whole_seconds=given.get("secondsGranularity") is True,
    )


def _etags(given: Json, name: str) -> tuple[ETag, ...] | None:
    if name not in given:
        return None
    try:
        return tuple(ETag(Strength(e.get("type")), e.get("value", "")) for e in _list(given, name))
    except ValueError as error:
        raise R2Error(Fault.INVALID_ARGUMENT) from error


def _range(asked: Json) -> Range | None:
    if "rangeHeader" in asked:
        return parse_range(_text(asked, "rangeHeader"))
    given = _object(asked, "range")
    if given is None:
        return None
    return Range(_number(given, "offset"), _number(given, "length"), _number(given, "suffix"))


def _checksums(asked: Json) -> dict[str, str]:
    """Lower-case hex by algorithm. On the wire MD5 is base64, all others are hex."""
    sums: dict[str, str] = {}
    try:
        for algorithm in ALGORITHMS:
            if algorithm in asked:
                text = _text(asked, algorithm)
                data = base64.b64decode(text) if algorithm == "md5" else bytes.fromhex(text)
                sums[algorithm] = data.hex()
    except (ValueError, binascii.Error) as error:
        raise R2Error(Fault.INVALID_ARGUMENT) from error
    return sums


def _no_customer_keys(asked: Json) -> None:
    if "ssec" in asked:
        raise R2Error(
            Fault.INVALID_ARGUMENT, "Encryption with customer keys (ssecKey) is not emulated."
        )


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
    text = json.dumps(value, ensure_ascii=ascii_, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")
