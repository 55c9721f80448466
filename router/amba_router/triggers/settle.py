"""What becomes of each message of a batch, from what the handler said and how it ended.

The handler's own words are the engine's account of them, which is untrusted: what does not fit
was not said. Source: contract B (ack, retry, ackAll, retryAll), D.7, H-14; reliability.md J2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeGuard, cast

from amba_router.store.queue_records import Again, Dead, Message, Settings, Settlement, Verdict
from amba_runtime import limits

RETRIED = "the handler asked for a retry"


def verdicts(ids: Collection[str], result: Mapping[str, Any], *, ended: bool) -> dict[str, Verdict]:
    """Acknowledged or not, each of `ids`.

    | | said nothing | `ackAll` | `retryAll` | its own `ack` | its own `retry` |
    |---|---|---|---|---|---|
    | the handler ended well | acked | acked | again | acked | again |
    | it threw, or was ended | again | acked | again | acked | again |

    What is said of one message counts more than what is said of all. Where both were said of the
    same, it is tried again: at least once is the promise.

    Args:
        result: `ackAll`, `explicitAcks`, `retryBatch`, `retryMessages`, as the engine has them.
        ended: the handler ended well.
    """
    acked = {id_ for id_ in _list(result.get("explicitAcks")) if isinstance(id_, str)}
    retried = _retried(result.get("retryMessages"))
    batch = result.get("retryBatch")
    of_batch = cast(dict[str, Any], batch) if isinstance(batch, dict) else {}
    all_again = of_batch.get("retry") is True
    all_acked = result.get("ackAll") is True and not all_again
    delay_s = _delay(of_batch.get("delaySeconds"))
    found: dict[str, Verdict] = {}
    for id_ in ids:
        if id_ in retried:
            own = retried[id_]
            found[id_] = Verdict(False, delay_s if own is None and all_again else own)
        elif id_ in acked:
            found[id_] = Verdict(True)
        elif all_again:
            found[id_] = Verdict(False, delay_s)
        else:
            found[id_] = Verdict(all_acked or ended)
    return found


def settlement(
    messages: Sequence[Message],
    said: Mapping[str, Verdict],
    settings: Settings,
    *,
    error: str,
    now_ms: int,
    fraction: Callable[[], float],
) -> Settlement:
    """Acked, tried again after its back-off, or a dead letter with the last error.

    Args:
        error: what the delivery ended with; "" where it ended well.
        fraction: from 0 to 1, drawn anew for each message.
    """
    acked: list[Message] = []
    again: list[Again] = []
    dead: list[Dead] = []
    text = _told(error) or RETRIED
    for message in messages:
        verdict = said[message.id]
        if verdict.acked:
            acked.append(message)
        elif message.failures >= settings.retries:
            dead.append(Dead(message, "retries", text))
        else:
            wait_ms = (
                backoff_ms(message.failures, settings.backoff_ms, fraction())
                if verdict.delay_s is None
                else verdict.delay_s * 1000
            )
            again.append(Again(message, now_ms + wait_ms, text))
    return Settlement(tuple(acked), tuple(again), tuple(dead))


def backoff_ms(failures: int, first_ms: int, fraction: float) -> int:
    """The wait after one more failure: doubled each time, 20 % longer or shorter, an hour at most.

    Args:
        failures: before this one.
    """
    most = limits.QUEUE_BACKOFF_MOST_MS.value
    doubled = min(first_ms << min(failures, _DOUBLINGS), most)
    jitter = limits.QUEUE_JITTER.value / 100
    return min(round(doubled * (1 + jitter * (2 * fraction - 1))), most)


_DOUBLINGS = 22
"""From one millisecond this is over an hour."""


def _retried(value: object) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for row in _list(value):
        if isinstance(row, dict):
            one = cast(dict[str, Any], row)
            id_ = one.get("msgId")
            if isinstance(id_, str):
                found[id_] = _delay(one.get("delaySeconds"))
    return found


def _delay(value: object) -> int | None:
    """Whole seconds, at most `QUEUE_DELAY_S`; None for what is no delay."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return int(min(value, limits.QUEUE_DELAY_S.value))


def _list(value: object) -> list[Any]:
    return value[:_SAID] if _is_list(value) else []


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


_SAID = 4 * limits.QUEUE_BATCH.value
"""More than that was not said of a batch."""


def _told(error: str) -> str:
    """Text that a database takes, whatever a guest threw."""
    cut = error[: limits.QUEUE_ERROR.value].replace("\0", "\ufffd")
    return cut.encode("utf-8", "replace").decode()
