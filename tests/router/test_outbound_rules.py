"""One function's egress: whose request it is, its own allowlist, secrets that stay outside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.router.egress_lab import (
    MARK,
    Asked,
    EgressLab,
    Names,
    Server,
    egress,
    listening,
    plain,
)
from tests.runtime.flying import Version, few

from amba_router.outbound_app import Message, Scope
from amba_runtime import limits, wire
from amba_runtime.egress import DeniedReason
from amba_runtime.outcome import Breach
from amba_runtime.tally import Tally
from amba_runtime.trace import Hop, Trace
from amba_runtime.wire import Headers, Request, Response, WireError

CALLER, BREACH = MARK + b"-caller", MARK + b"-breach"
CANARY = "sk_live_canary_0123456789"
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


def ok(_: Asked) -> bytes:
    return plain()


def echo(asked: Asked) -> bytes:
    """What it was told, in a header and in the body."""
    said = b"|".join(value for _, value in asked.headers)
    return plain(b"you said " + said + b" and no more", b"x-echo: " + said)


class App:
    """Our own app: remembers scopes, answers 204."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


# --- whose request it is -----------------------------------------------------------------------


def test_a_call_of_an_own_function_is_one_hop_deeper() -> None:
    """In process, from the invocation that asks; the API and the CDN are no hop (row E29)."""

    async def main() -> None:
        app = App()
        traces = {"r-1": Trace(), "r-2": Trace()}
        hops = {"r-1": Hop(traces["r-1"], 3), "r-2": Hop(traces["r-2"])}
        asked: list[str | None] = []

        def hop_of(request_id: str | None) -> Hop:
            asked.append(request_id)
            return hops[request_id or "r-2"]

        async with egress(app=app) as it:
            it.outbound.attach(MARK, hop_of)
            for url, caller in (
                ("http://local.fn.localhost:8787/next", b"r-1"),
                ("http://127.0.0.1:8787/fn/local/next", b"r-1"),
                ("http://local.fn.localhost:8787/next", None),
                ("http://127.0.0.1:8787/v1/projects", b"r-1"),
                ("http://local.cdn.localhost:8787/key", b"r-1"),
            ):
                fields: Headers = [] if caller is None else [(CALLER, caller)]
                assert (await it.fetch(url, fields)).status == 204
        assert asked == ["r-1", "r-1", None]
        found = [scope.get("amba.hop") for scope in app.scopes]
        assert [hop and (hop.depth, hop.trace) for hop in found] == [
            (4, traces["r-1"]),
            (4, traces["r-1"]),
            (1, traces["r-2"]),
            None,
            None,
        ]
        assert (traces["r-1"].calls, traces["r-2"].calls) == (3, 2)
        assert not any(
            name.startswith(MARK) for scope in app.scopes for name, _ in scope["headers"]
        )

    asyncio.run(main())


def test_what_the_shim_says_stays_between_us() -> None:
    """No server hears of it, and a guest's own header of a similar name is just a header."""

    async def main() -> None:
        server = Server(ok)
        async with server.open(), egress(allow=[f"api.example.com:{server.port}"]) as it:
            it.outbound.attach(MARK, lambda _: Hop())
            forged = (b"amba-run-ffffffffffffffff-caller", b"r-9")
            fields = [(CALLER, b"r-1"), forged, (b"x-a", b"1")]
            await it.fetch(f"http://api.example.com:{server.port}/", fields)
        assert server.asked[0].headers == [
            (b"host", b"api.example.com:%d" % server.port),
            forged,
            (b"x-a", b"1"),
        ]

    asyncio.run(main())


def test_a_forged_caller_is_no_caller() -> None:
    """Whoever does not know the mark is nobody: the trace is the slot's own guess (row E29)."""

    async def main() -> None:
        asked: list[str | None] = []

        def hop_of(request_id: str | None) -> Hop:
            asked.append(request_id)
            return Hop()

        async with egress(app=App()) as it:
            it.outbound.attach(MARK, hop_of)
            url = "http://local.fn.localhost:8787/next"
            await it.fetch(url, [(b"amba-run-ffffffffffffffff-caller", b"r-1")])
            await it.fetch(url, [(CALLER, b"r" * 500)])
        assert asked == [None, "r" * 64]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("value", "breach"),
    [
        (b"subrequests 1001 1000", Breach("subrequests", 1001, 1000)),
        (b"log_kib 257 256", Breach("log_kib", 257, 256)),
        (b"log_kib 257", None),
        (b"LOG 1 1", None),
        (b"log_kib -1 1", None),
        (b"x 1 1\n", None),
    ],
)
def test_a_limit_that_the_shim_keeps_is_told(value: bytes, breach: Breach | None) -> None:
    """Under the mark alone, also while a version is on trial; nothing else is done (row M3)."""

    async def main() -> None:
        told: list[tuple[str, Breach]] = []
        async with egress() as it:
            it.outbound.attach(MARK, lambda _: Hop(), lambda who, what: told.append((who, what)))
            fields: Headers = [(CALLER, b"r-1"), (BREACH, value.strip())]
            if breach is None:
                with pytest.raises(WireError):
                    await it.fetch("http://limit.invalid/", fields)
                assert told == []
                return
            assert (await it.fetch("http://limit.invalid/", fields)).status == 204
            assert told == [("r-1", breach)]
            with pytest.raises(WireError):
                await it.fetch("http://limit.invalid/", [(b"x-breach", value)])
        assert len(told) == 1

    if value != value.strip():
        value = b"x 1 1 1"
    asyncio.run(main())


# --- how many -----------------------------------------------------------------------------------


def two_each() -> Version:
    """An invocation may send two requests, one at once; two of them have ended."""
    version = Version(limits=few(2, 1))
    for name in ("r-1", "r-2"):
        version.callers.ended(name)
    return version


@pytest.mark.parametrize("caller", [b"r-1", b"~r-1", b"!17.1", None])
def test_more_than_may_be_sent_go_nowhere(caller: bytes | None) -> None:
    """Counted here, whatever the guest's realm says; told once, under a request's id (E17, M3)."""

    async def main() -> None:
        server = Server(ok)
        told: list[tuple[str, Breach]] = []
        async with server.open(), egress(allow=[f"api.example.com:{server.port}"]) as it:
            it.outbound.attach(
                MARK, lambda _: Hop(), lambda who, what: told.append((who, what)), Tally(two_each())
            )
            fields: Headers = [] if caller is None else [(CALLER, caller)]
            url = f"http://api.example.com:{server.port}/"
            for _ in range(2):
                assert (await it.fetch(url, fields)).status == 200
            for _ in range(2):
                with pytest.raises(WireError):
                    await it.fetch(url, fields)
        assert len(server.asked) == 2
        assert it.denied == []
        assert told == [("r-1" if caller == b"r-1" else "", Breach("subrequests", 3, 2))]

    asyncio.run(main())


def test_names_that_a_guest_made_up_are_nobodys() -> None:
    """Who knows how our headers begin gains nothing: all its requests are counted together, its
    calls continue what a request without a name continues, and the limits that it says were
    passed are no invocation's (rows E17, E29)."""

    async def main() -> None:
        server = Server(ok)
        told: list[tuple[str, Breach]] = []
        asked_for: list[str | None] = []

        def hop_of(caller: str | None) -> Hop:
            asked_for.append(caller)
            return Hop()

        async with server.open(), egress(allow=[f"api.example.com:{server.port}"]) as it:
            tally = Tally(two_each())
            it.outbound.attach(MARK, hop_of, lambda who, what: told.append((who, what)), tally)
            url = f"http://api.example.com:{server.port}/"
            own = "http://local.fn.localhost:8787/next"
            await it.fetch(own, [(CALLER, b"forged")])
            assert (await it.fetch(url, [(CALLER, b"!1.1")])).status == 200
            for n in range(5):
                with pytest.raises(WireError):
                    await it.fetch(url, [(CALLER, b"forged-%d" % n)])
            await it.fetch(url, [(CALLER, b"forged"), (BREACH, b"log_kib 2 1")])
        assert len(server.asked) == 1
        assert asked_for == [None]
        assert told == [("", Breach("subrequests", 3, 2)), ("", Breach("log_kib", 2, 1))]

    asyncio.run(main())


def test_so_many_wait_for_their_answers_to_begin() -> None:
    """The next goes when an answer has begun, or its guest has left (rows E17, E24)."""

    async def main() -> None:
        app = Held()
        async with egress(app=app) as it:
            it.outbound.attach(MARK, lambda _: Hop(), tally=Tally(two_each()))
            url = "http://local.fn.localhost:8787/next"
            first, second = (
                asyncio.create_task(it.fetch(url, [(CALLER, b"r-1")])) for _ in range(2)
            )
            other = asyncio.create_task(it.fetch(url, [(CALLER, b"r-2")]))
            async with asyncio.timeout(5):
                await app.asked(2)
                app.go.release()
                await app.asked(3)
                app.go.release()
                app.go.release()
                assert [(await task).status for task in (first, second, other)] == [204] * 3

    asyncio.run(main())


class Held:
    """Our own app: answers when it is let."""

    def __init__(self) -> None:
        self.go = asyncio.Semaphore(0)
        self._begun = 0
        self._news = asyncio.Event()

    async def asked(self, count: int) -> None:
        """Until so many were asked, and no more."""
        while self._begun < count:
            self._news.clear()
            await self._news.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert self._begun == count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._begun += 1
        self._news.set()
        await self.go.acquire()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


# --- its own allowlist -------------------------------------------------------------------------


def test_an_allowlist_is_all_that_is_reached() -> None:
    """Neither a server nor a resolver hears of anybody else; ourselves stay open (row G13)."""

    async def main() -> None:
        server, app, names = Server(ok), App(), Names()
        async with server.open():
            port = server.port
            allow = [f"api.example.com:{port}", f"other.example.com:{port}"]
            rules = {"only": [f"api.example.com:{port}"]}
            async with egress(app=app, allow=allow, names=names, rules=rules) as it:
                assert (await it.fetch(f"http://api.example.com:{port}/")).status == 200
                with pytest.raises(WireError):
                    await it.fetch(f"http://other.example.com:{port}/")
                assert it.denied[-1][1].reason is DeniedReason.NOT_LISTED
                assert (await it.fetch("http://127.0.0.1:8787/v1")).status == 204
        assert names.asked == ["api.example.com"]
        assert server.accepted == 1

    asyncio.run(main())


# --- secrets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [False, True])
def test_a_websocket_that_nobody_takes_is_ended(secret: bool) -> None:
    """The connection to its server ends when its answer is dropped, also when a secret went along
    (threat T13)."""
    left = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        await reader.read()
        left.set()

    async def main() -> None:
        async with listening(talk) as port:
            at = f"localhost:{port}"
            async with egress(allow=[at], rules=_rules(port) if secret else None) as it:

                async def drops(request: Request) -> Response:
                    response = await it.outbound(request)
                    assert response.drop is not None
                    response.drop()
                    return Response(204)

                given = dict(it.outbound.placeholders.mask((("KEY", CANARY),)))["KEY"]
                server = wire.Server(it.path.with_name("drops.sock"), drops, name="drops")
                await server.open()
                reader, writer = await asyncio.open_unix_connection(str(server.path))
                writer.write(
                    f"GET http://{at}/ HTTP/1.1\r\nx-key: {given}\r\n"
                    "connection: upgrade\r\nupgrade: websocket\r\n\r\n".encode()
                )
                async with asyncio.timeout(5):
                    assert (await reader.readline()).startswith(b"HTTP/1.1 204")
                    await left.wait()
                writer.close()
                await server.close()

    asyncio.run(main())


def _rules(port: int) -> dict[str, Any]:
    return {"secrets": {"KEY": [f"localhost:{port}"]}}


async def _sent(
    it: EgressLab, url: str, *, secret: str = CANARY, method: str = "GET", body: str = ""
) -> Any:
    """Fetch with the placeholder in a header, in the URL and in the body."""
    given = dict(it.outbound.placeholders.mask((("KEY", secret),)))["KEY"]
    fields: Headers = [(b"authorization", f"Bearer {given}".encode()), (b"x-key", given.encode())]
    return await it.fetch(
        url.replace("KEY", given),
        fields,
        method=method,
        body=body.replace("KEY", given).encode(),
    )


def test_a_secret_goes_into_headers_and_nowhere_else() -> None:
    """Not into the URL, and not into the body (row G14)."""

    async def main() -> None:
        server = Server(ok)
        async with server.open():
            at = f"localhost:{server.port}"
            async with egress(allow=[at], rules=_rules(server.port)) as it:
                await _sent(it, f"http://{at}/KEY?k=KEY", method="POST", body="my KEY")
                given = dict(it.outbound.placeholders.mask((("KEY", CANARY),)))["KEY"].encode()
        asked = server.asked[0]
        assert asked.all(b"authorization") == [f"Bearer {CANARY}".encode()]
        assert asked.all(b"x-key") == [CANARY.encode()]
        assert asked.line == b"POST /%b?k=%b HTTP/1.1" % (given, given)
        assert asked.body == b"my " + given

    asyncio.run(main())


def test_a_host_that_is_not_named_gets_the_placeholder() -> None:
    """It is worth nothing there (row G14)."""

    async def main() -> None:
        server = Server(ok)
        async with server.open():
            port = server.port
            allow = [f"other.example.com:{port}", f"localhost:{port}"]
            async with egress(allow=allow, rules=_rules(port)) as it:
                await _sent(it, f"http://other.example.com:{port}/")
        assert CANARY.encode() not in b"".join(value for _, value in server.asked[0].headers)
        assert server.asked[0].all(b"x-key")[0].startswith(b"amba_placeholder_")

    asyncio.run(main())


def test_an_echo_shows_the_placeholder() -> None:
    """In headers and body of the answer; nothing compressed is asked for (row G14)."""

    async def main() -> None:
        server = Server(echo)
        async with server.open():
            at = f"localhost:{server.port}"
            async with egress(allow=[at], rules=_rules(server.port)) as it:
                given = dict(it.outbound.placeholders.mask((("KEY", CANARY),)))["KEY"].encode()
                answer = await it.fetch(
                    f"http://{at}/", [(b"x-key", given), (b"accept-encoding", b"gzip, br")]
                )
                head = await it.fetch(f"http://{at}/", [(b"x-key", given)], method="HEAD")
        assert CANARY.encode() not in answer.body + b"".join(v for _, v in answer.headers)
        assert given in answer.body
        assert answer.body.endswith(b" and no more")
        assert given in answer.all(b"x-echo")[0]
        assert server.asked[0].all(b"accept-encoding") == [b"identity"]
        assert head.all(b"content-length") != []

    asyncio.run(main())


@pytest.mark.parametrize("body", [b"", b"end in sk_live", CANARY.encode(), b"x" * 100_000])
def test_an_answer_is_whole_whatever_its_end_looks_like(body: bytes) -> None:
    """What was held back comes at last; nothing is lost or doubled (row G14)."""

    async def main() -> None:
        server = Server(lambda _: plain(body))
        async with server.open():
            at = f"localhost:{server.port}"
            async with egress(allow=[at], rules=_rules(server.port)) as it:
                answer = await _sent(it, f"http://{at}/")
                given = dict(it.outbound.placeholders.mask((("KEY", CANARY),)))["KEY"].encode()
        assert answer.body == body.replace(CANARY.encode(), given)

    asyncio.run(main())


def test_a_secret_with_a_line_break_stops_the_request() -> None:
    """No header can be made of it; the log names it and not its value (row G14)."""

    async def main() -> None:
        server = Server(ok)
        async with server.open():
            at = f"localhost:{server.port}"
            async with egress(allow=[at], rules=_rules(server.port)) as it:
                with pytest.raises(WireError):
                    await _sent(it, f"http://{at}/", secret=f"{CANARY}\r\nx-evil: 1")
                denied = it.denied[-1][1]
        assert denied.reason is DeniedReason.UNFIT_SECRET
        assert denied.message == "the secret KEY holds a control character: no header can carry it"
        assert server.asked == []

    asyncio.run(main())


def test_kept_connections_of_all_hosts_together_are_bounded() -> None:
    """A function that asks ever more hosts keeps so many connections open, and no more (T5)."""
    most = limits.EGRESS_KEPT.value

    async def main() -> None:
        server = Server(ok)
        async with server.open():
            names = [f"n{i}.example.com:{server.port}" for i in range(8)]
            async with egress(allow=names) as it:
                for _ in range(3):
                    calls = [it.fetch(f"http://{name}/") for name in names for _ in range(12)]
                    await asyncio.gather(*calls)
                kept = it.outbound.kept_connections
        assert 0 < kept <= most
        assert server.accepted >= most

    asyncio.run(main())
