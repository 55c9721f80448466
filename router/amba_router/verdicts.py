"""What a call says in place of its guest, and which of the guest's answers may pass.

Refusals for limits, each with the breach that the journal tells.
"""

from __future__ import annotations

from amba_router.problem import PAYLOAD_TOO_LARGE, Problem
from amba_runtime import limits
from amba_runtime.outcome import ANSWERS, Breach, Ended, Outcome, Tell
from amba_runtime.room import Resting
from amba_runtime.trace import Hop
from amba_runtime.turnstile import Busy
from amba_runtime.wire import Headers

Fields = tuple[tuple[bytes, bytes], ...]

FRAMING = frozenset({b"content-length", b"transfer-encoding"})
"""A request without any of them has no body. Source: RFC 9112 section 6.3."""

NOT_PASSED_ON = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


def read_head(headers: Headers, tell_header: bytes) -> tuple[Outcome, Tell | None, Headers, int]:
    """The outcome and lines that the shim says, the fields that the caller may see, their bytes."""
    tell: Tell | None = None
    outcome = Outcome.OK
    out: Headers = []
    size = 0
    for field in headers:
        name, value = field
        if name == tell_header:
            tell = Tell.parse(value)
            if tell.threw:
                outcome = Outcome.EXCEPTION
            continue
        if name in NOT_PASSED_ON:
            continue
        size += len(name) + len(value)
        out.append(field)
    return outcome, tell, out, size + 4 * len(out)  # ": " and CRLF each


def body_length(fields: Fields) -> int | None:
    """Bytes of the body; None when it comes in chunks; -1 when the framing is contradictory.

    Source: RFC 9112 section 6.3.
    """
    length: int | None = 0
    framed = False
    for name, value in fields:
        if name == b"content-length":
            if framed or not value.isdigit():
                return -1
            length, framed = int(value), True
        elif name == b"transfer-encoding":
            if framed or value.lower() != b"chunked":
                return -1
            length, framed = None, True
    return length


def body_too_large(most: int) -> Problem:
    return Problem(
        PAYLOAD_TOO_LARGE.status,
        PAYLOAD_TOO_LARGE.code,
        PAYLOAD_TOO_LARGE.kind,
        f"the request body is larger than {most // limits.MIB} MiB",
        {"limit": "request_body_mib", "bytes_max": most},
    )


def body_breach(length: int, most: int) -> Breach:
    return Breach("request_body_mib", -(-length // limits.MIB), most // limits.MIB)


def head_breach(count: int, size: int, most: int) -> Breach | None:
    """What is too much in the head of an answer: `count` fields of `size` bytes."""
    if size > most:
        return Breach("response_header_kib", -(-size // limits.KIB), most // limits.KIB)
    if count > limits.RESPONSE_HEADERS.value:
        return Breach("response_headers", count, limits.RESPONSE_HEADERS.value)
    return None


def head_too_large(breach: Breach) -> Problem:
    unit = "KiB of headers" if breach.limit == "response_header_kib" else "headers"
    return Problem(
        502,
        ANSWERS[Outcome.INTERNAL_ERROR].code,
        "internal",
        f"the function's answer has {breach.used} {unit}; it may have {breach.most}",
        {"limit": breach.limit, "most": breach.most},
    )


def loop_breach(hop: Hop, depth: int) -> Breach | None:
    """The bound of its trace that an invocation passes."""
    if hop.depth >= depth:
        return Breach("trace_depth", hop.depth + 1, depth)
    if hop.trace.calls > limits.TRACE_CALLS.value:
        return Breach("trace_calls", hop.trace.calls, limits.TRACE_CALLS.value)
    return None


def looping(breach: Breach) -> Problem:
    what = "deep" if breach.limit == "trace_depth" else "in all"
    return Problem(
        508,
        "loop_detected",
        "internal",
        f"functions call functions: {breach.used} {what}, and {breach.most} are allowed",
        {"limit": breach.limit, "most": breach.most},
    )


def stalled(ended: Ended | None) -> Problem | None:
    """What the callers of a function that stood still are told; None for any other end."""
    if ended is None or ended.outcome is not Outcome.LOAD_SHED:
        return None
    answer = ANSWERS[Outcome.LOAD_SHED]
    message = "the function stopped answering and is started again; try again shortly"
    return Problem(answer.status, answer.code, answer.kind, message, retry_after_s=1)


def full(busy: Busy) -> Problem:
    """No place, and when to come back."""
    return Problem(busy.status, busy.code, "internal", str(busy), retry_after_s=busy.retry_after_s)


def resting(error: Resting) -> Problem:
    """A function that ends again and again, before its next start."""
    return Problem(503, "overloaded", "internal", str(error), retry_after_s=error.retry_after_s)


def of_outcome(outcome: Outcome, tell: Tell | None) -> Problem:
    """What an outcome's row says, in the guest's own words where it has some."""
    answer = ANSWERS[outcome]
    return Problem(
        answer.status,
        answer.code,
        answer.kind,
        first_message(tell) or answer.message,
        retry_after_s=1 if outcome is Outcome.LOAD_SHED else None,
    )


def first_message(tell: Tell | None) -> str:
    """The error's own message: what the platform's SDK answers (contract A.5)."""
    return tell.exceptions[0].message if tell is not None and tell.exceptions else ""
