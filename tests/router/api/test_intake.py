"""Reading bodies: the budget, the content type, and gzip in every shape (reliability D5)."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.router.control.world import pieces

from amba_router.api.faults import Refused
from amba_router.api.intake import Body, Budget, media_type, within
from amba_runtime import limits
from amba_runtime.clock import ManualClock

FREE = limits.CONTROL_UPLOAD_RATIO_FROM.value


def body_of(
    data: bytes, size: int = 1000, *, bytes_max: int = 4 * limits.MIB, budget: Budget | None = None
) -> Body:
    messages = pieces(data, size)

    async def receive() -> Any:
        return messages.pop(0)

    fields = ((b"content-encoding", b"gzip"),)
    return Body(receive, fields, clock=ManualClock(), bytes_max=bytes_max, budget=budget)


@given(st.binary(max_size=5000), st.integers(1, 300), st.integers(0, 9))
def test_gzip_comes_through(data: bytes, size: int, level: int) -> None:
    """However it is packed and cut."""
    assert asyncio.run(body_of(gzip.compress(data, level), size).whole()) == data


@given(st.binary(min_size=1, max_size=300), st.integers(1, 100))
def test_rubbish_is_refused(data: bytes, size: int) -> None:
    """No bytes fail in another way."""
    with pytest.raises(Refused) as caught:
        asyncio.run(body_of(b"\x1f\x8b" + data, size).whole())
    assert caught.value.fault.code == "INVALID_ENCODING"


def flat(size: int) -> bytes:
    """So many zeros, packed about 1,000 to 1."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(bytes(size)) + packer.flush()


@pytest.mark.parametrize(("size", "refused"), [(FREE, False), (FREE + 1, True)])
def test_the_ratio_counts_from_1_mib_on(size: int, refused: bool) -> None:
    """Zeros pack 1,000 to 1: allowed while they are few."""
    body = body_of(flat(size), 100)
    if not refused:
        assert len(asyncio.run(body.whole())) == size
        return
    with pytest.raises(Refused, match="passes"):
        asyncio.run(body.whole())


@pytest.mark.parametrize("extra", [0, 1])
def test_the_size_counts_unpacked(extra: int) -> None:
    """At the limit it is read, one byte more is not, though far fewer were sent."""
    most = 100_000
    body = body_of(gzip.compress(bytes(range(256)) * 390 + bytes(160 + extra)), bytes_max=most)
    if not extra:
        assert len(asyncio.run(body.whole())) == most
        return
    with pytest.raises(Refused) as caught:
        asyncio.run(body.whole())
    assert caught.value.fault.code == "PAYLOAD_TOO_LARGE"


def test_what_is_held_is_given_back() -> None:
    """Bytes count while they are in memory, once, and `release` may be said twice."""
    budget = Budget(1000)
    body = body_of(gzip.compress(bytes(900)), budget=budget)
    assert len(asyncio.run(body.whole())) == 900
    with pytest.raises(Refused):
        budget.take(101)
    body.release()
    body.release()
    budget.take(1000)
    with pytest.raises(Refused) as caught:
        asyncio.run(body_of(gzip.compress(b"x"), budget=budget).whole())
    assert caught.value.fault.code == "OVERLOADED"


def test_within() -> None:
    """The work's own result or error; TimeoutError when the clock is first, and it is cancelled."""

    async def main() -> None:
        clock = ManualClock()

        async def soon() -> int:
            return 7

        async def wrong() -> int:
            raise KeyError("mine")

        assert await within(clock, 1, soon()) == 7
        with pytest.raises(KeyError, match="mine"):
            await within(clock, 1, wrong())
        never = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(within(clock, 1, never))
        await clock.advance(1)
        with pytest.raises(TimeoutError):
            await waiting
        assert never.cancelled()

    asyncio.run(main())


NO: dict[str, str] = {}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("text/html", ("text/html", NO)),
        (" Text/HTML ; Charset=UTF-8 ", ("text/html", {"charset": "UTF-8"})),
        ('a/b; x="1;2"; x=3', ("a/b", {"x": "1;2"})),
        (r'a/b; x="q\"q"', ("a/b", {"x": 'q"q'})),
        ("application/javascript+module", ("application/javascript+module", NO)),
        ("", ("", NO)),
        ("text", ("", NO)),
        ("text/html, text/css", ("", NO)),
        ("text / html", ("", NO)),
    ],
)
def test_content_types(header: str, expected: tuple[str, dict[str, str]]) -> None:
    """A type and its parameters, or none at all (RFC 9110 8.3.1)."""
    assert media_type(header) == expected
