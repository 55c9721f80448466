"""The corpus: every bundle, good and bad, gets the verdict that its table says, from every judge.

Issue 3, must-show 1; contract B (rejections). A judge is whatever says what is wrong with a
bundle: `check` here, the upload API beside it (see `judges`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import tomllib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.contract.hosted import make_shop
from tests.drills.nodes import NodeProcess

from amba_bundler.build import BuildOptions, Minify, build
from amba_bundler.esbuild import Esbuild
from amba_bundler.scan import EsbuildScan
from amba_run.judge import Judge
from amba_runtime import limits
from amba_runtime.engine.workerd.engine import WorkerdEngine, find_workerd
from amba_runtime.limits import FunctionLimits
from amba_runtime.violations import Rejected

BUNDLES = Path(__file__).parent / "bundles"
FIXTURES = Path(__file__).parents[2] / "fixtures"
AT_ONCE = 3

Told = tuple[str, str, int]
"""Code, file and line of one violation; the file is "" where no source map leads to one."""

JudgeOne = Callable[[bytes, bytes | None], Awaitable[list[Told]]]
"""Takes a bundle and its source map; gives all violations, [] for a bundle that passes."""

BUNDLE_NAME = "bundle.js"
"""A judge may name a bundle without a map so; it counts as "" here."""


@contextlib.asynccontextmanager
async def _check() -> AsyncGenerator[JudgeOne]:
    """What `amba-run check --no-bundle` runs."""
    from amba_runtime.manifest import Bundle

    engine = WorkerdEngine(program=find_workerd())
    async with Esbuild(memory_max=limits.SCAN_MEMORY.value) as esbuild:
        judge = Judge(EsbuildScan(esbuild), engine)

        async def one(code: bytes, source_map: bytes | None) -> list[Told]:
            try:
                await judge.judge(
                    Bundle.of(code, source_map=source_map),
                    name="bundle",
                    limits_=FunctionLimits.hosted(),
                )
            except Rejected as rejected:
                return [(v.code, v.file, v.line) for v in rejected.violations]
            return []

        try:
            yield one
        finally:
            await engine.close()


@contextlib.asynccontextmanager
async def _upload() -> AsyncGenerator[JudgeOne]:
    """The upload API of a node, over the wire form of the real command line."""
    with tempfile.TemporaryDirectory() as folder, NodeProcess(Path(folder) / "state") as node:
        shop = await asyncio.to_thread(make_shop, node, "corpus")

        async def one(code: bytes, source_map: bytes | None) -> list[Told]:
            told = await asyncio.to_thread(shop.upload, "bundle", code)
            if told.status == 201:
                return []
            if told.said == (413, "PAYLOAD_TOO_LARGE"):
                # the request as a whole is over its cap: its bundle is not even read (D.3)
                return [("BUNDLE_TOO_LARGE", "", 0)]
            assert told.said == (400, "DEPLOY_REJECTED"), told.body
            details = told.body["error"]["details"]
            assert details["upstream_status"] == 400
            return [(v["code"], v["file"], v["line"]) for v in details["violations"]]

        yield one


def judges() -> Iterator[tuple[str, Callable[[], AbstractAsyncContextManager[JudgeOne]]]]:
    """Every judge by name, opened for as long as bundles are handed to it."""
    yield "check", _check
    yield "upload", _upload


def table() -> dict[str, dict[str, Any]]:
    """File name and what is expected of it."""
    return tomllib.loads((BUNDLES / "expected.toml").read_text("utf-8"))


def made() -> Iterator[tuple[str, bytes, list[Told]]]:
    """Bundles that are too large to be kept, with what is expected of them."""
    noise = random.Random(1).randbytes(limits.BUNDLE_GZIP.value)
    # 6 bits a character: packed, it has as many bytes as the noise it was made of
    wide = bytes(
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[b % 64] for b in noise
    )
    over = b'const data = "%s";\nexport default { fetch() { return new Response(data); } };\n' % (
        wide + wide[: len(wide) // 2]
    )
    yield "just over 8 MiB packed", over, [("BUNDLE_TOO_LARGE", "", 0)]
    yield "65 MiB of blanks", b" " * (65 << 20), [("BUNDLE_TOO_LARGE", "", 0)]
    yield "nested too deeply", b"(" * 1_000_000, [("BUNDLE_TOO_COMPLEX", "", 0)]
    imports = b"".join(b'import "a%d";' % i for i in range(1000))
    yield "a thousand imports", imports, [("BUNDLE_TOO_COMPLEX", "", 0)]
    wide_line = b'export default { fetch() {} }; "%s";' % (b"a" * 3_000_000)
    yield "one line of 3 MB", wide_line, []


async def fixtures() -> list[tuple[str, bytes, bytes | None]]:
    """What esbuild makes of real functions, as it is uploaded: small ones, hono, zod and jose."""
    found: list[tuple[str, bytes, bytes | None]] = []
    async with Esbuild() as esbuild:
        for folder in sorted(path for path in FIXTURES.iterdir() if path.is_dir()):
            for entry in folder.glob("index.[jt]s"):
                for minify in Minify:
                    options = BuildOptions(root=FIXTURES, minify=minify)
                    bundle = (await build(entry, options, esbuild=esbuild)).bundle
                    name = f"{folder.name}, minify {minify}"
                    found.append((name, bundle.code, bundle.source_map))
    return found


async def _judge_all() -> dict[str, dict[str, list[Told]]]:
    bundles: list[tuple[str, bytes, bytes | None]] = [
        (name, (BUNDLES / name).read_bytes(), None) for name in table()
    ]
    bundles += [(name, code, None) for name, code, _ in made()]
    bundles += await fixtures()
    turns = asyncio.Semaphore(AT_ONCE)
    verdicts: dict[str, dict[str, list[Told]]] = {}
    for judge, opened in judges():
        async with opened() as one:

            async def ask(code: bytes, source_map: bytes | None, one: JudgeOne = one) -> list[Told]:
                async with turns:
                    return [
                        (told, "" if file == BUNDLE_NAME else file, line)
                        for told, file, line in await one(code, source_map)
                    ]

            answers = await asyncio.gather(*[ask(code, map_) for _, code, map_ in bundles])
            verdicts[judge] = dict(zip([name for name, _, _ in bundles], answers, strict=True))
    return verdicts


@pytest.fixture(scope="module")
def verdicts() -> Mapping[str, Mapping[str, list[Told]]]:
    """Judge, bundle and what it was told; every bundle is judged once by each."""
    return asyncio.run(_judge_all())


JUDGES = [name for name, _ in judges()]


@pytest.mark.slow
@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("name", sorted(table()))
def test_each_bundle_gets_its_verdict(
    verdicts: Mapping[str, Mapping[str, list[Told]]], judge: str, name: str
) -> None:
    """Codes and lines, all of them and no other (contract B; issue 3, must-show 1)."""
    expected = [(code, "", line) for code, line, _ in table()[name].get("violations", ())]
    assert sorted(verdicts[judge][name]) == sorted(expected)


@pytest.mark.slow
@pytest.mark.parametrize("judge", JUDGES)
def test_bundles_that_are_no_files_get_theirs(
    verdicts: Mapping[str, Mapping[str, list[Told]]], judge: str
) -> None:
    """Over-size and parser bombs, which are made here (contract D.1; reliability.md D6)."""
    expected = {name: told for name, _, told in made()}
    assert {name: verdicts[judge][name] for name in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize("judge", JUDGES)
def test_real_functions_pass(verdicts: Mapping[str, Mapping[str, list[Told]]], judge: str) -> None:
    """Every fixture, minified and not; hono, zod and jose among them (reliability.md D1)."""
    built = {name: told for name, told in verdicts[judge].items() if ", minify " in name}
    assert len(built) >= 20
    assert not {name: told for name, told in built.items() if told}


def test_the_corpus_is_whole() -> None:
    """Each file has its row, each row its file; there are enough of both kinds."""
    rows = table()
    assert {path.name for path in BUNDLES.glob("*.mjs")} == set(rows)
    bad = [row for row in rows.values() if row.get("violations")]
    good = [row for row in rows.values() if row.get("handlers")]
    assert len(good) + len(bad) == len(rows)
    assert len(good) >= 30
    assert len(bad) >= 60


@pytest.mark.slow
def test_columns_and_handlers_are_those_of_the_table() -> None:
    """`check` tells each place to the UTF-16 unit, and the handlers of what passes."""
    from amba_runtime.manifest import Bundle

    async def main() -> dict[str, object]:
        engine = WorkerdEngine(program=find_workerd())
        found: dict[str, object] = {}
        async with Esbuild(memory_max=limits.SCAN_MEMORY.value) as esbuild:
            judge = Judge(EsbuildScan(esbuild), engine)
            turns = asyncio.Semaphore(AT_ONCE)

            async def one(name: str) -> None:
                bundle = Bundle.of((BUNDLES / name).read_bytes())
                async with turns:
                    try:
                        trial = await judge.judge(
                            bundle, name="bundle", limits_=FunctionLimits.hosted()
                        )
                    except Rejected as rejected:
                        found[name] = [[v.code, v.line, v.column] for v in rejected.violations]
                    else:
                        assert trial is not None
                        found[name] = list(trial.description.handlers)

            try:
                await asyncio.gather(*[one(name) for name in table() if "loop" not in name])
            finally:
                await engine.close()
        return found

    expected = {
        name: row.get("violations") or row["handlers"]
        for name, row in table().items()
        if "loop" not in name
    }
    assert asyncio.run(main()) == expected
