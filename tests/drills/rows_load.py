"""POST the same body on many connections for some seconds; prints how many a second were taken.

Usage: python rows_load.py PORT PATH HEADERS-JSON BODY CONNECTIONS SECONDS.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import monotonic


async def main(
    port: int, path: str, headers: dict[str, str], body: bytes, connections: int, for_s: float
) -> float:
    """Good answers a second."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{fields}content-length: {len(body)}"
        "\r\n\r\n"
    ).encode() + body
    end = monotonic() + for_s
    counts = await asyncio.gather(*[_insert(port, request, end) for _ in range(connections)])
    return sum(counts) / for_s


async def _insert(port: int, request: bytes, end: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while monotonic() < end:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if head[9:12] not in (b"200", b"201"):
            raise AssertionError(head)
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        count += 1
    writer.close()
    return count


if __name__ == "__main__":
    port, path, headers, body, connections, for_s = sys.argv[1:]
    print(
        asyncio.run(
            main(
                int(port), path, json.loads(headers), body.encode(), int(connections), float(for_s)
            )
        )
    )
