"""What a bundle turned out to be decides whether it serves; each refusal says what to write."""

from __future__ import annotations

import pytest

from amba_runtime.admission import Violation, judge, judge_start
from amba_runtime.engine.base import Description, StartFailed
from amba_runtime.manifest import HANDLERS
from amba_runtime.outcome import Tell

REFUSED = [
    ("function", "DEFAULT_EXPORT_FUNCTION", "is a function"),
    ("class", "DEFAULT_EXPORT_CLASS", "is a class"),
    ("none", "DEFAULT_EXPORT_MISSING", "no default export"),
    ("object", "NO_HANDLER", "no fetch, scheduled or queue"),
    ("listener", "NO_HANDLER", "no fetch, scheduled or queue"),
    ("", "NO_HANDLER", "no fetch, scheduled or queue"),
]


@pytest.mark.parametrize(("default", "code", "words"), REFUSED)
def test_a_bundle_without_a_handler_is_refused(default: str, code: str, words: str) -> None:
    """One violation per kind of default export that cannot serve (contract B, rejections)."""
    (violation,) = judge(Description((), default, Tell()))
    assert violation.code == code
    assert words in violation.message
    assert violation.stack == ""


@pytest.mark.parametrize("default", ["function", "class", "none", "object"])
def test_the_fix_can_be_pasted(default: str) -> None:
    """The fix is a whole default export with a fetch handler, not advice."""
    (violation,) = judge(Description((), default, Tell()))
    assert violation.fix.startswith("export default {")
    assert "fetch(request, env, ctx)" in violation.fix


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("default", ["object", "listener"])
def test_one_handler_of_any_kind_is_enough(handler: str, default: str) -> None:
    """fetch, scheduled or queue alone may serve, in either form (contract B)."""
    assert judge(Description((handler,), default, Tell())) == ()


def test_a_top_level_that_failed_is_told_in_the_guests_own_words() -> None:
    """Reason and stack are the guest's; the fix says why it cannot wait (contract B)."""
    failure = StartFailed("Uncaught Error: no key", "Error: no key\n    at worker.js:1:7")
    assert judge_start(failure) == Violation(
        "TOP_LEVEL_FAILED",
        "Uncaught Error: no key",
        "move what fails into a handler: top-level code runs before any request",
        "Error: no key\n    at worker.js:1:7",
    )


def test_a_failure_without_a_stack_has_none() -> None:
    """The engine's refusal of a syntax error comes without a stack."""
    assert judge_start(StartFailed("Uncaught SyntaxError: Unexpected token")).stack == ""
