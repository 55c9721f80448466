"""Reading a request's body: bounded in bytes and in time, gzip unpacked no further than allowed.

Source: contract D.3 (64 MiB); reliability.md 2.3 (unpacked size, ratio), row D5.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.asgi import Message, Receive
from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.violations import Violation, ViolationCode

T = TypeVar("T")

_GZIP = 31  # zlib's word for "a gzip head and tail"
_SLICE = 256 * limits.KIB


class Budget:
    """Bytes of uploads that a node holds at once. Changed by `take` and `give` alone."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max

    def take(self, count: int) -> None:
        """Raises `Refused` (`OVERLOADED`) when there is no room: nothing waits."""
        if count > self._left:
            raise faults.OVERLOADED.refuse("too many uploads at once; try again", retry_after_s=1)
        self._left -= count

    def give(self, count: int) -> None:
        """Let go of what was taken."""
        self._left += count


class Body:
    """One request's body. Use `chunks` or `whole`, once; then `release`.

    Args:
        fields: header names in lower case.
        bytes_max: of the body as sent, and as unpacked.
        bomb: the refusal of what unpacks to more; else PAYLOAD_TOO_LARGE.
        budget: what the bytes are counted against while they are in memory.

    Attributes:
        content_type: the header as it was sent, "" when there is none.
    """

    def __init__(
        self,
        receive: Receive,
        fields: tuple[tuple[bytes, bytes], ...],
        *,
        clock: Clock,
        bytes_max: int,
        bomb: Callable[[int], Refused] | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._receive = receive
        self._clock = clock
        self._bytes_max = bytes_max
        self._bomb = bomb
        self._budget = budget
        self._held = 0
        self._until_s = 0.0
        self.content_type = _single(fields, b"content-type")
        self._gzip = _is_gzip(_single(fields, b"content-encoding"))
        length = _single(fields, b"content-length")
        if length.isascii() and length.isdigit() and int(length) > bytes_max:
            raise self._too_large()

    async def whole(self) -> bytes:
        """All of it."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """Piece by piece, unpacked.

        Raises:
            Refused: too large, too slow, cut off, not what its encoding says.
        """
        self._until_s = self._clock.monotonic_s() + limits.CONTROL_BODY_S.value
        unpack = _Unpack(self._bytes_max, self._too_steep) if self._gzip else None
        received = 0
        more = True
        while more:
            message = await self._next()
            if message["type"] != "http.request":
                raise faults.BODY_INCOMPLETE.refuse(
                    f"the body ended after {received} bytes, before it was complete"
                )
            data: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            received += len(data)
            if received > self._bytes_max:
                raise self._too_large()
            if unpack is None:
                self._hold(data)
                if data:
                    yield data
                continue
            for piece in unpack.feed(data):
                self._hold(piece)
                yield piece
        if unpack is not None:
            for piece in unpack.end():
                self._hold(piece)
                yield piece

    def release(self) -> None:
        """The bytes are no longer in memory. Idempotent."""
        held, self._held = self._held, 0
        if self._budget is not None:
            self._budget.give(held)

    def _hold(self, data: bytes) -> None:
        if self._budget is not None:
            self._budget.take(len(data))
            self._held += len(data)

    async def _next(self) -> Message:
        left_s = self._until_s - self._clock.monotonic_s()
        wait_s = min(limits.CONTROL_BODY_IDLE_S.value, left_s)
        try:
            return await within(self._clock, wait_s, self._receive())
        except TimeoutError:
            raise faults.REQUEST_TIMEOUT.refuse(
                f"the body did not come: {wait_s:.0f} s without a byte, "
                f"or {limits.CONTROL_BODY_S.value:.0f} s in all"
            ) from None

    def _too_steep(self) -> Refused:
        return self._bomb(self._bytes_max) if self._bomb is not None else self._too_large()

    def _too_large(self) -> Refused:
        return faults.PAYLOAD_TOO_LARGE.refuse(
            f"the body passes {self._bytes_max} bytes", {"bytes_max": self._bytes_max}
        )


class _Unpack:
    """Gzip, one member, never more unpacked at a time than a slice."""

    def __init__(self, bytes_max: int, bomb: Callable[[], Refused]) -> None:
        self._bytes_max = bytes_max
        self._bomb = bomb
        self._zlib = zlib.decompressobj(_GZIP)
        self._in = 0
        self._out = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._in += len(data)
        while data:
            piece = self._take(data)
            if piece:
                yield piece
            if self._zlib.unused_data:
                raise faults.INVALID_ENCODING.refuse(
                    "something follows the end of the gzip body; send one member"
                )
            data = self._zlib.unconsumed_tail

    def end(self) -> Iterator[bytes]:
        while not self._zlib.eof:
            piece = self._take(b"")
            if not piece:
                raise faults.INVALID_ENCODING.refuse("the gzip body is cut off")
            yield piece

    def _take(self, data: bytes) -> bytes:
        try:
            piece = self._zlib.decompress(data, _SLICE)
        except zlib.error:
            raise faults.INVALID_ENCODING.refuse("the body is not valid gzip") from None
        self._out += len(piece)
        free = limits.CONTROL_UPLOAD_RATIO_FROM.value
        steep = self._out > max(free, limits.CONTROL_UPLOAD_RATIO.value * self._in)
        if steep or self._out > self._bytes_max:
            raise self._bomb()
        return piece


def upload_bomb(bytes_max: int) -> Refused:
    """Of an upload that unpacks to more than it may: the bundle is too large (contract D.3)."""
    return faults.rejected(
        (
            Violation(
                ViolationCode.BUNDLE_TOO_LARGE,
                f"the request unpacks to more than {bytes_max} bytes, or to more than "
                f"{limits.CONTROL_UPLOAD_RATIO.value} times its size",
                "send the upload without Content-Encoding, and a smaller bundle",
            ),
        )
    )


def _single(fields: tuple[tuple[bytes, bytes], ...], name: bytes) -> str:
    """Of a header sent twice all values, as RFC 9110 section 5.3 joins them."""
    return ", ".join(value.decode("latin-1").strip() for key, value in fields if key == name)


def _is_gzip(encoding: str) -> bool:
    named = encoding.lower()
    if named in ("", "identity"):
        return False
    if named in ("gzip", "x-gzip"):
        return True
    raise faults.UNSUPPORTED_MEDIA_TYPE.refuse(
        f"Content-Encoding {encoding[:40]!r} is not read; use none, or gzip once"
    )


async def within(clock: Clock, seconds: float, work: Awaitable[T]) -> T:
    """Wait so long by this clock. Raises TimeoutError; the work is cancelled then."""
    doing = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(clock.sleep(max(seconds, 0.001)))
    try:
        await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise TimeoutError
    finally:
        for task in (doing, waiting):
            task.cancel()
        await asyncio.gather(doing, waiting, return_exceptions=True)


_MEDIA = re.compile(r"\s*([!#$%&'*+.^_`|~\w-]+/[!#$%&'*+.^_`|~\w-]+)\s*(?:;.*)?\Z", re.ASCII)
_PARAMETER = re.compile(r';\s*([\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;"]+)', re.ASCII)


def media_type(header: str) -> tuple[str, dict[str, str]]:
    """A content type in lower case and its parameters; ("", {}) when it is none.

    Of a parameter given twice the first counts. Source: RFC 9110 section 8.3.1.
    """
    match = _MEDIA.match(header)
    if match is None:
        return "", {}
    parameters: dict[str, str] = {}
    for name, value in _PARAMETER.findall(header[match.end(1) :]):
        text = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        parameters.setdefault(name.lower(), text)
    return match[1].lower(), parameters
