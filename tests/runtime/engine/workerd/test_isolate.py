"""What workerd makes of each kind of bundle, and of events, sockets and its own end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.engine.lab import (
    FIXTURES,
    Lab,
    Told,
    answer,
    ask,
    begin,
    bundled,
    folder_of,
    guest,
    nowhere,
    on_workerd,
    pid_of,
    rest,
)

from amba_runtime import limits
from amba_runtime.engine.base import QueueMessage, StartFailed, StartFault, Surroundings
from amba_runtime.engine.workerd.engine import WorkerdEngine, find_workerd
from amba_runtime.engine.workerd.isolate import WorkerdIsolate
from amba_runtime.errors import InternalError
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import Breach, Ended, Outcome, Tell
from amba_runtime.sandbox.cgroups import Cgroups
from amba_runtime.wire import NothingSentError, WireError

pytestmark = pytest.mark.slow

FETCH = "export default { fetch() { return new Response('here') } };"


# --- describe ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "default", "handlers"),
    [
        (FETCH, "object", ("fetch",)),
        (
            "export default { queue() {}, scheduled() {}, fetch() {}, other() {} };",
            "object",
            ("fetch", "scheduled", "queue"),
        ),
        ("export default { fetch: 1, scheduled() {} };", "object", ("scheduled",)),
        ("export default {};", "object", ()),
        ("class B { fetch() {} } export default new B();", "object", ("fetch",)),
        ("export default function fetch() {}", "function", ()),
        ("export default () => 1;", "function", ()),
        ("export default class { fetch() {} }", "class", ()),
        ("export const fetch = 1;", "none", ()),
        ("export default null;", "none", ()),
        ("export default 'fetch';", "none", ()),
        ("", "none", ()),
        ("addEventListener('fetch', () => {});", "listener", ("fetch",)),
        (
            "addEventListener('scheduled', () => {}); addEventListener('queue', () => {});",
            "listener",
            ("scheduled", "queue"),
        ),
        ("addEventListener('unhandledrejection', () => {});", "none", ()),
    ],
)
def test_every_kind_of_default_export(source: str, default: str, handlers: tuple[str, ...]) -> None:
    """The kind and the handlers that are really there (contract B, rejections)."""

    async def body(lab: Lab) -> None:
        description = await (await lab.start(source)).describe()
        assert (description.default, description.handlers) == (default, handlers)

    on_workerd(body)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("default-class", "class"),
        ("default-function", "function"),
        ("empty-object", "object"),
        ("handler-not-function", "object"),
        ("no-default", "none"),
    ],
)
def test_refused_guests(name: str, default: str) -> None:
    """The guests that an upload refuses describe themselves without a handler (contract B)."""

    async def body(lab: Lab) -> None:
        description = await (await lab.start(bundle)).describe()
        assert (description.default, description.handlers) == (default, ())

    bundle = guest(name)
    on_workerd(body)


def test_extra_exports_change_nothing() -> None:
    """Named exports beside the default one are no handlers."""

    async def body(lab: Lab) -> None:
        isolate = await lab.start(bundle)
        assert (await isolate.describe()).handlers == ("fetch",)
        assert json.loads((await ask(isolate)).body) == {"greeting": "HELLO, ADA"}

    bundle = guest("exports-extra")
    on_workerd(body)


@pytest.mark.parametrize(
    ("source", "reason", "frame"),
    [
        ("\nthrow new RangeError('no key');", "Uncaught RangeError: no key", "fn.mjs:2:7"),
        ("throw 'text';", "Uncaught Error: text", ""),
        ("throw null;", "Uncaught Error: null", ""),
        ("const = 3;", "Uncaught SyntaxError: Unexpected token '='", "fn.mjs:1:7"),
        ("await new Promise(() => {});", "Top-level await in module is unsettled", ""),
        ("import x from 'left-pad';", 'No such module "left-pad"', ""),
        ("import fs from 'node:fs';", 'No such module "node:fs"', ""),
        ("setTimeout(() => {}, 1);", "Disallowed operation called within global scope", "fn.mjs"),
        ("await fetch('http://example.com/');", "Disallowed operation", "fn.mjs:1"),
    ],
)
def test_a_bundle_that_does_not_start_says_where(source: str, reason: str, frame: str) -> None:
    """The engine's own words and the guest's stack, quickly; the process is gone (contract B)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.start(source)
        with pytest.raises(StartFailed) as failed:
            await isolate.describe()
        assert reason in failed.value.reason
        assert failed.value.reason.startswith("Uncaught ")
        assert frame in failed.value.stack
        assert not isolate.alive

    on_workerd(body)


def test_a_thrown_stack_names_its_frames() -> None:
    """The functions that were on their way when the top level threw."""

    async def body(lab: Lab) -> None:
        with pytest.raises(StartFailed) as failed:
            await (await lab.start(bundle)).describe()
        assert failed.value.reason == "Uncaught Error: thrown while the module loads"
        assert failed.value.stack.splitlines()[0] == "    at connect (fn.mjs:3:9)"

    bundle = guest("top-level-throw")
    on_workerd(body)


def test_lines_of_the_top_level_are_kept() -> None:
    """What the module wrote while it was evaluated comes with the description, once."""

    async def body(lab: Lab) -> None:
        isolate = await lab.start(f"console.warn('at start', 1);\n{FETCH}")
        startup = (await isolate.describe()).startup
        assert [(line.level, line.message) for line in startup.logs] == [("warn", ["at start", 1])]
        assert (await isolate.describe()).startup.logs == []
        assert (await ask(isolate)).tell is None

    on_workerd(body)


# --- events ------------------------------------------------------------------------------------


def test_a_schedule_reaches_its_handler() -> None:
    """cron, scheduledTime and type are there; `waitUntil` is waited for (contract B)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle, env=[("AMBA_PROJECT_ID", "p-1")])
        event = await isolate.scheduled(cron="*/5 * * * *", scheduled_time_ms=1_767_225_600_000)
        assert event.outcome is Outcome.OK
        assert event.result["noRetry"] is False
        first, last = event.tell.logs
        assert json.loads(first.message[0]) == {
            "cron": "*/5 * * * *",
            "scheduledTime": 1_767_225_600_000,
            "type": "scheduled",
            "project": "p-1",
        }
        assert last.message == ["after scheduled"]

    bundle = guest("scheduled-only")
    on_workerd(body)


def test_a_schedule_can_fail_and_forgo() -> None:
    """A throw is an exception with its message; `noRetry` comes back (contract B)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        failed = await isolate.scheduled(cron="58 * * * *", scheduled_time_ms=0)
        assert failed.outcome is Outcome.EXCEPTION
        assert [e.message for e in failed.tell.exceptions] == ["scheduled failed"]
        forgone = await isolate.scheduled(cron="59 * * * *", scheduled_time_ms=0)
        assert (forgone.outcome, forgone.result["noRetry"]) == (Outcome.OK, True)
        assert (await ask(isolate)).threw  # no fetch handler

    bundle = guest("scheduled-only")
    on_workerd(body)


def message(id_: str, body: Any) -> QueueMessage:
    return QueueMessage(id_, 1_767_225_600_123, 2, json.dumps(body))


def test_a_batch_reaches_its_handler() -> None:
    """Queue, id, timestamp, attempts and the body verbatim (contract B)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        payload = {"text": "☕", "list": [1, None, {"deep": True}]}
        event = await isolate.queue(queue="mail", messages=[message("m-1", payload)])
        assert event.outcome is Outcome.OK
        assert json.loads(event.tell.logs[0].message[0]) == {
            "queue": "mail",
            "id": "m-1",
            "timestamp": "2026-01-01T00:00:00.123Z",
            "attempts": 2,
            "body": payload,
        }

    bundle = guest("queue-acks")
    on_workerd(body)


def test_each_message_has_its_fate() -> None:
    """Acks and retries one by one, with their delays (contract B, D.7)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        messages = [
            message("a", {"do": "ack"}),
            message("b", {"do": "retry", "delay": 30}),
            message("c", {"do": "retry"}),
            message("d", None),
        ]
        event = await isolate.queue(queue="mail", messages=messages)
        assert event.outcome is Outcome.OK
        assert event.result["explicitAcks"] == ["a"]
        retried = {r["msgId"]: r.get("delaySeconds") for r in event.result["retryMessages"]}
        assert retried == {"b": 30, "c": None}

    bundle = guest("queue-acks")
    on_workerd(body)


@pytest.mark.parametrize(
    ("do", "key", "value"),
    [
        ({"do": "ackAll"}, "ackAll", True),
        ({"do": "retryAll", "delay": 7}, "retryBatch", {"retry": True, "delaySeconds": 7}),
        ({"do": "nothing"}, "ackAll", False),
    ],
)
def test_a_batch_has_one_fate(do: dict[str, Any], key: str, value: object) -> None:
    """All acknowledged, all retried, or nothing said (contract B)."""

    async def body(lab: Lab) -> None:
        event = await (await lab.serving(bundle)).queue(queue="q", messages=[message("1", do)])
        assert (event.outcome, event.result[key]) == (Outcome.OK, value)

    bundle = guest("queue-acks")
    on_workerd(body)


@pytest.mark.parametrize("do", ["throw", "reject"])
def test_a_batch_that_fails_says_so(do: str) -> None:
    """The outcome is `exception`, and the message is told."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        event = await isolate.queue(queue="q", messages=[message("m-9", {"do": do})])
        assert event.outcome is Outcome.EXCEPTION
        assert "for message m-9" in event.tell.exceptions[0].message

    bundle = guest("queue-acks")
    on_workerd(body)


def test_an_event_that_never_ends_tells_what_it_said() -> None:
    """Whoever gives it up has its lines (contract D.6: that is what logs are for)."""
    said = asyncio.Event()

    class Heard(Tell):
        def extend(self, other: Tell) -> None:
            super().extend(other)
            said.set()

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        tell = Heard()
        queue = isolate.queue(queue="q", messages=[message("m-1", {"do": "hang"})], tell=tell)
        delivery = asyncio.ensure_future(queue)
        await asyncio.wait_for(said.wait(), 20)
        delivery.cancel()
        await asyncio.wait({delivery})
        assert json.loads(tell.logs[0].message[0])["id"] == "m-1"

    bundle = guest("queue-acks")
    on_workerd(body)


def test_an_event_without_a_handler_says_so() -> None:
    """`exception`, and which handler is missing."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(FETCH)
        event = await isolate.scheduled(cron="* * * * *", scheduled_time_ms=0)
        assert event.outcome is Outcome.EXCEPTION
        assert [e.message for e in event.tell.exceptions] == [
            "the function has no scheduled handler"
        ]
        event = await isolate.queue(queue="q", messages=[message("1", None)])
        assert event.tell.exceptions[0].message == "the function has no queue handler"

    on_workerd(body)


def test_two_events_at_once_keep_their_lines_apart() -> None:
    """Labels are per event: lines of one never reach the other."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        events = await asyncio.gather(
            *[isolate.scheduled(cron=f"{n} * * * *", scheduled_time_ms=n) for n in range(5)]
        )
        for n, event in enumerate(events):
            assert json.loads(event.tell.logs[0].message[0])["cron"] == f"{n} * * * *"

    bundle = guest("scheduled-only")
    on_workerd(body)


# --- the legacy form ---------------------------------------------------------------------------


def test_a_legacy_script_has_its_bindings_as_globals() -> None:
    """`event.request`, `respondWith`, `waitUntil`; bindings are globals, ours are not (B, J.14)."""

    async def body(lab: Lab) -> None:
        source = """
        addEventListener('fetch', (event) => {
          event.passThroughOnException();
          event.waitUntil(Promise.resolve().then(() => console.log('after')));
          event.respondWith(handle(event.request));
        });
        async function handle(request) {
          const ours = Object.getOwnPropertyNames(globalThis).filter((n) => n.includes('AMBA_'));
          return Response.json({ url: request.url, GREETING, ours, type: typeof STORAGE });
        }
        """
        isolate = await lab.serving(source, env=[("GREETING", "hi"), ("AMBA_API_URL", "u")])
        given = json.loads((await ask(isolate, "/x?y")).body)
        assert given == {
            "url": "http://local.fn.localhost:8787/x?y",
            "GREETING": "hi",
            "ours": ["AMBA_API_URL"],
            "type": "undefined",
        }

    on_workerd(body)


@pytest.mark.parametrize(
    ("listener", "said"),
    [
        ("() => {}", "did not call event.respondWith()"),
        ("(e) => { e.respondWith(new Response('1')); e.respondWith(null) }", "called twice"),
        ("(e) => e.respondWith('text')", "did not return a Response"),
        ("(e) => e.respondWith(Promise.reject(new Error('later')))", "later"),
    ],
)
def test_a_legacy_script_that_does_not_answer(listener: str, said: str) -> None:
    """Its mistakes are told in words."""

    async def body(lab: Lab) -> None:
        given = await ask(await lab.serving(f"addEventListener('fetch', {listener});"))
        assert (given.status, given.threw) == (500, True)
        assert given.tell is not None
        assert said in given.tell.exceptions[0].message

    on_workerd(body)


def test_legacy_events_have_their_members() -> None:
    """`scheduled` and `queue` listeners get their own."""

    async def body(lab: Lab) -> None:
        source = """
        addEventListener('scheduled', (e) => {
          console.log(e.type, e.cron, e.scheduledTime);
          e.noRetry();
          e.waitUntil(Promise.resolve());
        });
        addEventListener('queue', (e) => { console.log(e.queue, e.messages.length); });
        """
        isolate = await lab.serving(source)
        event = await isolate.scheduled(cron="1 2 * * *", scheduled_time_ms=60_000)
        assert event.tell.logs[0].message == ["scheduled", "1 2 * * *", 60_000]
        assert event.result["noRetry"] is True
        event = await isolate.queue(queue="q", messages=[message("1", 1), message("2", 2)])
        assert event.tell.logs[0].message == ["q", 2]

    on_workerd(body)


def test_the_legacy_fixture_runs() -> None:
    """The sample of fixtures/legacy answers (contract J.14)."""

    async def body(lab: Lab) -> None:
        given = await ask(await lab.serving(bundle, env=[("AMBA_PROJECT_ID", "p-1")]))
        assert json.loads(given.body) == {"style": "addEventListener", "project": "p-1"}

    bundle = bundled(FIXTURES / "legacy" / "index.js")
    on_workerd(body)


# --- sockets -----------------------------------------------------------------------------------


def test_a_socket_carries_messages_and_codes() -> None:
    """Text, bytes, subprotocol, headers, and both sides' close codes."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        fields = [(b"host", b"local"), (b"x-amba-request-id", b"r-ws")]
        guest_ = await isolate.socket(b"/ws-subprotocol", fields, ["a", "b"])
        assert (guest_.subprotocol, guest_.close_code) == ("a", None)
        assert dict(guest_.headers)[b"sec-websocket-protocol"] == b"a"
        await guest_.send("text")
        await guest_.send(b"bytes")
        assert [await guest_.receive(), await guest_.receive()] == ["text", b"bytes"]
        await guest_.close(4000, "enough")
        await guest_.close(4001, "twice")
        assert (guest_.close_code, guest_.close_reason) == (4000, "enough")
        assert await guest_.receive() is None
        with pytest.raises(WireError, match="closed"):
            await guest_.send("late")

    bundle = guest("streams")
    on_workerd(body)


def test_a_broken_socket_is_not_a_closed_one() -> None:
    """1006 breaks the connection off, so that the guest is not told of a clean close."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        fields = [(b"host", b"local"), (b"x-amba-request-id", b"r-broken")]
        guest_ = await isolate.socket(b"/ws", fields, [])
        await guest_.close(1006, "")
        (line,) = await lab.told.until(lambda: lab.told.lines("r-broken"))
        assert (line[0], line[1], line[3]) == ("socket closed", 1006, False)

    bundle = guest("streams")
    on_workerd(body)


def test_a_socket_to_a_dead_engine_is_a_wire_error() -> None:
    """No socket where no engine is."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        os.kill(pid_of(isolate), signal.SIGKILL)
        await lab.told.until(lambda: lab.told.deaths)
        with pytest.raises(WireError, match="did not open a WebSocket"):
            await isolate.socket(b"/ws", [(b"host", b"local")], [])

    bundle = guest("streams")
    on_workerd(body)


# --- the end of a process ----------------------------------------------------------------------


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_the_reason_of_death_names_the_signal(
    sig: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log and to whoever is responsible (issue 2, item 3)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(FETCH)
        os.kill(pid_of(isolate), sig)
        await lab.told.until(lambda: lab.told.deaths)
        (reason,) = [ended.reason for ended in lab.told.deaths]
        assert f"engine process {pid_of(isolate)} ended" in reason
        assert f"(signal {sig.value})" in reason or "(exit code" in reason
        assert [r.getMessage() for r in caplog.records if r.name == "amba.workerd"] == [reason]

    with caplog.at_level(logging.WARNING, "amba.workerd"):
        on_workerd(body)


def test_one_that_was_ended_on_purpose_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever ended it has told why: no warning that it "said nothing" (architecture.md 6)."""
    verdict = Ended(Outcome.EXCEEDED_CPU, "held its thread", Breach("cpu_ms", 20, 10))

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(FETCH)
        isolate.kill(verdict)
        await lab.told.until(lambda: lab.told.deaths)
        assert lab.told.deaths == [verdict]

    with caplog.at_level(logging.DEBUG, "amba.workerd"):
        on_workerd(body)
    said = [r.levelno for r in caplog.records if "ended (" in r.getMessage()]
    assert said == [logging.DEBUG]


def test_a_full_heap_is_told_as_what_it_is() -> None:
    """JavaScript's heap may fill a share of `memory_mib` alone: the figures and the words say
    which (reliability.md 2.3, row E10)."""
    source = """
        const held = [];
        export default { async fetch() {
          for (;;) { held.push(new Array(50_000).fill(held)); await null; }
        } };
    """

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(source, limits={"memory_mib": 64})
        with pytest.raises(WireError):
            await ask(isolate)
        (ended,) = await lab.told.until(lambda: lab.told.deaths)
        note = "its JavaScript heap was full at 48 MiB, 75 % of memory_mib 64"
        assert ended.outcome is Outcome.EXCEEDED_MEMORY
        assert ended.breach == Breach("memory_mib", 48, 64, note)
        assert ended.reason == f"engine process {pid_of(isolate)} ended: {note}"

    on_workerd(body)


def test_what_else_stands_in_its_group_ends_with_it(tmp_path: Path) -> None:
    """Whatever came to be there: no process outlives its isolate (rows E17, E30)."""

    async def main() -> None:
        engine = WorkerdEngine(program=find_workerd(), most=0)
        # the files of a kernel that knows control groups of version 1 alone
        engine.cgroups = Cgroups(version=1, bases={"pids": tmp_path})
        manifest = Manifest(ProjectId("p"), FunctionName("f"), 1, limits=FunctionLimits.hosted())
        told = Told()
        around = Surroundings(nowhere, None, told.on_tell, told.on_death)
        other = await asyncio.create_subprocess_exec("sleep", "600")
        try:
            isolate = await engine.start(manifest, Bundle.of(FETCH.encode()), around)
            await isolate.describe()
            group = tmp_path / folder_of(isolate).name / "cgroup.procs"
            await asyncio.to_thread(group.write_text, f"{other.pid}\n")
            await isolate.close()
            async with asyncio.timeout(5):
                assert await other.wait() == -signal.SIGKILL
            assert told.deaths == []
        finally:
            if other.returncode is None:
                other.kill()
                await other.wait()
            await engine.close()

    asyncio.run(main())


def test_a_fatal_error_is_told_in_the_engines_words() -> None:
    """Of V8's framed lines the one that says what happened is kept."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        exchange = await isolate.exchange()
        begin(exchange, "/crash")
        with pytest.raises(WireError) as failed:
            await exchange.head()
        assert not isinstance(failed.value, NothingSentError)  # it was read: never sent again
        await lab.told.until(lambda: lab.told.deaths)
        assert "Fatal JavaScript invalid size error" in lab.told.deaths[0].reason

    bundle = guest("crash")
    on_workerd(body)


@pytest.mark.parametrize("offset", range(10))
def test_a_death_in_mid_answer_is_never_a_clean_end(offset: int) -> None:
    """Whatever was sent, the rest is a WireError (reliability row E30)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        exchange = await isolate.exchange()
        begin(exchange, "/slow?chunks=1000&ms=1")
        await exchange.head()
        for _ in range(offset):
            await exchange.read()
        os.kill(pid_of(isolate), [signal.SIGKILL, signal.SIGSEGV][offset % 2])
        with pytest.raises(WireError):
            await rest(exchange)

    bundle = guest("streams")
    on_workerd(body)


def is_open(door: Path) -> bool:
    """Whether anybody still listens."""
    with socket.socket(socket.AF_UNIX) as visitor:
        try:
            visitor.connect(str(door))
        except ConnectionRefusedError:
            return False
    return True


def test_a_process_that_is_gone_before_its_request() -> None:
    """A request on a connection whose engine is dead fails; a new one says why, once."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(FETCH)
        await ask(isolate)
        door = folder_of(isolate) / "fn.sock"
        os.kill(pid_of(isolate), signal.SIGKILL)
        while is_open(door):
            pass  # it is gone before the loop can hear of it
        with pytest.raises(WireError):
            await isolate.exchange(fresh=True)
        assert len(lab.told.deaths) == 1  # told before the error was raised

    on_workerd(body)


def test_an_answer_without_reading_the_body_always_arrives() -> None:
    """The engine answers, then closes under our writing: the answer is still read, every time."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(bundle)
        for _ in range(60):
            exchange = await isolate.exchange()
            begin(exchange, "/read-one-chunk", method="POST", length=8 * 1024 * 1024)
            with contextlib.suppress(WireError):  # the engine need not take it all
                for _ in range(128):
                    exchange.write(b"x" * 65536)
                    await exchange.drain()
            assert (await answer(exchange)).status == 200

    bundle = guest("streams")
    on_workerd(body)


def test_a_control_answer_that_is_none_is_an_internal_error(monkeypatch: Any) -> None:
    """What our own worker cannot have said breaks an invariant (architecture 6)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(FETCH)
        assert isinstance(isolate, WorkerdIsolate)
        with pytest.raises(InternalError, match="answered /queue with 500"):
            await isolate.queue(queue="q", messages=[QueueMessage("1", 0, 1, "no JSON")])

    on_workerd(body)


@pytest.mark.slow
def test_a_start_that_takes_too_much_memory_ends() -> None:
    """Where no control group holds it: before it serves, too (reliability.md 2.3; rows E10, D8)."""

    async def main() -> None:
        engine = WorkerdEngine(program=find_workerd(), most=0)
        told = Told()
        manifest = Manifest(
            ProjectId("p"),
            FunctionName("f"),
            1,
            limits=FunctionLimits.hosted().override({"memory_mib": 64, "startup_ms": 30_000}),
        )
        source = (
            "const held = [];"
            "for (let n = 0; n < 400; n++) held.push(new Uint8Array(4 << 20).fill(1));"
            "export default { fetch: () => new Response(String(held.length)) };"
        )
        around = Surroundings(nowhere, None, told.on_tell, told.on_death)
        try:
            isolate = await engine.start(manifest, Bundle.of(source.encode()), around)
            with pytest.raises(StartFailed, match="more than 64 MiB of memory") as failed:
                await isolate.describe()
            assert failed.value.fault is StartFault.MEMORY
            await isolate.close()
        finally:
            await engine.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "source",
    [
        "for (;;);",
        "function again() { Promise.resolve().then(again); } again();",
        "export default { get fetch() { for (;;); } };",
    ],
)
def test_a_start_that_takes_too_much_cpu_ends_at_its_limit(source: str) -> None:
    """Within half a second of it, and its process with it (reliability.md D8; 2.3)."""

    async def body(lab: Lab) -> None:
        manifest = Manifest(
            ProjectId("p"),
            FunctionName("f"),
            1,
            limits=FunctionLimits.hosted().override({"startup_ms": 150}),
        )
        around = Surroundings(nowhere, None, lab.told.on_tell, lab.told.on_death)
        isolate = await lab.engine.start(manifest, Bundle.of(source.encode()), around)
        assert isinstance(isolate, WorkerdIsolate)
        with pytest.raises(StartFailed, match="more than 150 ms of CPU time") as failed:
            await isolate.describe()
        assert failed.value.fault is StartFault.CPU
        used_s = isolate.cpu_s()
        assert used_s is None or 0.15 < used_s < 0.65
        pid = isolate.pid
        await isolate.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    on_workerd(body)


def test_a_guest_that_spoils_its_realm_is_described() -> None:
    """Nothing it did to objects, arrays or its own exports touches the answer (row D7)."""
    source = """
Object.defineProperty(Array.prototype, 0, { set() { throw 1; } });
Object.prototype.toJSON = String.prototype.split = Array.prototype.join = () => { throw 2; };
export function then(resolve) { resolve({}); }
export default { fetch() {}, get queue() { throw new Error("a\\nb"); } };
"""

    async def body(lab: Lab) -> None:
        description = await (await lab.start(source)).describe()
        assert (description.handlers, description.default) == (("fetch",), "object")
        assert description.fault == "queue: Error: a b"

    on_workerd(body)


def test_a_long_message_keeps_its_head() -> None:
    """A line of the engine is cut at its end: its beginning says what it is."""

    async def body(lab: Lab) -> None:
        with pytest.raises(StartFailed, match=r"\AUncaught Error: x") as failed:
            await (await lab.start("throw new Error('x'.repeat(1e6));")).describe()
        assert len(failed.value.reason) <= limits.VIOLATION_TEXT.value

    on_workerd(body)
