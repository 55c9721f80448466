"""A guest's stack in terms of the user's files, where there is a map that can be read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from amba_bundler.build import build
from amba_run.stacks import mapped_stack, stack_in_sources
from amba_runtime.manifest import Bundle

STACK = "Error: x\n    at fetch (fn.mjs:3:11)\n    at callFetch (shim.mjs:60:18)"


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
