"""An HTTP/1.1 client that sends exactly what it is told and never forgives what it reads."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass


class BrokenTransfer(Exception):
    """The connection ended before the answer did."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer; header names are lower-case, in wire order."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for field, value in self.headers if field == name]

    def header(self, name: str) -> str | None:
        """The only value of a header; None when it is absent."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None


class RawClient:
    """One connection to 127.0.0.1. A `with` block closes it."""

    def __init__(self, port: int, *, timeout_s: float = 10, buffer_bytes: int = 0) -> None:
        self.socket = socket.socket()
        if buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.socket.settimeout(timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(("127.0.0.1", port))
        self._rest = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def vanish(self) -> None:
        """End with a reset, as a machine that was switched off would in the end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(data)

    def begin(self, method: str, target: str, *headers: str) -> None:
        """A request head."""
        lines = [f"{method} {target} HTTP/1.1", "host: 127.0.0.1", *headers, "", ""]
        self.send("\r\n".join(lines).encode("latin-1"))

    def chunk(self, data: bytes) -> None:
        """One chunk of a chunked body; an empty one ends it."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    # reading

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise BrokenTransfer("end of stream")
        self._rest += data

    def _line(self) -> str:
        while b"\r\n" not in self._rest:
            self._more()
        line, self._rest = self._rest.split(b"\r\n", 1)
        return line.decode("latin-1")

    def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._more()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def head(self) -> tuple[int, list[tuple[str, str]]]:
        """Status and headers of the next answer, an interim one included."""
        version, status, *_ = self._line().split(" ")
        assert version == "HTTP/1.1"
        headers: list[tuple[str, str]] = []
        while line := self._line():
            name, _, value = line.partition(":")
            headers.append((name.lower(), value.strip()))
        return int(status), headers

    def pieces(self, headers: list[tuple[str, str]]) -> Iterator[bytes]:
        """The body as it arrives: chunk by chunk, or as read where it has a length.

        Raises:
            BrokenTransfer: it ended before its end.
        """
        fields = dict(headers)
        assert not ("content-length" in fields and "transfer-encoding" in fields)
        if fields.get("transfer-encoding") == "chunked":
            while size := int(self._line(), 16):
                yield self._exactly(size)
                assert self._line() == ""
            assert self._line() == ""
            return
        left = int(fields["content-length"])
        while left:
            if not self._rest:
                self._more()
            data, self._rest = self._rest[:left], self._rest[left:]
            left -= len(data)
            yield data

    def answer(self, *, method: str = "GET") -> Answer:
        """One whole answer. Raises BrokenTransfer."""
        status, headers = self.head()
        bodiless = method == "HEAD" or status < 200 or status in (204, 304)
        body = b"" if bodiless else b"".join(self.pieces(headers))
        return Answer(status, headers, body)

    def ask(self, method: str, target: str, *headers: str, body: bytes = b"") -> Answer:
        """One exchange; a body gets its length."""
        if body:
            headers = (*headers, f"content-length: {len(body)}")
        self.begin(method, target, *headers)
        self.send(body)
        return self.answer(method=method)

    def rest(self) -> bytes:
        """Everything until the server closes."""
        while data := self.socket.recv(65536):
            self._rest += data
        data, self._rest = self._rest, b""
        return data

    def ended(self) -> bool:
        """The server closes, and sends nothing before it does."""
        try:
            return self._rest == b"" and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
