"""The multipart body of an upload: `script`, `metadata`, and our optional `sourcemap`.

Parsed as it arrives, in any order of the parts; nothing that is not wanted is kept.
Source: contract D.2; RFC 7578; RFC 2046 section 5.1.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.api.intake import Body, media_type
from amba_runtime import limits
from amba_runtime.violations import Violation, ViolationCode

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

SCRIPT, METADATA, SOURCEMAP = "script", "metadata", "sourcemap"

SCRIPT_TYPES = ("application/javascript+module", "application/javascript", "text/javascript")
"""The first is what the platform's own command line sends; the others are what a module is."""

_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        SCRIPT: SCRIPT_TYPES,
        METADATA: ("application/json",),
        SOURCEMAP: ("application/json", "application/source-map+json"),
    }
)
_BYTES_MAX = MappingProxyType(
    {
        SCRIPT: limits.CONTROL_UPLOAD_BYTES,
        METADATA: limits.CONTROL_METADATA_BYTES,
        SOURCEMAP: limits.SOURCE_MAP,
    }
)
_TRANSFER_ENCODINGS = ("", "7bit", "8bit", "binary")


@dataclass(frozen=True, slots=True)
class Upload:
    """The parts that were sent, complete."""

    script: bytes
    metadata: bytes
    sourcemap: bytes | None


@dataclass(slots=True)
class _Part:
    """One part as it comes in. `data` is None for a part that is not kept.

    Its pages come as they are written and go back at once; a bytearray of tens of MiB is copied
    as it grows, and malloc keeps what it was.
    """

    headers: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    name: str = ""
    data: mmap.mmap | None = None

    def give_back(self) -> None:
        """Its pages; nothing is kept of it any more."""
        if self.data is not None:
            self.data.close()
        self.data = None


async def read_upload(body: Body) -> Upload:
    """Read and check the whole body.

    Raises:
        Refused: UNSUPPORTED_MEDIA_TYPE, INVALID_UPLOAD, INVALID_METADATA (the part is missing or
            too long), DEPLOY_REJECTED (more than one file), and what `Body.chunks` raises.
    """
    from python_multipart.exceptions import MultipartParseError
    from python_multipart.multipart import MultipartParser

    parts = _Parts()
    parser = MultipartParser(_boundary(body.content_type), parts.callbacks())
    # it would tell the log of each byte that is wrong; the caller is told
    parser.logger = logging.Logger("multipart", logging.CRITICAL)
    try:
        async for chunk in body.chunks():
            parser.write(chunk)
    except MultipartParseError as error:
        raise _invalid(f"the multipart body cannot be read: {error}") from None
    finally:
        parts.close()
    if not parts.ended:
        raise _invalid("the multipart body has no closing boundary; was it cut off?")
    return parts.upload()


def _boundary(content_type: str) -> bytes:
    type_, parameters = media_type(content_type)
    if type_ != "multipart/form-data":
        raise faults.UNSUPPORTED_MEDIA_TYPE.refuse(
            f"an upload is multipart/form-data, not {content_type[:60]!r}"
        )
    boundary = parameters.get("boundary", "")
    # python-multipart would take any length
    if not 1 <= len(boundary) <= 70 or not boundary.isascii() or not boundary.isprintable():
        raise _invalid("the content type names no boundary of 1 to 70 characters")
    return boundary.encode()


class _Parts:
    """Collects what the parser tells, and refuses at the first thing that cannot be."""

    def __init__(self) -> None:
        self.ended = False
        self._count = 0
        self._part = _Part()
        self._header = b""
        self._value = b""
        self._kept: dict[str, bytes] = {}
        self._files = 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._more,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def close(self) -> None:
        """Give back what a part that did not end had taken."""
        self._part.give_back()

    def upload(self) -> Upload:
        if SCRIPT not in self._kept:
            raise _invalid("the part `script` is missing", SCRIPT)
        if METADATA not in self._kept:
            raise faults.INVALID_METADATA.refuse(
                'the part `metadata` is missing; send JSON such as {"name": "hello"}',
                {"part": METADATA},
            )
        return Upload(self._kept[SCRIPT], self._kept[METADATA], self._kept.get(SOURCEMAP))

    # what the parser tells, in its order

    def _begin(self) -> None:
        self._count += 1
        if self._count > limits.CONTROL_PARTS.value:
            raise _invalid(f"the body has more than {limits.CONTROL_PARTS.value} parts")
        self._part = _Part()

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _more(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        name, value = self._header.decode("latin-1").lower(), self._value.decode("utf-8", "replace")
        self._header = self._value = b""
        if name in self._part.headers:
            raise _invalid(f"a part has two {name[:40]} headers")
        self._part.headers[name] = value.strip()

    def _headers_finished(self) -> None:
        part = self._part
        disposition = part.headers.get("content-disposition", "")
        kind, parameters = _disposition(disposition)
        if kind != "form-data" or "name" not in parameters:
            raise _invalid("a part has no Content-Disposition: form-data with a name")
        part.name = parameters["name"]
        if part.name == SCRIPT or (part.name not in _TYPES and "filename" in parameters):
            self._files += 1
            if self._files > 1:
                raise _multiple(part.name)
        if part.name not in _TYPES:
            return
        if part.name in self._kept:
            raise _invalid(f"the part `{part.name}` was sent twice", part.name)
        _check_type(part, plain="filename" not in parameters)
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        part.data = mmap.mmap(-1, _BYTES_MAX[part.name].value, flags=private)

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.data is None:
            return
        most = _BYTES_MAX[part.name].value
        if part.data.tell() + end - start > most:
            fault = faults.INVALID_METADATA if part.name == METADATA else faults.INVALID_UPLOAD
            raise fault.refuse(f"the part `{part.name}` passes {most} bytes", {"part": part.name})
        part.data.write(data[start:end])

    def _end(self) -> None:
        part = self._part
        if part.data is not None:
            self._kept[part.name] = part.data[: part.data.tell()]
            part.give_back()

    def _finish(self) -> None:
        self.ended = True


def _disposition(value: str) -> tuple[str, dict[str, str]]:
    """Type and parameters of a Content-Disposition. Browsers and undici write `%22` for a quote."""
    kind, _, rest = value.partition(";")
    # a content type has the same parameters
    _, parameters = media_type(f"x/x;{rest}")
    return kind.strip().lower(), parameters


def _check_type(part: _Part, *, plain: bool) -> None:
    """A plain string field needs no content type (contract D.2); a file has the right one."""
    wanted = _TYPES[part.name]
    encoding = part.headers.get("content-transfer-encoding", "").lower()
    if encoding not in _TRANSFER_ENCODINGS:
        raise _invalid(f"the part `{part.name}` is {encoding[:20]}; send it as it is", part.name)
    header = part.headers.get("content-type", "")
    if not header and (plain or part.name != SCRIPT):
        return
    type_, parameters = media_type(header)
    if type_ not in wanted and not (plain and type_ == "text/plain"):
        raise _invalid(f"the part `{part.name}` is {wanted[0]}, not {header[:60]!r}", part.name)
    charset = parameters.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8"):
        raise _invalid(f"the part `{part.name}` is UTF-8, not {charset[:20]!r}", part.name)


def _invalid(message: str, part: str | None = None) -> Refused:
    return faults.INVALID_UPLOAD.refuse(message, {} if part is None else {"part": part})


def _multiple(name: str) -> Refused:
    return faults.rejected(
        (
            Violation(
                ViolationCode.MULTIPLE_FILES,
                f"the upload has more than one file (the second is the part {name[:60]!r}); "
                "a function is one module",
                "bundle everything into one file: amba-run deploy does",
            ),
        )
    )
