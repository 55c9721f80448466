"""`amba-run check`: exactly what an upload would be told, for people, programs and CI."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from tests.run.cli.conftest import Command

from amba_runtime import limits

FINE = "export default { fetch() { return new Response('ok') } }"
ZOD = """const a = 1;
import { z } from "zod";
export default { fetch() { return new Response(z + a) } }
"""
BOOM = f"""type T = string;

function boom(): T {{
  throw new Error('no key');
}}
boom();
{FINE}
"""
Write = dict[str, str | bytes]


def write(folder: Path, files: Write) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)


def functions(out: str) -> dict[str, dict[str, Any]]:
    """The functions of a JSON report by name."""
    report: dict[str, Any] = json.loads(out)
    return {f["name"]: f for f in report["functions"]}


@pytest.mark.slow
def test_all_pass(command: Command, tmp_path: Path) -> None:
    """Exit 0; entry, sizes and handlers are told (interface.md section 2)."""
    write(tmp_path, {"fns/a.ts": FINE, "fns/b/index.js": "addEventListener('fetch', (e) => e)"})
    done = command("check", "fns", "--format", "json")
    assert (done.code, done.err) == (0, "")
    found = functions(done.out)
    assert json.loads(done.out)["ok"] is True
    assert found["a"]["entry"] == "fns/a.ts"
    assert found["a"]["handlers"] == found["b"]["handlers"] == ["fetch"]
    assert found["a"]["bytes"] > 0
    assert found["a"]["bytes_gzip"] > 0
    assert found["a"]["violations"] == []


@pytest.mark.slow
def test_every_violation_of_every_function_is_told(command: Command, tmp_path: Path) -> None:
    """Exit 1; file, line, column, chain and fix, in the user's source (issue 3 item 1)."""
    write(
        tmp_path,
        {
            "fns/fine.ts": FINE,
            "fns/left.ts": "import { q } from '../lib/db'; export default { fetch() { return q } }",
            "lib/db.ts": "// 😀\nexport { q } from './other';\n",
            "lib/other.ts": "import { z } from 'zod';\nimport f from 'node:fs';\nf(z);",
            "fns/boom.ts": BOOM,
            "fns/fn.ts": "// a comment\nexport default async (r: Request) => new Response('x');\n",
            "fns/computed.ts": "export default { fetch: (r: Request) => import(r.url) }",
            "fns/py.py": "x = 1",
        },
    )
    done = command("check", "fns", "--json")
    assert done.code == 1
    found = functions(done.out)
    assert json.loads(done.out)["ok"] is False
    assert found["fine"]["violations"] == []
    told = {
        name: [(v["code"], v["file"], v["line"], v["column"]) for v in f["violations"]]
        for name, f in found.items()
        if f["violations"]
    }
    assert told == {
        "left": [
            ("BUILD_FAILED", "lib/other.ts", 1, 19),
            ("BUILD_FAILED", "lib/other.ts", 2, 15),
        ],
        "boom": [("TOP_LEVEL_FAILED", "fns/boom.ts", 4, 9)],
        "fn": [("DEFAULT_EXPORT_FUNCTION", "fns/fn.ts", 2, 1)],
        "computed": [("BUILD_FAILED", "fns/computed.ts", 1, 41)],
        "py": [("NOT_EMULATED", "fns/py.py", 0, 0)],
    }
    first, second = found["left"]["violations"]
    assert first["chain"] == ["fns/left.ts", "lib/db.ts", "lib/other.ts"]
    assert first["fix"] == "npm install zod"
    assert "Node built-ins" in second["fix"]
    (boom,) = found["boom"]["violations"]
    assert "boom.ts:4:9" in boom["stack"]
    assert boom["chain"] == ["fns/boom.ts"]


def test_static_starts_nothing(command: Command, tmp_path: Path) -> None:
    """What only a start shows passes; what the bytes show does not."""
    write(tmp_path, {"loop.js": f"for (;;);\n{FINE}", "named.js": "export const a = 1"})
    done = command("check", "--static", "--json", "loop.js", "named.js")
    found = functions(done.out)
    assert done.code == 1
    assert (found["loop"]["violations"], found["loop"]["handlers"]) == ([], [])
    assert [v["code"] for v in found["named"]["violations"]] == ["DEFAULT_EXPORT_MISSING"]


@pytest.mark.slow
def test_finished_bundles_are_taken_as_they_are(command: Command, tmp_path: Path) -> None:
    """With the map beside them; a folder holds as many as it has files (`--no-bundle`)."""
    source_map = {
        "version": 3,
        "sources": ["../src/fn.ts"],
        "names": [],
        "mappings": ";AAIE",
    }
    write(
        tmp_path,
        {
            "dist/a.js": ZOD,
            "dist/a.js.map": json.dumps(source_map),
            "dist/b.mjs": FINE,
            "dist/c.js": b"\xff",
            "dist/d.txt": "no bundle",
        },
    )
    found = functions(command("check", "--no-bundle", "dist", "--json").out)
    assert set(found) == {"a", "b", "c"}
    (left,) = found["a"]["violations"]
    assert (left["code"], left["file"], left["line"]) == ("EXTERNAL_IMPORT", "src/fn.ts", 5)
    assert found["a"]["bytes"] == len(ZOD)
    assert found["b"]["handlers"] == ["fetch"]
    (bad,) = found["c"]["violations"]
    assert (bad["code"], bad["file"], bad["line"]) == ("NOT_UTF8", "dist/c.js", 1)


def test_a_map_with_half_a_surrogate_pair_is_no_trouble(command: Command, tmp_path: Path) -> None:
    """The verdict is that of the upload (issue 3 item 1; reliability.md D6)."""
    source_map = r'{"version":3,"sources":["\ud800.ts"],"names":[],"mappings":"AAAA;AACA"}'
    write(tmp_path, {"a.js": ZOD, "a.js.map": source_map})
    for format_ in ("json", "text", "sarif", "github", "junit"):
        done = command("check", "--static", "--no-bundle", "a.js", "--format", format_)
        assert done.code == 1
        assert "EXTERNAL_IMPORT" in done.out
    (left,) = functions(command("check", "--static", "--no-bundle", "a.js", "--json").out)["a"][
        "violations"
    ]
    assert left["file"] == "\ufffd.ts"


def test_a_file_name_that_is_not_utf_8_is_no_trouble(command: Command, tmp_path: Path) -> None:
    """In every form a report has."""
    try:
        write(tmp_path, {os.fsdecode(b"dist/latin\xe9.mjs"): ZOD})
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    for format_ in ("json", "text", "sarif", "github", "junit"):
        done = command("check", "--static", "--no-bundle", "dist", "--format", format_)
        assert (done.code, done.err) == (1, "")
        assert "EXTERNAL_IMPORT" in done.out
    (report,) = functions(
        command("check", "--static", "--no-bundle", "dist", "--json").out
    ).values()
    assert report["entry"] == report["violations"][0]["file"] == "dist/latin\ufffd.mjs"


@pytest.mark.parametrize("source", ["webpack://app/./src/index.ts?abcd", "file:///src/index.ts"])
def test_a_url_in_a_map_stays_one(command: Command, tmp_path: Path, source: str) -> None:
    """As webpack writes them: no path of the project."""
    source_map = {"version": 3, "sources": [source], "names": [], "mappings": "AAAA;AACA"}
    write(tmp_path, {"m/a.js": ZOD, "m/a.js.map": json.dumps(source_map)})
    done = command("check", "--static", "--no-bundle", "m/a.js", "--json")
    (left,) = functions(done.out)["a"]["violations"]
    assert (left["file"], left["chain"]) == (source, [source])


def test_only_regular_files_of_a_folder_are_bundles(command: Command, tmp_path: Path) -> None:
    """A folder or pipe is told and passed over; the ending counts in any case."""
    write(tmp_path, {"dist/a.js": FINE, "dist/UPPER.MJS": FINE, "dist/dir.js/x": ""})
    os.mkfifo(tmp_path / "dist/p.js")
    os.mkfifo(tmp_path / "dist/a.js.map")
    done = command("check", "--static", "--no-bundle", "dist", "--json")
    assert done.code == 0
    assert set(functions(done.out)) == {"a", "UPPER"}
    assert [w.split(" is skipped")[0] for w in json.loads(done.out)["warnings"]] == [
        "dist/dir.js",
        "dist/p.js",
    ]
    named = command("check", "--static", "--no-bundle", "dist/p.js")
    assert named.code == 1
    assert "error [ENTRY_NOT_FOUND]" in named.err


def test_what_the_build_warns_of_is_told(command: Command, tmp_path: Path) -> None:
    """With its place, of a function that passes and of one that does not, as `deploy` does."""
    odd = "\nconst odd = { a: 1, a: 2 };\n"
    write(tmp_path, {"fns/a.js": FINE + odd, "fns/b.js": "import 'zod';" + FINE + odd})
    done = command("check", "--static", "--json", "fns")
    found = functions(done.out)
    assert found["a"]["violations"] == []
    for name in ("a", "b"):
        (warning,) = found[name]["warnings"]
        assert warning.startswith(f'fns/{name}.js:2: Duplicate key "a"')


def test_an_import_left_is_a_result_with_rule_file_and_line(
    command: Command, tmp_path: Path
) -> None:
    """`check --format sarif` (issue 3, must-show 2), of sources and of a bundle."""
    write(tmp_path, {"fns/hello.ts": ZOD, "dist/hello.js": ZOD})
    for path, flag, rule in (
        ("fns/hello.ts", "--static", "BUILD_FAILED"),
        ("dist/hello.js", "--no-bundle", "EXTERNAL_IMPORT"),
    ):
        done = command("check", path, flag, "--static", "--format", "sarif")
        assert done.code == 1
        (result,) = json.loads(done.out)["runs"][0]["results"]
        assert result["ruleId"] == rule
        assert "zod" in result["message"]["text"]
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == path
        assert place["region"] == {"startLine": 2, "startColumn": 19}


@pytest.mark.parametrize(
    ("format_", "begins"),
    [
        ("text", "refuse hello"),
        ("json", '{"ok": false'),
        ("github", "::error file=hello.ts,line=2,col=19,title=amba-run BUILD_FAILED::"),
        ("sarif", "{\n"),
        ("junit", "<?xml"),
    ],
)
def test_a_report_may_go_to_a_file(
    command: Command, tmp_path: Path, format_: str, begins: str
) -> None:
    """Then stdout is empty, and stderr counts (`--out`)."""
    write(tmp_path, {"hello.ts": ZOD})
    done = command("check", "hello.ts", "--static", "--format", format_, "--out", "report")
    assert (done.code, done.out) == (1, "")
    assert done.err == "report: 1 functions, 1 refused\n"
    assert (tmp_path / "report").read_text("utf-8").startswith(begins)
    printed = command("check", "hello.ts", "--static", "--format", format_)
    assert printed.out.startswith(begins)


def test_a_budget_is_kept(command: Command, tmp_path: Path) -> None:
    """At gzip, one byte inside and one outside; the heaviest parts are named (`--max-size`)."""
    write(tmp_path, {"hello.ts": FINE})
    size = functions(command("check", "hello.ts", "--static", "--json").out)["hello"]["bytes_gzip"]
    assert command("check", "hello.ts", "--static", "--max-size", str(size)).code == 0
    done = command("check", "hello.ts", "--static", "--json", "--max-size", f"{size - 1}B")
    assert done.code == 1
    (over,) = functions(done.out)["hello"]["violations"]
    assert (over["code"], over["file"]) == ("OVER_BUDGET", "hello.ts")
    assert "(your code)" in over["fix"]


def test_growth_is_shown_and_bounded(command: Command, tmp_path: Path) -> None:
    """Since a saved report, by function and package (`--against`, `--max-growth`)."""
    noise = random.Random(3).randbytes(3000).hex()
    write(
        tmp_path,
        {
            "hello.ts": "import 'pkg';\n" + FINE,
            "node_modules/pkg/index.js": "globalThis.pkg = 1;",
        },
    )
    assert command("check", "hello.ts", "--static", "--json", "--out", "before.json").code == 0
    write(tmp_path, {"node_modules/pkg/index.js": f"globalThis.pkg = '{noise}';"})
    against = ("check", "hello.ts", "--static", "--against", "before.json")
    done = command(*against, "--json")
    assert done.code == 0
    growth = functions(done.out)["hello"]["growth"]
    assert growth["bytes_gzip"] > 2500
    assert growth["packages"][0]["name"] == "pkg"
    assert growth["percent"] > 100
    assert "growth +" in command(*against).out
    assert command(*against, "--max-growth", "10KB").code == 0
    for bound in ("2KB", "50%"):
        done = command(*against, "--max-growth", bound, "--json")
        assert done.code == 1
        (over,) = functions(done.out)["hello"]["violations"]
        assert over["code"] == "OVER_BUDGET"


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("a.js", "--format", "yaml"),
        ("a.js", "--json", "--format", "text"),
        ("a.js", "--max-size", "big"),
        ("a.js", "--max-growth", "5%"),
        ("a.js", "--against", "nowhere.json"),
        ("a.js", "--against", "saved.json", "--max-growth", "x"),
    ],
)
def test_usage_alone_is_exit_2(command: Command, tmp_path: Path, args: tuple[str, ...]) -> None:
    """Nothing is built, and stdout stays empty (architecture.md section 6)."""
    write(tmp_path, {"a.js": FINE, "saved.json": '{"functions": []}'})
    done = command("check", *args)
    assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("nowhere",), "ENTRY_NOT_FOUND"),
        (("Bad-Name.js",), "INVALID_NAME"),
        (("a.js", "--against", "other.json"), "INVALID_CONFIG"),
        (("a.js", "--out", "no/such/folder"), "INVALID_CONFIG"),
        (("twice",), "NAME_TAKEN"),
        (("a.js", "--no-bundle", "gone"), "ENTRY_NOT_FOUND"),
    ],
)
def test_what_cannot_be_checked_is_told(
    command: Command, tmp_path: Path, args: tuple[str, ...], code: str
) -> None:
    """Exit 1 with a code and what to do."""
    write(
        tmp_path,
        {
            "a.js": FINE,
            "Bad-Name.js": FINE,
            "other.json": "{}",
            "twice/b.js": FINE,
            "twice/b.ts": FINE,
        },
    )
    done = command("check", "--static", *args)
    assert done.code == 1
    assert f"error [{code}]" in done.err
    assert len(done.err.splitlines()) >= 2


def test_a_report_that_is_too_long_is_not_read(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--against` takes what is given it (limits.REPORT_BYTES)."""
    monkeypatch.setattr(limits, "REPORT_BYTES", limits.Limit(10, "bytes", "", ""))
    write(tmp_path, {"a.js": FINE, "saved.json": '{"functions": []}'})
    done = command("check", "--static", "a.js", "--against", "saved.json")
    assert done.code == 1
    assert "more than 10 bytes" in done.err


def test_nothing_to_check_is_warned_of(command: Command, tmp_path: Path) -> None:
    """As is a file that was passed over; neither is a refusal, but it shows in a log."""
    write(tmp_path, {"fns/Bad.ts": FINE})
    done = command("check", "--static", "--json", "fns")
    assert done.code == 0
    report = json.loads(done.out)
    assert report["functions"] == []
    assert "is skipped" in report["warnings"][0]
    assert report["warnings"][-1] == "no functions were found"
    assert done.err == "warning: nothing was checked: no functions were found under fns\n"


def test_a_function_named_twice_is_checked_once(command: Command, tmp_path: Path) -> None:
    """By folder and by file."""
    write(tmp_path, {"fns/a.ts": FINE})
    done = command("check", "--static", "--json", "fns", "fns/a.ts", str(tmp_path / "fns"))
    assert len(json.loads(done.out)["functions"]) == 1


def test_more_functions_than_may_be_are_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one go (limits.CHECK_FUNCTIONS)."""
    monkeypatch.setattr(limits, "CHECK_FUNCTIONS", limits.Limit(1, "functions", "", ""))
    write(tmp_path, {"fns/a.ts": FINE, "fns/b.ts": FINE})
    done = command("check", "--static", "fns")
    assert done.code == 1
    assert "check them in parts" in done.err


def test_files_elsewhere_are_named_whole(command: Command, tmp_path: Path) -> None:
    """What is not below the current folder."""
    write(tmp_path, {"fns/a.ts": ZOD, "here/x": ""})
    done = command("check", "--static", "--json", "../fns", cwd=tmp_path / "here")
    (violation,) = functions(done.out)["a"]["violations"]
    assert violation["file"] == (tmp_path / "fns/a.ts").as_posix()


@pytest.mark.slow
def test_a_limit_in_the_configuration_counts(command: Command, tmp_path: Path) -> None:
    """`startup_ms` of amba.toml, the function's own over the project's (interface.md 4)."""
    busy = "const until = Date.now; let n = 0; for (let i = 0; i < 4e8; i++) n += i % 7;\n" + FINE
    write(
        tmp_path,
        {
            "fns/quick.js": f"for (;;);\n{FINE}",
            "fns/slow.js": busy,
            "fns/amba.toml": (
                "[limits]\nstartup_ms = 50\n[functions.slow.limits]\nstartup_ms = 30000\n"
            ),
        },
    )
    found = functions(command("check", "--json", "fns").out)
    (limit,) = found["quick"]["violations"]
    assert limit["code"] == "STARTUP_LIMIT"
    assert "50 ms" in limit["message"]
    assert found["slow"]["violations"] == []
    assert "CPU time" in found["slow"]["warnings"][0]


def test_a_program_that_is_missing_is_no_refusal(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1 with its own code, not a violation."""
    write(tmp_path, {"a.js": FINE})
    monkeypatch.setenv("AMBA_RUN_ESBUILD", os.devnull)
    done = command("check", "--static", "a.js")
    assert done.code == 1
    assert "error [PROGRAM_MISSING]" in done.err


def test_a_failure_among_several_is_told_once(command: Command, tmp_path: Path) -> None:
    """Of functions that are judged at once, the first failure that we raise on purpose."""
    write(tmp_path, {"dist/a.js": FINE, "dist/b.js": FINE})
    for name in ("a", "b"):
        path = tmp_path / f"dist/{name}.js"
        path.unlink()
        path.symlink_to(tmp_path / "gone")
    done = command("check", "--static", "--no-bundle", "dist")
    assert done.code == 1
    assert done.err.count("error [ENTRY_NOT_FOUND]") == 1
