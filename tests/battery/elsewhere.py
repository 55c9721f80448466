"""A network of a test's own, in which every address of both families is this machine's.

Whoever connects anywhere meets a canary, or its connection never began: no verdict of ours has to
be believed. Only the thread inside is there; the machine's network is neither seen nor touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

_CLONE_NEWNET = 0x4000_0000
_SIOCSIFFLAGS, _IFF_UP_RUNNING = 0x8914, 0x41
_RTM_NEWROUTE, _REQUEST_ACK_CREATE = 24, 0x505
_TABLE_LOCAL, _PROTO_BOOT, _SCOPE_HOST, _TYPE_LOCAL, _RTA_OIF = 255, 3, 254, 2, 4

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def in_own_network(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine in such a network; skips the test where that may not be made."""
    ended: list[BaseException] = []

    def run() -> None:
        try:
            _enter()
            asyncio.run(main())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run, name="elsewhere")
    thread.start()
    thread.join()
    for error in ended:
        if isinstance(error, PermissionError):
            pytest.skip("a network of one's own takes root (CAP_SYS_ADMIN)")
        raise error


def _enter() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise PermissionError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_:
        fcntl.ioctl(any_, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING))
    for family in (socket.AF_INET, socket.AF_INET6):
        _all_local(family)


def _all_local(family: int) -> None:
    """`ip route add local default dev lo`: as netlink has it."""
    scope = _SCOPE_HOST if family == socket.AF_INET else 0
    route = struct.pack(
        "BBBBBBBBI", family, 0, 0, 0, _TABLE_LOCAL, _PROTO_BOOT, scope, _TYPE_LOCAL, 0
    )
    device = struct.pack("HHI", 8, _RTA_OIF, socket.if_nametoindex("lo"))
    body = route + device
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.bind((0, 0))
        head = struct.pack("IHHII", 16 + len(body), _RTM_NEWROUTE, _REQUEST_ACK_CREATE, 1, 0)
        netlink.send(head + body)
        (error,) = struct.unpack("i", netlink.recv(4096)[16:20])
    if error:
        raise OSError(-error, "no route of our own")


@dataclass
class Canaries:
    """Listeners on every address, at some ports; `met` has where each connection went.

    Attributes:
        met: (address, port) of each accepted connection.
        talk: what is said to a connection, by its port; others are closed at once.
    """

    talk: dict[int, Talk] = field(default_factory=dict[int, Talk])
    met: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    @contextlib.asynccontextmanager
    async def open(self, ports: Iterable[int]) -> AsyncGenerator[Canaries]:
        """Listen while inside."""
        async with contextlib.AsyncExitStack() as stack:
            for port in ports:
                for host in ("0.0.0.0", "::"):
                    server = await asyncio.start_server(self._meet, host, port, backlog=1024)
                    stack.push_async_callback(server.wait_closed)
                    stack.callback(server.close)
            try:
                yield self
            finally:
                await self.settle()
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Whoever has connected by now is counted."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        address, port = writer.get_extra_info("sockname")[:2]
        self.met.append((address, port))
        try:
            talk = self.talk.get(port)
            if talk is not None:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await talk(reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)
