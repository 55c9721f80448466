"""Queues over HTTP: bindings, sends, lists, drills, and everything that is refused (D.7, H-14)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import Got, World

from amba_router.store import queue_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.queue_leases import take
from amba_router.store.queue_records import Lease, Taken
from amba_router.store.scoped import Scoped
from amba_runtime import limits
from amba_runtime.limits import Limit

START = "2026-01-01T00:00:00.000Z"
START_MS = 1_767_225_600_000


class Desk:
    """A project with the functions `worker` (a queue handler) and `page` (none)."""

    def __init__(self, world: World, project: Any) -> None:
        self.world = world
        self.project = project
        self.base = f"/v1/admin/projects/{project['id']}/queue"
        self.pump = world.triggers.queues

    async def put(self, queue: object = "orders", function: object = "worker", **more: Any) -> Got:
        body = {"queue_name": queue, "function_name": function, **more}
        return await self.world.ask("PUT", f"{self.base}/bindings", json.dumps(body).encode())

    async def send(self, body: bytes | None = None, **more: Any) -> Got:
        raw = body or json.dumps({"name": "orders", **more}).encode()
        return await self.world.ask("POST", f"{self.base}/send", raw)

    async def jobs(self, query: str = "", queue: str = "orders") -> Got:
        return await self.world.get(f"{self.base}/{queue}/jobs{query}")

    async def post(self, path: str, body: object = None) -> Got:
        raw = b"" if body is None else json.dumps(body).encode()
        return await self.world.ask("POST", f"{self.base}/{path}", raw)

    async def take(self, after_ms: int = 0, queue: str = "orders") -> Taken:
        """As the pump does."""
        store = ProjectStore(self.world.states)
        lease = Lease("me", "worker", START_MS + after_ms, START_MS + after_ms + 60_000)
        return await store.write(self.project["id"], lambda s: take(s, queue, lease))


def run(tmp_path: Path, work: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        async with World(tmp_path) as world:
            desk = Desk(world, await world.project())
            world.host.handlers = ("fetch",)
            await world.deploy(desk.project["id"], "page")
            world.host.handlers = ("fetch", "queue")
            await world.deploy(desk.project["id"], "worker")
            await work(desk)

    asyncio.run(main())


# --- bindings ---


def test_a_binding_has_every_setting(tmp_path: Path) -> None:
    """The platform's fields, and ours with their defaults (D.7, H-14)."""

    async def work(desk: Desk) -> None:
        made = (await desk.put()).data
        assert made == {
            "id": made["id"],
            "queue_name": "orders",
            "function_name": "worker",
            "status": "active",
            "batch_size": 1,
            "batch_wait_ms": 0,
            "consumers": 4,
            "retries": 3,
            "backoff_ms": 10_000,
            "source": "api",
            "created_at": START,
            "updated_at": START,
        }
        assert desk.pump.woken == [(desk.project["id"], "orders", None, True)]
        listed = await desk.world.get(f"{desk.base}/bindings")
        assert listed.body == {"data": [made], "total": 1, "offset": 0, "limit": 1000}

    run(tmp_path, work)


def test_binding_anew_overwrites_and_is_active_again(tmp_path: Path) -> None:
    """One per queue; what is not said is the default again, the id stays (D.7)."""

    async def work(desk: Desk) -> None:
        first = (await desk.put(status="paused", batch_size=10, retries=0)).data
        assert (first["status"], first["batch_size"], first["retries"]) == ("paused", 10, 0)
        await desk.world.clock.advance(5)
        again = (await desk.put(consumers=1)).data
        assert (again["status"], again["batch_size"], again["retries"]) == ("active", 1, 3)
        assert (again["id"], again["created_at"]) == (first["id"], START)
        assert again["updated_at"] == "2026-01-01T00:00:05.000Z"
        assert (await desk.world.get(f"{desk.base}/bindings")).body["total"] == 1

    run(tmp_path, work)


def test_unbinding_needs_the_name_again(tmp_path: Path) -> None:
    """`?confirm=`; done twice it is done; its messages stay (D.7)."""

    async def work(desk: Desk) -> None:
        await desk.put()
        await desk.send(payload=1)
        at = f"{desk.base}/bindings/orders"
        for query in ("", "?confirm=order"):
            got = await desk.world.delete(at + query)
            assert got.said == (400, "CONFIRM_REQUIRED")
        for _ in range(2):
            got = await desk.world.delete(f"{at}?confirm=orders")
            assert got.data == {"queue_name": "orders", "deleted": True}
        assert (await desk.send(payload=1)).said == (404, "QUEUE_NOT_BOUND")
        assert (await desk.jobs()).body["total"] == 1

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"function": "nope"}, (404, "FUNCTION_NOT_FOUND")),
        ({"function": ""}, (404, "FUNCTION_NOT_FOUND")),
        ({"function": "\u00fc"}, (404, "FUNCTION_NOT_FOUND")),
        ({"function": "page"}, (400, "HANDLER_MISSING")),
        ({"function": 1}, (400, "INVALID_INPUT")),
        ({"queue": ""}, (400, "INVALID_NAME")),
        ({"queue": "-a"}, (400, "INVALID_NAME")),
        ({"queue": "a b"}, (400, "INVALID_NAME")),
        ({"queue": "a\n"}, (400, "INVALID_NAME")),
        ({"queue": "fan-out:worker"}, (400, "INVALID_NAME")),
        ({"queue": "x" * 65}, (400, "INVALID_NAME")),
        ({"queue": None}, (400, "INVALID_INPUT")),
        ({"status": "off"}, (400, "INVALID_INPUT")),
        ({"batch_size": 0}, (400, "INVALID_INPUT")),
        ({"batch_size": 11}, (400, "INVALID_INPUT")),
        ({"batch_size": 1.5}, (400, "INVALID_INPUT")),
        ({"batch_wait_ms": -1}, (400, "INVALID_INPUT")),
        ({"batch_wait_ms": 60_001}, (400, "INVALID_INPUT")),
        ({"consumers": 0}, (400, "INVALID_INPUT")),
        ({"consumers": 11}, (400, "INVALID_INPUT")),
        ({"retries": -1}, (400, "INVALID_INPUT")),
        ({"retries": 101}, (400, "INVALID_INPUT")),
        ({"backoff_ms": -1}, (400, "INVALID_INPUT")),
        ({"backoff_ms": 3_600_001}, (400, "INVALID_INPUT")),
        ({"retries": True}, (400, "INVALID_INPUT")),
    ],
)
def test_bindings_that_are_refused(
    tmp_path: Path, more: dict[str, Any], said: tuple[int, str]
) -> None:
    """Unknown functions, functions without the handler, names, settings out of range (issue 6)."""

    async def work(desk: Desk) -> None:
        assert (await desk.put(**more)).said == said
        assert (await desk.world.get(f"{desk.base}/bindings")).data == []

    run(tmp_path, work)


@pytest.mark.parametrize(
    "more",
    [
        {"queue": "x" * 64},
        {"queue": "0"},
        {"queue": "A.b_c-D"},
        {"batch_size": 10, "batch_wait_ms": 60_000, "consumers": 10},
        {"retries": 100, "backoff_ms": 3_600_000, "consumers": 1},
        {"retries": 0, "backoff_ms": 0, "status": "paused"},
    ],
)
def test_bindings_just_within(tmp_path: Path, more: dict[str, Any]) -> None:
    """What the limits still let in."""

    async def work(desk: Desk) -> None:
        made = (await desk.put(**more)).data
        given = {("queue_name" if name == "queue" else name): v for name, v in more.items()}
        assert {name: made[name] for name in given} == given

    run(tmp_path, work)


def test_a_project_has_so_many_bindings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused; another one for a queue that is bound is not."""
    monkeypatch.setattr(limits, "QUEUE_BINDINGS", Limit(2, "bindings", "", ""))

    async def work(desk: Desk) -> None:
        await desk.put("a")
        await desk.put("b")
        assert (await desk.put("c")).said == (409, "CONFLICT")
        assert (await desk.put("b", status="paused")).status == 200

    run(tmp_path, work)


# --- sends ---


def test_a_send_is_stored_before_it_is_answered(tmp_path: Path) -> None:
    """`job_id` at the top and in `data`; the pump is woken after the commit (D.7, H-8)."""

    async def work(desk: Desk) -> None:
        await desk.put()
        got = await desk.send(payload={"a": 1})
        job_id = got.data["job_id"]
        assert (got.status, got.body) == (200, {"data": {"job_id": job_id}, "job_id": job_id})
        assert desk.pump.woken[-1] == (desk.project["id"], "orders", START_MS, False)
        listed = await desk.jobs()
        assert listed.body == {
            "data": [
                {
                    "id": job_id,
                    "state": "waiting",
                    "payload": {"a": 1},
                    "attempts": 0,
                    "failures": 0,
                    "created_at": START,
                    "due_at": START,
                    "reason": None,
                    "error": None,
                    "dead_at": None,
                }
            ],
            "total": 1,
            "offset": 0,
            "limit": 1000,
        }

    run(tmp_path, work)


@pytest.mark.parametrize(
    "payload",
    [
        b"12345678901234567890123456789012345678901234567890",
        b"1.0",
        b"-0.0",
        b"1e400",
        b'{"b":1,"a":2,"b":3}',
        b'{ "a" :\t[ 1 , 2 ] }',
        b'"\\u00e9 \\ud83d\\ude00 \\/"',
        '"\u00e9 \u2603 \U0001f600"'.encode(),
        b"null",
        b"[]",
        b'""',
        b"false",
        b'{"__proto__": {"x": 1}}',
    ],
)
def test_a_payload_is_kept_verbatim(tmp_path: Path, payload: bytes) -> None:
    """The very text: big numbers, key order, duplicate keys, escapes (D.7)."""

    async def work(desk: Desk) -> None:
        await desk.put()
        got = await desk.send(b'{"name": "orders", "payload": ' + payload + b', "x": 1}')
        assert got.status == 200, got.raw
        [message] = (await desk.take()).messages
        assert message.payload.strip().encode() == payload.strip()
        assert payload.strip() in (await desk.jobs()).raw

    run(tmp_path, work)


def test_a_payload_that_is_absent_is_null(tmp_path: Path) -> None:
    """As `batch.messages[0].body` is then (D.7)."""

    async def work(desk: Desk) -> None:
        await desk.put()
        await desk.send()
        assert (await desk.take()).messages[0].payload == "null"

    run(tmp_path, work)


MOST = limits.QUEUE_PAYLOAD_BYTES.value


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ('"' + "x" * (MOST - 3) + '"', 200),
        ('"' + "x" * (MOST - 2) + '"', 200),
        ('"' + "x" * (MOST - 1) + '"', 413),
        ('"' + "é" * (MOST // 2 - 1) + '"', 200),
        ('"' + "é" * (MOST // 2) + '"', 413),
        ('"' + "x" * 900_000 + '"', 413),
        ('"' + "x" * 1_100_000 + '"', 413),
    ],
)
def test_the_cap_of_a_payload(tmp_path: Path, payload: str, status: int) -> None:
    """128 KiB of its JSON in UTF-8, to the byte (H-14, J9)."""

    async def work(desk: Desk) -> None:
        await desk.put()
        got = await desk.send(('{"name":"orders","payload":' + payload + "}").encode())
        assert got.status == status
        if status == 413:
            assert got.code == "PAYLOAD_TOO_LARGE"

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("delay", "due_ms"),
    [(0, 0), (1, 1_000), (0.25, 250), (43_200, 43_200_000), (None, 0), (-0.0, 0)],
)
def test_a_delay(tmp_path: Path, delay: Any, due_ms: int) -> None:
    """From 0 to twelve hours, fractions of a second too (H-14)."""

    async def work(desk: Desk) -> None:
        await desk.put()
        assert (await desk.send(delay_seconds=delay)).status == 200
        assert (await desk.take(due_ms - 1)).messages == ()
        assert len((await desk.take(due_ms)).messages) == 1

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"delay_seconds": -1}, (400, "INVALID_DELAY")),
        ({"delay_seconds": -0.001}, (400, "INVALID_DELAY")),
        ({"delay_seconds": 43_200.5}, (400, "INVALID_DELAY")),
        ({"delay_seconds": 43_201}, (400, "INVALID_DELAY")),
        ({"delay_seconds": 10**18}, (400, "INVALID_DELAY")),
        ({"delay_seconds": 10**30}, (400, "INVALID_DELAY")),
        ({"delay_seconds": "5"}, (400, "INVALID_INPUT")),
        ({"delay_seconds": True}, (400, "INVALID_INPUT")),
        ({"idempotency_key": ""}, (400, "INVALID_IDEMPOTENCY_KEY")),
        ({"idempotency_key": "x" * 257}, (400, "INVALID_IDEMPOTENCY_KEY")),
        ({"idempotency_key": "a\nb"}, (400, "INVALID_IDEMPOTENCY_KEY")),
        ({"idempotency_key": "\x7f"}, (400, "INVALID_IDEMPOTENCY_KEY")),
        ({"idempotency_key": 5}, (400, "INVALID_INPUT")),
        ({"name": "unbound"}, (404, "QUEUE_NOT_BOUND")),
        ({"name": ""}, (400, "INVALID_NAME")),
        ({"name": "fan-out:worker"}, (400, "INVALID_NAME")),
        ({"name": "x" * 65}, (400, "INVALID_NAME")),
        ({"name": 5}, (400, "INVALID_INPUT")),
        ({"name": None}, (400, "INVALID_INPUT")),
    ],
)
def test_sends_that_are_refused(
    tmp_path: Path, more: dict[str, Any], said: tuple[int, str]
) -> None:
    """Negative and huge delays, bad keys, unbound queues: nothing is stored (issue 6)."""

    async def work(desk: Desk) -> None:
        await desk.put()
        assert (await desk.send(**more)).said == said
        assert (await desk.jobs()).body["total"] == 0

    run(tmp_path, work)


@pytest.mark.parametrize(
    "payload",
    [
        b"01",
        b"+1",
        b"1.",
        b".5",
        b"NaN",
        b"Infinity",
        b"'a'",
        b'"\x01"',
        b'"\xff"',
        b"[1,]",
        b"{",
        b'"\\ud800"',
    ],
)
def test_a_payload_that_is_no_json(tmp_path: Path, payload: bytes) -> None:
    """400 INVALID_JSON: what a function would get must parse."""

    async def work(desk: Desk) -> None:
        await desk.put()
        got = await desk.send(b'{"name": "orders", "payload": ' + payload + b"}")
        assert got.said == (400, "INVALID_JSON")

    run(tmp_path, work)


def test_an_idempotency_key_is_known_for_a_day(tmp_path: Path) -> None:
    """One job id within 24 h, across a restart and once it is delivered; per queue (D.7, J5)."""

    async def work(desk: Desk) -> None:
        await desk.put()
        await desk.put("other")
        first = (await desk.send(payload=1, idempotency_key="k")).data["job_id"]
        woken = len(desk.pump.woken)
        assert (await desk.send(payload=2, idempotency_key="k")).data["job_id"] == first
        assert len(desk.pump.woken) == woken
        other = await desk.send(b'{"name": "other", "idempotency_key": "k"}')
        assert other.data["job_id"] != first
        await desk.post("orders/purge", {"state": "all"})
        await desk.world.restart()
        await desk.world.clock.advance(86_399)
        assert (await desk.send(idempotency_key="k")).data["job_id"] == first
        await desk.world.clock.advance(1)
        again = (await desk.send(idempotency_key="k")).data["job_id"]
        assert again != first
        assert (await desk.send(idempotency_key="k")).data["job_id"] == again
        assert (await desk.jobs()).body["total"] == 1

    run(tmp_path, work)


def test_fifty_sends_with_one_key_are_one_job(tmp_path: Path) -> None:
    """All at once (J5)."""

    async def work(desk: Desk) -> None:
        await desk.put()
        got = await asyncio.gather(*[desk.send(idempotency_key="k") for _ in range(50)])
        assert len({one.data["job_id"] for one in got}) == 1
        assert (await desk.jobs()).body["total"] == 1

    run(tmp_path, work)


def test_a_queue_holds_so_many_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting and dead together; one more is 429 QUEUE_FULL until there is room (J9)."""
    monkeypatch.setattr(limits, "QUEUE_DEPTH", Limit(3, "messages", "", ""))

    async def work(desk: Desk) -> None:
        await desk.put()
        await desk.put("other")
        ids = [(await desk.send(idempotency_key=str(n))).data["job_id"] for n in range(3)]
        full = await desk.send()
        assert full.said == (429, "QUEUE_FULL")
        assert full.headers["retry-after"] == "1"
        assert (await desk.send(idempotency_key="1")).data["job_id"] == ids[1]
        assert (await desk.send(b'{"name": "other"}')).status == 200
        await desk.post("orders/purge", {"state": "all"})
        assert (await desk.send()).said == (429, "QUEUE_FULL")  # not counted again at once
        await desk.world.clock.advance(1)
        assert [(await desk.send()).status for _ in range(4)] == [200, 200, 200, 429]

    run(tmp_path, work)


def test_a_queue_that_is_nearly_full_is_counted_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count goes through a million, in the one thread that writes for all projects (J9, J10)."""
    monkeypatch.setattr(limits, "QUEUE_DEPTH", Limit(1, "messages", "", ""))
    count, counted = queue_rows.count, 0

    def counting(scoped: Scoped, queue: str) -> int:
        nonlocal counted
        counted += 1
        return count(scoped, queue)

    monkeypatch.setattr(queue_rows, "count", counting)

    async def work(desk: Desk) -> None:
        await desk.put()
        for second in range(3):
            said: list[int] = []
            for _ in range(3):
                said.append((await desk.send()).status)
                await desk.post("orders/purge", {"state": "all"})
            assert (said, counted) == ([200, 429, 429], second + 1)
            await desk.world.clock.advance(1)

    run(tmp_path, work)


def test_a_function_sends_with_its_internal_token(tmp_path: Path) -> None:
    """To its own project's queues, with and without `/v1`; to no other's (C.1, H-6)."""

    async def work(desk: Desk) -> None:
        await desk.put()
        other = await desk.world.project("Other")
        path = f"/v1/admin/projects/{desk.project['id']}/internal-credentials"
        token = (await desk.world.get(path)).data["internal_token"]
        for base in (desk.base, desk.base.removeprefix("/v1")):
            got = await desk.world.post(f"{base}/send", {"name": "orders"}, token=token)
            assert got.status == 200
        theirs = f"/v1/admin/projects/{other['id']}/queue/send"
        got = await desk.world.post(theirs, {"name": "orders"}, token=token)
        assert got.said == (403, "WRONG_PROJECT")

    run(tmp_path, work)


def test_projects_see_nothing_of_each_other(tmp_path: Path) -> None:
    """The same queue, key and job in two projects are two (C.1)."""

    async def work(desk: Desk) -> None:
        other = await desk.world.project("Other")
        await desk.world.deploy(other["id"], "worker")
        theirs = Desk(desk.world, other)
        await desk.put()
        assert (await theirs.send()).said == (404, "QUEUE_NOT_BOUND")
        await theirs.put(status="paused")
        first = (await desk.send(payload="ours", idempotency_key="k")).data["job_id"]
        second = (await theirs.send(payload="theirs", idempotency_key="k")).data["job_id"]
        assert first != second
        assert [job["payload"] for job in (await theirs.jobs()).data] == ["theirs"]
        assert (await theirs.post("orders/purge", {"state": "all"})).data["purged"] == 1
        await theirs.post("orders/redeliver", {"job_ids": [first]})
        await desk.world.delete(f"{theirs.base}/bindings/orders?confirm=orders")
        assert [job["id"] for job in (await desk.jobs()).data] == [first]
        assert len((await desk.world.get(f"{desk.base}/bindings")).data) == 1

    run(tmp_path, work)


# --- what lies in queues (ours) ---


def test_lists_by_state_and_page(tmp_path: Path) -> None:
    """`state`, `offset`, `limit`; a leased one shows the end of its lease."""

    async def work(desk: Desk) -> None:
        await desk.put()
        for n in range(3):
            await desk.send(payload=n)
        await desk.send(payload="late", delay_seconds=60)
        await desk.take()
        everything = await desk.jobs()
        assert [(j["payload"], j["state"]) for j in everything.data] == [
            (1, "waiting"),
            (2, "waiting"),
            (0, "leased"),
            ("late", "delayed"),
        ]
        leased = (await desk.jobs("?state=leased")).data
        assert [(j["attempts"], j["due_at"]) for j in leased] == [(1, "2026-01-01T00:01:00.000Z")]
        second = await desk.jobs("?state=waiting&offset=1&limit=1")
        assert ([j["payload"] for j in second.data], second.body["total"]) == ([2], 2)
        assert (await desk.jobs("?state=dead")).data == []
        assert (await desk.jobs("?state=odd")).said == (400, "INVALID_INPUT")
        assert (await desk.jobs("?limit=0")).said == (400, "INVALID_LIMIT")
        assert (await desk.jobs(queue="-")).said == (400, "INVALID_NAME")
        assert (await desk.jobs(queue="fan-out%3Aworker")).data == []

    run(tmp_path, work)


def test_a_page_of_large_messages_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By bytes; one is always given."""
    monkeypatch.setattr(limits, "QUEUE_PAGE_BYTES", Limit(250, "bytes", "", ""))

    async def work(desk: Desk) -> None:
        await desk.put()
        for n in range(5):
            await desk.send(payload=str(n) * 98)
        first = await desk.jobs()
        assert (len(first.data), first.body["total"]) == (2, 5)
        monkeypatch.setattr(limits, "QUEUE_PAGE_BYTES", Limit(1, "bytes", "", ""))
        assert len((await desk.jobs("?offset=4")).data) == 1

    run(tmp_path, work)


def test_queues_are_listed_with_their_depth(tmp_path: Path) -> None:
    """Bound or not, as long as there is something to tell."""

    async def work(desk: Desk) -> None:
        await desk.put("empty", status="paused")
        await desk.put()
        await desk.send()
        await desk.send()
        await desk.send(delay_seconds=5)
        await desk.take()
        await desk.put("left")
        await desk.send(b'{"name": "left"}')
        await desk.world.delete(f"{desk.base}/bindings/left?confirm=left")
        none = {"waiting": 0, "delayed": 0, "leased": 0, "dead": 0, "oldest_waiting_at": None}
        assert (await desk.world.get(f"{desk.base}/queues")).body == {
            "data": [
                {"queue_name": "empty", "function_name": "worker", "status": "paused", **none},
                {
                    "queue_name": "left",
                    "function_name": None,
                    "status": None,
                    **none,
                    "waiting": 1,
                    "oldest_waiting_at": START,
                },
                {
                    "queue_name": "orders",
                    "function_name": "worker",
                    "status": "active",
                    "waiting": 1,
                    "delayed": 1,
                    "leased": 1,
                    "dead": 0,
                    "oldest_waiting_at": START,
                },
            ]
        }

    run(tmp_path, work)


def test_dead_letters_are_listed_redelivered_and_purged(tmp_path: Path) -> None:
    """The newest first; by id or all of them."""

    async def work(desk: Desk) -> None:
        await desk.put(status="paused")
        ids: list[str] = []
        for n in range(3):
            ids.append((await desk.send(payload=n)).data["job_id"])
            await desk.take(after_ms=n)
        dead = (await desk.jobs("?state=dead")).data
        assert [(job["payload"], job["reason"]) for job in dead] == [
            (n, "paused") for n in (2, 1, 0)
        ]
        assert dead[0]["dead_at"] == "2026-01-01T00:00:00.002Z"
        some = await desk.post("orders/redeliver", {"job_ids": [ids[1], "nope"]})
        assert some.data == {"queue_name": "orders", "redelivered": 1}
        assert desk.pump.woken[-1][:2] == (desk.project["id"], "orders")
        assert [j["id"] for j in (await desk.jobs("?state=waiting")).data] == [ids[1]]
        purged = await desk.post("orders/purge", {"state": "waiting"})
        assert purged.data == {"queue_name": "orders", "purged": 1}
        assert (await desk.post("orders/redeliver")).data["redelivered"] == 2
        assert (await desk.post("orders/purge", {"state": "dead"})).data["purged"] == 0
        assert (await desk.post("orders/purge", {"state": "all"})).data["purged"] == 2

    run(tmp_path, work)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 100])
def test_changes_of_many_are_made_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A transaction changes so many; all are changed."""
    monkeypatch.setattr(limits, "QUEUE_MOVED", Limit(step, "messages", "", ""))

    async def work(desk: Desk) -> None:
        await desk.put()
        for _ in range(4):
            await desk.send()
        assert (await desk.post("orders/purge", {"state": "waiting"})).data["purged"] == 4
        assert (await desk.jobs()).data == []

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("orders/purge", {"state": "leased"}, (400, "INVALID_INPUT")),
        ("orders/purge", {}, (400, "INVALID_INPUT")),
        ("orders/redeliver", {"job_ids": "all"}, (400, "INVALID_INPUT")),
        ("orders/redeliver", {"job_ids": ["x"] * 1_001}, (400, "INVALID_INPUT")),
        ("orders/fail-next", {"count": -1}, (400, "INVALID_INPUT")),
        ("orders/fail-next", {"count": 1_001}, (400, "INVALID_INPUT")),
        ("unbound/fail-next", {"count": 1}, (404, "QUEUE_NOT_BOUND")),
        ("fan-out:nobody/fail-next", {"count": 1}, (404, "FUNCTION_NOT_FOUND")),
        ("unbound/deliver", {"payload": 1}, (404, "QUEUE_NOT_BOUND")),
        ("orders/deliver", {"payload": 1, "payloads": [1]}, (400, "INVALID_INPUT")),
        ("orders/deliver", {"payloads": []}, (400, "INVALID_INPUT")),
        ("orders/deliver", {"payloads": [1] * 11}, (400, "INVALID_INPUT")),
        ("orders/deliver", {"payload": "x" * MOST}, (413, "PAYLOAD_TOO_LARGE")),
        ("a b/deliver", {}, (400, "INVALID_NAME")),
        ("fan-out:nope/deliver", {}, (404, "FUNCTION_NOT_FOUND")),
        ("fan-out:page/deliver", {}, (400, "HANDLER_MISSING")),
        ("fan-out:nope/fail-next", {"count": 1}, (404, "FUNCTION_NOT_FOUND")),
        ("fan-out:/deliver", {}, (400, "INVALID_NAME")),
    ],
)
def test_ours_refuse(tmp_path: Path, path: str, body: object, said: tuple[int, str]) -> None:
    """States, ids, counts and payloads that are none."""

    async def work(desk: Desk) -> None:
        await desk.put()
        assert (await desk.post(path.replace(" ", "%20"), body)).said == said

    run(tmp_path, work)


def test_fail_next(tmp_path: Path) -> None:
    """Handed to the pump (issue 6, 5)."""

    async def work(desk: Desk) -> None:
        await desk.put()
        got = await desk.post("orders/fail-next", {"count": 1000})
        assert got.data == {"queue_name": "orders", "count": 1000}
        assert desk.pump.failing == {(desk.project["id"], "orders"): 1000}

    run(tmp_path, work)


def test_a_delivery_on_demand_says_how_it_ended(tmp_path: Path) -> None:
    """200 whatever the outcome; verdicts and console lines; ten of the largest payloads."""

    async def work(desk: Desk) -> None:
        await desk.put()
        largest = "x" * (MOST - 2)
        got = await desk.post("orders/deliver", {"payloads": [largest] * 10})
        assert got.data == {
            "request_id": "r-1",
            "outcome": "exception",
            "error": "it threw",
            "ms": 1.5,
            "messages": [
                {"id": "m-1", "verdict": "acked"},
                {"id": "m-2", "verdict": "retried", "delay_seconds": 7},
                {"id": "m-3", "verdict": "retried"},
            ],
            "logs": [{"level": "log", "message": ["hello", 1], "timestamp_ms": 5}],
        }
        await desk.post("orders/deliver")
        await desk.post("fan-out%3Aworker/deliver", {"payload": {"a": 1}})
        assert [(q, f, len(p)) for q, f, p in desk.pump.delivered] == [
            ("orders", "worker", 10),
            ("orders", "worker", 1),
            ("fan-out:worker", "worker", 1),
        ]
        assert [p for _, _, p in desk.pump.delivered[1:]] == [("null",), ('{"a": 1}',)]

    run(tmp_path, work)
