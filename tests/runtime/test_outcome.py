"""How invocations end, what callers are told of it, and what of a guest's tell is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amba_runtime import limits
from amba_runtime.outcome import ANSWERS, GuestException, LogLine, Outcome, Tell

LINE = ["log", 7, ["hello", 1]]
THROWN = ["Error", "no key", "Error: no key\n    at worker.js:1:7", 8]


def _parse(value: object) -> Tell:
    return Tell.parse(json.dumps(value))


def test_the_outcomes_are_spelled_as_workerd_spells_them() -> None:
    """Ten, and no other (architecture.md section 6)."""
    spelled = (
        "ok exception exceededCpu exceededMemory exceededWallTime scriptNotFound canceled "
        "loadShed responseStreamDisconnected internalError"
    )
    assert sorted(outcome.value for outcome in Outcome) == sorted(spelled.split())


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        ("exception", 500, "unhandled_exception"),
        ("exceededCpu", 503, "cpu_limit"),
        ("exceededMemory", 503, "memory_limit"),
        ("exceededWallTime", 504, "function_timeout"),
        ("loadShed", 503, "overloaded"),
        ("internalError", 502, "upstream_failure"),
    ],
)
def test_the_one_status_table(outcome: str, status: int, code: str) -> None:
    """Outcome -> status, code and kind, row by row (architecture.md section 6; contract A.7)."""
    answer = ANSWERS[Outcome(outcome)]
    assert (answer.status, answer.code, answer.kind) == (status, code, "internal")
    assert answer.message


def test_what_has_no_answer_of_ours_is_not_in_the_table() -> None:
    """A guest's own answer, a caller that left, and 404 (A.7) are not told by this table."""
    assert set(Outcome) - set(ANSWERS) == {
        Outcome.OK,
        Outcome.CANCELED,
        Outcome.SCRIPT_NOT_FOUND,
        Outcome.RESPONSE_STREAM_DISCONNECTED,
    }


def test_a_tell_as_the_shim_writes_it() -> None:
    """Lines are [level, ms, [args]], exceptions [name, message, stack, ms]."""
    tell = _parse({"l": [LINE], "e": [THROWN]})
    assert tell.logs == [LogLine("log", ["hello", 1], 7)]
    assert tell.exceptions == [GuestException("Error", "no key", str(THROWN[2]), 8)]
    assert Tell.parse(json.dumps({"l": [LINE], "e": [THROWN]}).encode()) == tell


@pytest.mark.parametrize(
    "text",
    [
        "",
        b"",
        "{",
        b"\xff\xfe\xff",
        "null",
        "[]",
        "1",
        '"l"',
        "{}",
        '{"l": null, "e": 5}',
        '{"l": {"0": ["log", 1, []]}}',
        '{"l": [[], ["log"], ["log", 1], ["log", 1, [], 2], "log", null]}',
        '{"l": [[1, 1, []], ["log", 1, "text"], ["log", 1, null]]}',
        '{"e": [[], ["Error"], ["a", "b", "c", 1, 2], null]}',
        "1" * 5000,
        "[" * 100_000,
        '{"l":[["log",1,' + "[" * 5000 + "]" * 5000 + "]]}",
    ],
)
def test_what_does_not_fit_is_dropped(text: str | bytes) -> None:
    """Every wrong shape is an empty tell, never an exception: the guest may write anything."""
    assert Tell.parse(text) == Tell()


def test_one_bad_row_does_not_take_the_good_ones_along() -> None:
    """Rows are judged one by one."""
    tell = _parse({"l": [None, LINE, [1, 2, 3]], "e": ["x", THROWN]})
    assert len(tell.logs) == len(tell.exceptions) == 1


@pytest.mark.parametrize(
    ("at", "ms"),
    [
        (0, 0),
        (1.9, 1),
        (2**53 - 1, 2**53 - 1),
        (2**53, 0),
        (-1, 0),
        (True, 0),
        ("5", 0),
        (None, 0),
        ([], 0),
        (10**400, 0),
    ],
)
def test_a_time_that_is_none_is_0(at: object, ms: int) -> None:
    """Milliseconds are a number JavaScript can hold, or 0."""
    assert _parse({"l": [["log", at, ["x"]]]}).logs[0].timestamp_ms == ms


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_no_number_gets_in_that_json_cannot_write(number: str) -> None:
    """What Python reads beyond JSON would break the event lines of `dev --json`."""
    tell = Tell.parse('{"l": [["log", %s, [%s, {"a": [%s, 1.5]}]]]}' % ((number,) * 3))
    assert tell.logs == [LogLine("log", [None, {"a": [None, 1.5]}], 0)]


def _nested(levels: int) -> object:
    value: object = "core"
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def test_a_line_nested_as_deep_as_allowed_is_kept() -> None:
    """limits.LOG_DEPTH counts the list of arguments too: just inside stays as it was."""
    message = [_nested(limits.LOG_DEPTH.value - 1)]
    assert _parse({"l": [["log", 1, message]]}).logs[0].message == message


@pytest.mark.parametrize("levels", [limits.LOG_DEPTH.value, 400, 900])
def test_a_line_nested_deeper_is_replaced(levels: int) -> None:
    """Else one guest's line could be read here and not be written by the journal."""
    (line,) = _parse({"l": [["warn", 1, ["ok", _nested(levels)]]]}).logs
    assert line == LogLine("warn", ["[nested too deeply]"], 1)


def test_texts_are_cut_and_others_are_empty() -> None:
    """Level 16, name 256, message and stack 16,384 characters at most."""
    long = "x" * 20_000
    tell = _parse({"l": [[long, 1, ["x"]]], "e": [[long, long, long, 1], [1, None, {"a": 1}, 1]]})
    assert len(tell.logs[0].level) == 16
    first, second = tell.exceptions
    assert (len(first.name), len(first.message), len(first.stack)) == (256, 16_384, 16_384)
    assert second == GuestException("", "", "", 1)


def test_lines_and_exceptions_are_counted() -> None:
    """limits.LOG_LINES and LOG_EXCEPTIONS hold when one tell brings more."""
    lines, thrown = limits.LOG_LINES.value, limits.LOG_EXCEPTIONS.value
    at = _parse({"l": [["a", 1, ["x"]]] * lines, "e": [THROWN] * thrown})
    over = _parse({"l": [["a", 1, ["x"]]] * (lines + 1), "e": [THROWN] * (thrown + 1)})
    assert (len(at.logs), len(at.exceptions)) == (lines, thrown)
    assert over == at


def test_extend_adds_in_order() -> None:
    """What came later stands later, and the later tell is left as it was."""
    tell, later = _parse({"l": [LINE], "e": [THROWN]}), _parse({"l": [["warn", 9, ["more"]]]})
    tell.extend(later)
    assert [line.level for line in tell.logs] == ["log", "warn"]
    assert len(tell.exceptions) == 1
    assert len(later.logs) == 1


def test_extend_stops_at_the_same_caps() -> None:
    """However often a guest adds, the earliest stay and the sum is bounded."""
    tell = _parse({"l": [["first", 1, ["x"]]], "e": [["first", "", "", 1]]})
    more = _parse({"l": [["a", 1, ["x"]]] * 6000, "e": [THROWN] * 10})
    for _ in range(3):
        tell.extend(more)
    assert len(tell.logs) == limits.LOG_LINES.value
    assert len(tell.exceptions) == limits.LOG_EXCEPTIONS.value
    assert (tell.logs[0].level, tell.exceptions[0].name) == ("first", "first")


def test_what_came_in_parts_is_read_in_order() -> None:
    """Kept as text until somebody asks; what was read already stays before it."""

    def part(word: str) -> Tell:
        return Tell.unread(json.dumps({"l": [["log", 1, [word]]], "e": [THROWN]}))

    tell = part("one")
    tell.extend(part("two"))
    tell.extend(Tell([LogLine("log", ["three"], 1)], threw=True))
    tell.extend(part("four"))
    tell.extend(Tell.unread("no JSON"))
    assert [line.message for line in tell.logs] == [["one"], ["two"], ["three"], ["four"]]
    assert (len(tell.exceptions), tell.threw) == (3, True)
    read = part("five")
    assert read == _parse({"l": [["log", 1, ["five"]]], "e": [THROWN]})
    assert repr(read) == repr(Tell(read.logs, read.exceptions))
    assert read != "five"


def test_extend_stops_at_bytes() -> None:
    """Few lines may be large: what came in parts is bounded as a whole."""
    tell = Tell()
    large = _parse({"l": [["log", 1, ["x" * 1_000_000]]]})
    for _ in range(9):
        tell.extend(large)
    assert len(tell.logs) == limits.LOG_TOLD_BYTES.value // large.size == 2


def test_two_tells_share_nothing() -> None:
    """A fresh tell has lists of its own."""
    one, other = Tell(), Tell()
    one.extend(_parse({"l": [LINE], "e": [THROWN]}))
    assert other == Tell([], [])


_ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_ANY: st.SearchStrategy[Any] = st.recursive(
    _ATOMS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
_ROWS = st.lists(
    st.tuples(st.text(max_size=20) | _ANY, _ANY, st.lists(_ANY, max_size=3) | _ANY)
    | st.tuples(_ANY, _ANY, _ANY, _ANY)
    | _ANY,
    max_size=5,
)


def _sound(tell: Tell) -> None:
    json.dumps([line.message for line in tell.logs], allow_nan=False)
    for line in tell.logs:
        assert len(line.level) <= 16
        assert isinstance(line.message, list)
        assert 0 <= line.timestamp_ms < 2**53
    for error in tell.exceptions:
        assert len(error.name) <= 256
        assert max(len(error.message), len(error.stack)) <= 16_384
        assert 0 <= error.timestamp_ms < 2**53


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({}, optional={"l": _ROWS | _ANY, "e": _ROWS | _ANY, "x": _ANY}))
def test_any_json_is_read_without_raising(value: object) -> None:
    """Whatever JSON a guest writes becomes a bounded tell that can be written as JSON again."""
    tell = _parse(value)
    _sound(tell)
    tell.extend(_parse(value))
    _sound(tell)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_are_read_without_raising(text: str | bytes) -> None:
    """Nor does anything else a guest writes."""
    _sound(Tell.parse(text))
