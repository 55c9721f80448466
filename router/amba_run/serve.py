"""Listening: our ASGI app on uvicorn, on sockets of our own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Generator
from typing import Any

import uvicorn

from amba_router.asgi import App
from amba_router.edge import EdgeProtocol
from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError
from amba_runtime.wire import engine_connections

_TRIES = 20
_NOT_OURS = (socket.gaierror, UnicodeError)  # a name that nobody knows, or that cannot be one
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets: one, or for a loopback name one each of IPv4 and IPv6.

    Args:
        port: 0 takes a free one, the same for both families.

    Raises:
        UserError: PORT_IN_USE, with the name of the program that holds it where we may know;
            INVALID_CONFIG for a host that is not this machine's.
    """
    if host not in ("127.0.0.1", "localhost"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return [_listen(family, host, port)]
        except (OSError, UnicodeError) as error:
            if not isinstance(error, _NOT_OURS) and getattr(error, "errno", 0) not in _NOT_HERE:
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                UserCode.INVALID_CONFIG,
                f"{host[:80]} is no address that this machine can listen on: {reason}",
                hint="give one that it has, such as 127.0.0.1, or 0.0.0.0 for all of them",
            ) from error
    for _ in range(_TRIES):
        first = _listen(socket.AF_INET, "127.0.0.1", port)
        try:
            return [first, _listen(socket.AF_INET6, "::1", first.getsockname()[1])]
        except UserError:
            # with port 0 another pair may be free
            if port != 0:
                first.close()
                raise
            first.close()
        except OSError:
            return [first]  # no IPv6 on this machine
    raise UserError(UserCode.PORT_IN_USE, "no port is free on both 127.0.0.1 and ::1")


def _listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if sys.platform != "win32":  # inherited by every connection that is accepted
            unsent = limits.EDGE_UNSENT.value
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)
        listener.bind((host, port))
        listener.listen(limits.WIRE_BACKLOG.value)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                UserCode.PORT_IN_USE,
                f"port {port} on {host} is in use{_holder(port)}",
                hint="use --port 0 for any free port, or --port with another number",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UserError(
                UserCode.PORT_IN_USE,
                f"this user may not listen on port {port}",
                hint="use a port above 1023",
            ) from error
        raise
    return listener


def _holder(port: int) -> str:
    """` by NAME (pid N)`, or "" when the system does not tell us."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            local: Any = connection.laddr
            if connection.status == psutil.CONN_LISTEN and local.port == port and connection.pid:
                name = psutil.Process(connection.pid).name()
                return f" by {name} (pid {connection.pid})"
    return ""


def own_addresses() -> frozenset[str]:
    """This machine's addresses as they stand in a Host header: IPv6 in brackets, no scope."""
    import psutil

    found: set[str] = set()
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET:
                found.add(address.address)
            elif address.family == socket.AF_INET6:
                found.add(f"[{address.address.partition('%')[0]}]")
    return frozenset(found)


def most_connections(open_files: int | None) -> int:
    """How many clients a listener takes, so that files are left for engines and for us.

    Args:
        open_files: that this process may have; None is no limit.
    """
    if open_files is None:
        return limits.EDGE_CONNECTIONS.value
    # each client under way takes a connection to an engine as well, and engines take some to us,
    # each of which may take one more to the world
    taken = limits.EDGE_FILES.value + 2 * engine_connections(open_files)
    room = (open_files - taken) // 2
    return max(limits.EDGE_CONNECTIONS_LEAST.value, min(limits.EDGE_CONNECTIONS.value, room))


def _open_files() -> int | None:
    """How many files this process may open, after asking for as many as it may have at all."""
    try:
        import resource
    except ImportError:
        return None  # Windows
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.OPEN_FILES.value
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return None if soft == resource.RLIM_INFINITY else soft


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs us, and tells when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class Listener:
    """A running front. `open`, then `close`; both once."""

    def __init__(self, app: App, sockets: list[socket.socket]) -> None:
        config = uvicorn.Config(
            app,
            interface="asgi3",
            http=EdgeProtocol,
            ws="amba_router.upgrade:EdgeSocket",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=most_connections(_open_files()),
            ws_max_size=limits.WEBSOCKET_BYTES.value,
            ws_per_message_deflate=False,
            ws_ping_interval=limits.WEBSOCKET_PING_S.value,
            ws_ping_timeout=limits.WEBSOCKET_PONG_S.value,
        )
        # uvicorn's own lines, such as "Exception in ASGI application", are for its users
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._server = _Server(config)
        self._sockets = sockets
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Accept connections from here on."""
        self._task = asyncio.create_task(self._server.serve(sockets=self._sockets))
        started = asyncio.create_task(self._server.accepting.wait())
        await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._task.done():
            self._task.result()

    async def close(self, *, grace_s: float) -> None:
        """Stop accepting; requests under way have so many seconds. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            for listener in self._sockets:
                listener.close()
            return
        # the sockets are closed by the server that polls them, or the loop trips over them
        self._server.config.timeout_graceful_shutdown = grace_s  # type: ignore[assignment]  # it takes a float as well
        self._server.should_exit = True
        try:
            await asyncio.wait_for(task, grace_s + 0.5)
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            if _being_cancelled():
                raise


def _being_cancelled() -> bool:
    """Whoever closes has no more patience, as against the server's own task having ended so."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
