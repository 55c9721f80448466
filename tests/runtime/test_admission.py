"""One function decides whether a bundle serves; each refusal says where, why and what to write."""

from __future__ import annotations

import asyncio
import json

import pytest

from amba_runtime import limits
from amba_runtime.admission import (
    Finding,
    Rejected,
    Scan,
    Scanned,
    Violation,
    ViolationCode,
    admit,
    inspect,
    judge,
    judge_start,
    warnings_of,
)
from amba_runtime.engine.base import Description, StartFailed, StartFault
from amba_runtime.manifest import HANDLERS, Bundle
from amba_runtime.outcome import Tell
from amba_runtime.violations import HANDLER, RULES, fix_import

REFUSED = [
    ("function", "DEFAULT_EXPORT_FUNCTION", "is a function"),
    ("class", "DEFAULT_EXPORT_CLASS", "is a class"),
    ("none", "DEFAULT_EXPORT_MISSING", "no default export"),
    ("object", "NO_HANDLER", "no fetch, scheduled or queue"),
    ("listener", "NO_HANDLER", "no fetch, scheduled or queue"),
    ("", "NO_HANDLER", "no fetch, scheduled or queue"),
]
CODE = b"export default { fetch() {} };\nboom();\n"
ESM = Scanned(format="esm", exports=("default",))
FINE = Description(("fetch",), "object", Tell())


def scan_of(scanned: Scanned) -> Scan:
    """A scan that finds the same in every bundle."""

    async def scan(code: bytes, /) -> Scanned:
        return scanned

    return scan


class Starts:
    """Something to start: counts its starts and ends."""

    def __init__(self, outcome: Description | StartFailed = FINE) -> None:
        self.outcome = outcome
        self.started = self.ended = 0

    async def start(self) -> Starts:
        self.started += 1
        if isinstance(self.outcome, StartFailed):
            raise self.outcome
        return self

    def describe(self) -> Description | None:
        return self.outcome if isinstance(self.outcome, Description) else None

    async def end(self) -> None:
        self.ended += 1


def admitted(
    scanned: Scanned, starts: Starts, bundle: Bundle | bytes = CODE
) -> tuple[Violation, ...]:
    """What `admit` refuses a bundle for; () when it is admitted."""
    whole = bundle if isinstance(bundle, Bundle) else Bundle.of(bundle)

    async def main() -> tuple[Violation, ...]:
        try:
            given = await admit(
                whole,
                scan=scan_of(scanned),
                start=starts.start,
                description_of=Starts.describe,
                discard=Starts.end,
            )
        except Rejected as rejected:
            return rejected.violations
        assert given is starts
        return ()

    return asyncio.run(main())


def codes(violations: tuple[Violation, ...]) -> list[str]:
    return [str(v.code) for v in violations]


@pytest.mark.parametrize(("default", "code", "words"), REFUSED)
def test_a_bundle_without_a_handler_is_refused(default: str, code: str, words: str) -> None:
    """One violation per kind of default export that cannot serve (contract B, rejections)."""
    (violation,) = judge(Description((), default, Tell()))
    assert violation.code == code
    assert words in violation.message
    assert violation.fix == HANDLER


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("default", ["object", "listener"])
def test_one_handler_of_any_kind_is_enough(handler: str, default: str) -> None:
    """fetch, scheduled or queue alone may serve, in either form (contract B)."""
    assert judge(Description((handler,), default, Tell())) == ()


def test_a_getter_that_throws_is_told_in_its_own_words() -> None:
    """No handler, and why it could not be seen; control characters are gone (reliability D7)."""
    (violation,) = judge(Description((), "object", Tell(), "fetch: Error: not\x1b now"))
    assert violation.code == "NO_HANDLER"
    assert violation.message == (
        "the default export cannot be asked for a handler: fetch: Error: not\ufffd now"
    )


def test_an_admitted_bundle_runs() -> None:
    """Started once, and handed on as it is."""
    starts = Starts()
    assert admitted(ESM, starts) == ()
    assert (starts.started, starts.ended) == (1, 0)


def test_a_bundle_that_may_not_serve_is_ended() -> None:
    """The place of its default export is told, nothing is left running (issue 3 item 1)."""
    starts = Starts(Description((), "function", Tell()))
    (violation,) = admitted(ESM, starts, b"// one\n  export default () => {};\n")
    assert violation.code == "DEFAULT_EXPORT_FUNCTION"
    assert (violation.file, violation.line, violation.column) == ("bundle.js", 2, 3)
    assert (starts.started, starts.ended) == (1, 1)


@pytest.mark.parametrize("kind", ["dynamic", "dynamic-expression", "require"])
def test_what_can_start_is_started_to_tell_all_at_once(kind: str) -> None:
    """An import that nothing resolves yet hides no other violation (issue 3 item 1)."""
    starts = Starts(Description((), "object", Tell()))
    found = admitted(Scanned((Finding(kind, "x", 2, 1),), "esm", ("default",)), starts)
    assert codes(found)[0] == "NO_HANDLER"
    assert len(found) == 2
    assert (starts.started, starts.ended) == (1, 1)


@pytest.mark.parametrize(
    ("scanned", "code", "expected"),
    [
        (
            Scanned((Finding("static", "zod", 1, 1),), "esm", ()),
            CODE,
            ["EXTERNAL_IMPORT", "DEFAULT_EXPORT_MISSING"],
        ),
        (
            Scanned((Finding("static", "zod", 1, 1),), "esm", ("default",)),
            CODE,
            ["EXTERNAL_IMPORT"],
        ),
        (Scanned((Finding("syntax", "", 1, 1, "Unexpected"),)), CODE, ["SYNTAX_ERROR"]),
        (Scanned((Finding("complex", text="too deep"),)), CODE, ["BUNDLE_TOO_COMPLEX"]),
        (Scanned((), "cjs", ("default",)), b"module.exports = {}", ["NOT_ESM"]),
        (ESM, b" \n", ["EMPTY_BUNDLE"]),
        (ESM, b"\xff", ["NOT_UTF8"]),
    ],
)
def test_what_cannot_start_is_not_started(
    scanned: Scanned, code: bytes, expected: list[str]
) -> None:
    """The exports tell of the default export in its stead."""
    starts = Starts()
    assert codes(admitted(scanned, starts, code)) == expected
    assert starts.started == 0


def test_a_bundle_that_is_too_large_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it could be (contract D.1)."""
    starts = Starts()
    small = limits.Limit(10, "bytes", "", "")
    monkeypatch.setattr(limits, "BUNDLE_GZIP", small)
    (violation,) = admitted(ESM, starts)
    assert violation.code == "BUNDLE_TOO_LARGE"
    assert "amba-run check" in violation.fix
    assert starts.started == 0


def test_a_commonjs_bundle_may_be_of_the_listener_form() -> None:
    """A library in it may look like CommonJS; the engine has the last word (contract B)."""
    listens = b"typeof module; addEventListener('fetch', f); module.exports = 1"
    cjs = Scanned((), "cjs", ("default",))
    assert admitted(cjs, Starts(Description(("fetch",), "listener", Tell())), listens) == ()
    assert codes(admitted(cjs, Starts(Description((), "none", Tell())), listens)) == ["NOT_ESM"]
    for default in ("object", "function", "listener"):
        other = admitted(cjs, Starts(Description((), default, Tell())), listens)
        assert codes(other) == codes(judge(Description((), default, Tell())))
    for kind in ("esm", "none"):
        scanned = Scanned((), kind, ())
        missing = admitted(scanned, Starts(Description((), "none", Tell())), listens)
        assert codes(missing) == ["DEFAULT_EXPORT_MISSING"]


@pytest.mark.parametrize("name", ["module", "exports", "require"])
def test_a_commonjs_bundle_that_mentions_listeners_is_told_what_it_is(name: str) -> None:
    """Not that its own format failed, though the engine put it so (contract B, rejections)."""
    code = b"module.exports = { fetch(r) { r.signal.addEventListener('abort', f) } }"
    failure = StartFailed(f"Uncaught ReferenceError: {name} is not defined")
    cjs = Scanned((), "cjs", ("default",))
    (violation,) = admitted(cjs, Starts(failure), code)
    assert violation.code == "NOT_ESM"
    assert "--format=esm" in violation.fix
    assert codes(admitted(ESM, Starts(failure), code)) == ["TOP_LEVEL_FAILED"]
    other = StartFailed("Uncaught ReferenceError: process is not defined")
    assert codes(admitted(cjs, Starts(other), code)) == ["TOP_LEVEL_FAILED"]


def test_a_failed_start_is_told_with_what_the_bytes_told() -> None:
    """Both, in the order of the lines."""
    failure = StartFailed("Uncaught Error: no key", "    at boom (fn.mjs:2:1)")
    found = admitted(
        Scanned((Finding("dynamic", "x", 1, 5),), "esm", ("default",)), Starts(failure)
    )
    assert codes(found) == ["EXTERNAL_IMPORT", "TOP_LEVEL_FAILED"]


@pytest.mark.parametrize("reason", ['No such module "x".', "require is not defined"])
def test_a_start_that_fails_for_an_import_is_told_once(reason: str) -> None:
    """The import that was told already is the reason."""
    failure = StartFailed(f"Uncaught Error: {reason}")
    found = admitted(
        Scanned((Finding("dynamic", "x", 1, 5),), "esm", ("default",)), Starts(failure)
    )
    assert codes(found) == ["EXTERNAL_IMPORT"]


def test_a_mistake_of_ours_leaves_nothing_running() -> None:
    """An error while it is judged ends what was started."""
    starts = Starts()

    def fail(_starts: Starts) -> Description:
        raise RuntimeError("ours")

    async def main() -> None:
        await admit(
            Bundle.of(CODE),
            scan=scan_of(ESM),
            start=starts.start,
            description_of=fail,
            discard=Starts.end,
        )

    with pytest.raises(RuntimeError, match="ours"):
        asyncio.run(main())
    assert starts.ended == 1


@pytest.mark.parametrize(
    ("failure", "code", "message", "fix"),
    [
        (
            StartFailed("Uncaught Error: no key"),
            "TOP_LEVEL_FAILED",
            "Uncaught Error: no key",
            "into a handler",
        ),
        (
            StartFailed("Uncaught Error: Disallowed operation called within global scope."),
            "TOP_LEVEL_FAILED",
            "Disallowed",
            "move the call",
        ),
        (
            StartFailed("all memory", fault=StartFault.MEMORY),
            "TOP_LEVEL_FAILED",
            "all memory",
            "into a handler",
        ),
        (
            StartFailed("/usr/lib/x: cannot", fault=StartFault.DIED),
            "TOP_LEVEL_FAILED",
            "the engine ended while the bundle started",
            "into a handler",
        ),
        (
            StartFailed("Uncaught SyntaxError: no", fault=StartFault.SYNTAX),
            "SYNTAX_ERROR",
            "Uncaught SyntaxError: no",
            "correct the line",
        ),
        (
            StartFailed("unsettled", fault=StartFault.UNSETTLED),
            "TOP_LEVEL_UNSETTLED",
            "a top-level await never settles",
            "await inside a handler",
        ),
        (StartFailed("took 2 s", fault=StartFault.CPU), "STARTUP_LIMIT", "took 2 s", "startup_ms"),
    ],
)
def test_each_way_to_fail_has_its_code(
    failure: StartFailed, code: str, message: str, fix: str
) -> None:
    """And a fix; the engine's own words stay here (reliability.md D9)."""
    violation = judge_start(failure)
    assert violation.code == code
    assert message in violation.message
    assert "/usr/lib" not in violation.message
    assert fix in violation.fix
    assert (violation.file, violation.line) == ("", 0)


def test_the_first_frame_of_a_failure_is_its_place() -> None:
    """Through the source map, the stack as well; a syntax error has no stack (issue 3 item 1)."""
    mapped = json.dumps(
        {"version": 3, "sources": ["lib/key.ts"], "names": [], "mappings": "AAIE"}
    ).encode()
    bundle = Bundle.of(b"boom()", source_map=mapped)
    stack = "    at boom (fn.mjs:1:1)\n    at fn.mjs:9:9"
    violation = judge_start(StartFailed("Uncaught Error: x", stack), bundle, name="hello.js")
    assert violation.place == "lib/key.ts:5:3"
    assert violation.chain == ("lib/key.ts",)
    assert violation.stack == "    at boom (lib/key.ts:5:3)\n    at hello.js:9:9"
    syntax = judge_start(
        StartFailed("Uncaught SyntaxError", stack, fault=StartFault.SYNTAX), bundle
    )
    assert (syntax.line, syntax.stack) == (5, "")
    for fault in set(StartFault) - {StartFault.SYNTAX}:
        told = judge_start(StartFailed("ended", stack, fault=fault), bundle, name="hello.js")
        assert (told.line, told.stack) == (violation.line, violation.stack)


def test_the_bytes_alone_tell_all_at_once() -> None:
    """Sorted by place, those without one last, each once; nothing is started (`--static`)."""
    twice = Finding("static", "b", 2, 1)
    scanned = Scanned((Finding("require", "", 3, 1), twice, twice), "esm", ())
    found = asyncio.run(inspect(Bundle.of(b"\n\n\n"), scan=scan_of(scanned)))
    assert codes(found) == ["EMPTY_BUNDLE"]
    found = asyncio.run(inspect(Bundle.of(CODE), scan=scan_of(scanned)))
    assert codes(found) == ["EXTERNAL_IMPORT", "REQUIRE_CALL", "DEFAULT_EXPORT_MISSING"]


def test_figures_near_their_limit_are_warned_of() -> None:
    """One inside, one outside, each; over the limit is no warning but a violation."""
    size, most = limits.BUNDLE_GZIP_WARN.value, limits.BUNDLE_GZIP.value
    assert warnings_of(bytes_gzip=size - 1, startup_cpu_s=0.3999) == ()
    near = warnings_of(bytes_gzip=size, startup_cpu_s=0.4)
    assert ["close to" in near[0], "400 ms" in near[1]] == [True, True]
    assert len(warnings_of(bytes_gzip=most)) == 1
    assert len(warnings_of(bytes_gzip=(size + most) // 2)) == 1
    (slow,) = warnings_of(startup_cpu_s=1.25)
    assert "1250 ms" in slow
    assert warnings_of() == ()
    assert warnings_of(bytes_gzip=most + 1) == ()


def test_every_code_has_its_rule() -> None:
    """The closed set and its sentences go together."""
    assert set(RULES) == set(ViolationCode)
    assert list(ViolationCode) == sorted(ViolationCode)


@pytest.mark.parametrize(
    ("specifier", "words"),
    [
        ("node:crypto", "Node built-ins"),
        ("fs/promises", "Node built-ins"),
        ("cloudflare:workers", "env argument"),
        ("https://x/y.js", "with npm"),
        ("//x/y.js", "with npm"),
        ("data:text/javascript,1", "into a file"),
        ("zod/v4", "npm install zod, mark"),
        ("npm:@scope/name@1", "npm install @scope/name,"),
        ("fs-extra", "npm install fs-extra,"),
        ("$(rm -rf ~)", "correct the name"),
        ("", "correct the name"),
    ],
)
def test_an_import_gets_the_fix_for_its_kind(specifier: str, words: str) -> None:
    """Nothing of a stranger's text is put into a command but a plain package name."""
    assert words in fix_import(specifier)


def test_a_violation_as_json_and_as_text() -> None:
    """The keys of interface.md section 2; the stack only where there is one."""
    plain = Violation(ViolationCode.NO_HANDLER, "none", "add one")
    assert plain.as_json() == {
        "code": "NO_HANDLER", "message": "none", "file": "", "line": 0, "column": 0,
        "chain": [], "fix": "add one",
    }  # fmt: skip
    assert plain.as_text() == "NO_HANDLER: none\n  fix: add one"
    whole = Violation("X", "m", "", "at a\nat b", "b.ts", 2, 3, ("a.ts", "b.ts"))
    assert whole.as_json()["stack"] == "at a\nat b"
    assert whole.as_text() == "b.ts:2:3: X: m\n  imported by: a.ts -> b.ts\n  at a\n  at b"
    assert Violation("X", "m", "", file="b.ts").place == "b.ts"
