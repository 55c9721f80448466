"""The same report in five forms, each held against what reads it (issue 3 item 2, must-show 2)."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from amba_bundler.formats import FORMATS, render
from amba_bundler.formats.as_text import kib
from amba_bundler.report import FunctionReport, Growth, Report, growth_of, read_weights
from amba_runtime.violations import RULES, Violation, ViolationCode

SCHEMAS = Path(__file__).parents[2] / "contract" / "schemas"
HOSTILE = "a\x1b[2J\x00\ufffe<&\"'>]]> %0A,:\r\nb \U0001f600"
LEFT = Violation(
    ViolationCode.EXTERNAL_IMPORT,
    'an import of "zod" is left',
    "npm install zod",
    file="functions/lib/db.ts",
    line=3,
    column=19,
    chain=("functions/hello.ts", "functions/lib/db.ts"),
)
GOOD = FunctionReport(
    "hello",
    "functions/hello.ts",
    bytes=5000,
    bytes_gzip=2048,
    handlers=("fetch", "queue"),
    warnings=("near its limit",),
    packages=(("zod", 3000), ("(your code)", 2000)),
    seconds=0.25,
)
BAD = FunctionReport(
    "bad", "functions/bad.ts", violations=(LEFT, Violation("NO_HANDLER", "none", "add one"))
)
REPORT = Report((GOOD, BAD), "2026-11-22T20:26:09", ("x.jsx is skipped",))
EMPTY = Report(())
WORST = Report(
    (
        FunctionReport(
            HOSTILE,
            f"functions/{HOSTILE}.ts",
            violations=(
                Violation("SYNTAX_ERROR", HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1, 1, (HOSTILE, "b")),
                Violation("SYNTAX_ERROR", HOSTILE, "", file="/abs/a b.ts", line=1, column=0),
                Violation("SYNTAX_ERROR", HOSTILE, "", file="C:/a b.ts"),
            ),
            warnings=(HOSTILE,),
            packages=((HOSTILE, 1), ("b", 1)),
            growth=Growth(5, 0, ((HOSTILE, 5),)),
        ),
    ),
    "2026-11-22T20:26:09",
    (HOSTILE,),
)
REPORTS = pytest.mark.parametrize("report", [REPORT, EMPTY, WORST], ids=["both", "none", "worst"])


def sarif(report: Report) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(render(report, "sarif", version="0.1.0"))
    return log


@REPORTS
def test_sarif_is_valid(report: Report) -> None:
    """By the public schema of SARIF 2.1.0 (must-show 2)."""
    jsonschema: Any = importlib.import_module("jsonschema")  # neither has types
    schema = json.loads((SCHEMAS / "sarif-2.1.0-rtm.5.json").read_text("utf-8"))
    errors = jsonschema.Draft4Validator(schema).iter_errors(sarif(report))
    assert [error.message for error in errors] == []


@REPORTS
def test_junit_is_valid(report: Report) -> None:
    """By the public schema that Jenkins reads it with (must-show 2)."""
    etree: Any = importlib.import_module("lxml.etree")
    schema = etree.XMLSchema(etree.parse(str(SCHEMAS / "junit-10.xsd")))
    document = etree.fromstring(render(report, "junit", version="0.1.0").encode())
    assert schema.validate(document), schema.error_log


def test_sarif_names_rule_file_and_line() -> None:
    """A result per violation, each with its rule's index, place and fingerprint (must-show 2)."""
    (run,) = sarif(REPORT)["runs"]
    first, second = run["results"]
    assert first["ruleId"] == "EXTERNAL_IMPORT"
    rules = run["tool"]["driver"]["rules"]
    assert rules[first["ruleIndex"]]["id"] == "EXTERNAL_IMPORT"
    assert [rule["id"] for rule in rules] == list(RULES)
    assert first["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "functions/lib/db.ts", "uriBaseId": "%SRCROOT%"},
                "region": {"startLine": 3, "startColumn": 19},
            }
        }
    ]
    assert first["message"]["text"].endswith("\nFix: npm install zod")
    assert first["properties"]["chain"] == ["functions/hello.ts", "functions/lib/db.ts"]
    # of the bundle as a whole: its entry file, no region
    assert second["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "functions/bad.ts", "uriBaseId": "%SRCROOT%"}
            }
        }
    ]
    assert run["columnKind"] == "utf16CodeUnits"
    assert run["invocations"][0]["exitCode"] == 1
    told = run["invocations"][0]["toolExecutionNotifications"]
    assert [item["message"]["text"] for item in told] == [
        "x.jsx is skipped",
        "hello: near its limit",
    ]


def test_a_moved_line_stays_the_same_alert() -> None:
    """The fingerprint is of rule, file and message."""
    moved = replace(BAD, violations=(replace(LEFT, line=90), replace(LEFT, message="other")))
    before = sarif(REPORT)["runs"][0]["results"][0]["partialFingerprints"]
    after, other = sarif(Report((moved,)))["runs"][0]["results"]
    assert after["partialFingerprints"] == before
    assert other["partialFingerprints"] != before


def test_sarif_paths_are_uris() -> None:
    """Relative ones against the source root, others whole; blanks are escaped."""
    results = sarif(WORST)["runs"][0]["results"]
    places = [r["locations"][0]["physicalLocation"]["artifactLocation"] for r in results]
    assert places[1] == {"uri": "file:///abs/a%20b.ts"}
    assert places[2] == {"uri": "file:///C%3A/a%20b.ts"}
    assert "%20" in places[0]["uri"]
    assert results[1]["locations"][0]["physicalLocation"]["region"]["startColumn"] == 1


def test_sarif_takes_any_file_name() -> None:
    """One that is not UTF-8 gives a log all the same; a URL of a map stays a URL."""
    files = (
        "latin\udce9.mjs",
        "/abs/\ud800.ts",
        "webpack://app/./a b.ts?ab%20c%",
        "file:///x/a.ts",
    )
    told = tuple(Violation("SYNTAX_ERROR", "m\udce9", "", file=file) for file in files)
    results = sarif(Report((FunctionReport("a", "a", violations=told),)))["runs"][0]["results"]
    places = [r["locations"][0]["physicalLocation"]["artifactLocation"] for r in results]
    assert places == [
        {"uri": "latin%3F.mjs", "uriBaseId": "%SRCROOT%"},
        {"uri": "file:///abs/%3F.ts"},
        {"uri": "webpack://app/./a%20b.ts?ab%20c%25"},
        {"uri": "file:///x/a.ts"},
    ]


def test_junit_has_a_case_per_function() -> None:
    """All violations of one function are one failure; the stricter schema's parts are there."""
    root = ElementTree.fromstring(render(REPORT, "junit", version="0.1.0"))  # noqa: S314  our own
    assert root.tag == "testsuites"
    assert root.attrib == {}
    (suite,) = root
    assert suite.attrib == {
        "name": "amba-run check", "package": "amba-run", "id": "0", "hostname": "localhost",
        "timestamp": "2026-11-22T20:26:09", "tests": "2", "failures": "1", "errors": "0",
        "time": "0.250",
    }  # fmt: skip
    assert [child.tag for child in suite] == [
        "properties", "testcase", "testcase", "system-out", "system-err",
    ]  # fmt: skip
    good, bad = suite.findall("testcase")
    assert (good.get("name"), good.get("classname"), len(good)) == (
        "hello",
        "functions/hello.ts",
        0,
    )
    (failure,) = bad
    assert failure.get("type") == "EXTERNAL_IMPORT"
    assert failure.get("message") == 'an import of "zod" is left (and 1 more)'
    assert "functions/lib/db.ts:3:19: EXTERNAL_IMPORT" in (failure.text or "")
    assert "NO_HANDLER: none" in (failure.text or "")


def test_annotations_name_file_line_and_column() -> None:
    """One command a line; what would end it early is escaped."""
    lines = render(REPORT, "github", version="0.1.0").splitlines()
    assert lines == [
        "::warning::x.jsx is skipped",
        "::warning file=functions/hello.ts::hello: near its limit",
        "::error file=functions/lib/db.ts,line=3,col=19,title=amba-run EXTERNAL_IMPORT::"
        'bad: an import of "zod" is left'
        "%0Aimported by: functions/hello.ts -> functions/lib/db.ts%0Afix: npm install zod",
        "::error file=functions/bad.ts,title=amba-run NO_HANDLER::bad: none%0Afix: add one",
        "amba-run check: 2 functions, 1 refused",
    ]
    worst = render(WORST, "github", version="0.1.0")
    assert worst.count("\n") == 6
    assert "%250A%2C%3A%0D%0Ab" in worst.splitlines()[1]


def test_annotations_steer_no_terminal() -> None:
    """A file's name may hold an escape or turn the line around (reliability.md C8)."""
    odd = "a\x1b[2J\u202eb\udce9"
    told = (Violation("SYNTAX_ERROR", odd, odd, file=odd),)
    report = Report((FunctionReport(odd, odd, violations=told, warnings=(odd,)),), warnings=(odd,))
    text = render(report, "github", version="0.1.0")
    assert text.count("a\ufffd[2J\ufffdb\ufffd") == 8
    assert not {"\x1b", "\u202e", "\udce9"} & set(text)


def test_json_has_the_published_keys() -> None:
    """Those of interface.md section 2, and ours."""
    shown = json.loads(render(REPORT, "json", version="0.1.0"))
    assert shown["ok"] is False
    hello, bad = shown["functions"]
    assert hello == {
        "name": "hello", "entry": "functions/hello.ts", "bytes": 5000, "bytes_gzip": 2048,
        "handlers": ["fetch", "queue"], "violations": [], "warnings": ["near its limit"],
        "packages": [{"name": "zod", "bytes": 3000}, {"name": "(your code)", "bytes": 2000}],
    }  # fmt: skip
    assert bad["violations"][0] == {
        "code": "EXTERNAL_IMPORT", "message": 'an import of "zod" is left',
        "file": "functions/lib/db.ts", "line": 3, "column": 19,
        "chain": ["functions/hello.ts", "functions/lib/db.ts"], "fix": "npm install zod",
    }  # fmt: skip
    assert json.loads(render(EMPTY, "json", version="0")) == {
        "ok": True, "functions": [], "warnings": [], "version": "0",
    }  # fmt: skip


def test_text_tells_people_all() -> None:
    """Sizes, packages, growth, violations with chain and fix, and a last line that counts."""
    grown = replace(GOOD, growth=Growth(1024, 1024, (("zod", 900), ("jose", -10))))
    many = tuple((f"p{n}", 10) for n in range(7))
    text = render(Report((grown, BAD, replace(GOOD, packages=many))), "text", version="0.1.0")
    assert text.splitlines() == [
        "pass   hello  4.9 KiB, 2.0 KiB gzip  fetch, queue",
        "       zod 2.9 KiB, (your code) 2.0 KiB",
        "       growth +1.0 KiB gzip (+100.0 %); zod +900 B, jose -10 B",
        "       warning: near its limit",
        "refuse bad  ",
        '  functions/lib/db.ts:3:19: EXTERNAL_IMPORT: an import of "zod" is left',
        "    imported by: functions/hello.ts -> functions/lib/db.ts",
        "    fix: npm install zod",
        "  NO_HANDLER: none",
        "    fix: add one",
        "pass   hello  4.9 KiB, 2.0 KiB gzip  fetch, queue",
        "       p0 10 B, p1 10 B, p2 10 B, p3 10 B, p4 10 B, others 20 B",
        "       warning: near its limit",
        "1 of 3 functions refused",
    ]
    assert render(Report((GOOD,)), "text", version="0").endswith("1 function passes\n")


def test_text_steers_no_terminal() -> None:
    """No control character of a stranger's comes through (reliability.md C8)."""
    text = render(WORST, "text", version="0.1.0")
    assert "(new)" in text
    assert [c for c in text if ord(c) < 32 and c != "\n"] == []


@pytest.mark.parametrize("format_", FORMATS)
def test_every_form_ends_its_last_line(format_: str) -> None:
    """So that files can be joined."""
    assert render(REPORT, format_, version="0.1.0").endswith("\n")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 20, "5.00 MiB"), (-2048, "-2.0 KiB")],
)
def test_bytes_are_binary(count: int, text: str) -> None:
    """And printed as such (style.md)."""
    assert kib(count) == text


def test_a_saved_report_is_read_again() -> None:
    """Growth by function and package, by entry first and else by name (issue 3 item 2)."""
    saved = read_weights(render(Report((GOOD,)), "json", version="0").encode())
    now = replace(GOOD, bytes_gzip=3072, packages=(("zod", 3500), ("jose", 10)))
    grown = growth_of(now, saved)
    assert grown == Growth(1024, 2048, (("(your code)", -2000), ("zod", 500), ("jose", 10)))
    assert grown.percent == 50
    assert growth_of(replace(now, entry="moved.ts"), saved) == grown
    new = growth_of(replace(now, entry="new.ts", name="new"), saved)
    assert (new.bytes_gzip, new.before_gzip, new.percent) == (3072, 0, float("inf"))
    assert growth_of(FunctionReport("e", "e.ts"), {}).percent == 0


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "Expecting value"),
        (b"\xff", "codec can't decode"),
        (b"[]", "no list named"),
        (b'{"functions": 5}', "no list named"),
        (b'{"functions": [5]}', "function 1 has no name"),
        (b'{"functions": [{"name": "a", "entry": "a.ts", "bytes_gzip": "5"}]}', "function 1"),
        (
            b'{"functions": [{"name": "a", "entry": "a", "bytes_gzip": 5, "packages": [1]}]}',
            "package",
        ),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_another_file_is_no_report(document: bytes, why: str) -> None:
    """Told in words, never a traceback."""
    with pytest.raises(ValueError, match=why):
        read_weights(document)
