"""The counting `fetch`: its limits, whose request it is, and that nothing else of it changed."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.runtime.engine.lab import MARK, Lab, ask, on_workerd

from amba_runtime import limits
from amba_runtime.engine.workerd.engine import WorkerdEngine
from amba_runtime.underway import EVENT, GUESS
from amba_runtime.wire import Headers, Request, Response

pytestmark = pytest.mark.slow

CALLER = f"amba-run-{MARK}-caller".encode()
BREACH = f"amba-run-{MARK}-breach".encode()
TWICE = "\nconst alias = { fetch: 1 };"
"""Makes the word stand twice, as in any bundle that fetches by its name."""


def worker(body: str, *, before: str = "") -> str:
    """A module whose fetch handler has this body."""
    return f"{before}\nexport default {{ async fetch(request, env, ctx) {{ {body} }} }};{TWICE}"


@dataclass
class World:
    """An egress that answers when it is let, and remembers what it was asked."""

    held: bool = False
    seen: list[Request] = field(default_factory=list[Request])
    bodies: list[bytes] = field(default_factory=list[bytes])
    waiting: int = 0
    most: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    breaches: list[tuple[bytes | None, bytes]] = field(
        default_factory=list[tuple[bytes | None, bytes]]
    )

    async def __call__(self, request: Request) -> Response:
        breach = request.header(BREACH)
        if breach is not None:
            self.breaches.append((request.header(CALLER), breach))
            self.news.set()
            return Response(204)
        self.seen.append(request)
        self.bodies.append(b"" if request.upgrade else await request.read(1 << 20))
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        self.news.set()
        try:
            if self.held:
                await self.gate.wait()
        finally:
            self.waiting -= 1
        if request.target.endswith(b"/redirect"):
            return Response(302, [(b"location", b"/landed")])
        return Response(200, [(b"x-a", b"1")], b"body of " + request.target)

    async def until(self, there: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not there():
                self.news.clear()
                await self.news.wait()

    def callers(self) -> list[bytes | None]:
        return [request.header(CALLER) for request in self.seen]


# --- how many ----------------------------------------------------------------------------------


def test_six_wait_for_their_answers_and_the_others_queue() -> None:
    """At most `subrequests_at_once` are on their way; the rest follow in order (row E17)."""

    async def body(lab: Lab) -> None:
        world = World(held=True)
        source = worker(
            """
            const urls = Array.from({ length: 20 }, (_, i) => "http://x.test/" + i);
            const answers = await Promise.all(urls.map(async (u) => (await fetch(u)).text()));
            return Response.json(answers);
            """
        )
        isolate = await lab.serving(source, egress=world)
        asking = asyncio.ensure_future(ask(isolate))
        await world.until(lambda: world.waiting == 6)
        await isolate.ping()  # the guest had its turn: no seventh came
        assert world.waiting == 6
        world.gate.set()
        answers = json.loads((await asking).body)
        assert answers == [f"body of http://x.test/{i}" for i in range(20)]
        assert world.most == 6
        order = [int(request.target.rsplit(b"/", 1)[1]) for request in world.seen]
        assert sorted(order[:6]) == list(range(6))
        assert sorted(order) == list(range(20))

    on_workerd(body)


@pytest.mark.parametrize(
    "call",
    [
        'await caches.default.match("http://x.test/")',
        'await (await caches.open("c")).delete("http://x.test/")',
        'await env.STORAGE.head("k")',
        'await env.STORAGE.delete("k")',
        'await env.STORAGE.resumeMultipartUpload("k", "u").abort()',
        'await env.EDGE_DB_PROXY.fetch("https://edge-db-proxy/query", { method: "POST" })',
        'await env["EDGE_DB" + "_PROXY"].fetch("https://edge-db-proxy/")',
    ],
)
def test_calls_of_a_cache_and_of_storage_count(call: str) -> None:
    """As in production: one limit for whatever leaves the isolate (contract B; row E17)."""

    async def body(lab: Lab) -> None:
        asked: list[str] = []

        async def storage(request: Request) -> Response:
            asked.append(request.method)
            await request.read(1 << 20)
            return Response(404)

        world = World()
        source = worker(
            f"""
            const told = {{ made: 0 }};
            for (let i = 0; i < 5; i++) {{
              try {{ {call}; told.made++; }} catch (e) {{
                if (/Too many subrequests/.test(e.message)) told.over = (told.over ?? 0) + 1;
                else told.made++; // the other end has nothing
              }}
            }}
            return Response.json(told);
            """
        )
        isolate = await lab.serving(
            source, egress=world, storage=storage, database=storage, limits={"subrequests": 3}
        )
        assert json.loads((await ask(isolate)).body) == {"made": 3, "over": 2}
        assert len(asked) == (0 if "caches" in call else 3)
        await world.until(lambda: bool(world.breaches))
        assert world.breaches == [(b"r-1", b"subrequests 4 3")]

    on_workerd(body)


@pytest.mark.parametrize(
    "call", ['env.STORAGE.head("k" + i)', 'env.EDGE_DB_PROXY.fetch("http://x/query?" + i)']
)
def test_so_many_calls_of_services_are_under_way_at_once(call: str) -> None:
    """In our process, whatever the guest's realm says; the others follow (row E17)."""

    async def body(lab: Lab) -> None:
        world = World(held=True)
        most = limits.SERVICE_CALLS.value
        source = worker(
            f"""
            const calls = Array.from({{ length: {most + 9} }}, (_, i) => {call});
            return Response.json((await Promise.allSettled(calls)).length);
            """
        )
        isolate = await lab.serving(source, storage=world, database=world)
        asking = asyncio.ensure_future(ask(isolate))
        await world.until(lambda: world.waiting == most)
        await isolate.ping()
        assert world.waiting == most
        world.gate.set()
        assert json.loads((await asking).body) == most + 9
        assert world.most == most

    on_workerd(body)


def test_an_answer_that_has_begun_counts_no_more() -> None:
    """Only those that wait for headers are counted: bodies may stay unread (reliability 2.3)."""

    async def body(lab: Lab) -> None:
        source = worker(
            """
            const held = [];
            for (let i = 0; i < 12; i++) held.push(await fetch("http://x.test/" + i));
            return new Response(String(held.length));
            """
        )
        isolate = await lab.serving(source, egress=World(), limits={"subrequests_at_once": 2})
        assert (await ask(isolate)).body == b"12"

    on_workerd(body)


def test_each_invocation_has_its_own_count() -> None:
    """Two at once: each has `subrequests_at_once` of its own (reliability.md 2.3)."""

    async def body(lab: Lab) -> None:
        world = World(held=True)
        source = worker(
            """
            const all = [1, 2, 3, 4].map((i) => fetch("http://x.test/" + i));
            return Response.json((await Promise.all(all)).map((r) => r.status));
            """
        )
        isolate = await lab.serving(source, egress=world, limits={"subrequests_at_once": 2})
        asking = [asyncio.ensure_future(ask(isolate, request_id=f"r-{i}")) for i in range(3)]
        await world.until(lambda: world.waiting == 6)
        world.gate.set()
        assert [json.loads((await one).body) for one in asking] == [[200] * 4] * 3
        assert world.most == 6
        assert sorted(world.callers(), key=str) == [b"r-0"] * 4 + [b"r-1"] * 4 + [b"r-2"] * 4

    on_workerd(body)


@pytest.mark.parametrize("most", [1, 50])
def test_over_the_limit_it_throws_and_names_it(most: int) -> None:
    """The last one in all passes, the next throws in JS, and the host hears of it once
    (rows E17 and M3; reliability.md 2.3, "thrown in JS")."""

    async def body(lab: Lab) -> None:
        world = World()
        source = worker(
            f"""
            let done = 0;
            const thrown = [];
            for (let i = 0; i < {most + 3}; i++) {{
              try {{ await fetch("http://x.test/" + i); done++; }}
              catch (e) {{ thrown.push(String(e)); }}
            }}
            return Response.json({{ done, thrown }});
            """
        )
        isolate = await lab.serving(source, egress=world, limits={"subrequests": most})
        for again in ("r-1", "r-2"):
            said = json.loads((await ask(isolate, request_id=again)).body)
            assert said["done"] == most
            assert len(said["thrown"]) == 3
            assert f'may make {most} (limit "subrequests")' in said["thrown"][0]
        await world.until(lambda: len(world.breaches) == 2)
        told = f"subrequests {most + 1} {most}".encode()
        assert world.breaches == [(b"r-1", told), (b"r-2", told)]

    on_workerd(body)


def test_ten_thousand_at_once_end_at_the_limit() -> None:
    """1,000 are made, six at a time; the others throw; the isolate serves on (row E17)."""

    async def body(lab: Lab) -> None:
        world = World()
        source = worker(
            """
            const all = Array.from({ length: 10000 }, () => fetch("http://x.test/"));
            const told = await Promise.allSettled(all);
            return Response.json({
              done: told.filter((t) => t.status === "fulfilled").length,
              thrown: told.filter((t) => t.status === "rejected").length,
            });
            """
        )
        isolate = await lab.serving(source, egress=world)
        assert json.loads((await ask(isolate)).body) == {"done": 1000, "thrown": 9000}
        assert world.most <= 6
        assert len(world.seen) == 1000
        assert (await ask(isolate)).status == 200

    on_workerd(body)


def test_other_ways_out_count_too() -> None:
    """WebSocket, EventSource and sendBeacon are subrequests (row E18)."""

    async def body(lab: Lab) -> None:
        source = worker(
            """
            const thrown = [];
            for (const make of [
              () => new WebSocket("ws://x.test/"), () => new EventSource("http://x.test/"),
              () => navigator.sendBeacon("http://x.test/"),
              () => new (class extends WebSocket {})("ws://x.test/"),
              () => new WebSocket.prototype.constructor("ws://x.test/"),
            ]) {
              try { make(); thrown.push("no"); } catch (e) { thrown.push(String(e).slice(0, 27)); }
            }
            const pair = new WebSocketPair();
            return Response.json({ thrown, instance: pair[0] instanceof WebSocket });
            """,
        ).replace("const thrown", 'await fetch("http://x.test/"); const thrown', 1)
        isolate = await lab.serving(source, egress=World(), limits={"subrequests": 1})
        said = json.loads((await ask(isolate)).body)
        assert said == {"thrown": ["Error: Too many subrequests"] * 5, "instance": True}

    on_workerd(body)


def test_a_schedule_counts_as_well() -> None:
    """An event goes by a name that the host gave it, and has the same limits (contract B, E17)."""

    async def body(lab: Lab) -> None:
        world = World()
        source = """
            export default { async scheduled() {
              for (let i = 0; i < 5; i++) await fetch("http://x.test/" + i);
            } };
        """
        isolate = await lab.serving(source, egress=world, limits={"subrequests": 3})
        event = await isolate.scheduled(cron="* * * * *", scheduled_time_ms=0)
        assert event.outcome == "exception"
        assert "Too many subrequests" in event.tell.exceptions[0].message
        who = set(world.callers())
        assert len(world.seen) == 3
        assert len(who) == 1
        name = (who.pop() or b"").decode()
        assert name.startswith(EVENT)
        assert lab.callers.believed(name) == name

    on_workerd(body)


def test_console_lines_have_the_functions_own_limit() -> None:
    """`log_kib`: what is over it is dropped, that is said, and the host hears of it once (E26)."""

    async def body(lab: Lab) -> None:
        world = World()
        line = "x" * 100
        source = worker(
            f'for (let i = 0; i < 100; i++) console.log("{line}"); return new Response("")'
        )
        isolate = await lab.serving(source, egress=world, limits={"log_kib": 2})
        tell = (await ask(isolate)).tell
        assert tell is not None
        assert 10 < len(tell.logs) < 20
        assert tell.logs[-1].message == [
            "[amba-run] further console lines were dropped: 2 KiB per invocation"
        ]
        await world.until(lambda: bool(world.breaches))
        assert world.breaches == [(b"r-1", b"log_kib 3 2")]

    on_workerd(body)


# --- whose -------------------------------------------------------------------------------------


def test_the_host_learns_whose_request_it_is_and_the_guest_nothing() -> None:
    """The caller's id rides under a name that no guest ever sees, across redirects too (E29)."""

    async def body(lab: Lab) -> None:
        world = World()
        source = worker(
            """
            const mine = new Request("http://x.test/redirect", { headers: { "x-mine": "1" } });
            const answer = await fetch(mine);
            await fetch(request);
            return Response.json({
              url: answer.url, redirected: answer.redirected,
              mine: [...mine.headers.keys()], incoming: [...request.headers.keys()],
              answer: [...answer.headers.keys()],
            });
            """
        )
        isolate = await lab.serving(source, egress=world)
        said = json.loads((await ask(isolate, request_id="r-7")).body)
        assert world.callers() == [b"r-7"] * 3
        assert (said["url"], said["redirected"]) == ("http://x.test/landed", True)
        assert said["mine"] == ["x-mine"]
        assert MARK not in json.dumps(said)

    on_workerd(body)


FORGERIES = (
    'fetch("http://x.test/", { headers: { "x-amba-request-id": "r-9" } })',
    'globalThis["fe" + "tch"].call(null, "http://x.test/")',
    'Object.getPrototypeOf(globalThis)["fe" + "tch"]("http://x.test/")',
    'ServiceWorkerGlobalScope.prototype["fe" + "tch"].call(globalThis, "http://x.test/")',
)


@pytest.mark.parametrize("call", FORGERIES)
def test_no_detour_leads_around_the_count(call: str) -> None:
    """By whatever name it is reached, it is the counted one, and the id is the true one (E27).

    The bundle names nothing that needs a context: the host is told that the id is a guess.
    """

    async def body(lab: Lab) -> None:
        world = World()
        source = f"export default {{ async fetch() {{ await {call}; return new Response('') }} }}"
        isolate = await lab.serving(source, egress=world, limits={"subrequests": 1})
        assert (await ask(isolate, request_id="r-3")).status == 200
        assert world.callers() == [(GUESS if "x-amba" not in call else "").encode() + b"r-3"]
        over = source.replace(f"await {call}", f"await {call}; await {call}")
        isolate = await lab.serving(over, egress=world, limits={"subrequests": 1})
        answer = await ask(isolate)
        assert answer.threw
        assert answer.tell is not None
        assert "Too many subrequests" in answer.tell.exceptions[0].message

    on_workerd(body)


def test_the_shims_own_parts_are_out_of_reach() -> None:
    """A guest that imports our modules (`eval` may, at the start) finds nothing to speak with."""

    async def body(lab: Lab) -> None:
        source = """
            const found = {};
            for (const name of ["prelude", "subrequests", "guest"]) {
              const ours = await eval('import("./' + name + '.mjs")').catch((e) => ({ [e]: 1 }));
              found[name] = Object.keys(ours);
              if (ours.take) found.taken = ours.take();
            }
            export default { fetch() { return Response.json(found); } };
        """
        said = json.loads((await ask(await lab.serving(source))).body)
        assert said.pop("prelude") == ["take"]
        assert said.pop("taken") is None
        assert said.pop("subrequests") == ["guardFetches"]
        assert MARK not in json.dumps(said)

    on_workerd(body)


HOSTILE = {
    "Headers.set": "Headers.prototype.set = function (n, v) { seen.push(n + v); };",
    "Headers.get": "Headers.prototype.get = () => 'r-evil';",
    "Request": "globalThis.Request = class { constructor() { throw 1 } };",
    "Request.headers": "Object.defineProperty(Request.prototype, 'headers',"
    " { get() { return new Headers() } });",
    "Reflect.apply": "Reflect.apply = (...a) => { seen.push(String(a)); };",
    "Promise.then": "Promise.prototype.then = new Proxy(Promise.prototype.then,"
    " { apply(t, s, a) { seen.push('t'); return Reflect.apply(t, s, a) } });",
    "Promise": "globalThis.Promise = class {};",
    "Object.prototype.get": "Object.prototype.get = () => { seen.push('trap') }; ",
    "Object.prototype.set": "Object.defineProperty(Object.prototype, 'set',"
    " { set() { seen.push('set') } });",
    "Object.prototype.headers": "Object.prototype.headers = { 'x-polluted': '1' };",
    "Object.prototype.first": "Object.prototype.first = { go() {} };",
    "Array.iterator": "Array.prototype[Symbol.iterator] = function* () { seen.push('it') };",
    "Function.call": "Function.prototype.call = () => 'r-evil';",
    "Function.apply": "Function.prototype.apply = () => 'r-evil';",
    "JSON": "JSON.parse = JSON.stringify = () => 'evil';",
    "ALS": "globalThis.AsyncLocalStorage = class {};",
    "EventTarget": "EventTarget.prototype.addEventListener = () => {};",
    "String": "globalThis.String = () => 'r-evil';",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_polluted_realm_counts_the_same(name: str) -> None:
    """What a guest makes of shared objects changes neither the id nor the count (row E27)."""
    if name in ("Object.prototype.headers", "Request"):
        # the engine reads this itself from what a guest hands it: it is the guest's own doing
        fetch = 'plain("http://x.test/", { headers: {} })'
    else:
        fetch = 'plain("http://x.test/")'

    async def body(lab: Lab) -> None:
        world = World()
        source = f"""
            const seen = [];
            const plain = fetch;
            const nothing = () => {{}};
            {HOSTILE[name]}
            export default {{ fetch() {{
              for (let i = 0; i < 9; i++) {fetch}.catch(nothing);
              return {fetch}.then(nothing, (e) => e.message)
                .then((m) => new Response(m + "|" + seen));
            }} }};
        """
        isolate = await lab.serving(source, egress=world, limits={"subrequests": 4})
        answer = await ask(isolate, request_id="r-5")
        assert MARK.encode() not in answer.body
        await world.until(lambda: bool(world.breaches))
        assert set(world.callers()) == {b"r-5"}
        assert len(world.seen) <= 4
        assert world.breaches == [(b"r-5", b"subrequests 5 4")]

    on_workerd(body)


# --- and nothing else changed ------------------------------------------------------------------

CASES = {
    "url": '["http://x.test/a?b=c#d"]',
    "url object": '[new URL("http://x.test/a")]',
    "post text": '["http://x.test/", { method: "POST", body: "text" }]',
    "post json": '["http://x.test/", { method: "POST", body: "{}", headers: { "content-type": '
    '"application/json" } }]',
    "post form": '["http://x.test/", { method: "POST", body: new URLSearchParams({ a: "1" }) }]',
    "post bytes": '["http://x.test/", { method: "PUT", body: new Uint8Array([1, 2, 3]) }]',
    "post blob": '["http://x.test/", { method: "POST", body: new Blob(["blob"], { type: "x/y" }) '
    "}]",
    "post stream": '["http://x.test/", { method: "POST", body: new Response("streamed").body }]',
    "post nothing": '["http://x.test/", { method: "POST" }]',
    "get with body": '["http://x.test/", { method: "GET", body: "no" }]',
    "request": '[new Request("http://x.test/r", { method: "POST", body: "r", headers: { "x-b": '
    '"2" } })]',
    "request and init": '[new Request("http://x.test/r", { headers: { "x-b": "2" } }), { method: '
    '"DELETE" }]',
    "used request": '[await (async () => { const r = new Request("http://x.test/", '
    '{ method: "POST", body: "1" }); await r.text(); return r })()]',
    "relative": '["/relative"]',
    "empty": '[""]',
    "no argument": "[]",
    "undefined": "[undefined]",
    "null init": '["http://x.test/", null]',
    "bad init": '["http://x.test/", 5]',
    "bad scheme": '["ftp://x.test/"]',
    "data": '["data:text/plain,hello"]',
    "bad method": '["http://x.test/", { method: "B D" }]',
    "lower method": '["http://x.test/", { method: "patch", body: "x" }]',
    "bad header": '["http://x.test/", { headers: { "b d": "1" } }]',
    "many headers": '["http://x.test/", { headers: [["set-cookie", "a=1"], ["x-a", "1"], ["x-a", '
    '"2"]] }]',
    "manual redirect": '["http://x.test/redirect", { redirect: "manual" }]',
    "error redirect": '["http://x.test/redirect", { redirect: "error" }]',
    "followed redirect": '["http://x.test/redirect"]',
    "post redirect": '["http://x.test/redirect", { method: "POST", body: "again" }]',
    "aborted": '["http://x.test/", { signal: AbortSignal.abort() }]',
    "aborted with a reason": '["http://x.test/", { signal: AbortSignal.abort(new Error("mine")) }]',
    "user info": '["http://u:p@x.test/"]',
    "cf": '["http://x.test/", { cf: { cacheTtl: 5 } }]',
    "cache": '["http://x.test/", { cache: "no-store" }]',
    "getter throws": '["http://x.test/", { get method() { throw new Error("mine") } }]',
    "upgrade": '["http://x.test/", { headers: { upgrade: "websocket" } }]',
}


@pytest.mark.parametrize("name", CASES)
def test_fetch_means_what_it_meant(name: str) -> None:
    """The same request leaves, and the same answer or error comes back, with and without us."""

    async def body(lab: Lab) -> None:
        source = worker(
            f"""
            const told = {{}};
            try {{
              const answer = await fetch(...{CASES[name]});
              told.status = answer.status; told.url = answer.url;
              told.redirected = answer.redirected; told.headers = [...answer.headers];
              told.text = await answer.text();
            }} catch (e) {{
              told.error = (e?.name ?? "") + ": " + (e?.message ?? e);
            }}
            return Response.json(told);
            """
        )
        told: list[Any] = []
        for native in (False, True):
            if native:
                _native(lab)
            world = World()
            isolate = await lab.serving(source, egress=world)
            said = json.loads((await ask(isolate)).body)
            asked = [
                (r.method, r.target, sorted(_plain(r.headers)), sent)
                for r, sent in zip(world.seen, world.bodies, strict=True)
            ]
            told.append((said, asked))
        ours, natives = told
        if name == "bad init":  # the words for it begin with who noticed
            for said in (ours[0], natives[0]):
                said["error"] = re.sub("Failed to .*?parameter 2", "parameter 2", said["error"])
        assert ours == natives

    on_workerd(body)


def _native(lab: Lab) -> None:
    """From here on isolates of this engine have the engine's own `fetch`."""
    assert isinstance(lab.engine, WorkerdEngine)
    modules = lab.engine.modules
    assert b"guardFetches(internals);" in modules["shim.mjs"]
    modules["shim.mjs"] = modules["shim.mjs"].replace(b"guardFetches(internals);", b"")


def _plain(fields: Headers) -> Headers:
    return [f for f in fields if f[0] not in (CALLER, b"sec-websocket-key")]


def test_an_abort_ends_what_is_on_its_way_and_what_queues() -> None:
    """Both are told their reason at once; the place of the one that left is free (row E24)."""

    async def body(lab: Lab) -> None:
        world = World(held=True)
        source = worker(
            """
            const first = new AbortController(), second = new AbortController();
            const sent = fetch("http://x.test/1", { signal: first.signal })
              .catch((e) => "1 " + e.message);
            const queued = fetch("http://x.test/2", { signal: second.signal })
              .catch((e) => "2 " + e.message);
            const last = fetch("http://x.test/3").then((r) => r.text());
            second.abort(new Error("left the line"));
            const two = await queued;
            first.abort(new Error("gave up"));
            const one = await sent;
            return Response.json([one, two, await last]);
            """
        )
        isolate = await lab.serving(source, egress=world, limits={"subrequests_at_once": 1})
        asking = asyncio.ensure_future(ask(isolate))
        await world.until(lambda: any(r.target.endswith(b"/3") for r in world.seen))
        world.gate.set()
        assert json.loads((await asking).body) == [
            "1 gave up",
            "2 left the line",
            "body of http://x.test/3",
        ]
        assert not any(r.target.endswith(b"/2") for r in world.seen)

    on_workerd(body)


def test_a_websocket_passes_through_fetch() -> None:
    """`fetch` with an upgrade is sent as one (contract B, the web's own API)."""

    async def body(lab: Lab) -> None:
        world = World()
        source = worker(
            """
            const answer = await fetch("http://x.test/", { headers: { Upgrade: "websocket" } });
            return new Response(String(answer.status));
            """
        )
        isolate = await lab.serving(source, egress=world)
        assert (await ask(isolate)).status == 200
        assert world.seen[0].upgrade
        assert world.callers() == [b"r-1"]

    on_workerd(body)
