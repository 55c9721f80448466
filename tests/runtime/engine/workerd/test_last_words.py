"""What workerd writes when it ends becomes a reason, and no stranger's text leads it astray."""

from __future__ import annotations

import pytest

from amba_runtime import limits
from amba_runtime.engine.base import HOST_MODULES, StartFault
from amba_runtime.engine.workerd.last_words import (
    heap_full,
    last_words,
    start_failed,
    walls_refused,
)

SHIM = HOST_MODULES[0]
BINDING = 'Worker "control"\'s binding "GUEST" refers to service "fn" with no such entrypoint.'


@pytest.mark.parametrize(
    ("lines", "fault", "reason", "stack"),
    [
        (
            [
                "service fn: Uncaught Error: x",
                "  at fn.mjs:1:2 in f",
                f"  at {SHIM}:3:4",
                BINDING,
            ],
            "threw",
            "Uncaught Error: x",
            "    at f (fn.mjs:1:2)",
        ),
        (
            ["noise", "service fn: Uncaught Error: a", "b", "", "  at fn.mjs:1:2"],
            "threw",
            "Uncaught Error: a\nb\n",
            "    at fn.mjs:1:2",
        ),
        (
            ["service fn: Uncaught SyntaxError: no", "  at fn.mjs:2:10", BINDING],
            "syntax",
            "Uncaught SyntaxError: no",
            "    at fn.mjs:2:11",
        ),
        (
            [
                "service fn: Uncaught SyntaxError: json",
                "  at fn.mjs:2:10",
                f"  at {SHIM}:1:1",
            ],
            "threw",
            "Uncaught SyntaxError: json",
            "    at fn.mjs:2:10",
        ),
        (
            ["service fn: Uncaught Error: Top-level await in module is unsettled.", BINDING],
            "unsettled",
            "Uncaught Error: Top-level await in module is unsettled.",
            "",
        ),
        (
            [
                'service fn: Uncaught Error: No such module "x".',
                '  imported from "fn.mjs"',
                f"  at {SHIM}:1:1",
            ],
            "threw",
            'Uncaught Error: No such module "x".',
            "",
        ),
        (
            ["service fn: Uncaught Error: Disallowed operation. https://example.com/more"],
            "threw",
            "Uncaught Error: Disallowed operation.",
            "",
        ),
        (
            ["workerd/io/worker.c++:418: error: attempting to stringify threw another exception"],
            "threw",
            "Uncaught exception (it cannot be turned into text)",
            "",
        ),
        (
            ["<--- Last few GCs --->", "fatal: location = Reached heap limit"],
            "memory",
            "its start used all memory there is",
            "",
        ),
        (
            ["*** Received signal #11: Segmentation fault", "stack: /usr/bin/workerd@1"],
            "died",
            "the engine ended: *** Received signal #11: Segmentation fault",
            "",
        ),
        ([], "died", "the engine ended: it said nothing", ""),
    ],
)
def test_a_failed_start_has_its_reason(
    lines: list[str], fault: str, reason: str, stack: str
) -> None:
    """Frames as V8 writes them and without ours; syntax errors count columns from 1."""
    failure = start_failed(lines)
    assert (failure.fault, failure.reason, failure.stack) == (StartFault(fault), reason, stack)


def test_a_long_message_is_cut() -> None:
    """It is the guest's."""
    assert len(start_failed(["service fn: " + "x" * 100_000]).reason) == limits.VIOLATION_TEXT.value


def test_what_was_fatal_comes_before_what_was_last() -> None:
    """V8's own words, a signal, or else the last line."""
    assert (
        last_words(["#", "# Fatal error in , line 0", "# Fatal: oops", "stack: 1"]) == "Fatal: oops"
    )
    assert last_words(["V8 fatal error; x", "*** Received signal #11"]) == "V8 fatal error; x"
    assert last_words(["*** Received signal #11", "b"]) == "*** Received signal #11"
    assert last_words(["a", "", "b"]) == "b"
    assert last_words([]) == "it said nothing"


def test_what_every_engine_says_within_walls_is_no_reason() -> None:
    """It cannot read its own program there, and says so at each start."""
    notice = "Unable to find and open the program executable, so unable to determine if there is"
    assert last_words([notice]) == "it said nothing"
    assert last_words([notice, "something else"]) == "something else"


@pytest.mark.parametrize(
    ("line", "full"),
    [
        ("# Fatal JavaScript out of memory: Reached heap limit", True),
        ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory", True),
        ("# Fatal process OutOfMemory: Zone", True),
        ("*** Received signal #11: Segmentation fault", False),
        ("", False),
    ],
)
def test_a_full_heap_is_known_by_v8s_words(line: str, full: bool) -> None:
    """So that the caller is told of memory, not of a crash (architecture.md 6)."""
    assert heap_full(["something else", line]) is full
    assert heap_full([]) is False


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["bwrap: No permissions to create new namespace"], True),
        (["spawner: PermissionError(13, 'Landlock')"], True),
        (["service fn: Uncaught Error: bwrap: ", "bwrap: in its second line"], False),
        ([], False),
    ],
)
def test_what_kept_the_walls_from_being_raised(lines: list[str], said: bool) -> None:
    """Only what came before the engine had a word: later ones may be a guest's (row F4)."""
    assert walls_refused(lines) == (lines[0] if said else "")
