"""What weighs what (peers.md, pain 16): every byte of a bundle has an owner."""

from __future__ import annotations

import json
from typing import Any

from amba_bundler.report import GLUE, OWN_CODE, by_package


def test_bytes_are_summed_by_package() -> None:
    """Heaviest first, then by name; the map is no part of it; the rest is the bundler's."""
    metafile: dict[str, Any] = {
        "outputs": {
            "o.mjs.map": {"bytes": 9999, "inputs": {}},
            "o.mjs": {
                "bytes": 100,
                "inputs": {
                    "node_modules/zod/a.js": {"bytesInOutput": 20},
                    "../node_modules/zod/b.js": {"bytesInOutput": 10},
                    "node_modules/@s/p/i.js": {"bytesInOutput": 30},
                    "node_modules/gone/i.js": {"bytesInOutput": 0},
                    "fn.ts": {"bytesInOutput": 5},
                    "lib/x.ts": {"bytesInOutput": 6},
                    "<define:x>": {"bytesInOutput": 4},
                },
            },
        }
    }
    assert by_package(json.dumps(metafile).encode()) == [
        ("@s/p", 30),
        ("zod", 30),
        (GLUE, 29),
        (OWN_CODE, 11),
    ]
