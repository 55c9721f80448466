"""Log events as lines for people, and times as people write them."""

from __future__ import annotations

import pytest

from amba_run.log_lines import at_ms, since_ms, text_of
from amba_runtime.errors import UserCode, UserError

NOW_MS = 1_767_225_600_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("90s", NOW_MS - 90_000),
        ("15m", NOW_MS - 900_000),
        ("2h", NOW_MS - 7_200_000),
        ("1d", NOW_MS - 86_400_000),
        ("999999999d", 0),
        ("2026-01-01T00:00:00Z", NOW_MS),
        ("2026-01-01", NOW_MS),
        ("2026-01-01T01:00:00+01:00", NOW_MS),
    ],
)
def test_since_is_an_age_or_a_time(text: str | None, expected: int | None) -> None:
    """Ages count back from now; a time without a zone is UTC (contract D.5)."""
    assert since_ms(text, now_ms=NOW_MS) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "1w", "-5m", "5", "2026-13-01"])
def test_since_that_is_no_time(text: str) -> None:
    """INVALID_TIME, with examples."""
    with pytest.raises(UserError) as caught:
        since_ms(text, now_ms=NOW_MS)
    assert caught.value.code is UserCode.INVALID_TIME
    assert "15m" in caught.value.hint


def test_at_is_a_time_or_milliseconds() -> None:
    """A date without a zone is UTC; eight digits are a date, thirteen are milliseconds."""
    assert at_ms(None) is None
    times = ("2026-01-01", "20260101", "2026-01-01T01:00:00+01:00", f"{NOW_MS}")
    assert [at_ms(text) for text in times] == [NOW_MS] * 4


@pytest.mark.parametrize("text", ["", "15m", "1767225600", "9" * 16, "-1767225600000", "٣" * 13])
def test_at_that_is_no_time(text: str) -> None:
    """INVALID_TIME; seconds are not taken for milliseconds."""
    with pytest.raises(UserError) as caught:
        at_ms(text)
    assert caught.value.code is UserCode.INVALID_TIME
    assert "13 digits" in caught.value.hint


def test_an_event_is_a_head_line_and_what_was_said() -> None:
    """Time, outcome, script, request; each console line and exception below (contract D.5)."""
    event = {
        "EventTimestampMs": NOW_MS,
        "Outcome": "exception",
        "ScriptName": "hello-v2",
        "RequestId": "r-1",
        "Logs": [{"Level": "warn", "Message": ["n =", 3, {"a": None}], "TimestampMs": NOW_MS}],
        "Exceptions": [{"Name": "TypeError", "Message": "x is \x1b[31m", "TimestampMs": NOW_MS}],
    }
    assert text_of(event).split("\n") == [
        "2026-01-01T00:00:00.000Z  exception  hello-v2  r-1",
        '  warn: n = 3 {"a": null}',
        "  TypeError: x is \\x1b[31m",
    ]
    bare = {"EventTimestampMs": NOW_MS, "Outcome": "ok", "ScriptName": "hello-v1"}
    assert text_of(bare) == "2026-01-01T00:00:00.000Z  ok  hello-v1"
