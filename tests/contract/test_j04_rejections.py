"""Contract J, check 4: what production rejects, `check` and the upload API reject.

The upload answers DEPLOY_REJECTED with `upstream_status` 400 and the reasons (see `judges`).
"""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.contract.test_bundles import judges

from amba_runtime import limits

CASES = {
    "EXTERNAL_IMPORT": b'import { z } from "zod";\nexport default { fetch() { return z } };\n',
    "DEFAULT_EXPORT_FUNCTION": b"export default async function (request) {}\n",
    "BUNDLE_TOO_LARGE": b"export default { fetch() {} }; // "
    + random.Random(4).randbytes(limits.BUNDLE_GZIP.value).hex().encode(),
}


@pytest.mark.slow
@pytest.mark.parametrize("judge", [name for name, _ in judges()])
def test_what_production_rejects_is_rejected(judge: str) -> None:
    """External import, function default export, over 8 MiB at gzip (contract J 4, B, D.3)."""

    async def main() -> dict[str, list[str]]:
        async with dict(judges())[judge]() as one:
            return {
                code: [told for told, _, _ in await one(bundle, None)]
                for code, bundle in CASES.items()
            }

    assert asyncio.run(main()) == {code: [code] for code in CASES}
