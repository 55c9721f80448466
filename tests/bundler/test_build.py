"""From an entrypoint to a bundle, with the real esbuild and real packages (contract D.1)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amba_bundler.build import Build, BuildError, BuildFailed, BuildOptions, Minify, build
from amba_bundler.esbuild import Esbuild, find_program
from amba_bundler.report import GLUE, OWN_CODE, by_package
from amba_runtime import limits
from amba_runtime.errors import UserCode

from .conftest import Write

_PACKAGES = Path(__file__).parents[2] / "node_modules"


def _build(entry: Path, options: BuildOptions | None = None) -> Build:
    return asyncio.run(build(entry, options))


def _fail(entry: Path, options: BuildOptions | None = None) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        _build(entry, options)
    return caught.value


def _code(files: dict[str, str | bytes], write: Write, entry: str = "fn.ts") -> str:
    return _build(write(files) / entry).bundle.code.decode()


# --- what comes out ---


def test_a_typescript_function_becomes_one_module(write: Write) -> None:
    """Types go, the default export stays, the map leads back with its content (contract D.1)."""
    source = "const n: number = 1;\nexport default { fetch: () => new Response(`${n} ✓`) };\n"
    folder = write({"fn.ts": source})
    built = _build(folder / "fn.ts")
    assert built.bundle.code.decode() == (
        "// fn.ts\nvar n = 1;\nvar fn_default = { fetch: () => new Response(`${n} ✓`) };\n"
        "export {\n  fn_default as default\n};\n"
    )
    assert built.bundle.source_map is not None
    source_map = json.loads(built.bundle.source_map)
    assert (source_map["sources"], source_map["sourcesContent"]) == (["fn.ts"], [source])
    assert built.inputs == (folder.resolve() / "fn.ts",)
    assert built.warnings == ()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"fn.ts": 'import t from "./a.txt"; export default t', "a.txt": "héllo"}, '"héllo'),
        ({"fn.ts": 'import t from "./a.md"; export default t', "a.md": "# hi"}, '"# hi'),
        ({"fn.ts": 'import t from "./a.html"; export default t', "a.html": "<p>"}, '"<p>'),
        ({"fn.ts": 'import t from "./a.css"; export default t', "a.css": "p{}"}, '"p{}'),
        ({"fn.ts": 'import t from "./a.module.css"; export default t', "a.module.css": ".p{}"},
         '".p{}'),
        ({"fn.ts": 'import t from "./a.svg"; export default t', "a.svg": "<svg/>"}, '"<svg/>'),
        ({"fn.ts": 'import t from "./a.sql"; export default t', "a.sql": "SELECT 1"}, '"SELECT 1'),
        ({"fn.ts": 'import t from "./a.json"; export default t.deep', "a.json": '{"deep":[41]}'},
         "41"),
        ({"fn.ts": 'import { b } from "./b"; export default b', "b.tsx":
          "const h = (...a: unknown[]) => a; /** @jsx h */ export const b = <i>x</i>"},
         'h("i", null, "x")'),
        ({"fn.ts": "export default process.env.NODE_ENV"}, '"production"'),
        ({"fn.ts": 'import { x } from "@/x"; export default x', "x.ts": "export const x = 77",
          "tsconfig.json": '{"compilerOptions": {"paths": {"@/*": ["./*"]}}}'}, "77"),
        ({"fn.ts": "\ufeffexport default 5"}, "5"),
    ],
    ids=["txt", "md", "html", "css", "module.css", "svg", "sql", "json", "jsx", "env", "paths",
         "bom"],
)  # fmt: skip
def test_what_can_be_imported(files: dict[str, str | bytes], expected: str, write: Write) -> None:
    """Text, JSON, TSX, tsconfig paths, and NODE_ENV as a deploy would set it (issue 2, item 2)."""
    assert expected in _code(files, write)


def test_the_conditions_are_those_of_the_contract(write: Write) -> None:
    """`workerd` before `worker` before `browser`, never `node` (contract D.1)."""
    names = ("node", "browser", "worker", "workerd", "import", "default")
    for used in (names[:4], names[:3], ("node", "browser"), ("node", "import"), ("default",)):
        # In the order of the package, the first one that is on wins: all but node are.
        exports = {".": {name: f"./{name}.js" for name in used}}
        files: dict[str, str | bytes] = {
            "fn.ts": 'import x from "pack"; export default x',
            "node_modules/pack/package.json": json.dumps({"exports": exports}),
            **{f"node_modules/pack/{name}.js": f"export default 'is {name}'" for name in names},
        }
        expected = next(name for name in used if name != "node")
        assert f'"is {expected}"' in _code(files, write)


def test_minified_code_is_smaller_and_still_mapped(write: Write) -> None:
    """`Minify.ON` is what the real CLI uploads; off, names can be read (contract D.1)."""
    folder = write({"fn.ts": "const readable = Math.random(); export default { readable }"})
    small = _build(folder / "fn.ts", BuildOptions(minify=Minify.ON)).bundle
    plain = _build(folder / "fn.ts").bundle
    assert b"var readable" in plain.code
    assert b"var readable" not in small.code
    assert len(small.code) < len(plain.code)
    assert small.source_map is not None


def test_legal_comments_are_kept(write: Write) -> None:
    """A licence in a source travels with the bundle, minified or not."""
    folder = write({"fn.ts": "/*! Licence: MIT */ export default 1"})
    for minify in Minify:
        built = _build(folder / "fn.ts", BuildOptions(minify=minify))
        assert b"/*! Licence: MIT */" in built.bundle.code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("hono", 'import { Hono } from "hono"; export default new Hono().all((c) => c.text("h"))'),
        ("zod", 'import { z } from "zod"; export default z.object({ a: z.string() })'),
        ("jose", 'import * as jose from "jose"; export default { ...jose }'),
        ("itty-router", 'import { AutoRouter } from "itty-router"; export default AutoRouter()'),
        ("date-fns", 'import { addDays } from "date-fns"; export default addDays(0, 1)'),
    ],
)  # fmt: skip
def test_real_packages_bundle_whole(package: str, source: str, write: Write) -> None:
    """Nothing stays external, each byte has an owner, and no place of this machine shows."""
    folder = write({"fn.ts": source})
    (folder / "node_modules").symlink_to(_PACKAGES)
    for minify in Minify:
        built = _build(folder / "fn.ts", BuildOptions(minify=minify))
        assert built.bundle.metafile is not None
        assert built.bundle.source_map is not None
        weights = dict(by_package(built.bundle.metafile))
        assert set(weights) <= {package, OWN_CODE, GLUE}
        assert weights[package] > weights[OWN_CODE]
        assert sum(weights.values()) == len(built.bundle.code)
        (output,) = (
            value
            for key, value in json.loads(built.bundle.metafile)["outputs"].items()
            if not key.endswith(".map")
        )
        assert output["imports"] == []
        for name in (str(folder), str(_PACKAGES), str(_PACKAGES.parent).strip("/"), "../"):
            places = json.loads(built.bundle.source_map)["sources"]
            inputs = json.loads(built.bundle.metafile)["inputs"]
            assert not [place for place in (*places, *inputs) if name in place]
            assert name == "../" or name.encode() not in built.bundle.metafile
        assert _PACKAGES.resolve() / package in {
            parent for path in built.inputs for parent in path.parents
        }


def test_the_same_files_give_the_same_bytes_anywhere(write: Write, tmp_path: Path) -> None:
    """Code, map and metafile do not depend on where the checkout lies."""
    files: dict[str, str | bytes] = {
        "functions/api/index.ts": 'import c from "../../lib/c.cjs"; import * as l from "../../lib";'
        'import z from "pack"; import * as me from "./index";'
        "export default { fetch: () => [c, l, z, me] }",
        "lib/c.cjs": "/*! legal */ exports.x = 1",
        "lib/index.ts": "export const a = 1; import('./lazy')",
        "lib/lazy.ts": "export const later = 1",
        "node_modules/pack/package.json": '{"main": "i.js"}',
        "node_modules/pack/i.js": "/*! legal too */ module.exports = 1",
    }
    here = write(files)
    elsewhere = tmp_path / "quite" / "another" / "place-π"
    shutil.copytree(here, elsewhere)
    for root in ("", "functions/api"):
        bundles = [
            _build(at / "functions/api/index.ts", BuildOptions(root=at / root)).bundle
            for at in (here, elsewhere)
        ]
        assert bundles[0] == bundles[1]
        for part in (bundles[0].code, bundles[0].source_map, bundles[0].metafile):
            assert part is not None
            assert str(tmp_path).strip("/").encode() not in part


def test_packages_behind_links_are_named_without_the_machine(write: Write, tmp_path: Path) -> None:
    """pnpm's store and linked folders show neither in code, map nor metafile; inputs are real."""
    files: dict[str, str | bytes] = {
        "app/fn.ts": 'import a from "esm"; import b from "cjs"; import l from "./linked/own";'
        "export default [a, b, l]",
        "store/node_modules/esm/package.json": '{"type": "module", "main": "i.js"}',
        "store/node_modules/esm/i.js": "export default 'e'",
        "store/node_modules/cjs/i.js": "/*! legal */ module.exports = 'c'",
        "store/node_modules/cjs/package.json": '{"main": "i.js"}',
    }
    folder = write(files)
    (folder / "app" / "node_modules").symlink_to(folder / "store" / "node_modules")
    (tmp_path / "own.ts").write_text("export default 'o'")
    (folder / "app" / "linked").symlink_to(tmp_path)
    built = _build(folder / "app" / "fn.ts")
    assert built.bundle.metafile is not None
    assert built.bundle.source_map is not None
    esm, cjs = "node_modules/esm/i.js", "node_modules/cjs/i.js"
    code = built.bundle.code.decode()
    assert f"// {esm}\n" in code
    assert f'// {cjs}\nvar require_i = __commonJS({{\n  "{cjs}"(' in code
    assert {esm, cjs} <= set(json.loads(built.bundle.source_map)["sources"])
    assert {esm, cjs} <= set(json.loads(built.bundle.metafile)["inputs"])
    assert b"store" not in built.bundle.code + built.bundle.source_map + built.bundle.metafile
    assert (folder / "store" / esm).resolve() in built.inputs
    assert (tmp_path / "own.ts").resolve() in built.inputs
    sizes = dict(by_package(built.bundle.metafile))
    assert sum(sizes.values()) == len(built.bundle.code)


def test_inputs_are_files_that_exist(write: Write) -> None:
    """Of the metafile only files are watched: no helper, data URL or query; disabled ones too."""
    folder = write({
        "fn.ts": 'import a from "data:application/json,1"; import b from "./t.txt?v=1"; import c '
        'from "pack"; export default { ...a, b, c }',
        "t.txt": "t",
        "node_modules/pack/package.json": '{"main": "i.js", "browser": {"./off.js": false}}',
        "node_modules/pack/i.js": 'module.exports = require("./off.js")',
        "node_modules/pack/off.js": "",
    }).resolve()  # fmt: skip
    assert _build(folder / "fn.ts").inputs == (
        folder / "fn.ts",
        folder / "node_modules/pack/i.js",
        folder / "node_modules/pack/off.js",
        folder / "t.txt",
    )


def test_an_entry_named_like_our_output_is_no_problem(write: Write) -> None:
    """Nothing is written, so nothing can be overwritten."""
    folder = write({"amba-bundle.mjs": "export default 1"})
    assert b"amba_bundle_default" in _build(folder / "amba-bundle.mjs").bundle.code
    assert [path.name for path in folder.iterdir()] == ["amba-bundle.mjs"]


def test_a_running_esbuild_builds_again_after_a_change(write: Write) -> None:
    """One child, many builds: the second one sees what was saved in between (pain 21)."""
    folder = write({"fn.ts": 'import x from "./x"; export default x', "x.ts": "export default 1"})

    async def twice() -> list[bytes]:
        async with Esbuild(find_program()) as esbuild:
            first = await build(folder / "fn.ts", esbuild=esbuild)
            write({"x.ts": "export default 2"})
            second = await build(folder / "fn.ts", esbuild=esbuild)
            return [first.bundle.code, second.bundle.code]

    one, two = asyncio.run(twice())
    assert two == one.replace(b"x_default = 1", b"x_default = 2")


@pytest.mark.parametrize(
    ("line", "used"),
    [
        ('import { Env } from "./_types"', "Env"),
        ('import { Env } from "./_types-that-are-not-there"', "Env"),
        ('import { Context } from "hono"', "Context"),
        ('import { type ZodType } from "zod"', "ZodType"),
        ('import { timeout } from "hono/timeout"', "unknown"),
        ('import { R2Bucket } from "@cloudflare/workers-types"', "R2Bucket"),
        ('import { Env } from "cloudflare:workers"', "Env"),
    ],
)
def test_an_import_for_types_alone_is_none(line: str, used: str, write: Write) -> None:
    """What TypeScript drops is not in the bundle, so it need not resolve (contract B, D.1)."""
    folder = write({
        "fn.ts": f"{line};\nexport default {{ fetch(r: Request, e: {used}) {{ return e }} }};",
        "_types.ts": "export interface Env { A: string }",
    })  # fmt: skip
    (folder / "node_modules").symlink_to(_PACKAGES)
    built = _build(folder / "fn.ts")
    assert b"import" not in built.bundle.code
    assert built.inputs == (folder.resolve() / "fn.ts",)
    assert built.warnings == ()


def test_a_dropped_import_hides_no_import_that_stays(write: Write) -> None:
    """The same name for types in one file, and left over in another, is refused in the other."""
    folder = write({
        "fn.ts": 'import { Env } from "cloudflare:workers"; import { a } from "./z-dynamic";\n'
        'import { b } from "./a-types"; export default { a, b, e: {} as Env }',
        "a-types.ts": 'import { X } from "cloudflare:workers"; export const b = {} as X',
        "z-dynamic.ts": 'export let a; try { a = await import("cloudflare:workers") } catch {}',
    })  # fmt: skip
    (error,) = _fail(folder / "fn.ts").errors
    assert error.message == 'Could not resolve "cloudflare:workers"'
    assert (error.file, error.line) == ("z-dynamic.ts", 1)


# --- what is refused ---


@pytest.mark.parametrize(
    ("line", "message", "fix"),
    [
        ('import "./a.wasm"', 'Cannot import "a.wasm": WebAssembly', "compiles no WebAssembly"),
        ('import w from "./a.wasm?module"; w', 'Cannot import "a.wasm?module": Web', "pure Java"),
        ('import "./p.png"', 'Cannot import "p.png": ".png"', "env.STORAGE"),
        ('import fs from "node:fs"; fs', 'Could not resolve "node:fs"', "Node built-ins are not"),
        ('import "crypto"', 'Could not resolve "crypto"', "the global crypto"),
        ('import "node:sqlite"', 'Could not resolve "node:sqlite"', "nothing replaces sqlite"),
        ('require("node:path")', 'Could not resolve "node:path"', "Node built-ins are not"),
        ('import "cloudflare:workers"', 'Could not resolve "cloudflare:workers"', "env argument"),
        ('import "zodd"', 'Could not resolve "zodd"', "npm install zodd"),
        ('import "@a/b/deep"', 'Could not resolve "@a/b/deep"', "npm install @a/b"),
        ('import "npm:zod@4"', 'Could not resolve "npm:zod@4"', "Only files and npm"),
        ('import "npm:zod"', 'Could not resolve "npm:zod"', 'npm install zod, and import "zod"'),
        ('import "x; rm -rf ~"', 'Could not resolve "x; rm -rf ~"', "paths"),
        ('import "@layers/amba-functions"', "Could not resolve", "unpublished"),
        ('import "pack/no"', 'Could not resolve "pack/no"', "is installed, but has no such file"),
        ('import "strict/no"', 'Could not resolve "strict/no"', 'Import a path that "strict"'),
        ('import "#x"', 'Could not resolve "#x"', "package.json"),
        ('import "@/x"', 'Could not resolve "@/x"', "tsconfig.json"),
        ('import "./nope"', 'Could not resolve "./nope"', "Create the file"),
        ('import "lib"', 'Could not resolve "lib"', 'Did you mean "./lib"?'),
        ('import "https://esm.sh/x"', 'Cannot import "https://esm.sh/x"', "with npm"),
        ('import "//cdn.test/x{0}.js"', 'Cannot import "//cdn.test/x{0}.js"', "with npm"),
        ("await import(String(1))", 'This "import" expression', "as a string"),
        ('import("opt").catch(() => 0)', 'Could not resolve "opt"', "npm install opt"),
        ('try { await import("opt") } catch {}', 'Could not resolve "opt"', "npm install opt"),
        ("const u: = 1", "Unexpected", ""),
        ("const k = 1; k = 2", 'Cannot assign to "k"', ""),
    ],
)
def test_each_refusal_names_place_and_fix(line: str, message: str, fix: str, write: Write) -> None:
    """What cannot run on the platform fails the build, in the user's file (contract B, D.1)."""
    source = f"export default {{}};\n/* ✓ */ {line};\n"
    folder = write({
        "fn.ts": source, "a.wasm": b"\0asm", "p.png": b"\x89PNG", "lib.ts": "",
        "node_modules/pack/package.json": "{}", "node_modules/pack/index.js": "",
        "node_modules/strict/package.json": '{"exports": {".": "./index.js"}}',
    })  # fmt: skip
    error = _fail(folder / "fn.ts").errors[0]
    assert error.message.startswith(message)
    assert fix in error.fix
    assert (error.fix == "") == (fix == "")
    assert (error.file, error.line) == ("fn.ts", 2)
    assert error.source_line == source.splitlines()[1]
    assert error.column == error.caret + 1 > len("/* ✓ */")
    assert "external" not in " ".join(error.notes)


def test_all_errors_come_out(write: Write) -> None:
    """Errors of several files and kinds are told together, with the files to watch (item 2)."""
    folder = write({
        "fn.ts": 'import "./a"; import "./gone"; import("opt").catch(() => 0);\nimport "fs";\n'
        "let n: unknown; typeof n === 'nul'",
        "a.ts": 'import "./c/broken"; import "zodd"; export const k = 1; k = 2',
        "c/broken.ts": "const = 1",
        "package.json": "{}",
    }).resolve()  # fmt: skip
    failed = _fail(folder / "fn.ts")
    found = {(error.file, error.line, error.message) for error in failed.errors}
    assert found == {
        ("fn.ts", 1, 'Could not resolve "./gone"'),
        ("fn.ts", 1, 'Could not resolve "opt"'),
        ("fn.ts", 2, 'Could not resolve "fs"'),
        ("a.ts", 1, 'Could not resolve "zodd"'),
        ("a.ts", 1, 'Cannot assign to "k" because it is a constant'),
        ("c/broken.ts", 1, 'Expected identifier but found "="'),
    }
    assert [warning.message for warning in failed.warnings] == [
        'The "typeof" operator will never evaluate to "nul"'
    ]
    assert {folder / name for name in ("fn.ts", "a.ts", "c/broken.ts")} <= set(failed.inputs)
    assert folder / "gone.ts" in failed.inputs
    assert folder / "gone" / "index.tsx" in failed.inputs
    assert folder / "node_modules/zodd/package.json" in failed.inputs
    assert failed.code == UserCode.BUILD_FAILED
    assert len(failed.details["errors"]) == 6
    json.dumps(failed.details)
    assert failed.message.endswith("(and 5 more)")


def test_a_node_builtin_wanted_by_a_package_names_the_package(write: Write) -> None:
    """The user did not write that import, so the fix is another package."""
    folder = write({
        "fn.ts": 'import "@s/pack"',
        "node_modules/@s/pack/index.js": 'import "fs"',
    })  # fmt: skip
    (error,) = _fail(folder / "fn.ts").errors
    assert error.file == "node_modules/@s/pack/index.js"
    assert 'the package "@s/pack" needs' in error.fix


def test_an_import_at_run_time_in_a_real_package_names_the_way_there(write: Write) -> None:
    """`hono/logger` is refused as in production, with what the user can mend (contract B)."""
    folder = write({
        "fn.ts": 'import { Hono } from "hono"; import { log } from "./log";\n'
        "export default new Hono().use(log)",
        "log.ts": 'import { logger } from "hono/logger"; export const log = logger()',
    })  # fmt: skip
    shutil.copytree(_PACKAGES / "hono", folder / "node_modules/hono")
    failed = _fail(folder / "fn.ts")
    (error,) = failed.errors
    assert error.file == "node_modules/hono/dist/utils/color.js"
    assert 'The package "hono" imports a name known only at run time' in error.fix
    assert 'remove the import of "hono/logger" (log.ts), and use another package' in error.fix
    assert failed.hint == error.fix


def test_an_import_at_run_time_in_a_package_is_told_beside_other_errors(write: Write) -> None:
    """Of many ways there the first are named, and none when the build fails besides."""
    package = "export const a = (n) => import(n); export * from './back.js'"
    files: dict[str, str | bytes] = {
        "fn.ts": "".join(f'import "./{n}";' for n in range(5)),
        **{f"{n}.ts": 'import { a } from "@s/pack"; a(0)' for n in range(5)},
        "node_modules/@s/pack/index.js": package,
        "node_modules/@s/pack/back.js": 'import "./index.js"; export let b = 1',
    }
    folder = write(files)
    (error,) = _fail(folder / "fn.ts").errors
    ways = ", ".join(f'"@s/pack" ({n}.ts)' for n in range(3))
    assert 'package "@s/pack" imports a name known only' in error.fix
    assert f"remove the import of {ways} and 2 more, and use" in error.fix
    write({"4.ts": 'import { a } from "@s/pack"; import "zodd"; a(0)'})
    fixes = {error.message[:20]: error.fix for error in _fail(folder / "fn.ts").errors}
    assert fixes['Could not resolve "z'] == "npm install zodd"
    assert "remove the import that leads there, and use" in fixes['This "import" expres']


def test_an_import_that_stays_without_a_word_is_found(write: Write) -> None:
    """What esbuild leaves in the bundle without a word is seen in the metafile (contract B)."""
    folder = write({"fn.ts": 'import a from "data:text/plain,x"; export default a'})
    (error,) = _fail(folder / "fn.ts").errors
    assert (error.message, error.file) == ('Could not resolve "data:text/plain,x"', "fn.ts")
    assert error.fix == "Put the content into a file, and import that."


def test_a_guarded_require_stays_legal(write: Write) -> None:
    """An optional `require` in a try is no import: it throws at run time, and is warned of."""
    folder = write({"fn.ts": "let o = 0; try { o = require('opt') } catch {} export default { o }"})
    built = _build(folder / "fn.ts")
    assert ["opt" in warning.message for warning in built.warnings] == [True]


def test_hundreds_of_errors_are_counted_not_kept(write: Write) -> None:
    """The list of errors is bounded, and says what it leaves out."""
    folder = write({"fn.ts": "const k = 1;\n" + "k = 2;\n" * 500})
    failed = _fail(folder / "fn.ts")
    assert len(failed.errors) == 201
    assert failed.errors[-1] == BuildError("300 more messages are not shown")


def test_a_very_long_line_is_shown_around_the_place(write: Write) -> None:
    """A megabyte on one line is cut to a window, and the caret still points at the word."""
    folder = write({"fn.ts": "é" * 3 + "; " + " " * 500_000 + 'import "zodd";' + " " * 500_000})
    error = _fail(folder / "fn.ts").errors[0]
    assert len(error.source_line) == 400
    assert error.source_line[error.caret : error.caret + error.caret_length] == '"zodd"'
    assert error.column == 500_000 + 13


# --- the entrypoint itself ---


def _missing(folder: Path) -> Path:
    return folder / "gone.ts"


def _folder(folder: Path) -> Path:
    return folder


def _below_a_file(folder: Path) -> Path:
    return folder / "fn.ts" / "x.ts"


def _nul(folder: Path) -> Path:
    return folder / "a\0b.ts"


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.ts")
    return folder / "pipe.ts"


@pytest.mark.parametrize("make", [_missing, _folder, _below_a_file, _nul, _fifo])
def test_an_entry_that_is_no_file_is_not_found(make: Callable[[Path], Path], write: Write) -> None:
    """Missing, a folder, below a file, no name, a pipe: ENTRY_NOT_FOUND, and watched for."""
    entry = make(write({"fn.ts": "export default 1"}))
    failed = _fail(entry)
    assert failed.code == UserCode.ENTRY_NOT_FOUND
    assert failed.inputs == (entry,)
    assert failed.hint != ""
    assert str(entry) in failed.message


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("fn.ts", b"", "is empty"),
        ("fn.ts", b" \n\t\xef\xbb\xbf"[:3], "is empty"),
        ("fn.ts", b"\xef\xbb\xbf\n", "is empty"),
        ("fn.ts", b"let a\nlet b = '\xff'", "is not UTF-8 (byte 0xff in line 2)"),
        ("fn.ts", "export default 1".encode("utf-16"), "is not UTF-8"),
        ("fn.json", b"{}", 'not a script by its name (".json")'),
        ("fn", b"export default 1", 'not a script by its name ("")'),
    ],
)
def test_an_entry_that_cannot_be_a_function_is_refused(
    name: str, content: bytes, what: str, write: Write
) -> None:
    """Empty, not UTF-8 or of another kind: BUILD_FAILED with the reason and a fix (issue 2)."""
    entry = write({name: content}) / name
    failed = _fail(entry)
    assert failed.code == UserCode.BUILD_FAILED
    assert what in failed.message
    assert failed.hint != ""
    assert failed.inputs == (entry,)


@pytest.mark.parametrize("content", [b"", b"'\xff'"])
def test_a_refused_entry_is_named_as_esbuild_names_files(content: bytes, write: Write) -> None:
    """Relative to the root: two `index.ts` can be told apart, and no machine path is shown."""
    folder = write({"index.ts": "export default 1", "sub/index.ts": content})
    failed = _fail(folder / "sub" / "index.ts", BuildOptions(root=folder))
    assert failed.errors[0].file == "sub/index.ts"
    assert failed.message.startswith("sub/index.ts: is ")
    assert str(folder) not in failed.message
    assert failed.inputs == (folder / "sub" / "index.ts",)


@pytest.mark.parametrize("name", ["sub/missing.ts", "sub/loop.ts", "../outside.ts"])
def test_an_entry_that_is_not_there_is_named_too(name: str, write: Write) -> None:
    """Inside the root by its place in it; outside by what was given."""
    folder = write({"root/sub/fn.ts": "export default 1"}) / "root"
    (folder / "sub" / "loop.ts").symlink_to(folder / "sub" / "loop.ts")
    (error,) = _fail(folder / name, BuildOptions(root=folder)).errors
    assert error.file == (name if name.startswith("sub/") else "outside.ts")


def test_an_entry_that_cannot_be_opened_says_why(write: Write) -> None:
    """A circle of links is told in the system's words."""
    folder = write({"fn.ts": ""})
    (folder / "loop.ts").symlink_to(folder / "loop.ts")
    assert (
        "cannot be opened: Too many levels of symbolic links" in _fail(folder / "loop.ts").message
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_entry_that_may_not_be_read_says_so(write: Write) -> None:
    """A file without permission is told in the system's words."""
    folder = write({"fn.ts": "export default 1"})
    (folder / "fn.ts").chmod(0)
    assert "cannot be read: Permission denied" in _fail(folder / "fn.ts").message


def test_an_entry_that_is_a_link_is_followed(write: Write) -> None:
    """The file behind the link is built, beside its own imports."""
    folder = write(
        {"real/fn.ts": 'import x from "./x"; export default x', "real/x.ts": "export default 3"}
    )
    (folder / "fn.ts").symlink_to(folder / "real" / "fn.ts")
    assert b"= 3" in _build(folder / "fn.ts").bundle.code


def test_options_are_values() -> None:
    """Two equal sets of options are equal, and none can be changed in place."""
    options: Any = BuildOptions()
    assert options == replace(options, minify=Minify.OFF)
    with pytest.raises(AttributeError):
        options.minify = Minify.ON


# --- traps ---


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
def test_an_imported_pipe_is_named_and_holds_nothing_up(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that nobody writes to is no hang, and the message says which file it is (C9)."""
    monkeypatch.setattr(limits, "ESBUILD_BUILD_S", limits.Deadline(0.5, "a test", "ours"))
    folder = write({"fn.ts": "import x from './pipe.js'; export default x"})
    os.mkfifo(folder / "pipe.js")
    error = _fail(folder / "fn.ts", BuildOptions(root=folder)).errors[0]
    assert "pipe.js is not a regular file" in error.message
    assert error.file == "fn.ts"
    assert folder.resolve() / "pipe.js" in _fail(folder / "fn.ts").inputs


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
def test_an_imported_device_ends_with_its_name(write: Write) -> None:
    """A file without an end is not read into memory without an end (C9)."""

    async def one() -> BuildFailed:
        async with Esbuild(memory_max=2048 * limits.MIB) as esbuild:
            with pytest.raises(BuildFailed) as caught:
                await build(folder / "fn.ts", BuildOptions(root=folder), esbuild=esbuild)
            return caught.value

    folder = write({"fn.ts": "import x from '/dev/zero'; export default x"})
    assert "/dev/zero is not a regular file" in asyncio.run(one()).errors[0].message


@pytest.mark.parametrize(("extra", "refused"), [(0, False), (1, True)])
def test_a_huge_entry_is_not_read(
    write: Write, monkeypatch: pytest.MonkeyPatch, extra: int, refused: bool
) -> None:
    """At the limit it is built, a byte more is refused by name before it is read (C9)."""
    most = 200
    monkeypatch.setattr(limits, "SOURCE_FILE", limits.Limit(most, "bytes", "a test", "ours"))
    code = "export default 1;"
    folder = write({"fn.ts": code + " " * (most - len(code) + extra)})
    if refused:
        assert "fn.ts: is larger than" in _fail(folder / "fn.ts").errors[0].message
    else:
        assert b"export" in _build(folder / "fn.ts").bundle.code
