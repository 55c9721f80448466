"""The one place for upload rules: what a bundle must be to serve.

Today: what it turned out to be once it ran. The rules on its bytes are the deploy issue's.
Source: contract B (rejections).
"""

from __future__ import annotations

from dataclasses import dataclass

from amba_runtime.engine.base import Description, StartFailed


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule. `fix` can be pasted; `stack` is the guest's, "" where there is none."""

    code: str
    message: str
    fix: str
    stack: str = ""


_OBJECT = "export default { async fetch(request, env, ctx) { return new Response('hello') } }"


def judge(description: Description) -> tuple[Violation, ...]:
    """The violations of a bundle that ran; none for one that may serve."""
    if description.handlers:
        return ()
    if description.default == "function":
        return (
            Violation(
                "DEFAULT_EXPORT_FUNCTION",
                "the default export is a function; it must be an object with a handler",
                _OBJECT,
            ),
        )
    if description.default == "class":
        return (
            Violation(
                "DEFAULT_EXPORT_CLASS",
                "the default export is a class; it must be an object with a handler",
                _OBJECT,
            ),
        )
    if description.default == "none":
        return (
            Violation(
                "DEFAULT_EXPORT_MISSING",
                "there is no default export, and no addEventListener('fetch', ...)",
                _OBJECT,
            ),
        )
    return (
        Violation(
            "NO_HANDLER",
            "the default export has no fetch, scheduled or queue function",
            _OBJECT,
        ),
    )


def judge_start(failure: StartFailed) -> Violation:
    """The violation of a bundle whose top level did not run to its end."""
    return Violation(
        "TOP_LEVEL_FAILED",
        failure.reason,
        "move what fails into a handler: top-level code runs before any request",
        failure.stack,
    )
