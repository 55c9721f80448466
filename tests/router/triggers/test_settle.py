"""What becomes of each message: the truth table, back-off, and what a guest may say (J2)."""

from __future__ import annotations

from typing import Any

import pytest

from amba_router.store.queue_records import Message, Settings, Verdict
from amba_router.triggers.settle import RETRIED, backoff_ms, settlement, verdicts
from amba_runtime import limits

A, R = Verdict(True), Verdict(False)
IDS = ("a", "b", "c")


def retry(id_: str, delay: object = None) -> dict[str, Any]:
    return {"msgId": id_} if delay is None else {"msgId": id_, "delaySeconds": delay}


@pytest.mark.parametrize(
    ("result", "well", "thrown"),
    [
        ({}, (A, A, A), (R, R, R)),
        ({"ackAll": False}, (A, A, A), (R, R, R)),
        ({"ackAll": True}, (A, A, A), (A, A, A)),
        ({"retryBatch": {"retry": True}}, (R, R, R), (R, R, R)),
        ({"retryBatch": {"retry": False, "delaySeconds": 9}}, (A, A, A), (R, R, R)),
        ({"retryBatch": {"retry": True, "delaySeconds": 9}}, (Verdict(False, 9),) * 3, None),
        ({"explicitAcks": ["a"]}, (A, A, A), (A, R, R)),
        ({"explicitAcks": ["a"], "retryBatch": {"retry": True}}, (A, R, R), (A, R, R)),
        ({"retryMessages": [retry("b")]}, (A, R, A), (R, R, R)),
        (
            {"retryMessages": [retry("b", 7)], "ackAll": True},
            (A, Verdict(False, 7), A),
            (A, Verdict(False, 7), A),
        ),
        (
            {
                "retryMessages": [retry("b", 7), retry("c")],
                "retryBatch": {"retry": True, "delaySeconds": 3},
            },
            (Verdict(False, 3), Verdict(False, 7), Verdict(False, 3)),
            None,
        ),
        ({"explicitAcks": ["a"], "retryMessages": [retry("a")]}, (R, A, A), (R, R, R)),
        (
            {"ackAll": True, "retryBatch": {"retry": True}},
            (R, R, R),
            (R, R, R),
        ),
    ],
)
def test_the_truth_table(result: Any, well: Any, thrown: Any) -> None:
    """One message's own word before that of all; an explicit ack survives a throw (B, J2)."""
    assert verdicts(IDS, result, ended=True) == dict(zip(IDS, well, strict=True))
    wanted = well if thrown is None else thrown
    assert verdicts(IDS, result, ended=False) == dict(zip(IDS, wanted, strict=True))


ODD: list[dict[str, Any]] = [
    {"explicitAcks": "abc", "retryMessages": "abc", "retryBatch": [1], "ackAll": "yes"},
    {"explicitAcks": [1, None, ["a"], "z"], "retryMessages": [1, [], {"msgId": 1}, {}]},
    {"explicitAcks": {"a": 1}, "retryMessages": {"msgId": "a"}, "retryBatch": None},
    {"retryBatch": {"retry": 1}, "ackAll": 1},
    {"explicitAcks": ["z"] * 50 + ["a"]},
]


@pytest.mark.parametrize("result", ODD)
def test_what_does_not_fit_was_not_said(result: Any) -> None:
    """The engine's account is untrusted: nothing of it raises, nor acks what failed."""
    assert verdicts(IDS, result, ended=False) == dict.fromkeys(IDS, R)
    assert verdicts(IDS, result, ended=True) == dict.fromkeys(IDS, A)


@pytest.mark.parametrize(
    ("said", "delay_s"),
    [
        (0, 0),
        (1, 1),
        (1.9, 1),
        (43_200, 43_200),
        (43_201, 43_200),
        (1e300, 43_200),
        (float("inf"), 43_200),
        (-1, None),
        (float("nan"), None),
        (True, None),
        ("5", None),
    ],
)
def test_a_delay_is_bounded(said: object, delay_s: int | None) -> None:
    """Whole seconds up to twelve hours; what is none leaves the back-off (H-14)."""
    found = verdicts(["a"], {"retryMessages": [retry("a", said)]}, ended=True)
    assert found == {"a": Verdict(False, delay_s)}


def test_back_off_doubles_with_jitter_up_to_an_hour() -> None:
    """10 s, 20 s, 40 s, each 20 % shorter or longer, never over an hour (H-14)."""
    middle = [backoff_ms(n, 10_000, 0.5) for n in range(12)]
    assert middle[:5] == [10_000, 20_000, 40_000, 80_000, 160_000]
    assert middle[9:] == [3_600_000] * 3
    assert backoff_ms(0, 10_000, 0.0) == 8_000
    assert backoff_ms(0, 10_000, 1.0) == 12_000
    assert backoff_ms(1_000_000, 3_600_000, 1.0) == limits.QUEUE_BACKOFF_MOST_MS.value
    assert backoff_ms(0, 0, 1.0) == 0


def message(id_: str, failures: int = 0) -> Message:
    return Message(1, id_, "null", 0, 0, failures + 1, failures, 1)


def test_the_last_retry_is_a_dead_letter() -> None:
    """1 + 3 deliveries, then dead with the reason and the last error; its neighbour flows (J4)."""
    poison, young, done = message("a", 3), message("b", 2), message("c")
    found = settlement(
        (poison, young, done),
        {"a": R, "b": R, "c": A},
        Settings(),
        error="boom",
        now_ms=1_000,
        fraction=lambda: 0.5,
    )
    assert found.acked == (done,)
    assert [(one.message, one.reason, one.error) for one in found.dead] == [
        (poison, "retries", "boom")
    ]
    assert [(one.message, one.due_ms, one.error) for one in found.again] == [
        (young, 41_000, "boom")
    ]
    assert found.count == 3


def test_a_delay_of_the_handlers_wins_over_the_back_off() -> None:
    """`retry({delaySeconds})`, 0 too; the error says who asked (B)."""
    found = settlement(
        (message("a"), message("b")),
        {"a": Verdict(False, 0), "b": Verdict(False, 90)},
        Settings(),
        error="",
        now_ms=1_000,
        fraction=lambda: 0.5,
    )
    assert [(one.due_ms, one.error) for one in found.again] == [(1_000, RETRIED), (91_000, RETRIED)]


def test_an_error_is_text_that_can_be_kept() -> None:
    """Whatever a guest throws: cut, without NUL and lone surrogates."""
    error = "\ud800\0" + "x" * 5_000
    found = settlement(
        (message("a"),),
        {"a": R},
        Settings(retries=0),
        error=error,
        now_ms=0,
        fraction=lambda: 0.5,
    )
    said = found.dead[0].error
    assert said.startswith("?\ufffdxx")
    assert len(said) == limits.QUEUE_ERROR.value
