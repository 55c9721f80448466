"""What is said: JSON lines for programs, blocks for people, and neither holds anybody up."""

from __future__ import annotations

import io
import json
import logging
import os
import threading

from amba_router.journal import Invocation
from amba_run.output import Out, neutral
from amba_run.report import JsonReporter, LogHandler, TerminalReporter, for_terminal
from amba_runtime import limits
from amba_runtime.admission import Violation
from amba_runtime.outcome import GuestException, LogLine, Outcome, Tell

VIOLATION = Violation("NO_HANDLER", "there is \x1b[2J none", "add one", "  at a\n  at b")
FACTS = {
    "origin": "http://127.0.0.1:1",
    "engine": "fake",
    "state": "DIR",
    "functions": [{"name": "hello", "url": "http://local.fn.localhost:1/hello", "version": 1}],
}


def invocation(*, status: int = 200, outcome: Outcome = Outcome.OK, note: str = "") -> Invocation:
    """One that logged and threw."""
    tell = Tell(
        [LogLine("warn", ["two\nlines\r", {"n": 1}], 5)],
        [GuestException("TypeError", "no \x07 bell", "TypeError: x\n    at fn.mjs:1:2", 6)],
    )
    return Invocation(
        *("r-1", "hello", 2, 'GE"T', "/\x1b]0;title", status, outcome, 0.0, 1.5, None, tell),
        note=note,
    )


def json_events(say: JsonReporter, stdout: io.StringIO) -> list[dict[str, object]]:
    say.close()
    return [json.loads(line) for line in stdout.getvalue().splitlines()]


def test_json_events_have_the_published_fields() -> None:
    """One object a line, in the shapes of interface.md section 3; talk goes to stderr."""
    stdout, stderr = io.StringIO(), io.StringIO()
    say = JsonReporter(stdout, stderr)
    say.ready(FACTS)
    say.reload("hello", 2, 12.3456)
    say.build_failed("hello", [{"file": "a.ts"}], "text")
    say.rejected("hello", (VIOLATION,))
    say.requests([invocation(), invocation(status=500, outcome=Outcome.EXCEPTION)])
    say.warn("care\x1b[2J")
    say.stopping()
    ready, reload, failed, rejected, request, second, stopping = json_events(say, stdout)
    assert ready == {"event": "ready", **FACTS}
    assert reload == {"event": "reload", "name": "hello", "version": 2, "ms": 12.346}
    assert failed == {"event": "build_failed", "name": "hello", "errors": [{"file": "a.ts"}]}
    assert rejected["violations"] == [
        {
            "code": "NO_HANDLER",
            "message": "there is \x1b[2J none",
            "file": "",
            "line": 0,
            "column": 0,
            "chain": [],
            "fix": "add one",
            "stack": "  at a\n  at b",
        }
    ]
    assert request == {
        "event": "request",
        "request_id": "r-1",
        "function": "hello",
        "version": 2,
        "method": 'GE"T',
        "path": "/\x1b]0;title",
        "status": 200,
        "outcome": "ok",
        "ms": 1.5,
        "cpu_ms": None,
        "logs": [{"Level": "warn", "Message": ["two\nlines\r", {"n": 1}], "TimestampMs": 5}],
        "exceptions": [
            {
                "Name": "TypeError",
                "Message": "no \x07 bell",
                "Stack": "TypeError: x\n    at fn.mjs:1:2",
                "TimestampMs": 6,
            }
        ],
    }
    assert (second["status"], second["outcome"]) == (500, "exception")
    assert stopping == {"event": "stopping"}
    assert stderr.getvalue() == "warning: care\\x1b[2J\n"


def test_a_terminal_block_shows_all_and_steers_nothing() -> None:
    """Status, method, path, ms, lines, stack; control characters of guests become visible."""
    stream = io.StringIO()
    say = TerminalReporter(stream, colour=False)
    say.ready(FACTS)
    say.requests([invocation(note="it\x1bdied"), invocation(status=0, outcome=Outcome.CANCELED)])
    say.rejected("hello", (VIOLATION,))
    say.build_failed("hello", [{}, {}], "a.ts:1:1: error\x1b\n")
    say.reload("hello", 3, 12.6)
    say.warn("care\x07")
    say.stopping()
    say.close()
    text = stream.getvalue()
    assert "hello  http://local.fn.localhost:1/hello\n" in text
    assert '200 GE"T /\\x1b]0;title  1.5 ms  hello v2\n    it\\x1bdied\n' in text
    assert "    warn  two\n          lines\\x0d {" in text
    assert "    TypeError: no \\x07 bell\n      at fn.mjs:1:2\n" in text
    assert '--- GE"T /\\x1b]0;title  1.5 ms  hello v2  canceled\n' in text
    assert "  NO_HANDLER: there is \\x1b[2J none\n      at a\n      at b\n" in text
    assert "    fix: add one\n" in text
    assert "hello does not build: 2 errors\na.ts:1:1: error\\x1b\n" in text
    assert "reloaded hello v3 in 13 ms\n" in text
    assert "warning: care\\x07\n" in text
    assert not set(text) & {"\x1b", "\x07", "\r"}


def test_colours_are_ours_alone() -> None:
    """With colour on, the only escape sequences are those of the reporter."""
    stream = io.StringIO()
    say = TerminalReporter(stream, colour=True)
    say.requests([invocation(), invocation(status=404), invocation(status=500)])
    say.close()
    import re

    text = stream.getvalue()
    assert "\x1b[31m500\x1b[0m" in text
    assert "\x1b[33m404\x1b[0m" in text
    assert "\x1b" not in re.sub(r"\x1b\[\d+m", "", text)


def test_neutral_keeps_what_is_harmless() -> None:
    """Letters of every script, line feeds and tabs stay."""
    assert neutral("é漢 a\tb\n") == "é漢 a\tb\n"
    assert neutral("\x9b\u202e\x00") == "\\x9b\\x202e\\x00"


def test_a_stuck_reader_blocks_nobody() -> None:
    """What does not fit is dropped and counted; the count is told once it is read again."""
    read, write = os.pipe()
    with open(write, "w") as stream, open(read, "rb") as reader:
        out = Out(stream, lost=lambda n: f"lost {n}\n")
        out.write("x" * 1_000_000 + "\n")  # more than a pipe holds: the thread is stuck
        started = reader.read(1)
        most = limits.OUTPUT_BYTES.value // 1_000_000
        for _ in range(most + 3):
            out.write("y" * 999_999 + "\n")
        done = threading.Event()
        seen: list[bytes] = []

        def drain() -> None:
            for line in reader:
                seen.append(line)
                if line.startswith(b"lost"):
                    done.set()
                    return

        thread = threading.Thread(target=drain)
        thread.start()
        assert done.wait(10)
        thread.join()
        out.close()
        out.close()
    assert started + seen[0] == b"x" * 1_000_000 + b"\n"
    assert len(seen) == 1 + most + 1
    assert seen[-1] == b"lost 3\n"


def test_a_reader_that_left_is_forgotten() -> None:
    """A closed pipe ends the output, not the server."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stream:
        out = Out(stream, lost=str)
        out.write("nobody\n")
        out.close()
        out.write("still nobody\n")
        out.close()


def test_blocks_are_bounded_too() -> None:
    """No more than the limit waits, however small the blocks are."""
    gate = threading.Event()
    told = threading.Event()
    stuck = threading.Event()

    class Slow(io.StringIO):
        def write(self, text: str, /) -> int:
            stuck.set()
            gate.wait(5)
            done = super().write(text)
            if "lost" in text:
                told.set()
            return done

    stream = Slow()
    out = Out(stream, lost=lambda n: f"lost {n}\n")
    out.write("first\n")
    assert stuck.wait(10)
    for _ in range(limits.OUTPUT_BLOCKS.value + 7):
        out.write(".\n")
    gate.set()
    assert told.wait(10)
    out.close()
    text = stream.getvalue()
    lost = [line for line in text.splitlines() if line.startswith("lost")]
    assert lost == ["lost 7"]


def test_our_own_warnings_take_the_same_way_out() -> None:
    """A log record becomes talk, its traceback included; nothing of it steers the terminal."""
    stream = io.StringIO()
    say = TerminalReporter(stream, colour=False)
    handler = LogHandler(say)
    logger = logging.Logger("amba.test")
    logger.addHandler(handler)
    logger.info("quiet")
    logger.warning("a token was %s", "bad\x1b[2J")
    try:
        raise ValueError("inner")
    except ValueError:
        logger.exception("told")
    say.close()
    text = stream.getvalue()
    assert "warning: a token was bad\\x1b[2J\n" in text
    assert "ValueError: inner" in text
    assert "quiet" not in text


def test_the_reporter_of_a_process() -> None:
    """--json chooses; without a terminal there is no colour."""
    for json_, kind in ((True, JsonReporter), (False, TerminalReporter)):
        say = for_terminal(json_=json_, no_colour=False)
        assert isinstance(say, kind)
        say.close()


SCHEDULE = {
    "function_name": "digest",
    "cron": "* * * * *",
    "timezone": "UTC",
    "next_runs": ["2026-01-05T09:00:00Z"],
}
QUEUE = {
    "queue_name": "orders",
    "function_name": "ship",
    "status": "active",
    "waiting": 2,
    "delayed": 0,
    "leased": 0,
    "dead": 1,
}


def test_schedules_and_queues_are_told() -> None:
    """Events of their own for programs; a line each for people (issue 6 item 3)."""
    stdout = io.StringIO()
    json_say = JsonReporter(stdout, io.StringIO())
    json_say.triggers([SCHEDULE], [QUEUE])
    json_say.queue(QUEUE)
    triggers, queue = json_events(json_say, stdout)
    assert triggers == {"event": "triggers", "schedules": [SCHEDULE], "queues": [QUEUE]}
    assert queue == {"event": "queue", **QUEUE}
    stream = io.StringIO()
    say = TerminalReporter(stream, colour=False)
    say.triggers([SCHEDULE], [QUEUE])
    say.queue(QUEUE)
    say.queue({**QUEUE, "dead": 0})
    say.close()
    first, second, dead, waiting = stream.getvalue().splitlines()
    assert first.startswith("  digest  * * * * *  next Mon 2026-01-05 09:00 UTC")
    assert second == "  queue orders -> ship  2 waiting, 1 dead"
    assert dead == "queue orders: 2 waiting, 1 dead  (amba-run queues peek orders --state dead)"
    assert waiting == "queue orders: 2 waiting"
