"""The JavaScript side of the seam: env, console, exceptions, and guests that mean no good."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.engine.lab import (
    GUESTS,
    Lab,
    answer,
    ask,
    begin,
    bundled,
    guest,
    on_workerd,
)

from amba_runtime.outcome import LogLine, Tell
from amba_runtime.wire import Request, Response

pytestmark = pytest.mark.slow

KIB = 1024


def worker(body: str, *, before: str = "") -> str:
    """A module whose fetch handler has this body."""
    return f"{before}\nexport default {{ async fetch(request, env, ctx) {{ {body} }} }};"


def messages(tell: Tell | None) -> list[list[Any]]:
    assert tell is not None
    return [line.message for line in tell.logs]


# --- env ---------------------------------------------------------------------------------------


def test_env_is_exactly_what_was_given() -> None:
    """The strings as they are, whatever is in them; nothing of ours (contract C)."""
    given = {
        "PLAIN": "value",
        "EMPTY": "",
        "QUOTES": "\"'`\\ ${x}",
        "LINES": "a\nb\r\n\tc",
        "UNICODE": "ä☕\U0001f600",
        "CONTROL": "\x00\x01\x7f",
        "CAPNP": '")), (name = "EVIL", text = "1"), ((',
        "lower-case.name": "odd name",
        "LONG": "x" * 65536,
    }

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle, env=list(given.items()))
        seen = json.loads((await ask(isolate)).body)
        assert seen["values"] == given
        assert seen["names"] == sorted(given)
        assert seen["ctx"] == {"waitUntil": "function", "passThroughOnException": "function"}
        assert seen["props"] == {}

    bundle = guest("env-dump")
    on_workerd(body)


def test_storage_is_there_when_it_is_given() -> None:
    """A bucket object, beside the strings."""

    async def storage(request: Request) -> Response:
        return Response(404)

    async def body(lab: Lab) -> None:
        seen = json.loads((await ask(await lab.serving(bundle, storage=storage))).body)
        assert seen["kinds"] == {"STORAGE": "object"}

    bundle = guest("env-dump")
    on_workerd(body)


def test_the_database_is_a_fetcher() -> None:
    """`fetch` of a URL whose host means nothing; the answer is the far end's (contract B.1)."""
    seen: list[tuple[str, bytes, bytes]] = []

    async def database(request: Request) -> Response:
        seen.append((request.method, request.target, await request.read(100)))
        return Response(200, [(b"content-type", b"application/json")], b'{"rows":[]}')

    async def body(lab: Lab) -> None:
        source = worker(
            """
            const body = JSON.stringify({ sql: "SELECT", params: [] });
            const url = "https://edge-db-proxy/query";
            const answer = await env.EDGE_DB_PROXY.fetch(url, { method: "POST", body });
            const names = Object.keys(env);
            return Response.json([answer.ok, await answer.json(), names]);
            """
        )
        isolate = await lab.serving(source, database=database)
        assert json.loads((await ask(isolate)).body) == [True, {"rows": []}, ["EDGE_DB_PROXY"]]
        assert seen == [("POST", b"/query", b'{"sql":"SELECT","params":[]}')]

    on_workerd(body)


def test_nothing_of_ours_is_in_sight() -> None:
    """No `__AMBA_*` in env, in the importable env, in globals, or on ctx (issue 2, item 5)."""

    async def body(lab: Lab) -> None:
        source = worker(
            """
            const seen = [];
            const look = (from, value) => {
              for (const name of Reflect.ownKeys(value)) {
                if (/amba/i.test(String(name))) seen.push(from + "." + String(name));
              }
            };
            look("env", env);
            look("imported", imported);
            look("global", globalThis);
            look("ctx", ctx);
            look("console", console);
            return Response.json({ seen, imported: Object.keys(imported) });
            """,
            before="import { env as imported } from 'cloudflare:workers';",
        )
        isolate = await lab.serving(source, env=[("MINE", "1")])
        assert json.loads((await ask(isolate)).body) == {"seen": [], "imported": ["MINE"]}

    on_workerd(body)


def test_env_is_fresh_for_every_request() -> None:
    """What one invocation does to it is gone with it (rows E27 and E28)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(worker("env.n = (env.n ?? 0) + 1; return Response.json(env.n)"))
        assert [(await ask(isolate)).body for _ in range(3)] == [b"1", b"1", b"1"]

    on_workerd(body)


# --- console -----------------------------------------------------------------------------------


def test_every_kind_of_value_is_printed() -> None:
    """Texts, numbers, objects, errors, cycles, getters that throw: one JSON row each (row E26)."""

    async def body(lab: Lab) -> None:
        tell = (await ask(await lab.serving(bundle), "/log")).tell
        assert tell is not None
        levels = [line.level for line in tell.logs]
        assert levels == ["log", "info", "warn", "error", "debug", "log", "log", "log", "log"]
        rows = messages(tell)
        assert rows[0] == ["a text", 1, True, None, "undefined"]
        assert rows[1] == [{"nested": {"list": [1, "two", {"three": 3}]}}]
        assert rows[2][0].startswith("TypeError: a logged error\n    at ")
        assert rows[3] == ["cyclic", {"name": "cyclic", "self": "[Circular]"}]
        assert rows[4][:3] == [{"[Map]": [["k", "1"]]}, {"[Set]": [1]}, "Symbol(s)"]
        assert rows[4][4] == "1970-01-01T00:00:00.000Z"
        assert rows[6] == ["[unprintable]"]
        assert rows[7] == []
        assert rows[8] == ["two\nlines", "\x1b[31mred\x1b[0m", "\x00", "☕ \ud800"]
        assert all(line.timestamp_ms > 1_700_000_000_000 for line in tell.logs)

    bundle = guest("streams")
    on_workerd(body)


@pytest.mark.parametrize(
    ("call", "level", "message"),
    [
        ("console.log('x')", "log", ["x"]),
        ("console.info('x')", "info", ["x"]),
        ("console.warn('x')", "warn", ["x"]),
        ("console.error('x')", "error", ["x"]),
        ("console.debug('x')", "debug", ["x"]),
        ("console.trace('x')", "debug", ["x"]),
        ("console.dir({ a: 1 })", "log", [{"a": 1}]),
        ("console.table([1])", "log", [[1]]),
        ("console.group('x')", "log", ["x"]),
        ("console.assert(false, 'x')", "error", ["Assertion failed:", "x"]),
        ("console.log(NaN, -Infinity, 12n)", "log", ["NaN", "-Infinity", "12"]),
        ("console.log(class A {}, function b() {})", "log", ["[Function: A]", "[Function: b]"]),
        ("console.log([[[[[[[[[[[1]]]]]]]]]]])", "log", None),
        ("console.log({ toJSON: () => 'mine' })", "log", ["mine"]),
        ("console.log(new Array(300).fill(0).length)", "log", [300]),
    ],
)
def test_each_way_to_write_a_line(call: str, level: str, message: list[Any] | None) -> None:
    """Console's methods by the five levels of contract D.5."""

    async def body(lab: Lab) -> None:
        given = await ask(await lab.serving(worker(f"{call}; return new Response()")))
        assert given.tell is not None
        (line,) = given.tell.logs
        assert line.level == level
        if message is not None:
            assert line.message == message

    on_workerd(body)


def test_a_line_is_cut_at_its_limit() -> None:
    """16 KiB a line, and it says so; what fits is kept (reliability 2.3, row E26)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        tell = (await ask(isolate, "/big-log?lines=1&bytes=16300")).tell
        assert messages(tell) == [[0, "x" * 16300]]
        tell = (await ask(isolate, "/big-log?lines=1&bytes=100000")).tell
        ((text,),) = messages(tell)
        assert text.endswith("x… [truncated]")
        assert 16 * KIB - 256 < len(text) < 16 * KIB

    bundle = guest("streams")
    on_workerd(body)


@pytest.mark.parametrize("sign", ["☕", "\\u0001", "\\ud83d\\ude00"])
def test_a_line_of_escapes_is_cut_at_its_limit(sign: str) -> None:
    """A line whose characters take six bytes each on the wire stays inside 16 KiB too."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(
            worker(f"console.log('{sign}'.repeat(50000)); return new Response()")
        )
        ((text,),) = messages((await ask(isolate)).tell)
        assert text.endswith("[truncated]")
        assert 1 * KIB < len(json.dumps(text)) <= 16 * KIB

    on_workerd(body)


def test_an_invocation_is_cut_at_its_limit() -> None:
    """256 KiB in all, then one line that says that more was dropped (row E26)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        given = await ask(isolate, "/big-log?lines=100000&bytes=100", request_id="r-flood")
        assert given.status == 200
        tells = await lab.told.until(lambda: [t for at, t in lab.told.late if at == "r-flood"])
        lines: Sequence[LogLine] = tells[0].logs
        assert "dropped: 256 KiB" in lines[-1].message[0]
        kept = sum(len(json.dumps([x.level, x.timestamp_ms, x.message])) for x in lines[:-1])
        assert 200 * KIB < kept <= 300 * KIB
        assert (await ask(isolate, "/log")).tell is not None  # the next one has its own room

    bundle = guest("streams")
    on_workerd(body)


def test_more_lines_than_a_header_holds_come_apart() -> None:
    """Above 24 KiB they go over the log socket, under the request's id."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        given = await ask(isolate, "/big-log?lines=40&bytes=1024", request_id="r-many")
        assert given.tell is None
        lines = await lab.told.until(lambda: lab.told.lines("r-many"))
        assert len(lines) == 40

    bundle = guest("streams")
    on_workerd(body)


def test_lines_of_streams_and_sockets_find_their_request() -> None:
    """Callbacks that the engine calls later still belong to their invocation."""

    async def body(lab: Lab) -> None:
        source = worker(
            """
            if (request.headers.get("upgrade")) {
              const [client, server] = Object.values(new WebSocketPair());
              server.accept();
              const once = () => { console.log("never"); };
              server.addEventListener("message", once);
              server.removeEventListener("message", once);
              server.addEventListener("message", ({ data }) => {
                console.log("message", data);
                server.send(data);
              });
              return new Response(null, { status: 101, webSocket: client });
            }
            const source = new (class {
              #left = 2;
              pull(controller) {
                console.log("pull", this.#left);
                if (this.#left-- === 0) controller.close();
                else controller.enqueue(new TextEncoder().encode("x"));
              }
            })();
            return new Response(new ReadableStream(source, { highWaterMark: 0 }));
            """
        )
        isolate = await lab.serving(source)
        assert (await ask(isolate, request_id="r-pull")).body == b"xx"
        lines = await lab.told.until(
            lambda: lab.told.lines("r-pull") if len(lab.told.lines("r-pull")) > 2 else None
        )
        assert lines == [["pull", 2], ["pull", 1], ["pull", 0]]
        fields = [(b"host", b"local"), (b"x-amba-request-id", b"r-ws")]
        socket = await isolate.socket(b"/", fields, [])
        await socket.send("hello")
        assert await socket.receive() == "hello"
        assert await lab.told.until(lambda: lab.told.lines("r-ws")) == [["message", "hello"]]
        await socket.close(1006, "")  # this guest would answer no good-bye

    on_workerd(body)


def test_streams_are_still_streams() -> None:
    """What stands in for ReadableStream cannot be told from it."""

    async def body(lab: Lab) -> None:
        source = worker(
            """
            console.log("tracked");
            const made = new ReadableStream({ type: "bytes", autoAllocateChunkSize: 16,
              pull(c) { c.enqueue(new Uint8Array([65])); c.close(); } });
            class Mine extends ReadableStream { own() { return "own"; } }
            const mine = new Mine({ start(c) { c.enqueue("text"); c.close(); } });
            const parts = [];
            for await (const part of mine) parts.push(part);
            return Response.json([
              made instanceof ReadableStream,
              new Response("x").body instanceof ReadableStream,
              ReadableStream.prototype.constructor === ReadableStream,
              made.constructor === ReadableStream,
              mine.own(), parts,
              await new Response(made).text(),
              ReadableStream.name,
              (() => { try { ReadableStream(); } catch (e) { return e.name; } })(),
              (() => {
                try { new ReadableStream({ type: "odd" }); } catch (e) { return e.name; }
              })(),
            ]);
            """
        )
        seen = json.loads((await ask(await lab.serving(source))).body)
        assert seen == [
            *(True, True, True, True, "own", ["text"], "A", "ReadableStream"),
            *("TypeError", "TypeError"),
        ]

    on_workerd(body)


def test_a_fault_after_the_answer_is_told() -> None:
    """What `waitUntil`, a stream's source or a listener throws, under the request's id."""

    async def body(lab: Lab) -> None:
        source = worker(
            """
            ctx.waitUntil(Promise.reject(new RangeError("too late")));
            return new Response("answered");
            """
        )
        given = await ask(await lab.serving(source), request_id="r-fault")
        faults = given.tell.exceptions if given.tell is not None else []
        if not faults:
            tells = await lab.told.until(lambda: [t for at, t in lab.told.late if at == "r-fault"])
            faults = tells[0].exceptions
        assert [(e.name, e.message) for e in faults] == [("RangeError", "too late")]

    on_workerd(body)


def test_a_bundle_without_a_word_of_console_throws_audibly() -> None:
    """Tracking is left out, exceptions are not."""

    async def body(lab: Lab) -> None:
        given = await ask(await lab.serving(worker("throw new RangeError('heard')")))
        assert given.tell is not None
        assert [e.message for e in given.tell.exceptions] == ["heard"]

    on_workerd(body)


# --- answers -----------------------------------------------------------------------------------


def test_lines_on_an_immutable_answer() -> None:
    """A fetched answer passes with its status, headers and encoded body as they were."""

    packed = gzip.compress(b"text " * 1000)

    async def egress(request: Request) -> Response:
        fields = [(b"x-own", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        if request.target.endswith(b"/gzip"):
            fields.append((b"content-encoding", b"gzip"))
        return Response(203, fields, packed)

    async def body(lab: Lab) -> None:
        source = worker(
            """
            const { pathname, search } = new URL(request.url);
            if (search === "?log") console.log("line");
            return fetch("http://example.com" + pathname);
            """
        )
        isolate = await lab.serving(source, egress=egress)
        for path in ("/plain", "/gzip"):
            plain = await ask(isolate, path)
            logged = await ask(isolate, f"{path}?log")
            assert (logged.status, logged.body) == (203, packed)
            assert (logged.headers, logged.body) == (plain.headers, plain.body)
            assert logged.all(b"set-cookie") == [b"a=1", b"b=2"]
            assert messages(logged.tell) == [["line"]]

    on_workerd(body)


def test_lines_do_not_change_an_answer() -> None:
    """HEAD, 204, 304 and reason phrases are the same with a console line as without."""

    async def body(lab: Lab) -> None:
        source = worker(
            """
            const url = new URL(request.url);
            if (url.searchParams.has("log")) console.log("line");
            const status = Number(url.searchParams.get("status"));
            const none = status === 204 || status === 304;
            return new Response(none ? null : "body", { status, statusText: "Odd", headers: {
              "x-a": "1" } });
            """
        )
        isolate = await lab.serving(source)
        for status in (200, 204, 304, 418, 599):
            for method in ("GET", "HEAD"):
                plain = await ask(isolate, f"/?status={status}", method=method)
                logged = await ask(isolate, f"/?status={status}&log", method=method)
                assert messages(logged.tell) == [["line"]]
                assert (plain.status, plain.headers, plain.body) == (
                    logged.status,
                    logged.headers,
                    logged.body,
                )

    on_workerd(body)


def test_a_handler_on_a_prototype_keeps_its_this() -> None:
    """A default export that is an instance is called as one."""

    async def body(lab: Lab) -> None:
        source = """
        class App {
          constructor() { this.word = "mine"; }
          fetch() { return new Response(this.word); }
        }
        export default new App();
        """
        assert (await ask(await lab.serving(source))).body == b"mine"

    on_workerd(body)


# --- hostile guests ----------------------------------------------------------------------------

VARIANTS = sorted(p.name for p in (GUESTS / "hostile-globals").glob("[a-z]*.js"))
SECRETS = ("amba-run", "__AMBA", "r-secret", "x-amba", "describe", "log/", '{"l"')


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_hostile_realm_learns_nothing(variant: str) -> None:
    """Whatever built-ins a guest replaces: it serves, and sees nothing of the platform (E27)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        for n in range(3):
            given = await ask(isolate, f"/?{n}", request_id=f"r-secret-{n}")
            assert (given.status, given.threw) == (200, False), given
            # a second request shows what the first one's end called
            seen = json.dumps(json.loads(given.body)["seen"])
            assert [secret for secret in SECRETS if secret in seen] == []
        assert await isolate.describe()
        assert lab.told.deaths == []

    bundle = bundled(GUESTS / "hostile-globals" / variant)
    on_workerd(body)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_hostile_realm_still_tells_its_lines(variant: str) -> None:
    """Console lines survive every replaced built-in, but that of the console itself."""

    async def body(lab: Lab) -> None:
        given = await ask(await lab.serving(bundle))
        assert messages(given.tell) == [["hostile variant", name]]

    name = {"index.js": "all"}.get(variant, variant.removesuffix(".js"))
    bundle = bundled(GUESTS / "hostile-globals" / variant)
    on_workerd(body)


POLLUTION = [
    f"Object.defineProperty({holder}.prototype, '{name}', {{ configurable: true, {trap} }});"
    for holder in ("Object", "Array")
    for name in (
        *("toJSON", "then", "get", "set", "headers", "status", "request", "ctx", "log"),
        *(
            "lines",
            "errors",
            "size",
            "body",
            "name",
            "value",
            "0",
            "level",
            "webSocket",
            "answered",
        ),
    )
    for trap in ("get() { return seen(this); }, set(v) { seen(v); }",)
] + [
    "Function.prototype.call = Function.prototype.apply = () => seen(1);",
    "Promise.prototype.then = () => seen(1);",
    "JSON.stringify = (...a) => seen(a);",
    "globalThis.Response = class {};",
    "Headers.prototype.get = Headers.prototype.set = () => seen(1);",
    "globalThis.setTimeout = () => seen(1);",
    "globalThis.fetch = () => seen(1);",
    "String.prototype.slice = String.prototype.charCodeAt = () => seen(1);",
    "WeakMap.prototype.get = WeakMap.prototype.set = () => seen(1);",
    "Reflect.apply = Reflect.construct = () => seen(1);",
    "Object.keys = Object.setPrototypeOf = Object.getPrototypeOf = () => seen(1);",
    "Error.prepareStackTrace = () => { throw 1 };",
    "Number.prototype.toString = () => seen(1);",
    "Function.prototype[Symbol.hasInstance] === 1;",
]


def test_a_polluted_realm_is_served_and_learns_nothing() -> None:
    """Getters and setters on the roots of all objects, and replaced methods (row E27)."""

    async def body(lab: Lab) -> None:
        for pollution in POLLUTION:
            source = f"""
            const stringify = JSON.stringify, R = Response, log = console.log;
            const S = String, defineProperty = Object.defineProperty;
            let found = "";
            function seen(value) {{
              const kind = typeof value;
              if (kind === "string") found += value + ";";
              return undefined;
            }}
            {pollution}
            export default {{
              fetch() {{
                log("line ☕", 1);
                if (found === "throw") throw new Error("x");
                return new R(found);
              }},
            }};
            """
            isolate = await lab.serving(source)
            for _ in range(2):
                given = await ask(isolate, request_id="r-secret")
                assert given.status == 200, (pollution, given)
                text = given.body.decode()
                assert [s for s in SECRETS if s in text] == [], (pollution, text)
                assert messages(given.tell) == [["line ☕", 1]], pollution
            await isolate.close()

    on_workerd(body)


def test_a_guest_cannot_speak_for_us() -> None:
    """Headers named like ours are a guest's own: only the host's random name is heard."""

    async def body(lab: Lab) -> None:
        source = worker(
            "return new Response('x', { headers: { 'amba-run-tell': '{\"o\":\"exception\"}',"
            " 'amba-run-outcome': 'exception' } })"
        )
        given = await ask(await lab.serving(source))
        assert (given.status, given.tell, given.threw) == (200, None, False)
        assert given.all(b"amba-run-outcome") == [b"exception"]

    on_workerd(body)


def test_a_hostile_promise_does_not_hang_the_isolate() -> None:
    """A thenable that never settles waits for the deadline; others are served meanwhile."""

    async def body(lab: Lab) -> None:
        source = worker(
            "return new URL(request.url).pathname === '/hang' ? { then() {} } : new Response('ok')"
        )
        isolate = await lab.serving(source)
        hung = await isolate.exchange()
        begin(hung, "/hang")
        assert (await ask(isolate)).body == b"ok"
        assert not hung.head().done()
        hung.abort()

    on_workerd(body)


def test_a_stream_source_with_odd_members_is_the_guests_own_affair(tmp_path: Path) -> None:
    """Members that are no functions are refused by the engine, as without us."""

    async def body(lab: Lab) -> None:
        source = worker("console.log(1); return new Response(new ReadableStream({ pull: 7 }))")
        exchange = await (await lab.serving(source)).exchange()
        begin(exchange)
        given = await answer(exchange)
        assert (given.status, given.threw) == (500, True)

    on_workerd(body)


def test_concurrent_failures_and_lines_stay_apart() -> None:
    """Thirty invocations, each with its own line and its own exception."""

    async def body(lab: Lab) -> None:
        source = worker(
            """
            const mark = new URL(request.url).search;
            console.log(mark);
            await new Promise((r) => setTimeout(r, Math.random() * 5));
            throw new Error(mark);
            """
        )
        isolate = await lab.serving(source)
        given = await asyncio.gather(*[ask(isolate, f"/?{n}") for n in range(30)])
        for n, one in enumerate(given):
            assert messages(one.tell) == [[f"?{n}"]]
            assert one.tell is not None
            assert [e.message for e in one.tell.exceptions] == [f"?{n}"]

    on_workerd(body)


def test_a_guest_never_sees_our_header() -> None:
    """What is told stands on an answer of ours: a response that a guest kept stays its own."""

    async def body(lab: Lab) -> None:
        source = worker(
            """
            console.log("line");
            if (kept) return Response.json([...kept.headers.keys()]);
            kept = new Response("first", { status: 201, headers: { "x-a": "b" } });
            return kept;
            """,
            before="let kept;",
        )
        isolate = await lab.serving(source)
        first = await ask(isolate)
        assert (first.status, first.body, first.all(b"x-a")) == (201, b"first", [b"b"])
        assert first.all(b"content-length") == [b"5"]
        assert messages(first.tell) == [["line"]]
        second = await ask(isolate)
        assert json.loads(second.body) == ["content-type", "x-a"]
        assert messages(second.tell) == [["line"]]

    on_workerd(body)


def test_an_encoded_body_is_told_of_as_it_is() -> None:
    """`encodeBody: "manual"` holds for the answer that carries the lines, too."""
    packed = gzip.compress(b"plain", mtime=0)

    async def body(lab: Lab) -> None:
        source = worker(
            f"""
            console.log("line");
            const packed = new Uint8Array({list(packed)});
            const headers = {{ "content-encoding": "gzip" }};
            return new Response(packed, {{ encodeBody: "manual", headers }});
            """
        )
        headers = {"accept-encoding": "gzip"}
        given = await ask(await lab.serving(source), headers=headers)
        assert (given.body, messages(given.tell)) == (packed, [["line"]])

    on_workerd(body)


def test_a_large_account_of_an_exception_still_tells_that_it_threw() -> None:
    """Lines that no header holds come late; that the handler threw comes with the answer."""

    async def body(lab: Lab) -> None:
        source = worker("for (let i = 0; i < 4; i++) console.log('x'.repeat(9000)); throw 1")
        given = await ask(await lab.serving(source), request_id="big")
        assert (given.status, given.threw) == (500, True)
        await lab.told.until(lambda: lab.told.lines("big"))
        assert len(lab.told.lines("big")) == 4

    on_workerd(body)


def test_cf_says_nothing_of_the_host() -> None:
    """`request.cf` holds no process or user id of the machine."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(worker("return Response.json([request.cf ?? null])"))
        assert json.loads((await ask(isolate)).body) == [None]

    on_workerd(body)


def test_console_counts_and_timers_are_collected() -> None:
    """`count`, `countReset`, `time`, `timeLog`, `timeEnd`, `dirxml` print as consoles do."""

    async def body(lab: Lab) -> None:
        source = worker(
            """
            console.count(); console.count(); console.countReset(); console.count();
            console.countReset("none"); console.count("a");
            console.time("t"); console.time("t"); console.timeLog("t", { n: 1 });
            console.timeEnd("t"); console.timeEnd("t"); console.dirxml({ x: 1 });
            return new Response();
            """
        )
        given = await ask(await lab.serving(source))
        # how long anything took is not the point
        told = [[re.sub(r"\d+ ms", "N ms", str(m)) for m in row] for row in messages(given.tell)]
        assert told == [
            ["default: 1"],
            ["default: 2"],
            ["default: 1"],
            ["Count for 'none' does not exist"],
            ["a: 1"],
            ["Timer 't' already exists"],
            ["t: N ms", "{'n': 1}"],
            ["t: N ms"],
            ["Timer 't' does not exist"],
            ["{'x': 1}"],
        ]

    on_workerd(body)


def test_the_cache_is_empty_and_keeps_nothing() -> None:
    """The Cache API works as a cache that always misses, bodies of any size included."""

    async def body(lab: Lab) -> None:
        source = worker(
            """
            const key = "http://k/1";
            const headers = { "cache-control": "max-age=60" };
            const fresh = (text) => new Response(text, { headers });
            await caches.default.put(key, fresh("x".repeat(300000)));
            const named = await caches.open("mine");
            await named.put(key, fresh("y"));
            return Response.json([
              (await caches.default.match(key)) ?? null,
              (await named.match(key)) ?? null,
              await caches.default.delete(key),
            ]);
            """
        )
        given = await ask(await lab.serving(source))
        assert json.loads(given.body) == [None, None, False]

    on_workerd(body)


def test_a_guest_cannot_call_itself_past_the_counts() -> None:
    """`ctx.exports` would lead to our own entry point: fresh counts, and headers of ours."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(worker("return Response.json(typeof ctx.exports)"))
        assert (await ask(isolate)).body == b'"undefined"'

    on_workerd(body)
