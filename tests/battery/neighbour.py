"""An honest caller in a process of its own: asks one address 200 times a second, come what may.

Usage: python neighbour.py PORT TARGET. A line per answer on stdout: when it was due (seconds on
the monotonic clock, which all processes share), how long after that it was read whole (ms), and
its status (0 where the connection broke). Answers are counted from when they were *due*: a
server that stands still for 0.3 s makes 60 answers late, not one. Ends with its stdin.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from time import monotonic

EVERY_S = 0.005
TOLD_EVERY = 20
ANSWER_S = 10.0


def main(port: int, target: str) -> None:
    """Ask until stdin ends."""
    with contextlib.suppress(OSError, AttributeError):  # it stands for somebody elsewhere
        os.nice(-10)
    request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    lines: list[str] = []
    connection: socket.socket | None = None
    due = monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, due + EVERY_S - monotonic()))[0]:
        due += EVERY_S
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", port), ANSWER_S)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            status, stays = ask(connection, request)
        except OSError:
            status, stays = 0, False
        if not stays and connection is not None:
            connection.close()
            connection = None
        lines.append(f"{due:.6f} {(monotonic() - due) * 1000:.3f} {status}\n")
        if len(lines) >= TOLD_EVERY:
            sys.stdout.write("".join(lines))
            sys.stdout.flush()
            lines.clear()


def ask(connection: socket.socket, request: bytes) -> tuple[int, bool]:
    """Send it and read the answer, which has a length. Raises OSError.

    Returns:
        Its status, and whether the connection stays open.
    """
    connection.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise ConnectionResetError
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    fields = head.lower().split(b"\r\n")
    length = next(int(f[15:]) for f in fields if f.startswith(b"content-length:"))
    while len(body) < length:
        more = connection.recv(65536)
        if not more:
            raise ConnectionResetError
        body += more
    return int(head.split(b" ", 2)[1]), b"connection: close" not in fields


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
