"""The wire form of R2, as an engine that cannot be trusted might speak it."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import pytest

from amba_router.services.storage.service import StorageService
from amba_runtime import limits, wire
from amba_runtime.clock import ManualClock
from amba_runtime.manifest import ProjectId

P = ProjectId("p-1")
Answer = tuple[int, dict[str, str], bytes]


class Engine:
    """One connection per request to the socket that workerd would use."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def send(self, head: str, body: bytes = b"", *, cut: bool = False) -> Answer:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            writer.write(head.encode() + b"host: x\r\n\r\n" + body)
            if cut:
                return 0, {}, b""
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:])
            try:
                rest = await reader.readexactly(int(headers["content-length"]))
            except asyncio.IncompleteReadError as short:
                rest = short.partial
            return int(lines[0].split(" ")[1]), headers, rest
        finally:
            writer.close()

    async def get(self, asked: Any) -> Answer:
        text = asked if isinstance(asked, str) else json.dumps(asked)
        return await self.send(f"GET / HTTP/1.1\r\ncf-r2-request: {text}\r\n")

    async def put(self, asked: Any, value: bytes = b"") -> Answer:
        head = json.dumps(asked).encode()
        return await self.send(
            f"PUT / HTTP/1.1\r\ncf-r2-metadata-size: {len(head)}\r\n"
            f"content-length: {len(head) + len(value)}\r\n",
            head + value,
        )


def code(answer: Answer) -> tuple[int, int]:
    return answer[0], json.loads(answer[1]["cf-r2-error"])["v4code"]


def run(state: Path, work: Any) -> None:
    async def main() -> None:
        service = StorageService(state, ManualClock())
        with tempfile.TemporaryDirectory(prefix="amba-r2-") as folder:
            server = wire.Server(Path(folder) / "s", service.bucket(P), name="storage")
            await server.open()
            try:
                await work(Engine(server.path), service)
            finally:
                await server.close()
                await service.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "no json",
        "[1]",
        "{}",
        {"method": "put"},
        {"method": "destroy", "object": "k"},
        {"method": "head"},
        {"method": "head", "object": 5},
        {"method": "get", "object": "k", "range": "all"},
        {"method": "get", "object": "k", "range": {"offset": "-1"}},
        {"method": "get", "object": "k", "range": {"offset": True}},
        {"method": "get", "object": "k", "range": {"offset": "9" * 30}},
        {"method": "get", "object": "k", "onlyIf": []},
        {"method": "get", "object": "k", "onlyIf": {"etagMatches": [{"type": "odd"}]}},
        {"method": "get", "object": "k", "onlyIf": {"etagMatches": "x"}},
        {"method": "get", "object": "k", "ssec": {"key": "00"}},
        {"method": "list", "limit": 1.5},
        {"method": "list", "include": 1},
        {"method": "list", "cursor": "AAAA"},
    ],
)
def test_a_read_that_makes_no_sense_is_refused(tmp_path: Path, asked: Any) -> None:
    """Whatever a guest makes of the wire: R2's 10029, never a broken server."""

    async def work(engine: Engine, _service: StorageService) -> None:
        assert code(await engine.get(asked)) == (400, 10029)

    run(tmp_path, work)


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "get", "object": "k"},
        {"method": "put"},
        {"method": "put", "object": "k", "md5": "not base64!"},
        {"method": "put", "object": "k", "sha1": "zz"},
        {"method": "put", "object": "k", "httpFields": {"contentType": 1}},
        {"method": "put", "object": "k", "customFields": [{"k": "a"}]},
        {"method": "put", "object": "k", "customFields": ["a"]},
        {"method": "uploadPart", "object": "k"},
        {"method": "destroy", "object": "k", "uploadId": "u"},
        {"method": "delete", "objects": "k"},
        {"method": "delete", "objects": [1]},
    ],
)
def test_a_write_that_makes_no_sense_is_refused(tmp_path: Path, asked: Any) -> None:
    """The same for writes; a body of any size is taken first, as workerd needs it."""

    async def work(engine: Engine, service: StorageService) -> None:
        assert code(await engine.put(asked, b"x" * 600_000)) == (400, 10029)
        assert (await service.list(P)).entries == ()

    run(tmp_path, work)


def test_a_body_without_its_json_is_refused(tmp_path: Path) -> None:
    """A missing, odd, too large or unkept metadata size."""

    async def work(engine: Engine, _service: StorageService) -> None:
        huge = limits.STORAGE_REQUEST_JSON.value + 1
        for size in ("", "cf-r2-metadata-size: x\r\n", f"cf-r2-metadata-size: {huge}\r\n"):
            answer = await engine.send(f"PUT / HTTP/1.1\r\n{size}content-length: 2\r\n", b"{}")
            assert code(answer) == (400, 10029)
        answer = await engine.send(
            "PUT / HTTP/1.1\r\ncf-r2-metadata-size: 9\r\ncontent-length: 2\r\n", b"{}"
        )
        assert code(answer) == (400, 10029)

    run(tmp_path, work)


def test_a_connection_that_breaks_off_stores_nothing(tmp_path: Path) -> None:
    """A truncated upload stores nothing (H7)."""

    async def work(engine: Engine, service: StorageService) -> None:
        head = json.dumps({"method": "put", "object": "k"}).encode()
        await engine.send(
            f"PUT / HTTP/1.1\r\ncf-r2-metadata-size: {len(head)}\r\n"
            f"content-length: {len(head) + 100}\r\n",
            head + b"half",
            cut=True,
        )
        assert code(await engine.get({"method": "head", "object": "k"})) == (404, 10007)
        assert (await service.list(P)).entries == ()

    run(tmp_path, work)


def test_a_large_object_comes_in_pieces(tmp_path: Path) -> None:
    """JSON first, then the value, with one length for both; chunked uploads are taken too."""
    value = bytes(range(256)) * 4000

    async def work(engine: Engine, _service: StorageService) -> None:
        head = json.dumps({"method": "put", "object": "k"}).encode()
        pieces = [head[:5], head[5:] + value[:10], value[10:]]
        body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
        status, _, _ = await engine.send(
            f"PUT / HTTP/1.1\r\ncf-r2-metadata-size: {len(head)}\r\ntransfer-encoding: chunked\r\n",
            body,
        )
        assert status == 200
        status, headers, body = await engine.get({"method": "get", "object": "k"})
        size = int(headers["cf-r2-metadata-size"])
        assert (status, int(headers["content-length"])) == (200, len(body))
        assert json.loads(body[:size])["range"] == {"offset": 0, "length": len(value)}
        assert body[size:] == value

    run(tmp_path, work)


def test_damage_past_the_first_chunk_cuts_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rotted bytes never look like a good answer: the length is not reached (I8)."""

    async def work(engine: Engine, _service: StorageService) -> None:
        await engine.put({"method": "put", "object": "k"}, b"x" * 600_000)
        (file,) = (tmp_path / "blobs").glob("??/*")
        file.write_bytes(b"x" * 599_999 + b"y")
        with caplog.at_level(logging.CRITICAL):
            _, headers, body = await engine.get({"method": "get", "object": "k"})
        assert len(body) < int(headers["content-length"])

    run(tmp_path, work)


def test_trouble_of_ours_is_an_internal_error_to_the_guest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused state folder: 10001 to the function, the reason to the log."""
    (tmp_path / "amba.db").write_bytes(b"no database" * 1000)

    async def work(engine: Engine, _service: StorageService) -> None:
        answer = await engine.get({"method": "head", "object": "k"})
        assert code(answer) == (500, 10001)
        assert "file is not a database" in caplog.text
        assert "Traceback" not in caplog.text

    run(tmp_path, work)


def test_a_refusal_says_what_workerd_reads(tmp_path: Path) -> None:
    """The failed precondition carries the object, without its bytes."""

    async def work(engine: Engine, _service: StorageService) -> None:
        await engine.put({"method": "put", "object": "k"}, b"value")
        onlyif = {"etagMatches": [{"type": "strong", "value": "no"}]}
        status, headers, body = await engine.get({"method": "get", "object": "k", "onlyIf": onlyif})
        assert status == 412
        assert json.loads(headers["cf-r2-error"]) == {
            "version": 1,
            "v4code": 10031,
            "message": "At least one of the pre-conditions you specified did not hold.",
        }
        assert len(body) == int(headers["cf-r2-metadata-size"])
        assert json.loads(body)["name"] == "k"

    run(tmp_path, work)


def test_numbers_before_1970_are_negative(tmp_path: Path) -> None:
    """A signed time in an unsigned member, as workerd writes dates before the epoch."""

    async def work(engine: Engine, service: StorageService) -> None:
        fields = {"cacheExpiry": str((1 << 64) - 1000)}
        await engine.put({"method": "put", "object": "k", "httpFields": fields})
        assert (await service.head(P, "k")).metadata.http == {"cacheExpiry": -1000}

    run(tmp_path, work)


def test_an_oversized_body_is_not_taken_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the largest value the connection closes instead of swallowing more."""
    monkeypatch.setattr(limits, "STORAGE_VALUE", limits.Limit(10, "bytes", "one put", "test"))

    async def work(engine: Engine, service: StorageService) -> None:
        assert code(await engine.put({"method": "put", "object": "k"}, b"x" * 50)) == (400, 100100)
        assert (await service.list(P)).entries == ()

    run(tmp_path, work)
