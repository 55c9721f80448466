"""Listening sockets: both loopbacks, and in words why a port cannot be had."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import Generator

import psutil
import pytest

from amba_run import serve
from amba_run.serve import bind, own_addresses
from amba_runtime.errors import UserCode, UserError


@contextlib.contextmanager
def bound(host: str, port: int = 0) -> Generator[list[socket.socket]]:
    """Sockets that are closed at the end."""
    sockets = bind(host, port)
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_both_families_on_one_port(host: str) -> None:
    """`--host 127.0.0.1` serves ::1 too (interface.md 2)."""
    with bound(host) as sockets:
        names = [each.getsockname()[:2] for each in sockets]
        port = names[0][1]
        assert names[0] == ("127.0.0.1", port)
        assert names[1:] in ([("::1", port)], [])  # [] on a machine without IPv6


@pytest.mark.parametrize(("host", "count"), [("0.0.0.0", 1), ("::1", 1)])
def test_another_host_is_itself_alone(host: str, count: int) -> None:
    """A wider or single address is one socket."""
    with bound(host) as sockets:
        assert [each.getsockname()[0] for each in sockets] == [host] * count


def test_a_taken_port_names_its_holder() -> None:
    """By whom, and what to do; on either family."""
    with socket.socket(socket.AF_INET6) as holder:
        holder.bind(("::1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(UserError) as caught:
            bind("127.0.0.1", port)
    name = psutil.Process().name()
    assert caught.value.code is UserCode.PORT_IN_USE
    assert caught.value.message == f"port {port} on ::1 is in use by {name} (pid {os.getpid()})"
    assert "--port 0" in caught.value.hint


def test_any_free_port_means_free_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """With port 0 a pair that is half taken is passed over; in the end it is told."""
    listen = serve._listen  # pyright: ignore[reportPrivateUsage]
    taken = 0

    def half_taken(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
        nonlocal taken
        if family == socket.AF_INET6 and taken < 3:
            taken += 1
            raise UserError(UserCode.PORT_IN_USE, "taken")
        return listen(family, host, port)

    monkeypatch.setattr(serve, "_listen", half_taken)
    with bound("127.0.0.1") as sockets:
        assert len(sockets) == 2
    taken = -100
    with pytest.raises(UserError, match="no port is free on both"):
        bind("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("number", "told"), [(errno.EACCES, "may not listen"), (errno.ENOBUFS, None)]
)
def test_other_refusals(monkeypatch: pytest.MonkeyPatch, number: int, told: str | None) -> None:
    """A privileged port is a user's error; what we do not know passes through."""

    class Refusing(socket.socket):
        def bind(self, address: object, /) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", Refusing)
    if told is None:
        with pytest.raises(OSError, match=os.strerror(number)):
            bind("192.0.2.1", 80)
    else:
        with pytest.raises(UserError, match=told):
            bind("192.0.2.1", 80)


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "no such host", "a" * 64 + ".invalid", "2001:db8::1"]
)
def test_a_host_that_is_not_ours_is_told(host: str) -> None:
    """An address of another machine, or a name that is none: a user's error, not a traceback."""
    with pytest.raises(UserError) as caught:
        bind(host, 0)
    assert caught.value.code is UserCode.INVALID_CONFIG
    assert caught.value.message.startswith(f"{host} is no address that this machine can listen on")
    assert "127.0.0.1" in caught.value.hint


def test_a_machine_without_ipv6_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker often has none: one socket is enough."""
    listen = serve._listen  # pyright: ignore[reportPrivateUsage]

    def only_four(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "no IPv6")
        return listen(family, host, port)

    monkeypatch.setattr(serve, "_listen", only_four)
    with bound("127.0.0.1") as sockets:
        assert len(sockets) == 1


def test_own_addresses_look_like_hosts() -> None:
    """IPv6 stands in brackets and has no scope."""
    found = own_addresses()
    assert "127.0.0.1" in found
    assert [a for a in found if ":" in a and a[0] + a[-1] != "[]"] == []
    assert [a for a in found if "%" in a] == []


@pytest.mark.parametrize(
    ("limits_", "asked", "most"),
    [
        ((256, 100_000), (65_536, 100_000), 65_536),
        ((256, 1000), (1000, 1000), 1000),
        ((256, resource.RLIM_INFINITY), (65_536, resource.RLIM_INFINITY), 65_536),
        ((70_000, 100_000), None, 70_000),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None, None),
    ],
)
def test_as_many_files_as_may_be_opened_are(
    monkeypatch: pytest.MonkeyPatch,
    limits_: tuple[int, int],
    asked: tuple[int, int] | None,
    most: int | None,
) -> None:
    """A shell's soft limit of 256 or 1,024 files is no reason to turn clients away (row K3)."""
    set_to: list[tuple[int, int]] = []

    def getrlimit(_: int) -> tuple[int, int]:
        return limits_

    def setrlimit(_: int, both: tuple[int, int]) -> None:
        set_to.append(both)

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert serve._open_files() == most  # pyright: ignore[reportPrivateUsage]
    assert set_to == ([] if asked is None else [asked])


def test_a_limit_that_cannot_be_raised_is_lived_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS refuses more than a number of its own."""

    def refuse(*_: object) -> None:
        raise ValueError("not so many")

    def getrlimit(_: int) -> tuple[int, int]:
        return 256, 100_000

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert serve._open_files() == 256  # pyright: ignore[reportPrivateUsage]
