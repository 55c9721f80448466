"""Group G: what a function can reach, judged by canaries on every address there is."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import gzip
import ipaddress
import itertools
import json
import random
import ssl
import tempfile
import warnings
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.battery import vectors
from tests.battery.elsewhere import Canaries, in_own_network
from tests.router.egress_lab import MARK
from tests.runtime.engine.lab import Lab, ask, workerd_lab

from amba_router.outbound import Outbound
from amba_router.outbound_app import Message, Scope
from amba_router.outbound_client import OutboundClient, Timeouts, TrustedRoots
from amba_runtime import limits, wire
from amba_runtime.addresses import DENIED_NETWORKS, AddressTable
from amba_runtime.egress import Denied, EgressPolicy, OwnAddresses, ResolveError
from amba_runtime.egress_rules import EgressRules
from amba_runtime.trace import Hop
from amba_runtime.wire import Headers, WireError

pytestmark = [pytest.mark.battery, pytest.mark.slow]

MIB = 1024 * 1024
PUBLIC, PUBLIC6 = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
NODE = "198.41.0.4"
"""This machine's own public address, as the tests have it."""

METADATA = (
    *("169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.169.253"),
    *("[fd00:ec2::254]", "[fd20:ce::254]", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
)
NAMES_OF_METADATA = ("metadata.google.internal", "metadata", "instance-data")
EMBEDDED = (
    *("[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]"),
    *("[64:ff9b::7f00:1]", "[64:ff9b:1::a9fe:a9fe]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::]"),
    *("[2606:2800:21f::5efe:127.0.0.1]", "[2001:0:0:0:0:0:80ff:fffe]"),
)
NEARBY = (
    *("10.0.0.1", "127.0.0.1", "172.17.0.1", "192.168.0.1", "192.168.1.1", "192.168.178.1"),
    *("[fd00::1]", "[fe80::1]", "100.64.0.1", "0.0.0.1"),
)
OWN = OwnAddresses(
    port=443,
    suffix="fn.amba.test",
    cdn_suffix="cdn.amba.test",
    api_hosts=frozenset({"api.amba.test"}),
    scheme="https",
)
CANARY = "sk_live_canary_0123456789"


class Names:
    """A resolver whose answers are a table's, or made for each question; it counts them."""

    def __init__(self, table: Mapping[str, Sequence[str] | Callable[[], Sequence[str]]]) -> None:
        self.table = dict(table)
        self.asked: list[str] = []

    async def resolve(self, name: str) -> Sequence[str]:
        """Raises ResolveError for a name that is not there."""
        self.asked.append(name)
        found = self.table.get(name.rstrip("."))
        if found is None:
            raise ResolveError(f"{name} does not resolve")
        return found() if callable(found) else found


@dataclass
class World:
    """One function's egress in a network where every address is a canary's."""

    canaries: Canaries
    outbound: Outbound
    socket: Path
    names: Names
    denied: list[tuple[str, Denied]]
    scopes: list[Scope]
    heads: list[tuple[bytes, Headers]] = field(default_factory=list[tuple[bytes, Headers]])

    @property
    def met(self) -> list[tuple[str, int]]:
        return self.canaries.met

    async def fetch(
        self,
        url: bytes,
        fields: Headers | None = None,
        *,
        body: bytes = b"",
        method: bytes = b"GET",
    ) -> tuple[int, Headers, bytes] | None:
        """What an engine would get: None where the connection breaks off, or is no request."""
        client = wire.Client(self.socket, loop=asyncio.get_running_loop())
        connection = await client.acquire(fresh=True)
        try:
            connection.begin(method, url, wire.render(fields or []), len(body))
            connection.write(body)
            connection.end()
            await connection.head()
            parts: list[bytes] = []
            while data := await connection.read():
                parts.append(data)
            if connection.status == 400:
                return None
            return connection.status, connection.headers, b"".join(parts)
        except WireError:
            return None
        finally:
            connection.abort()
            client.close()


async def server(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The public internet: remembers heads; redirects where its path says so."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].split(b"\r\n")
        fields = [(n.lower(), v.strip()) for n, _, v in (one.partition(b":") for one in lines)]
        world.heads.append((line, fields))
        await reader.readexactly(int(dict(fields).get(b"content-length", b"0")))
        if (b"transfer-encoding", b"chunked") in fields:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readuntil(b"\r\n")
        method, target, _ = line.split(b" ")
        status, more, body = b"200 OK", b"", b"hit"
        _, kind, *rest = target.split(b"/")
        if kind == b"to":
            status = rest[0] + b" Moved"
            more = b"location: " + base64.urlsafe_b64decode(rest[1]) + b"\r\n"
        elif kind == b"refresh":
            more = b"refresh: 0; url=" + base64.urlsafe_b64decode(rest[0]) + b"\r\n"
        elif kind == b"chain" and rest[0] != b"0":
            status = b"302 Found"
            more = b"location: /chain/%d\r\n" % (int(rest[0]) - 1)
        elif kind == b"echo":
            body = b"|".join(v for _, v in fields)
            more = b"x-echo: " + body + b"\r\n"
        writer.write(
            b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n" % (status, more, len(body))
            + (b"" if method == b"HEAD" else body)
        )
        await writer.drain()


@contextlib.asynccontextmanager
async def world(
    *,
    ports: Iterable[int] = (80, 443, 8080, 8443),
    names: Mapping[str, Sequence[str] | Callable[[], Sequence[str]]] | None = None,
    allow: Sequence[str] = (),
    rules: Mapping[str, Any] | None = None,
    roots: TrustedRoots | None = None,
    timeouts: Timeouts | None = None,
) -> AsyncGenerator[World]:
    """Open it; the API and our own functions are an app that remembers what it is asked."""
    denied: list[tuple[str, Denied]] = []
    scopes: list[Scope] = []

    async def app(
        scope: Scope,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    resolver = Names({"public.test": [PUBLIC], "public6.test": [PUBLIC6], **(names or {})})
    node = {ipaddress.ip_address(NODE)}
    policy = EgressPolicy(
        OWN, resolver=resolver, allow=allow, table=AddressTable(machine=lambda: node)
    )
    outbound = Outbound(
        policy,
        app,
        OutboundClient(roots or TrustedRoots(), timeouts=timeouts),
        on_denied=lambda method, refusal: denied.append((method, refusal)),
        rules=EgressRules.of(rules or {}),
    )
    outbound.attach(MARK, lambda _: Hop())
    with tempfile.TemporaryDirectory(prefix="g") as folder:
        listener = wire.Server(Path(folder) / "e", outbound, name="egress")
        await listener.open()
        canaries = Canaries()
        it = World(canaries, outbound, listener.path, resolver, denied, scopes)
        for port in (80, 8080):
            canaries.talk[port] = lambda reader, writer: server(it, reader, writer)
        try:
            async with canaries.open(ports):
                yield it
        finally:
            await listener.close()
            await outbound.close()


def literals() -> list[str]:
    """130 hosts of G1: each network's first, middle and last address, metadata, embedded IPv4."""
    found: list[str] = []
    for text, _ in DENIED_NETWORKS:
        network = ipaddress.ip_network(text)
        first, last = int(network.network_address), int(network.broadcast_address)
        make = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
        for number in (first, (first + last) // 2, last):
            address = str(make(number))
            found.append(f"[{address}]" if ":" in address else address)
    found += [*METADATA, *EMBEDDED, *NEARBY, NODE, f"[::ffff:{NODE}]"]
    return list(dict.fromkeys(found))


GUEST = """
import { connect } from "cloudflare:sockets";
const wait = (s) => new Promise((done, fail) => {
  s.addEventListener("open", () => done("open")); s.addEventListener("error", () => fail("error"));
  s.addEventListener("close", () => fail("close"));
});
const forms = {
  http: async (x) => (await fetch(`http://${x}/`)).status,
  https: async (x) => (await fetch(`https://${x}/`)).status,
  port: async (x) => (await fetch(`http://${x}:80/`)).status,
  ws: async (x) => wait(new WebSocket(`ws://${x}/`)),
  upgrade: async (x) => (await fetch(`http://${x}/`, { headers: { Upgrade: "websocket" } })).status,
  connect: async (x) => { await connect(`${x}:80`).opened; return "open"; },
  url: async (x) => (await fetch(x)).status,
  text: async (x) => (await fetch(x)).text(),
  socket: async (x) => wait(new WebSocket(x)),
};
export default { async fetch(request) {
  const { form, list, init } = await request.json();
  const told = [];
  for (const x of list) {
    try { told.push(["ok", await (init ? (await fetch(x, init)).text() : forms[form](x))]); }
    catch (e) { told.push(["no", String(e?.message ?? e)]); }
  }
  return Response.json(told);
} };
"""


@contextlib.asynccontextmanager
async def guest(it: World) -> AsyncGenerator[Callable[..., Awaitable[list[Any]]]]:
    """A function in the real engine with this egress; call it with a form and hosts."""
    async with workerd_lab() as lab:
        isolate = await _serving(lab, it)

        async def call(form: str, hosts: Sequence[str], init: object = None) -> list[Any]:
            body = json.dumps({"form": form, "list": list(hosts), "init": init}).encode()
            told: list[Any] = json.loads((await ask(isolate, method="POST", body=body)).body)
            return told

        yield call


async def _serving(lab: Lab, it: World) -> Any:
    return await lab.serving(
        GUEST, egress=it.outbound, limits={"subrequests": 10_000, "log_kib": 1024}
    )


def refused(told: Sequence[Sequence[str]], of: Sequence[str]) -> None:
    """None of them answered."""
    assert [x for x, (said, _) in zip(of, told, strict=True) if said == "ok"] == []


# --- G1 to G5: addresses -----------------------------------------------------------------------


def test_no_denied_address_sees_a_connection() -> None:
    """G1: 130 literals in six forms from the real engine, 0 SYNs; a public one is met."""
    hosts = literals()
    assert len(hosts) >= 130

    async def main() -> None:
        async with world() as it, guest(it) as call:
            for form in ("http", "https", "port", "ws", "upgrade", "connect"):
                for at in range(0, len(hosts), 30):
                    part = hosts[at : at + 30]
                    refused(await call(form, part), part)
            await it.canaries.settle()
            assert it.met == []
            assert it.scopes == []
            assert await call("http", [PUBLIC]) == [["ok", 200]]
            assert it.met == [(PUBLIC, 80)]
            print(f"G1: {len(hosts)} addresses x 6 forms, {len(it.denied)} refusals, 0 SYNs")

    in_own_network(main)


SPELLINGS = (
    *("2130706433", "017700000001", "0x7f000001", "0x7f.1", "127.1", "127.0.1", "0177.0.0.1"),
    *("127.0.0.1.", "127.0.0.1..", "0x7f.0.0.0x1", "0", "0.0", "0x0", "00000", "127.000.000.001"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:169.254.169.254]", "[::1]"),
    *("[0:0:0:0:0:0:0:1]", "[0000::1]", "[::0001]", "[::]", "[::ffff:0:7f00:1]", "[::7f00:1]"),
    *("%31%32%37.%30.%30.%31", "%6c%6f%63%61%6c%68%6f%73%74", "127%2e0%2e0%2e1", "127.0.0.1%2e"),
    *("\uff11\uff12\uff17.\uff10.\uff10.\uff11", "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460"),
    *("\u2460\u2461\u2466.0.0.\u2460", "127\u30020\u30020\u30021", "127\uff0e0\uff0e0\uff0e1"),
    *("127\uff610\uff610\uff611", "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3"),
    *("localhost", "LOCALHOST", "localhost.", "LOCALHOST.", "a.localhost", "A.B.LocalHost"),
    *("localhost.localdomain", "ip6-localhost", "ip6-loopback", "broadcasthost", "lo"),
    *("\uff4cocalhost", "loc\u00adalhost", "loca\u200blhost", "[fe80::1%25eth0]", "[::1%25lo]"),
    *("169.254.43518", "2852039166", "0xa9fea9fe", "025177524776", "0xa9.0xfe.0xa9.0xfe"),
    *("a@127.0.0.1", "public.test@127.0.0.1", "127.0.0.1:80", "127.0.0.1\\@public.test"),
    *("public.test#@127.0.0.1", "metadata.google.internal", "metadata", "instance-data"),
)


def test_no_spelling_leads_there() -> None:
    """G2: numbers, hex, octal, short, mapped, encoded, wide and hidden letters: 0 connections."""
    assert len(SPELLINGS) >= 60

    async def main() -> None:
        names = {name: ["127.0.0.1"] for name in ("lo", "metadata", "localhost.localdomain")}
        async with world(names=names) as it, guest(it) as call:
            for form in ("http", "https"):
                told = await call(form, SPELLINGS)
                # the one that WHATWG reads as public.test, with a fragment, may answer
                mine = [(x, t) for x, t in zip(SPELLINGS, told, strict=True) if "#@" not in x]
                refused([t for _, t in mine], [x for x, _ in mine])
            await call("connect", SPELLINGS)
            for spelling in SPELLINGS:  # as an engine that is no longer ours would put it
                raw = quote(spelling, safe=":@[]%#\\.").encode()
                await it.fetch(b"http://" + raw + b"/")
                await it.fetch(b"http://" + spelling.encode() + b"/")
                await it.fetch(spelling.encode() + b":80", method=b"CONNECT")
            await it.canaries.settle()
            assert [place for place in it.met if place[0] != PUBLIC] == []
            print(f"G2: {len(SPELLINGS)} spellings x 6 ways, 0 connections to them")

    in_own_network(main)


def test_a_name_with_any_denied_answer_is_denied() -> None:
    """G3: A, AAAA, mixed, 100 answers, all kinds of denied ones: 0 connections; a public name
    is reached at an answer of its own."""
    inside = [x.strip("[]") for x in (*METADATA, *EMBEDDED)] + ["10.0.0.1", "127.0.0.1", NODE]
    names: dict[str, Sequence[str]] = {}
    for index, address in enumerate(inside):
        names[f"only{index}.test"] = [address]
        names[f"first{index}.test"] = [address, PUBLIC]
        names[f"last{index}.test"] = [PUBLIC, PUBLIC6, address]
    many = [f"93.184.{i // 250}.{i % 250 + 1}" for i in range(100)]
    names["hundred.test"] = [*many[:99], "127.0.0.1"]
    names["flood.test"] = many * 3
    names["empty.test"] = []
    assert len(names) >= 40

    async def main() -> None:
        async with world(names={**names, "fine.test": many}) as it:
            for name in names:
                assert await it.fetch(f"http://{name}/".encode()) is None, name
            await it.canaries.settle()
            assert it.met == []
            answer = await it.fetch(b"http://fine.test/")
            assert answer is not None
            assert it.met == [(many[0], 80)]
            print(f"G3: {len(names)} names, 0 connections")

    in_own_network(main)


def test_rebinding_meets_no_loopback_canary(counts: Callable[..., int], rng: random.Random) -> None:
    """G4: answers that change with every question: 0 hits on loopback, and exactly one
    resolution per request, on fresh and on kept connections."""
    tries = counts(pr=200, nightly=2_000)

    async def main() -> None:
        answers: list[Sequence[str]] = []
        turns = itertools.cycle(([PUBLIC], ["127.0.0.1"]))

        def flip() -> Sequence[str]:
            answers.append(next(turns))
            return answers[-1]

        def chance() -> Sequence[str]:
            answers.append(rng.choice([[PUBLIC], ["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["::1"]]))
            return answers[-1]

        async with world(names={"flip.test": flip, "chance.test": chance}) as it:
            reached = 0
            for index in range(tries):
                name = b"flip.test" if index % 2 else b"chance.test"
                reached += await it.fetch(b"http://%b/" % name) is not None
            assert len(it.names.asked) == tries
            assert reached == sum(answer == [PUBLIC] for answer in answers)
            assert reached > tries / 4
            assert {address for address, _ in it.met} == {PUBLIC}
            print(f"G4: {tries} tries, {reached} reached the public canary, 0 loopback")

    in_own_network(main)


def test_every_hop_of_a_redirect_is_checked_again() -> None:
    """G5: five statuses to twelve kinds of places, and Refresh: 0 connections; the 21st of a
    chain is refused by the engine."""
    places = [
        *("http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest/meta-data/"),
        *("http://10.0.0.1/", "http://[fd00:ec2::254]/", "https://192.168.1.1/"),
        *("http://private.test/", "http://localhost:8080/", "http://2130706433/"),
        *("http://public.test:25/", f"http://{NODE}/", "//127.0.0.1/"),
    ]

    def to(status: int, place: str) -> str:
        return f"http://public.test/to/{status}/{base64.urlsafe_b64encode(place.encode()).decode()}"

    async def main() -> None:
        async with world(ports=(80, 443, 8080, 25), names={"private.test": ["10.1.1.1"]}) as it:
            async with guest(it) as call:
                for status in (301, 302, 303, 307, 308):
                    urls = [to(status, place) for place in places]
                    refused(await call("url", urls), places)
                fresh = base64.urlsafe_b64encode(b"http://127.0.0.1/").decode()
                assert await call("url", [f"http://public.test/refresh/{fresh}"]) == [["ok", 200]]
                told = await call("url", ["http://public.test/chain/20"])
                assert told == [["ok", 200]]
                refused(await call("url", ["http://public.test/chain/21"]), ["chain of 21"])
                cross = to(302, "http://public6.test:8080/")
                assert await call("url", [cross]) == [["ok", 200]]
            assert {address for address, _ in it.met} == {PUBLIC, PUBLIC6}
            assert {port for _, port in it.met} == {80, 8080}
            print(f"G5: {5 * len(places)} redirects inside, 0 connections there")

    in_own_network(main)


# --- G6 to G9: whose name, which port, which scheme --------------------------------------------


def test_the_host_header_is_the_urls() -> None:
    """G6: whatever a function says its host is, the server reads the URL's (ten ways)."""
    spoofs: list[Headers] = [
        [(b"host", b"internal")],
        [(b"Host", b"internal")],
        [(b"HOST", b"127.0.0.1")],
        [(b"host", b"internal"), (b"host", b"other")],
        [(b"host", b"")],
        [(b"host", b"public.test:8080")],
        [(b"host", b"public.test, internal")],
        [(b"connection", b"host"), (b"host", b"internal")],
        [(b"host", b"a@internal")],
        [(b"host", b"169.254.169.254")],
    ]

    async def main() -> None:
        async with world() as it, guest(it) as call:
            for fields in spoofs:
                assert await it.fetch(b"http://public.test/", list(fields)) is not None
            for value in ("internal", "169.254.169.254", "public6.test"):
                init = {"headers": {"Host": value}}
                assert await call("", ["http://public.test/"], init) == [["ok", "hit"]]
            hosts = [[v for n, v in fields if n == b"host"] for _, fields in it.heads]
            assert hosts == [[b"public.test"]] * (len(spoofs) + 3)
            print(f"G6: {len(hosts)} spoofs, {len(hosts)} true hosts")

    in_own_network(main)


def test_of_our_own_only_the_api_is_reached() -> None:
    """G7: the node by its name, its address, at its other ports, its sockets and its bridge:
    only the API and functions by their one address, in process, and no connection at all."""
    inside = [
        *(f"http://{NODE}/", f"https://{NODE}/", f"http://{NODE}:8080/", f"http://{NODE}:9090/"),
        *("http://api.amba.test/", "https://api.amba.test:8443/", "http://api.amba.test:8080/"),
        *("http://shop.fn.amba.test/hello", "https://shop.fn.amba.test:8443/hello"),
        *("http://shop.cdn.amba.test/key", "http://127.0.0.1:8787/", "http://127.0.0.1:443/"),
        *("http://172.17.0.1/", "http://172.17.0.1:8080/", "http://host.docker.internal/"),
        *("unix:/run/amba/egress.sock", "http+unix://%2Frun%2Famba/", "http://unix:/run/x.sock"),
        *("http://[::ffff:198.41.0.4]/", "http://node.test/", "https://fn.amba.test:8443/"),
    ]
    assert len(inside) >= 20

    async def main() -> None:
        ports = (80, 443, 8080, 8443, 9090, 8787)
        async with world(ports=ports, names={"node.test": [NODE]}) as it:
            for url in inside:
                assert await it.fetch(url.encode()) is None, url
            assert it.scopes == []
            for url in ("https://api.amba.test/v1/x", "https://shop.fn.amba.test/hello"):
                answer = await it.fetch(url.encode())
                assert answer is not None
                assert answer[0] == 204
            assert [scope["path"] for scope in it.scopes] == ["/v1/x", "/hello"]
            assert "amba.hop" in it.scopes[1]
            await it.canaries.settle()
            assert it.met == []
            print(f"G7: {len(inside)} ways in, 0 connections; 2 own routes in process")

    in_own_network(main)


CLOSED = (
    *(1, 7, 9, 19, 21, 22, 23, 25, 53, 110, 111, 143, 389, 445, 465, 587, 993, 2049, 2375),
    *(3306, 5432, 5672, 6379, 8086, 9200, 10250, 11211, 27017, 65535),
)


def test_only_ports_of_web_servers_are_open() -> None:
    """G8: mail, databases, caches, Docker, kubelet: refused, 0 connections; the four of the web
    are met, and one that the operator opened."""
    assert len(CLOSED) >= 25

    async def main() -> None:
        ports = (*CLOSED, 80, 443, 8080, 8443, 9000)
        async with world(ports=ports, allow=["public.test:9000"]) as it:
            for port in CLOSED:
                for scheme in (b"http", b"https"):
                    assert await it.fetch(b"%b://public.test:%d/" % (scheme, port)) is None
                    assert await it.fetch(b"%b://%b:%d/" % (scheme, PUBLIC.encode(), port)) is None
            await it.canaries.settle()
            assert it.met == []
            for port in (80, 443, 8080, 8443, 9000):
                await it.fetch(b"http://public.test:%d/" % port)
            await it.canaries.settle()
            assert [port for _, port in it.met] == [80, 443, 8080, 8443, 9000]
            print(f"G8: {len(CLOSED)} ports, 0 connections")

    in_own_network(main)


SCHEMES = (
    *("file:///etc/passwd", "file://127.0.0.1/etc/passwd", "ftp://127.0.0.1/", "ftps://127.0.0.1/"),
    *(
        "gopher://127.0.0.1:80/_GET",
        "dict://127.0.0.1:80/x",
        "ldap://127.0.0.1/",
        "smb://127.0.0.1",
    ),
    *("data:text/plain,x", "blob:http://127.0.0.1/x", "about:blank", "javascript:1", "tel:1"),
    *("ws://127.0.0.1/", "wss://127.0.0.1/", "ws://169.254.169.254/", "wss://[::1]/"),
    *("http:\\\\127.0.0.1\\x", "http:/127.0.0.1/x", "http:127.0.0.1", "http:///127.0.0.1/"),
    *("http:////127.0.0.1", "hTTp://127.0.0.1", "http://\t127.0.0.1/", " http://127.0.0.1/ "),
    *(
        "chrome://version",
        "view-source:http://127.0.0.1/",
        "jar:http://127.0.0.1!/",
        "//127.0.0.1/",
    ),
    *(
        "//127.0.0.1/",
        "urn:x",
        "ssh://127.0.0.1",
        "http+unix://%2Ftmp",
        "h2://127.0.0.1",
        "coap://127.0.0.1",
    ),
)


def test_only_web_schemes_are_spoken() -> None:
    """G9: 25 and more schemes and half-schemes: 0 connections."""
    assert len(SCHEMES) >= 25

    async def main() -> None:
        async with world() as it, guest(it) as call:
            await call("url", SCHEMES)
            await call("socket", SCHEMES)
            for scheme in SCHEMES:
                assert await it.fetch(scheme.strip().replace("\t", "%09").encode()) is None
            await it.canaries.settle()
            assert it.met == []
            assert it.scopes == []
            print(f"G9: {len(SCHEMES)} schemes x 3 ways, 0 connections")

    in_own_network(main)


# --- G10: TLS ----------------------------------------------------------------------------------


class Authority:
    """An issuer that functions trust here, and certificates of all kinds from it."""

    def __init__(self, folder: Path, name: str = "Tests") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = self._certificate(self._name, self._key, ca=True).public_bytes(Encoding.PEM)

    def roots(self) -> TrustedRoots:
        """Trusts this issuer and nobody else."""
        return TrustedRoots(lambda: ssl.create_default_context(cadata=self.pem.decode()))

    def context(
        self,
        *names: str,
        days: tuple[int, int] = (-1, 1),
        newest: ssl.TLSVersion | None = None,
        common: str = "x",
        own: bool = False,
    ) -> ssl.SSLContext:
        """What a server presents."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        made = self._certificate(subject, key, names=names, days=days, own=own)
        file = self._folder / "tls.pem"
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(secret + made.public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        if newest is not None:
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                context.minimum_version = context.maximum_version = newest
        return context

    def _certificate(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        names: Sequence[str] = (),
        days: tuple[int, int] = (-1, 30),
        ca: bool = False,
        own: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        issuer, signer = (subject, key) if own else (self._name, self._key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
        )
        if ca:
            usage = dict.fromkeys(
                (
                    *("digital_signature", "content_commitment", "key_encipherment"),
                    *("data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
                ),
                False,
            )
            builder = builder.add_extension(
                x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True
            )
        if names:
            alternatives: list[x509.GeneralName] = [
                x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n)
                for n in names
            ]
            builder = builder.add_extension(
                x509.SubjectAlternativeName(alternatives), critical=False
            )
        return builder.sign(signer, hashes.SHA256())


def test_tls_is_checked_against_the_url(tmp_path: Path) -> None:
    """G10: wrong name, expired, not yet valid, self-signed, unknown issuer, old TLS, no SAN:
    refused; a name, a wildcard and an address that fit: met, with the URL's host as SNI."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "Others")
    old = ssl.TLSVersion
    cases: list[tuple[str, ssl.SSLContext, str, bool]] = [
        ("fits", authority.context("public.test"), "public.test", True),
        ("wildcard", authority.context("*.deep.test"), "a.deep.test", True),
        ("address", authority.context(PUBLIC), PUBLIC, True),
        ("wrong name", authority.context("other.test"), "public.test", False),
        ("too deep", authority.context("*.deep.test"), "a.b.deep.test", False),
        ("wrong address", authority.context("93.184.215.15"), PUBLIC, False),
        ("name for address", authority.context("public.test"), PUBLIC, False),
        ("only common name", authority.context(common="public.test"), "public.test", False),
        ("expired", authority.context("public.test", days=(-3, -2)), "public.test", False),
        ("too early", authority.context("public.test", days=(2, 3)), "public.test", False),
        ("self-signed", authority.context("public.test", own=True), "public.test", False),
        ("unknown issuer", other.context("public.test"), "public.test", False),
        ("TLS 1.0", authority.context("public.test", newest=old.TLSv1), "public.test", False),
        ("TLS 1.1", authority.context("public.test", newest=old.TLSv1_1), "public.test", False),
    ]
    assert len(cases) >= 12

    async def main() -> None:
        names = {"a.deep.test": [PUBLIC], "a.b.deep.test": [PUBLIC]}
        seen: list[str | None] = []
        for what, context, host, fits in cases:
            context.sni_callback = lambda _c, name, _x: seen.append(name)
            seen.clear()
            async with world(ports=(80,), names=names, roots=authority.roots()) as it:

                async def talk(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
                    await server(it, r, w)

                listener = await asyncio.start_server(talk, PUBLIC, 443, ssl=context)
                answer = await it.fetch(f"https://{host}/".encode(), [(b"host", b"spoof.test")])
                listener.close()
                assert (answer is not None) == fits, what
                if fits:
                    assert seen == [None if host == PUBLIC else host]
                    assert [v for n, v in it.heads[0][1] if n == b"host"] == [host.encode()]
                else:
                    assert it.heads == [], what
                    assert it.denied[-1][1].reason == "unreachable"
        print(f"G10: {len(cases)} servers")

    in_own_network(main)


# --- G11 and G12: abuse from either side -------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def _drip(first: bytes, rest: bytes, *, every_s: float = 0.0) -> Callable[..., Awaitable[None]]:
    """Says `first`, then `rest` for ever."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        while rest:
            writer.write(rest)
            await writer.drain()
            await asyncio.sleep(every_s)
        await reader.read()  # until the other side has had enough

    return talk


def _once(said: bytes) -> Callable[..., Awaitable[None]]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()

    return talk


ABUSE: dict[str, tuple[Callable[..., Awaitable[None]], str]] = {
    "endless headers": (_drip(HEAD, b"x-a: " + b"y" * 1000 + b"\r\n"), "refused"),
    "one endless header": (_drip(HEAD + b"x-a: ", b"y" * 65536), "refused"),
    "a million names": (_drip(HEAD, b"a:\r\n" * 1000), "refused"),
    "endless reason": (_drip(b"HTTP/1.1 200 ", b"y" * 65536), "refused"),
    "endless interim": (_drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 10), "refused"),
    "endless early hints": (
        _drip(b"", b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n" * 10),
        "refused",
    ),
    "silence": (_drip(b"", b""), "refused"),
    "slow head": (_drip(HEAD, b"x: y\r\n", every_s=0.02), "refused"),
    "slow line": (_drip(b"", b"H", every_s=0.05), "refused"),
    "not HTTP": (_once(b"220 mail.example.com ESMTP\r\n"), "refused"),
    "closes": (_once(b""), "refused"),
    "gzip as coding": (_once(HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n"), "refused"),
    "two lengths": (
        _once(HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        "refused",
    ),
    "length and chunks": (
        _once(HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        "refused",
    ),
    "endless body": (_drip(HEAD + b"\r\n", b"y" * 65536), "cut by reader"),
    "endless chunks": (_drip(CHUNKED, b"10000\r\n" + b"y" * 65536 + b"\r\n"), "cut by reader"),
    "endless extension": (_drip(CHUNKED + b"1;", b"y" * 65536), "broken"),
    "bad chunk": (_once(CHUNKED + b"zz\r\nab\r\n0\r\n\r\n"), "broken"),
    "huge chunk": (_once(CHUNKED + b"f" * 17 + b"\r\nab"), "broken"),
    "endless trailers": (_drip(CHUNKED + b"0\r\n", b"x-t: " + b"y" * 1000 + b"\r\n"), "broken"),
    "short body": (_once(HEAD + b"content-length: 10\r\n\r\nab"), "broken"),
    "stalled body": (_drip(HEAD + b"content-length: 10\r\n\r\nab", b""), "broken"),
}


@pytest.mark.parametrize("kind", ABUSE)
def test_a_server_that_abuses_us_gets_nothing_of_us(kind: str) -> None:
    """G11: endless, slow, contradictory and broken answers: an error for the function, and our
    memory stays flat."""
    talk, expected = ABUSE[kind]

    async def main() -> None:
        timeouts = Timeouts(connect_s=1, first_byte_s=0.6, idle_s=0.6)
        async with world(timeouts=timeouts) as it:
            it.canaries.talk[80] = talk
            client = wire.Client(it.socket, loop=asyncio.get_running_loop())
            before = psutil.Process().memory_info().rss
            connection = await client.acquire(fresh=True)
            connection.begin(b"GET", b"http://public.test/", b"", 0)
            said, size = "refused", 0
            async with asyncio.timeout(30):
                with contextlib.suppress(WireError):
                    await connection.head()
                    said = "broken"
                    while await connection.read():
                        size += 1
                        if size > 200:  # 10 MiB and more
                            break
                    said = "cut by reader"
            assert said == expected
            grown = (psutil.Process().memory_info().rss - before) / MIB
            assert grown < 64, f"{grown:.0f} MiB"
            connection.abort()
            client.close()

    in_own_network(main)


def test_a_bomb_passes_as_it_is() -> None:
    """G11: what is compressed is not opened on its way: the function's memory, not ours."""
    bomb = gzip.compress(b"\0" * (64 * MIB))
    answer = HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb) + bomb

    async def main() -> None:
        async with world() as it:
            it.canaries.talk[80] = _once(answer)
            got = await it.fetch(b"http://public.test/")
            assert got is not None
            assert got[2] == bomb

    in_own_network(main)


async def _say(path: Path, stream: bytes) -> None:
    """Send bytes to an egress socket, and read what comes until it ends, or nothing more does."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(stream)
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(0.05):
            while await reader.read(65536):
                pass
    writer.close()


def test_the_proxys_own_parser_is_strict() -> None:
    """G12: the ambiguous requests of A1, as an engine that is no longer ours would send them: at
    most one request leaves for each, framed in one way, and never the one hidden behind it."""
    streams = [
        stream.replace(b" /mirror", b" http://public.test/mirror").replace(b"@", b"public.test")
        for stream in vectors.framing()
    ]
    hidden = vectors.SMUGGLED.replace(b" /mirror", b" http://public.test/mirror")
    assert len(streams) >= 66

    async def main() -> None:
        left = Counter[bytes]()
        framing = {b"content-length", b"transfer-encoding"}
        async with world(timeouts=Timeouts(1, 0.3, 0.3)) as it:
            # each has a path of its own: one that leaves late is not taken for its successor's
            for n, stream in enumerate(streams):
                for path in (b"/alone-%d" % n, b"/followed-%d" % n):
                    asked = stream.replace(b"/mirror", path)
                    await _say(it.socket, asked + hidden * path.startswith(b"/followed"))
            for line, fields in it.heads:
                left[line.split(b"/")[1]] += 1
                assert b"smuggled" not in line
                assert sum(name in framing for name, _ in fields) <= 1, line
                assert [v for n, v in fields if n == b"host"] == [b"public.test"], line
            assert set(left.values()) == {1}, left
            assert {address for address, _ in it.met} <= {PUBLIC}
            alone = sum(path.startswith(b"alone") for path in left)
            assert alone > 20  # some of them are merely odd
            print(f"G12: {len(streams)} streams, {alone} requests left, 0 smuggled")

    in_own_network(main)


def test_identity_is_the_socket() -> None:
    """G12: no header makes a request another function's: each egress socket has its own rules
    and its own secrets, whatever is said on it."""
    claims: Headers = [
        (b"x-egress-tenant", b"other"),
        (b"x-amba-function-name", b"other"),
        (b"x-amba-project-id", b"p-2"),
        (MARK + b"-caller", b"r-of-another"),
        (b"amba-run-ffffffffffffffff-caller", b"r"),
    ]

    async def main() -> None:
        rules = {"only": ["public.test"]}
        async with world(rules=rules) as it:
            assert await it.fetch(b"http://public6.test/", list(claims)) is None
            assert await it.fetch(b"http://public.test/", list(claims)) is not None
            names = {name for name, _ in it.heads[0][1]}
            assert not any(n.startswith((b"x-amba", MARK)) for n in names)
            await it.fetch(b"https://shop.fn.amba.test/f", list(claims))
            seen = {name for name, _ in it.scopes[0]["headers"]}
            assert not any(n.startswith((b"x-amba", MARK)) for n in seen)

    in_own_network(main)


# --- G13 and G14: a function's own rules -------------------------------------------------------

LISTED = ("api.stripe.com", "*.example.test", "xn--bcher-kva.test", "port.test:8080", PUBLIC)
ALLOWLIST: dict[str, bool] = {
    "http://api.stripe.com/": True,
    "http://API.STRIPE.COM/": True,
    "http://api.stripe.com./": True,
    "http://api.stripe.com:80/v1?x=1": True,
    "http://api.stripe.com:8080/": False,
    "http://stripe.com/": False,
    "http://a.api.stripe.com/": False,
    "http://xapi.stripe.com/": False,
    "http://api.stripe.com.evil.test/": False,
    "http://api-stripe.com/": False,
    "http://a.example.test/": True,
    "http://a.b.c.example.test/": True,
    "http://A.EXAMPLE.TEST./": True,
    "http://example.test/": False,
    "http://aexample.test/": False,
    "http://a.example.test.evil.test/": False,
    "http://a.example.test:8080/": False,
    "http://xn--bcher-kva.test/": True,
    "http://b\u00fccher.test/": True,
    "http://B\u00dcCHER.test/": True,
    "http://bucher.test/": False,
    "http://xn--bcher-kvb.test/": False,
    "http://port.test:8080/": True,
    "http://port.test/": False,
    "http://port.test:8443/": False,
    f"http://{PUBLIC}/": True,
    "http://93.184.215.15/": False,
    "http://public.test/": False,
    f"http://[::ffff:{PUBLIC}]/": False,
    "http://1572394766/": True,  # the same address, as WHATWG reads it
    "http://127.0.0.1/": False,
    "http://private.example.test/": False,  # listed, and denied all the same
}


def test_an_allowlist_is_exact() -> None:
    """G13: exact, `*.suffix`, trailing dot, punycode, case, port: from the real engine; what is
    not listed is asked of no resolver, and no list opens a denied address."""
    assert len(ALLOWLIST) >= 30
    hosts = (
        *("api.stripe.com", "stripe.com", "a.api.stripe.com", "xapi.stripe.com", "bucher.test"),
        *("api.stripe.com.evil.test", "a.example.test", "a.b.c.example.test", "example.test"),
        *("xn--bcher-kva.test", "port.test", "api-stripe.com", "aexample.test"),
    )
    names: dict[str, Sequence[str]] = {host: [PUBLIC] for host in hosts}
    names["private.example.test"] = ["10.0.0.1"]

    async def main() -> None:
        async with world(names=names, rules={"only": list(LISTED)}) as it, guest(it) as call:
            for url, reached in ALLOWLIST.items():
                asked = len(it.names.asked)
                (told,) = await call("url", [url])
                assert (told[0] == "ok") == reached, url
                if not reached and "private" not in url:
                    assert len(it.names.asked) == asked, url
            assert {address for address, _ in it.met} == {PUBLIC}
            print(f"G13: {len(ALLOWLIST)} targets")

    in_own_network(main)


@pytest.mark.parametrize(
    ("url", "position", "real"),
    [
        ("https://public.test/", "header", True),
        ("https://public.test/echo", "header", True),
        ("https://public.test/", "url", False),
        ("https://public.test/", "body", False),
        ("https://public.test/", "name", False),
        ("http://public.test/", "header", False),
        ("https://public.test:8443/", "header", False),
        ("https://other.test/", "header", False),
        ("https://sub.public.test/", "header", False),
        ("https://public.test.evil.test/", "header", False),
        (f"https://{PUBLIC}/", "header", False),
        ("http://localhost:8080/", "header", False),
    ],
)
def test_a_secret_leaves_for_its_host_in_a_header(
    tmp_path: Path, url: str, position: str, real: bool
) -> None:
    """G14: the value is met by the named host, over TLS, in a header's value, and nowhere else;
    an echo comes back with the placeholder."""
    authority = Authority(tmp_path)
    hosts = ["public.test", "other.test", "sub.public.test", "public.test.evil.test", PUBLIC]
    context = authority.context(*hosts)

    async def main() -> None:
        names = {host: [PUBLIC] for host in hosts[:-1]}
        rules = {"secrets": {"KEY": ["public.test"]}}
        async with world(ports=(80, 8080), names=names, rules=rules, roots=authority.roots()) as it:
            bodies: list[bytes] = []

            async def talk(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
                with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                    await server(it, r, w)
                w.close()

            listeners = [
                await asyncio.start_server(talk, PUBLIC, port, ssl=context) for port in (443, 8443)
            ]
            env = it.outbound.placeholders.mask((("KEY", CANARY),))
            given = dict(env)["KEY"].encode()
            fields: Headers = []
            target, body = url.encode(), b""
            if position == "header":
                fields = [(b"authorization", b"Bearer " + given)]
            elif position == "url":
                target += given + b"?k=" + given
            elif position == "name":
                fields = [(b"x-" + given.replace(b"_", b"-"), b"1"), (given, b"1")]
            else:
                body = b"key=" + given
            answer = await it.fetch(target, fields, body=body, method=b"POST" if body else b"GET")
            for listener in listeners:
                listener.close()
            sent = b"\n".join(line + repr(head).encode() for line, head in it.heads)
            assert (CANARY.encode() in sent) == real
            if real:
                assert answer is not None
                assert CANARY.encode() not in answer[2] + repr(answer[1]).encode()
                assert (given in answer[2]) == url.endswith("echo")
            assert bodies == []
            assert CANARY not in str(it.denied)

    in_own_network(main)


def test_limits_of_one_engine_hold_for_one_that_is_no_longer_ours() -> None:
    """E17 to E19 behind G: connections to one egress socket are capped in the host, whatever the
    code behind it has become."""
    most = limits.WIRE_CONNECTIONS.value

    async def main() -> None:
        async with world() as it:
            it.canaries.talk[80] = _drip(b"", b"")
            before = psutil.Process().num_fds()
            writers: list[asyncio.StreamWriter] = []
            for _ in range(most + 500):
                _, writer = await asyncio.open_unix_connection(str(it.socket))
                with contextlib.suppress(ConnectionError):
                    writer.write(b"GET http://public.test/ HTTP/1.1\r\nhost: x\r\n\r\n")
                writers.append(writer)
            await it.canaries.settle()
            assert len(it.met) <= most
            for writer in writers:
                writer.close()
            async with asyncio.timeout(20):
                while psutil.Process().num_fds() > before + 10:  # noqa: ASYNC110  closed by and by
                    await asyncio.sleep(0)
            print(f"E19: {most + 500} connections, {len(it.met)} of them served")

    in_own_network(main)
