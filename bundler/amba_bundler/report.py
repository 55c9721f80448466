"""What weighs what: a metafile read as a table of packages."""

from __future__ import annotations

import json
from typing import Any

from .messages import package_of

OWN_CODE = "(your code)"
GLUE = "(bundler)"
"""What esbuild itself adds: helpers, comments with paths, wrappers."""


def by_package(metafile: bytes) -> list[tuple[str, int]]:
    """Bytes of the bundle that each package is to blame for, before compression.

    Args:
        metafile: as in `Bundle.metafile`.

    Returns:
        Pairs of package name (or `OWN_CODE`, or `GLUE`) and bytes, heaviest first, then by name.
        The bytes add up to the size of the bundle.
    """
    outputs: dict[str, Any] = json.loads(metafile)["outputs"]
    bytes_by: dict[str, int] = {}
    for path, output in outputs.items():
        if path.endswith(".map"):
            continue
        inputs: dict[str, dict[str, int]] = output["inputs"]
        rest = int(output["bytes"])
        for source, part in inputs.items():
            weight = part["bytesInOutput"]
            rest -= weight
            name = GLUE if source.startswith("<") else package_of(source) or OWN_CODE
            bytes_by[name] = bytes_by.get(name, 0) + weight
        bytes_by[GLUE] = bytes_by.get(GLUE, 0) + rest
    kept = [(name, weight) for name, weight in bytes_by.items() if weight]
    return sorted(kept, key=lambda pair: (-pair[1], pair[0]))
