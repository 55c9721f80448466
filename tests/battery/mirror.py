"""A server with a function that says what it sees, and what became of bytes sent to it.

The oracle of reliability.md 3.A: refused and closed, or exactly the calls that `reference` reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from tests.battery import reference
from tests.run.serving import Dev, Server

GUESTS = Path(__file__).parents[1] / "guests"
_IDS = ("project-id", "user-id", "developer-id", "function-name", "request-id")
_SIGNED = ("timestamp", "signature", "edge-timestamp", "edge-signature")
NINE: frozenset[str] = frozenset(f"x-amba-{name}" for name in (*_IDS, *_SIGNED))
OURS = NINE | {"host", "cf-connecting-ip"}
REFUSALS = frozenset((400, 404, 408, 413, 414, 417, 421, 431, 501, 505))
PATIENCE_S = 20.0


class Wrong(AssertionError):
    """The front and the reference understood some bytes differently."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `fields` in lower case, in their order."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def call(self) -> dict[str, Any] | None:
        """What the function saw, or None when none was called."""
        if self.status != 200 or b'"mirror":true' not in self.body:
            return None
        call: dict[str, Any] = json.loads(self.body)
        return call


def answers(data: bytes, methods: Iterable[str] = ()) -> tuple[list[Answer], bool]:
    """Every whole answer in a stream, strictly read; and whether the last one broke off."""
    out: list[Answer] = []
    asked = list(methods)
    while data:
        head, mark, rest = data.partition(b"\r\n\r\n")
        if not mark:
            return out, True
        first, *lines = head.split(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.1 ([1-9][0-9]{2}) ([\t -~\x80-\xff]*)", first)
        if match is None or b"\n" in head.replace(b"\r\n", b"") or b"\0" in head:
            raise Wrong(f"no answer begins so: {first!r}")
        status = int(match[1])
        fields: list[tuple[str, str]] = []
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
                raise Wrong(f"no header line: {line!r}")
            fields.append((name.decode().lower(), value.strip(b" \t").decode("latin-1")))
        if 100 <= status < 200:
            data = rest
            continue
        method = asked[len(out)] if len(out) < len(asked) else "GET"
        lengths = [v for n, v in fields if n == "content-length"]
        codings = [v for n, v in fields if n == "transfer-encoding"]
        if len(lengths) + len(codings) > 1:
            raise Wrong(f"an answer with two framings: {fields}")
        body = b""
        if method == "HEAD" or status in (204, 304):
            if codings:
                raise Wrong("a coding where no body is")
        elif codings:
            if codings != ["chunked"]:
                raise Wrong(f"a coding {codings}")
            done = False
            while not done:
                line, mark, rest = rest.partition(b"\r\n")
                if not mark:
                    return out, True
                if not re.fullmatch(rb"[0-9a-f]+", line):
                    raise Wrong(f"a chunk size {line!r}")
                size = int(line, 16)
                if len(rest) < size + 2:
                    return out, True
                if rest[size : size + 2] != b"\r\n":
                    raise Wrong("a chunk without its end")
                body, rest, done = body + rest[:size], rest[size + 2 :], size == 0
        elif lengths:
            size = int(lengths[0])
            if len(rest) < size:
                return out, True
            body, rest = rest[:size], rest[size:]
        else:
            body, rest = rest, b""
        out.append(Answer(status, tuple(fields), body))
        data = rest
    return out, False


def match(call: dict[str, Any], wanted: reference.Request) -> None:
    """Raises `Wrong` unless the function was called with this request, and it alone."""
    if call["method"] != wanted.method or bytes.fromhex(call["body"]) != wanted.body:
        raise Wrong(f"another call: {call} for {wanted}")
    if call["url"] != wanted.url():
        raise Wrong(f"another URL: {call['url']} for {wanted.url()}")
    if not call["again"]:
        raise Wrong("the headers changed while the body was read")
    pairs: list[list[str]] = call["headers"]
    names = [name for name, _ in pairs]
    if sorted({*names}) != sorted(names) and names.count("set-cookie") < 2:
        raise Wrong(f"a header twice: {names}")
    seen = _joined(pairs)
    if not {*names} >= OURS:
        raise Wrong(f"not all of ours: {names}")
    reserved = sorted({n for n in names if n.strip().replace("_", "-").startswith("x-amba")})
    if reserved != sorted(NINE):
        raise Wrong(f"reserved names: {reserved}")
    if seen["host"].encode() != wanted.host or seen["cf-connecting-ip"] != "127.0.0.1":
        raise Wrong(f"{seen['host']!r}, {seen['cf-connecting-ip']!r}")
    length = seen.pop("content-length", None)
    if length is not None and int(length) != len(wanted.body):
        raise Wrong(f"content-length {length}")
    if seen.pop("transfer-encoding", "chunked") != "chunked":
        raise Wrong("a transfer coding")
    got = {n: _plain(v) for n, v in seen.items() if n not in OURS}
    expected = {n: _plain(v) for n, v in wanted.seen().items()}
    for seen_or_wanted in (got, expected):  # several stay several, in an order of the engine's own
        if "set-cookie" in seen_or_wanted:
            seen_or_wanted["set-cookie"] = str(sorted(seen_or_wanted["set-cookie"].split(", ")))
    if expected.get("content-type") == "":
        del expected["content-type"]  # the engine has no empty one
    if got != expected:
        raise Wrong(f"headers {got} for {expected}")


def _joined(pairs: list[list[str]]) -> dict[str, str]:
    out: dict[str, str] = {}
    for name, value in pairs:
        out[name] = f"{out[name]}, {value}" if name in out else value
    return out


def _plain(value: str) -> str:
    """What every decoder agrees on."""
    return re.sub(r"[^\x20-\x7e]+", "?", value)


@dataclass(slots=True)
class Verdicts:
    """What became of many streams."""

    counts: Counter[str] = field(default_factory=lambda: Counter[str]())
    wrong: list[tuple[bytes, str]] = field(default_factory=lambda: list[tuple[bytes, str]]())

    def judge(self, stream: bytes, heard: bytes, *, whole: bool = False) -> None:
        """Hold what came back against the reference.

        Args:
            whole: every whole request must have been answered by the function, too.
        """
        try:
            self.counts[verdict(stream, heard, whole=whole)] += 1
        except Wrong as wrong:
            self.wrong.append((stream, f"{wrong}; heard {heard[:400]!r}"))

    def none_wrong(self) -> None:
        """Fails with the first few otherwise."""
        shown = "\n".join(f"{stream[:600]!r}\n  {why}" for stream, why in self.wrong[:5])
        assert not self.wrong, f"{len(self.wrong)} wrong:\n{shown}"


def verdict(stream: bytes, heard: bytes, *, whole: bool = False) -> str:
    """One word on what became of a stream. Raises `Wrong`."""
    reading = reference.read(stream)
    requests = reading.requests
    got, _broken = answers(heard, [request.method for request in requests])
    called = 0
    for at, answer in enumerate(got):
        if answer.status == 200:
            if at >= len(requests):
                raise Wrong(f"smuggled: answer {at} of a stream with {len(requests)} requests")
            call = answer.call()
            if call is not None:
                match(call, requests[at])
            elif requests[at].method != "HEAD":
                raise Wrong(f"200, but not from the function: {answer}")
            called += 1
        elif answer.status not in REFUSALS:
            raise Wrong(f"status {answer.status}")
        elif at > len(requests):
            raise Wrong(f"answer {at} of a stream with {len(requests)} requests")
    if whole and called != len(requests):
        raise Wrong(f"{called} calls of {len(requests)}")
    if called == len(requests) and len(got) == called:
        return "passed" if reading.end in ("clean", "last") else "ended"
    return "refused"


class Mirror:
    """The running server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port = server.port
        self.host = b"local.fn.localhost:%d" % self.port

    async def _talk(self, pieces: Iterable[bytes], *, shut: bool, pause_s: float) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
        heard = b""
        try:
            with contextlib.suppress(OSError):
                for piece in pieces:
                    if pause_s:
                        await asyncio.sleep(pause_s)
                    writer.write(piece)
                    await writer.drain()
                if shut:
                    writer.write_eof()
            with contextlib.suppress(ConnectionResetError):
                while data := await reader.read(2**16):
                    heard += data
            return heard
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def talk_all(
        self,
        streams: list[list[bytes]],
        *,
        at_once: int = 16,
        shut: bool = True,
        pause_s: float = 0.0,
    ) -> list[bytes]:
        """Send each stream (pieces, one write each) on a connection of its own; what came back.

        A connection that has not ended after `PATIENCE_S` fails the test.
        """
        out: list[bytes] = [b""] * len(streams)
        left = iter(range(len(streams)))

        async def worker() -> None:
            for at in left:
                async with asyncio.timeout(PATIENCE_S):
                    out[at] = await self._talk(streams[at], shut=shut, pause_s=pause_s)

        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(worker())

        asyncio.run(main())
        return out

    def judge(
        self, streams: Iterable[bytes], *, whole: bool = False, batch: int = 2000
    ) -> Verdicts:
        """Send all, judge all."""
        verdicts = Verdicts()
        waiting: list[bytes] = []

        def settle() -> None:
            for stream, heard in zip(
                waiting, self.talk_all([[one] for one in waiting], shut=not whole), strict=True
            ):
                verdicts.judge(stream, heard, whole=whole)
            waiting.clear()

        for stream in streams:
            waiting.append(stream)
            if len(waiting) == batch:
                settle()
        settle()
        return verdicts

    def connect(self) -> socket.socket:
        """A connection of the caller's own."""
        client = socket.create_connection(("127.0.0.1", self.port))
        client.settimeout(PATIENCE_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def rss(self) -> int:
        """Bytes resident of the server's own process."""
        return int(psutil.Process(self.server.process.pid).memory_info().rss)


@contextlib.contextmanager
def running(folder: Path, *guests: str, settings: str = "") -> Generator[Mirror]:
    """A dev server with the mirror and other guests; it must end well, with nothing in its log.

    Args:
        settings: its amba.toml.
    """
    functions = folder / "functions"
    functions.mkdir()
    (functions / "amba.toml").write_text(settings)
    for guest in ("mirror", *guests):
        shutil.copytree(GUESTS / guest, functions / guest)
    with Dev(functions, "--ephemeral", "--no-watch", data_home=folder / "data") as server:
        yield Mirror(server)
        families = psutil.Process(server.process.pid).children(recursive=True)
    assert server.process.returncode == 0
    assert not [line for line in server.talk if "Traceback" in line or "internal error" in line]
    assert not [child for child in families if child.is_running()]
