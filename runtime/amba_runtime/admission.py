"""The one place for upload rules: what a bundle must be to serve.

`check`, `dev`, `deploy` and the upload API all call `admit`, on the bundle's bytes alone: nothing
that came along with them is trusted (a map and a metafile only name places).
Source: contract B (rejections), D.1, D.3; architecture.md section 4.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from amba_runtime import limits
from amba_runtime.engine.base import Description, StartFailed, StartFault
from amba_runtime.inspection import (
    BUNDLE_NAME,
    NO_DEFAULT,
    NOT_ESM,
    SYNTAX_FIX,
    Finding,
    Scan,
    Scanned,
    guess_default_export,
    inspect,
    look,
    sort,
)
from amba_runtime.manifest import Bundle
from amba_runtime.places import Places, words
from amba_runtime.violations import HANDLER, Rejected, Violation, ViolationCode

__all__ = [
    "Finding",
    "Rejected",
    "Scan",
    "Scanned",
    "Violation",
    "ViolationCode",
    "admit",
    "inspect",
    "judge",
    "judge_start",
    "warnings_of",
]

T = TypeVar("T")


async def admit(
    bundle: Bundle,
    *,
    scan: Scan,
    start: Callable[[], Awaitable[T]],
    description_of: Callable[[T], Description | None],
    discard: Callable[[T], Awaitable[object]],
    name: str = BUNDLE_NAME,
) -> T:
    """Judge a bundle: its bytes first, then what it turns out to be once it runs.

    A bundle that breaks a rule and yet can start is started all the same, so that all violations
    are told at once. One that is too large, or has imports that nothing resolves, is not.

    Args:
        start: starts it in the sandbox that will serve it; may raise StartFailed.
        description_of: what the started thing says it is; never None.
        discard: ends a started thing that may not serve.
        name: what the bundle is called where no source map leads further.

    Returns:
        What `start` gave; it runs.

    Raises:
        Rejected: with every violation; nothing is left running.
    """
    places = Places(bundle, name)
    found = await look(bundle, scan, places)
    if not found.startable:
        raise Rejected(sort((*found.violations, *guess_default_export(bundle, found.scanned))))
    try:
        started = await start()
    except StartFailed as failure:
        told = await asyncio.to_thread(_judge_start, failure, places)
        if found.scanned.format == "cjs" and _COMMONJS.search(failure.reason):
            raise Rejected(sort((*found.violations, NOT_ESM))) from failure
        if found.violations and _follows(failure):
            raise Rejected(found.violations) from failure
        raise Rejected(sort((*found.violations, told))) from failure
    try:
        description = description_of(started)
        assert description is not None, "a started bundle has described itself"
        own = judge(description)
        if description.default == "none" and found.scanned.format == "cjs":
            own = (NOT_ESM,)
        elif own and description.default not in ("none", "listener"):
            place = await asyncio.to_thread(places.default_export)
            own = tuple(replace(v, **_at(places, *place)) for v in own)
        violations = (*found.violations, *own)
    except BaseException:
        await discard(started)
        raise
    if violations:
        await discard(started)
        raise Rejected(sort(violations))
    return started


def warnings_of(*, bytes_gzip: int = 0, startup_cpu_s: float = 0.0) -> tuple[str, ...]:
    """One sentence for each figure that comes near its limit."""
    said: list[str] = []
    if limits.BUNDLE_GZIP_WARN.value <= bytes_gzip <= limits.BUNDLE_GZIP.value:
        said.append(
            f"the bundle has {bytes_gzip} bytes at gzip level 9, close to the "
            f"{limits.BUNDLE_GZIP.value} that are the most"
        )
    if startup_cpu_s * 1000 >= limits.START_CPU_WARN_MS.value:
        said.append(
            f"its start takes {startup_cpu_s * 1000:.0f} ms of CPU time; what does not serve every "
            "request belongs into a handler"
        )
    return tuple(said)


def judge(description: Description) -> tuple[Violation, ...]:
    """The violations of a bundle that ran; none for one that may serve."""
    if description.handlers:
        return ()
    code, message = _REFUSED_DEFAULTS.get(description.default, _NO_HANDLER)
    if description.fault:
        message = f"the default export cannot be asked for a handler: {words(description.fault)}"
    return (Violation(code, message, HANDLER),)


_NO_HANDLER = (
    ViolationCode.NO_HANDLER,
    "the default export has no fetch, scheduled or queue function",
)
_REFUSED_DEFAULTS = {
    "function": (
        ViolationCode.DEFAULT_EXPORT_FUNCTION,
        "the default export is a function; it must be an object with a handler",
    ),
    "class": (
        ViolationCode.DEFAULT_EXPORT_CLASS,
        "the default export is a class; it must be an object with a handler",
    ),
    "none": NO_DEFAULT,
}


def judge_start(
    failure: StartFailed, bundle: Bundle | None = None, *, name: str = BUNDLE_NAME
) -> Violation:
    """The violation of a bundle whose top level did not run to its end, with its place.

    Args:
        bundle: the one that failed; None leads no place back to a source.
    """
    return _judge_start(failure, Places(bundle or Bundle.of(b""), name))


def _judge_start(failure: StartFailed, places: Places) -> Violation:
    code, fix = _FAULTS[failure.fault]
    if "Disallowed operation called within global scope" in failure.reason:
        fix = "move the call (fetch, a timer, random numbers) into a handler"
    file, line, column = places.in_stack(failure.stack)
    stack = "" if failure.fault is StartFault.SYNTAX else words(places.stack(failure.stack))
    reason = words(failure.reason)
    if failure.fault is StartFault.UNSETTLED:
        reason = "a top-level await never settles"
    elif failure.fault is StartFault.DIED:  # in its own words, which lead into the host
        reason = "the engine ended while the bundle started"
    return Violation(code, reason, fix, stack, file, line, column, places.chain(file))


_LATER = "move what fails into a handler: top-level code runs before any request"
_FAULTS = {
    StartFault.THREW: (ViolationCode.TOP_LEVEL_FAILED, _LATER),
    StartFault.MEMORY: (ViolationCode.TOP_LEVEL_FAILED, _LATER),
    StartFault.DIED: (ViolationCode.TOP_LEVEL_FAILED, _LATER),
    StartFault.SYNTAX: (ViolationCode.SYNTAX_ERROR, SYNTAX_FIX),
    StartFault.UNSETTLED: (
        ViolationCode.TOP_LEVEL_UNSETTLED,
        f"await inside a handler: {HANDLER}",
    ),
    StartFault.CPU: (
        ViolationCode.STARTUP_LIMIT,
        "do the work in a handler, or only once, when it is needed first; where this server may "
        "allow more, put startup_ms under [limits] in amba.toml",
    ),
}


def _at(places: Places, file: str, line: int, column: int) -> dict[str, Any]:
    """The fields of a violation that say where."""
    return {"file": file, "line": line, "column": column, "chain": places.chain(file)}


_COMMONJS = re.compile(r"\b(module|exports|require) is not defined")


def _follows(failure: StartFailed) -> bool:
    """The failure is that of an import or `require` which was told already."""
    return "No such module" in failure.reason or "require is not defined" in failure.reason
