"""A guest's stack in terms of the user's files, where there is a map that can be read."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest

from amba_bundler.build import build
from amba_run.report import TerminalReporter, log_json
from amba_run.stacks import mapped_stack, stack_in_sources
from amba_runtime.clock import ManualClock
from amba_runtime.engine.fake import FakeEngine
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import LogLine, Tell
from amba_runtime.pool import Slot
from amba_runtime.wire import Request, Response

STACK = "Error: x\n    at fetch (fn.mjs:3:11)\n    at callFetch (shim\ufffd.mjs:60:18)"


@pytest.mark.parametrize("source_map", [None, b"", b"no map", b"[]", b'{"version": 2}'])
def test_without_a_map_the_stack_stays(source_map: bytes | None) -> None:
    """A bundle that has none, or a broken one, still shows its stack."""
    bundle = Bundle.of(b"export default {}", source_map=source_map)
    assert "fn.mjs:3:11" in stack_in_sources(bundle, STACK)
    assert stack_in_sources(bundle, "") == ""
    assert mapped_stack(None, STACK) == STACK


def test_with_a_map_it_names_the_source(tmp_path: Path) -> None:
    """File, line and column of the TypeScript; the shim's own frames go."""
    entry = tmp_path / "thrower.ts"
    entry.write_text(
        "interface Unused { a: 1 }\n\nexport default {\n  fetch(): never {\n"
        "    throw new Error('x');\n  },\n};\n"
    )
    bundle = asyncio.run(build(entry)).bundle
    line = next(
        n for n, text in enumerate(bundle.code.decode().split("\n"), 1) if "throw new" in text
    )
    stack = STACK.replace("3:11", f"{line}:11")
    mapped = stack_in_sources(bundle, stack)
    assert "thrower.ts:5:11" in mapped
    assert "shim.mjs" not in mapped


def test_stacks_that_were_logged_are_mapped_too(tmp_path: Path) -> None:
    """`console.error(error)`, Hono's way, names the source in JSON lines and in blocks."""
    entry = tmp_path / "logger.ts"
    entry.write_text("export default {\n  fetch(): never {\n    throw new Error('x');\n  },\n};\n")
    bundle = asyncio.run(build(entry)).bundle
    line = next(
        n for n, text in enumerate(bundle.code.decode().split("\n"), 1) if "throw new" in text
    )
    stack = STACK.replace("3:11", f"{line}:11")
    long = stack + "\nrow" * 300
    slot = a_slot(bundle)
    given = LogLine("error", [stack, 1, "plain", {"s": stack}, long], 5)
    first, *others = log_json(slot, given)["Message"]
    assert first == "Error: x\n    at fetch (" + first.split("(")[1]
    assert "logger.ts:3:11" in first
    assert others == [1, "plain", {"s": stack}, long]
    text = io.StringIO()
    say = TerminalReporter(text, colour=False)
    say.late(slot, "r-1", Tell([LogLine("error", [stack], 5)]))
    say.close()
    assert "logger.ts:3:11" in text.getvalue()
    assert "shim.mjs" not in text.getvalue()


def a_slot(bundle: Bundle) -> Slot:
    """A version that was never started."""

    async def nowhere(request: Request) -> Response:
        return Response(403)

    async def make() -> Slot:
        return Slot(
            FakeEngine({}),
            Manifest(ProjectId("p"), FunctionName("f"), 1, (), False),
            bundle,
            limits_=FunctionLimits.dev(),
            egress=nowhere,
            storage=None,
            late=lambda slot, label, tell: None,
            clock=ManualClock(),
        )

    return asyncio.run(make())
