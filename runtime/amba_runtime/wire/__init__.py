"""HTTP/1.1 over Unix sockets, both ends: the one wire between us and an engine process.

The forwarder, egress, STORAGE and the log socket all speak through here, and nothing else does.
Bytes move with back-pressure in both directions; nothing is buffered past `limits.WIRE_BUFFER`.
Peers are engine processes: their framing is checked (llhttp, strict), their content never trusted.
"""

from __future__ import annotations

from amba_runtime.wire.client import Client, Connection
from amba_runtime.wire.common import (
    Headers,
    NothingSentError,
    Tunnel,
    WireError,
    parse_lines,
    render,
)
from amba_runtime.wire.intake import Door, Intake, engine_connections, open_files
from amba_runtime.wire.messages import Handler, Request, Response
from amba_runtime.wire.server import Server, listen_unix

__all__ = [
    "Client",
    "Connection",
    "Door",
    "Handler",
    "Headers",
    "Intake",
    "NothingSentError",
    "Request",
    "Response",
    "Server",
    "Tunnel",
    "WireError",
    "engine_connections",
    "listen_unix",
    "open_files",
    "parse_lines",
    "render",
]
