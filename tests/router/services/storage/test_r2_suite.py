"""STORAGE from inside a function, on the real engine: tests/guests/storage-suite."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import quote

import pytest

import amba_runtime
from amba_router.services.storage.service import StorageService
from amba_runtime import wire
from amba_runtime.clock import SystemClock
from amba_runtime.manifest import ProjectId

SUITE = Path(__file__).parents[3] / "guests" / "storage-suite" / "index.js"
WORKERD = Path(amba_runtime.__file__).parent / "native" / "workerd"
CASES_MIN = 70

CONFIG = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "fn", worker = (
      modules = [(name = "index.js", esModule = embed "index.js")],
      compatibilityDate = "2026-01-01",
      bindings = [(name = "STORAGE", r2Bucket = "storage")])),
    (name = "storage", external = (address = "unix:STORAGE_SOCKET", http = ())),
  ],
  sockets = [(name = "http", service = "fn")]
);
"""


@contextlib.asynccontextmanager
async def serving(service: StorageService, folder: Path) -> AsyncGenerator[Path]:
    """The suite on workerd, its STORAGE answered by `service`."""
    socket, storage = folder / "h.sock", folder / "r2.sock"
    shutil.copy(SUITE, folder / "index.js")
    config = folder / "c.capnp"
    config.write_text(CONFIG.replace("STORAGE_SOCKET", str(storage)))
    server = wire.Server(storage, service.bucket(ProjectId("p-1")), name="storage")
    await server.open()
    process = await asyncio.create_subprocess_exec(
        str(WORKERD), "serve", "--experimental", str(config), f"--socket-addr=http=unix:{socket}"
    )
    try:
        await until_it_listens(socket)
        yield socket
    finally:
        process.kill()
        await process.wait()
        await server.close()


async def get(socket: Path, target: str) -> bytes:
    """The body of one answer; every answer of the suite has a length."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(f"GET {target} HTTP/1.1\r\nhost: fn\r\nconnection: close\r\n\r\n".encode())
    try:
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    assert head.startswith(b"HTTP/1.1 200"), head
    return body


async def until_it_listens(socket: Path) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await get(socket, "/cases")
                return
            except OSError:
                await asyncio.sleep(0.005)


@pytest.mark.slow
def test_a_function_can_do_all_that_r2_lets_it(tmp_path: Path) -> None:
    """Every case of the suite passes on workerd (contract C, E.7, H-30, J.11)."""

    async def main() -> None:
        service = StorageService(tmp_path, SystemClock())
        with tempfile.TemporaryDirectory(prefix="amba-r2-") as folder:
            async with serving(service, Path(folder)) as function:
                cases = json.loads(await get(function, "/cases"))
                assert len(cases) >= CASES_MIN
                failed = {
                    case: outcome["detail"]
                    for case in cases
                    if not (outcome := json.loads(await get(function, f"/run?case={quote(case)}")))[
                        "ok"
                    ]
                }
        await service.close()
        assert failed == {}
        assert list((tmp_path / "blobs" / "incoming").iterdir()) == []

    asyncio.run(main())
