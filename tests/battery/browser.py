"""A browser, a site that means ill, and a name that comes to mean this machine (rows C2 to C5).

All on loopback: the site is on 127.0.0.2, and the browser's own resolver is told so.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
EVIL = "evil.test"
SITE_ADDRESS = "127.0.0.2"
WAIT_S = 60
ATTACKS = Path(__file__).with_name("attacks.js")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--mute-audio",
    # one browser's own guard against such pages, which others do not have: never to be relied on
    "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,"
    "OptimizationHints,MediaRouter,Translate",
)


def find_browser() -> str:
    """The program, "" where there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), "")


class Site:
    """A web site on loopback. Its pages send what they saw to `/result`.

    Args:
        address: what it listens on.
    """

    def __init__(self, address: str = SITE_ADDRESS) -> None:
        self.pages = {"/attacks.js": ATTACKS.read_text()}
        self.results: queue.Queue[Any] = queue.Queue()
        site = self

        class Handler(BaseHTTPRequestHandler):
            """Pages and results."""

            def do_GET(self) -> None:
                """A page."""
                text = site.pages.get(self.path.partition("?")[0])
                kind = "text/javascript" if self.path.endswith(".js") else "text/html"
                self._answer(200 if text is not None else 404, (text or "").encode(), kind)

            def do_POST(self) -> None:
                """What a page saw."""
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                site.results.put(json.loads(body))
                self._answer(204, b"", "text/plain")

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("content-type", f"{kind}; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nobody listens."""

        self._server = ThreadingHTTPServer((address, 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def origin(self) -> str:
        """As the browser knows it: `evil.test`, unless it is on this machine's own address."""
        name = EVIL if self._server.server_address[0] == SITE_ADDRESS else "127.0.0.1"
        return f"http://{name}:{self.port}"

    def close(self) -> None:
        """Idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class Switch:
    """A name's second answer: what connects to 127.0.0.2 at our port meets our server.

    To the browser its origin stays `http://evil.test:PORT`; to the server nothing differs from a
    name whose owner has just pointed it at 127.0.0.1. `/__evil` alone is answered here.
    """

    def __init__(self, port: int, page: str) -> None:
        self._port = port
        self._page = page.encode()
        self.statuses: list[int] = []
        self._listener = socket.create_server((SITE_ADDRESS, port))
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._begin(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(WAIT_S)
            head = client.recv(65536)
            if b"/__evil" in head.partition(b"\r\n")[0]:
                fields = b"content-type: text/html\r\ncontent-length: %d\r\nconnection: close"
                client.sendall(
                    b"HTTP/1.1 200 OK\r\n" + fields % len(self._page) + b"\r\n\r\n" + self._page
                )
                return
            if not head:
                return
            with socket.create_connection(("127.0.0.1", self._port), timeout=WAIT_S) as server:
                server.sendall(head)
                self._begin(_pour, client, server)
                first = True
                while data := server.recv(65536):
                    if first or data.startswith(b"HTTP/1.1 "):
                        self.statuses.append(int(data[9:12]))
                        first = False
                    client.sendall(data)

    def close(self) -> None:
        """Idempotent."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _pour(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)


@contextlib.contextmanager
def browsing(program: str, url: str) -> Generator[None]:
    """A headless browser with a page open, and a profile that nobody used before."""
    # a short path, which the browser's own sockets need
    home = tempfile.mkdtemp(prefix="amba-browser-")
    rules = f"MAP {EVIL} {SITE_ADDRESS}, MAP *.{EVIL} {SITE_ADDRESS}"
    process = subprocess.Popen(
        [
            *(program, *_FLAGS, f"--user-data-dir={home}/profile"),
            *(f"--host-resolver-rules={rules}", "--remote-debugging-port=0", url),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": home, "HOME": home},
        start_new_session=True,
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


def visit(program: str, url: str, site: Site) -> Any:
    """Open a page and wait for what it saw."""
    with browsing(program, url):
        return site.results.get(timeout=WAIT_S)


def page(script: str, site: str) -> str:
    """A page that has `attacks.js` of a site, and runs a script of its own."""
    return (
        f'<!doctype html><body><script src="{site}/attacks.js"></script>'
        f"<script type=module>{script}</script>"
    )
