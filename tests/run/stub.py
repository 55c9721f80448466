"""A control plane that answers with what it was given, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from amba_run.api_client import ApiClient
from amba_runtime.secret import SecretText


@dataclass
class Stub:
    """A server that answers with what it was given, and keeps what it was asked."""

    origin: str = ""
    answers: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(
        default_factory=list[tuple[str, str, dict[str, str], bytes]]
    )

    @property
    def client(self) -> ApiClient:
        return ApiClient(self.origin, SecretText("amb_dpat_x"), "p-1")

    def answer(self, value: object, status: int = 200) -> None:
        self.answers.append((status, json.dumps(value).encode()))


@contextlib.contextmanager
def serving() -> Generator[Stub]:
    """One that serves while the block runs."""
    made = Stub()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            fields = {name.lower(): value for name, value in self.headers.items()}
            made.asked.append((self.command, self.path, fields, body))
            status, out = made.answers.pop(0)
            self.send_response(status)
            self.send_header("content-length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        do_GET = do_POST = do_PUT = do_DELETE = _any

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    made.origin = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
