"""What names, payloads, delays and keys of queues may be. Source: contract D.7, H-14; issue 6."""

from __future__ import annotations

import json
import re

from amba_router.api import faults
from amba_router.store.queue_records import FAN_OUT
from amba_runtime import limits

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{limits.QUEUE_NAME.value - 1}}}\Z")


def check_name(name: str, field: str) -> None:
    """Of a queue that is bound or sent to. Raises `Refused` INVALID_NAME."""
    if not _NAME.match(name):
        raise faults.INVALID_NAME.refuse(
            f"a queue's name is 1 to {limits.QUEUE_NAME.value} letters, digits and `.`, `_`, `-`, "
            "the first a letter or digit",
            {"field": field},
        )


def check_known(name: str) -> None:
    """Of a queue that is looked into, an internal one too. Raises `Refused` INVALID_NAME."""
    check_name(name.removeprefix(FAN_OUT), "queue")


def payload_text(raw: bytes, field: str) -> str:
    """A payload's very JSON text.

    Raises:
        Refused: PAYLOAD_TOO_LARGE; INVALID_JSON.
    """
    most = limits.QUEUE_PAYLOAD_BYTES.value
    if len(raw) > most:
        raise faults.PAYLOAD_TOO_LARGE.refuse(
            f"a payload has at most {most} bytes of JSON, not {len(raw)}; keep it in STORAGE and "
            "send its key",
            {"field": field, "bytes": len(raw), "bytes_max": most},
        )
    try:
        text = raw.decode()
        # read by another reader than the one that found its end: it is passed on as it is
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise faults.INVALID_JSON.refuse(
            f"the payload is not JSON: {str(error)[:200]}", {"field": field}
        ) from None
    return text


def delay_ms(seconds: float | None) -> int:
    """Raises `Refused` INVALID_DELAY."""
    if seconds is None:
        return 0
    most = limits.QUEUE_DELAY_S.value
    if not 0 <= seconds <= most:
        raise faults.INVALID_DELAY.refuse(
            f"delay_seconds is a number from 0 to {most}",
            {"field": "$.delay_seconds", "seconds_max": most},
        )
    return round(seconds * 1000)


def check_key(key: str | None) -> None:
    """Raises `Refused` INVALID_IDEMPOTENCY_KEY."""
    if key is not None and not (1 <= len(key) <= limits.QUEUE_KEY.value and key.isprintable()):
        raise faults.INVALID_IDEMPOTENCY_KEY.refuse(
            f"an idempotency key is 1 to {limits.QUEUE_KEY.value} characters that can be printed",
            {"field": "$.idempotency_key"},
        )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
