"""SIGKILL at any moment: what was acknowledged is there, whole; nothing else is left over."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from amba_router.services.storage.service import StorageService
from amba_router.store.records import StoredObject
from amba_runtime.clock import SystemClock
from amba_runtime.manifest import ProjectId

P = ProjectId("p-1")

WRITER = """
import asyncio, sys
from pathlib import Path
from amba_router.services.storage.service import StorageService
from amba_runtime.clock import SystemClock

async def body(data):
    for at in range(0, len(data), 100_000):
        yield data[at : at + 100_000]

async def main():
    service = StorageService(Path(sys.argv[1]), SystemClock())
    async def one(n):
        while True:
            for turn in range(1000):
                size = 400_000 if n == 0 else 1000
                await service.put("p-1", f"k{n}", body(b"%d.%d|" % (n, turn) * (size // 8)))
                print(n, turn, flush=True)
    await asyncio.gather(*(one(n) for n in range(4)))

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("acknowledged", [1, 17, 60])
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, acknowledged: int) -> None:
    """After SIGKILL each key has its last acknowledged value or a later whole one (I1, H7)."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    last: dict[int, int] = {}
    with process:
        for _ in range(acknowledged):
            n, turn = map(int, process.stdout.readline().split())
            last[n] = turn
        process.kill()
        for line in process.stdout:  # said before it died
            if line.endswith("\n"):
                n, turn = map(int, line.split())
                last[n] = turn

    async def main() -> None:
        service = StorageService(tmp_path, SystemClock())
        entries = (await service.list(P)).entries
        for n, turn in last.items():
            read = await service.get(P, f"k{n}")
            value = b"".join([data async for data in read.body])
            await read.body.aclose()
            unit = value.split(b"|")[0] + b"|"
            assert value == unit * (len(value) // len(unit))
            assert int(unit[:-1].split(b".")[1]) >= turn
        assert list((tmp_path / "blobs" / "incoming").iterdir()) == []
        kept = {e.key for e in entries if isinstance(e, StoredObject)}
        assert len(list((tmp_path / "blobs").glob("??/*"))) == len(kept)
        await service.close()

    asyncio.run(main())
