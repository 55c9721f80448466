"""What a call says of limits: every bound to the unit, and the figures that are told of it."""

from __future__ import annotations

import pytest

from amba_router.verdicts import (
    body_breach,
    body_length,
    body_too_large,
    first_message,
    full,
    head_breach,
    head_too_large,
    loop_breach,
    looping,
    of_outcome,
    read_head,
    resting,
    stalled,
)
from amba_runtime import limits
from amba_runtime.limits import KIB, MIB
from amba_runtime.outcome import ANSWERS, Breach, Ended, GuestException, Outcome, Tell
from amba_runtime.room import Resting
from amba_runtime.trace import Hop, Trace
from amba_runtime.turnstile import Busy

CHUNKED = (b"transfer-encoding", b"chunked")
MOST = 32 * KIB
TELL = b"x-tell"


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ((), 0),
        (((b"a", b"9"),), 0),
        (((b"content-length", b"0"),), 0),
        (((b"content-length", b"7"),), 7),
        (((b"a", b"1"), (b"content-length", b"7"), (b"z", b"1")), 7),
        ((CHUNKED,), None),
        (((b"transfer-encoding", b"CHUNKED"),), None),
        (((b"transfer-encoding", b"gzip, chunked"),), -1),
        (((b"transfer-encoding", b"identity"),), -1),
        (((b"transfer-encoding", b""),), -1),
        (((b"content-length", b"-1"),), -1),
        (((b"content-length", b"+1"),), -1),
        (((b"content-length", b""),), -1),
        (((b"content-length", b"1, 1"),), -1),
        (((b"content-length", b"1"), (b"content-length", b"1")), -1),
        (((b"content-length", b"0"), (b"content-length", b"0")), -1),
        (((b"content-length", b"1"), CHUNKED), -1),
        ((CHUNKED, (b"content-length", b"1")), -1),
        ((CHUNKED, CHUNKED), -1),
        (((b"content-range", b"1"), (b"te", b"x"), (b"upgrade", b"x")), 0),
    ],
)
def test_a_body_has_one_framing_or_is_refused(
    fields: tuple[tuple[bytes, bytes], ...], length: int | None
) -> None:
    """Two framings, equal or not, are none: that is how requests are smuggled (row A1)."""
    assert body_length(fields) == length


@pytest.mark.parametrize(
    ("count", "size", "breach"),
    [
        (0, 0, None),
        (limits.RESPONSE_HEADERS.value, MOST, None),
        (1, MOST + 1, Breach("response_header_kib", 33, 32)),
        (1, 10 * MOST, Breach("response_header_kib", 320, 32)),
        (limits.RESPONSE_HEADERS.value + 1, 1, Breach("response_headers", 201, 200)),
        (limits.RESPONSE_HEADERS.value + 50, 1, Breach("response_headers", 250, 200)),
        (limits.RESPONSE_HEADERS.value + 1, MOST + 1, Breach("response_header_kib", 33, 32)),
    ],
)
def test_the_head_of_an_answer_is_bounded_to_the_byte(
    count: int, size: int, breach: Breach | None
) -> None:
    """Bytes and fields, each at its bound still good; bytes are told in begun KiB (2.3)."""
    assert head_breach(count, size, MOST) == breach


def test_what_is_too_much_in_a_head_is_told_to_the_caller() -> None:
    """A 502 that says what of it, how much and how much may be (2.3; contract A.7)."""
    bytes_ = head_too_large(Breach("response_header_kib", 33, 32))
    fields = head_too_large(Breach("response_headers", 201, 200))
    assert (bytes_.status, fields.status) == (502, 502)
    assert bytes_.message == "the function's answer has 33 KiB of headers; it may have 32"
    assert fields.message == "the function's answer has 201 headers; it may have 200"
    assert bytes_.details == {"limit": "response_header_kib", "most": 32}
    assert fields.details == {"limit": "response_headers", "most": 200}


@pytest.mark.parametrize(
    ("length", "used"), [(MIB + 1, 2), (2 * MIB, 2), (2 * MIB + 1, 3), (100 * MIB, 100)]
)
def test_a_body_that_is_too_large_is_told_in_begun_mib(length: int, used: int) -> None:
    """The figure never says that what was refused would have been allowed (2.3)."""
    assert body_breach(length, MIB) == Breach("request_body_mib", used, 1)
    assert body_breach(length, 3 * MIB).most == 3


def test_the_caller_of_a_body_that_is_too_large_is_told_the_bound() -> None:
    """413 with the bound in MiB in words, and in bytes for programs (2.3; contract A.7)."""
    problem = body_too_large(20 * MIB)
    assert problem.status == 413
    assert problem.message == "the request body is larger than 20 MiB"
    assert problem.details == {"limit": "request_body_mib", "bytes_max": 20 * MIB}


@pytest.mark.parametrize(
    ("calls", "depth", "breach"),
    [
        (1, 0, None),
        (1, 15, None),
        (1, 16, Breach("trace_depth", 17, 16)),
        (1, 20, Breach("trace_depth", 21, 16)),
        (limits.TRACE_CALLS.value, 0, None),
        (limits.TRACE_CALLS.value + 1, 0, Breach("trace_calls", 1001, 1000)),
        (limits.TRACE_CALLS.value + 300, 0, Breach("trace_calls", 1300, 1000)),
        (limits.TRACE_CALLS.value + 1, 16, Breach("trace_depth", 17, 16)),
    ],
)
def test_functions_that_call_functions_are_bounded_in_depth_and_number(
    calls: int, depth: int, breach: Breach | None
) -> None:
    """Sixteen deep is good, one more is not, nor is any beyond; so with all calls (row E29)."""
    assert loop_breach(Hop(Trace(calls), depth), 16) == breach


def test_a_loop_is_told_as_what_it_is() -> None:
    """508, and whether it is deep or wide (row E29)."""
    deep = looping(Breach("trace_depth", 17, 16))
    wide = looping(Breach("trace_calls", 1001, 1000))
    assert (deep.status, deep.code, wide.status) == (508, "loop_detected", 508)
    assert "17 deep, and 16" in deep.message
    assert "1001 in all, and 1000" in wide.message
    assert deep.details == {"limit": "trace_depth", "most": 16}


def test_hop_by_hop_fields_of_a_guest_and_the_tell_stay_here() -> None:
    """All that follows them passes on, in its order, and is counted as it is sent (RFC 9110)."""
    status, tell, fields, size = read_head(
        [
            (b"connection", b"close"),
            (b"a", b"1"),
            (TELL, b'{"l":[["log",5,["x"]]]}'),
            (b"transfer-encoding", b"chunked"),
            (b"set-cookie", b"s=1"),
            (b"trailer", b"x"),
            (b"set-cookie", b"t=1"),
        ],
        TELL,
    )
    assert status is Outcome.OK
    assert tell is not None
    assert tell.logs[0].message == ["x"]
    assert fields == [(b"a", b"1"), (b"set-cookie", b"s=1"), (b"set-cookie", b"t=1")]
    assert size == len(b"a: 1\r\nset-cookie: s=1\r\nset-cookie: t=1\r\n")


def test_a_tell_says_that_a_handler_threw() -> None:
    """And only a tell does; without one there is nothing to tell (architecture.md 6)."""
    assert read_head([(TELL, b'{"o":"exception"}'), (b"a", b"1")], TELL)[0] is Outcome.EXCEPTION
    assert read_head([(TELL, b'{"o":"ok"}')], TELL)[0] is Outcome.OK
    assert read_head([(b"x-other", b'{"o":"exception"}')], TELL)[:2] == (Outcome.OK, None)


def test_callers_of_a_function_that_stood_still_are_told_to_try_again() -> None:
    """503 with a second's patience; any other end has an answer of its own (row E1)."""
    problem = stalled(Ended(Outcome.LOAD_SHED, "stood still"))
    assert problem is not None
    assert (problem.status, problem.code, problem.retry_after_s) == (503, "overloaded", 1)
    assert stalled(None) is None
    for outcome in Outcome:
        if outcome is not Outcome.LOAD_SHED:
            assert stalled(Ended(outcome, "x")) is None


def test_the_first_exception_is_the_answers_message() -> None:
    """The error's own message, as the platform's SDK answers; "" where nothing was thrown (A.5)."""
    thrown = [GuestException("Error", text, "", 0) for text in ("one", "two")]
    assert first_message(Tell(exceptions=thrown)) == "one"
    assert first_message(Tell()) == ""
    assert first_message(None) == ""


@pytest.mark.parametrize("outcome", ANSWERS)
def test_only_who_may_come_back_soon_is_told_when(outcome: Outcome) -> None:
    """`Retry-After` is for what passes by itself; the rest is its outcome's row (contract A.7)."""
    problem = of_outcome(outcome, None)
    row = ANSWERS[outcome]
    assert (problem.status, problem.code, problem.message) == (row.status, row.code, row.message)
    assert problem.retry_after_s == (1 if outcome is Outcome.LOAD_SHED else None)
    thrown = Tell(exceptions=[GuestException("Error", "its own", "", 0)])
    assert of_outcome(outcome, thrown).message == "its own"


def test_who_finds_no_place_is_told_when_to_come_back() -> None:
    """429 where its function is full, 503 where the node is or the function rests (2.3; E22)."""
    function, node = full(Busy("concurrency_limit", 2)), full(Busy("overloaded", 7))
    assert (function.status, function.code, function.retry_after_s) == (429, "concurrency_limit", 2)
    assert (node.status, node.code, node.retry_after_s) == (503, "overloaded", 7)
    rests = resting(Resting(9))
    assert (rests.status, rests.code, rests.retry_after_s) == (503, "overloaded", 9)
    assert "9 s" in rests.message
