"""A segment's users as messages of a function's own queue (contract E.13, E.0, H-8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import Got, World

from amba_router.store import user_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import app_users
from amba_router.store.trigger_schema import queue_jobs
from amba_router.store.user_rows import NewUser
from amba_runtime import limits

MISSING = (404, "segment_or_function_not_found")


class Lab:
    """One project with a function `digest` that has a queue handler."""

    def __init__(self, world: World, project: Any) -> None:
        self.world = world
        self.id: str = project["id"]
        self.store = ProjectStore(world.states)

    async def function(self, name: str = "digest", *handlers: str) -> None:
        """One more that serves."""
        assert (await self.world.deploy(self.id, name)).status == 201
        serving = self.world.host.serving
        serving[self.id, name] = replace(serving[self.id, name], handlers=handlers or ("queue",))

    async def users(self, ids: list[str], zone: str | None = None) -> None:
        """Seen now."""
        now_ms = int(self.world.clock.time_s() * 1000)

        def work(scoped: Scoped) -> None:
            for id_ in ids:
                user_rows.add(scoped, NewUser(id_, now_ms))
                scoped.change(app_users, app_users.c.id == id_, timezone=zone)

        await self.store.write(self.id, work)

    async def fan_out(self, segment: str = "all", function: str = "digest", **more: Any) -> Got:
        """POST fan-out/segment."""
        payload = {"payload": more.pop("payload")} if "payload" in more else {}
        body = {"segment_id": segment, "invoke": {"function": function, **payload}, **more}
        return await self.raw(json.dumps(body).encode())

    async def raw(self, body: bytes) -> Got:
        """With this very body."""
        return await self.world.ask("POST", f"/v1/admin/projects/{self.id}/fan-out/segment", body)

    async def jobs(self) -> list[Any]:
        """What waits, the first due first."""

        def work(scoped: Scoped) -> list[Any]:
            query = scoped.query(queue_jobs).order_by(queue_jobs.c.due_ms, queue_jobs.c.seq)
            return list(scoped.rows(query))

        return await self.store.read(self.id, work)


def run(tmp_path: Path, test: Callable[[Lab], Awaitable[None]]) -> None:
    """In a project of its own."""

    async def main() -> None:
        async with World(tmp_path) as world:
            lab = Lab(world, await world.project())
            await lab.function()
            await test(lab)

    asyncio.run(main())


def woken(lab: Lab) -> list[tuple[str, str]]:
    """Whom the pump was told of."""
    return [(one[0], one[1]) for one in lab.world.triggers.queues.woken]


def names(count: int, prefix: str = "u") -> list[str]:
    """Ids of users in the order of their making."""
    return [f"{prefix}_{at:04}" for at in range(count)]


def test_one_message_for_a_hundred_users(tmp_path: Path) -> None:
    """All users, each once, in order; counts in the envelope and beside it; the pump is woken."""

    async def test(lab: Lab) -> None:
        await lab.users(names(205))
        got = await lab.fan_out(payload={"n": 1})
        counts = {"batch_count": 3, "estimated_user_count": 205}
        assert got.status == 200
        assert got.body == {"data": counts, **counts}
        jobs = await lab.jobs()
        bodies = [json.loads(job.payload) for job in jobs]
        assert [len(body["user_ids"]) for body in bodies] == [100, 100, 5]
        assert [id_ for body in bodies for id_ in body["user_ids"]] == names(205)
        assert {(body["segment_id"], body["payload"]["n"]) for body in bodies} == {("all", 1)}
        now_ms = int(lab.world.clock.time_s() * 1000)
        assert {(j.queue, j.due_ms, j.created_ms, j.owner, j.dead_ms) for j in jobs} == {
            ("fan-out:digest", now_ms, now_ms, None, None)
        }
        assert len({job.id for job in jobs}) == 3
        assert woken(lab) == [(lab.id, "fan-out:digest")]

    run(tmp_path, test)


@pytest.mark.parametrize(
    "text", ['{"b":1.0,"a":12345678901234567890,"a":2}', '"\\u00e4"', "null", "[ 1 ,2]", "1e400"]
)
def test_the_payload_is_the_very_text(tmp_path: Path, text: str) -> None:
    """Digits, order and blanks stay: nothing reads it on its way (contract D.7, verbatim)."""

    async def test(lab: Lab) -> None:
        await lab.users(["u_1"])
        body = f'{{"segment_id":"all","invoke":{{"function":"digest","payload":{text}}}}}'
        assert (await lab.raw(body.encode())).status == 200
        (job,) = await lab.jobs()
        assert job.payload == f'{{"segment_id":"all","user_ids":["u_1"],"payload":{text}}}'

    run(tmp_path, test)


def test_without_a_payload_it_is_null(tmp_path: Path) -> None:
    """The member is always there."""

    async def test(lab: Lab) -> None:
        await lab.users(["u_1"])
        assert (await lab.fan_out()).status == 200
        assert json.loads((await lab.jobs())[0].payload)["payload"] is None

    run(tmp_path, test)


def test_a_segment_of_nobody(tmp_path: Path) -> None:
    """No message, and nobody is woken."""

    async def test(lab: Lab) -> None:
        await lab.users(["u_1"])
        got = await lab.fan_out("premium")
        assert (got.status, got.body["batch_count"], got.body["estimated_user_count"]) == (
            200,
            0,
            0,
        )
        assert await lab.jobs() == []
        assert woken(lab) == []

    run(tmp_path, test)


def test_a_segment_of_ones_own(tmp_path: Path) -> None:
    """Who was in it at its last evaluation."""

    async def test(lab: Lab) -> None:
        await lab.users(names(3))
        rules = {
            "operator": "OR",
            "conditions": [
                {"field": "id", "op": "eq", "value": id_} for id_ in ("u_0000", "u_0002")
            ],
        }
        path = f"/v1/admin/projects/{lab.id}/segments"
        made = (await lab.world.post(path, {"name": "Two", "rules": rules})).data
        assert (await lab.fan_out(made["id"])).body["estimated_user_count"] == 2
        (job,) = await lab.jobs()
        assert json.loads(job.payload)["user_ids"] == ["u_0000", "u_0002"]

    run(tmp_path, test)


def test_each_in_the_hours_of_their_day(tmp_path: Path) -> None:
    """Users are together where their day opens at the same time; who is inside is due now."""

    async def test(lab: Lab) -> None:
        zones = {
            "a": None,
            "b": "Europe/Vienna",
            "c": "Asia/Tokyo",
            "d": "Europe/Berlin",
            "e": "UTC",
        }
        for id_, zone in zones.items():
            await lab.users([id_], zone)
        window = {"local_hour_start": 9, "local_hour_end": 12}
        got = await lab.fan_out(delivery_window=window)
        assert (got.body["batch_count"], got.body["estimated_user_count"]) == (3, 5)
        now_ms = int(lab.world.clock.time_s() * 1000)
        in_hours = {
            tuple(json.loads(job.payload)["user_ids"]): (job.due_ms - now_ms) / 3_600_000
            for job in await lab.jobs()
        }
        hour = lab.world.clock.time_s() % 86_400 / 3600
        wanted = {("a", "e"): 9, ("b", "d"): 8, ("c",): 0}
        assert in_hours == {ids: (at - hour) % 24 for ids, at in wanted.items()}

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("window", "code"),
    [
        ({"local_hour_start": 9, "local_hour_end": 9}, "INVALID_INPUT"),
        ({"local_hour_start": 0, "local_hour_end": 0}, "INVALID_INPUT"),
        ({"local_hour_start": -1, "local_hour_end": 9}, "INVALID_INPUT"),
        ({"local_hour_start": 24, "local_hour_end": 9}, "INVALID_INPUT"),
        ({"local_hour_start": 9, "local_hour_end": 25}, "INVALID_INPUT"),
        ({"local_hour_start": 9}, "INVALID_INPUT"),
        ({"local_hour_start": 9.5, "local_hour_end": 10}, "INVALID_INPUT"),
        ({"local_hour_start": 9, "local_hour_end": 10, "timezone": "UTC"}, "INVALID_INPUT"),
        ("9-17", "INVALID_INPUT"),
        (None, ""),
        ({"local_hour_start": 0, "local_hour_end": 24}, ""),
    ],
)
def test_what_a_window_may_be(tmp_path: Path, window: object, code: str) -> None:
    """Whole hours, not equal; another member is refused rather than passed over."""

    async def test(lab: Lab) -> None:
        got = await lab.fan_out(delivery_window=window)
        assert got.said == (400, code) if code else got.status == 200

    run(tmp_path, test)


def test_what_is_not_there(tmp_path: Path) -> None:
    """One code for both, spelled as the functions SDK reads it; the message says which."""

    async def test(lab: Lab) -> None:
        got = await lab.fan_out("nope")
        assert got.said == MISSING
        assert got.details == {"resource": "segment", "id": "nope", "field": "$.segment_id"}
        got = await lab.fan_out(function="nope")
        assert got.said == MISSING
        assert got.details["resource"] == "function"
        lab.world.host.serving.clear()
        assert (await lab.fan_out()).said == MISSING

    run(tmp_path, test)


def test_a_function_without_the_handler(tmp_path: Path) -> None:
    """400, and what to export."""

    async def test(lab: Lab) -> None:
        await lab.function("plain", "fetch", "scheduled")
        got = await lab.fan_out(function="plain")
        assert got.said == (400, "HANDLER_MISSING")
        assert "async queue(" in got.body["error"]["message"]

    run(tmp_path, test)


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b'{"segment_id":"all"}', b'{"segment_id":1,"invoke":{"function":"digest"}}',
     b'{"segment_id":"all","invoke":{"function":""}}', b'{"segment_id":"all","invoke":"digest"}',
     b'{"segment_id":"","invoke":{"function":"digest"}}'],
)  # fmt: skip
def test_what_a_body_must_be(tmp_path: Path, body: bytes) -> None:
    """400 with its place."""

    async def test(lab: Lab) -> None:
        got = await lab.raw(body)
        assert got.said == (400, "INVALID_INPUT")
        assert got.details["field"].startswith("$")

    run(tmp_path, test)


@pytest.mark.parametrize("payload", [b'"\xff"', b'"\xed\xa0\x80"', b"{", b"NaN", b'{"a":1,}'])
def test_a_payload_that_is_no_json(tmp_path: Path, payload: bytes) -> None:
    """It is kept unread, and looked at all the same."""

    async def test(lab: Lab) -> None:
        await lab.users(["u_1"])
        got = await lab.raw(
            b'{"segment_id":"all","invoke":{"function":"digest","payload":' + payload + b"}}"
        )
        assert got.said == (400, "INVALID_JSON")
        assert await lab.jobs() == []

    run(tmp_path, test)


@pytest.mark.parametrize("extra", [0, 1])
def test_the_payload_is_bounded(tmp_path: Path, extra: int) -> None:
    """At the limit it is taken, one byte over it 413."""

    async def test(lab: Lab) -> None:
        text = "x" * (limits.FAN_OUT_PAYLOAD_BYTES.value - 2 + extra)
        got = await lab.fan_out(payload=text)
        assert got.said == (413, "PAYLOAD_TOO_LARGE") if extra else got.status == 200

    run(tmp_path, test)


def test_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users, bytes and depth: the last is taken, one more is refused and nothing written."""

    def bound(name: str, value: int) -> None:
        monkeypatch.setattr(limits, name, replace(getattr(limits, name), value=value))

    async def test(lab: Lab) -> None:
        await lab.users(names(3))
        bound("FAN_OUT_BATCH", 2)
        bound("FAN_OUT_USERS", 2)
        got = await lab.fan_out()
        assert got.said == (409, "CONFLICT")
        assert got.details["users_max"] == 2
        bound("FAN_OUT_USERS", 3)
        bound("FAN_OUT_BYTES", 122)
        assert (await lab.fan_out()).said == (413, "PAYLOAD_TOO_LARGE")
        assert await lab.jobs() == []
        bound("FAN_OUT_BYTES", 123)
        bound("QUEUE_DEPTH", 3)
        assert (await lab.fan_out()).body["batch_count"] == 2
        assert (await lab.fan_out()).said == (429, "QUEUE_FULL")
        assert len(await lab.jobs()) == 2
        bound("QUEUE_DEPTH", 4)
        assert (await lab.fan_out()).status == 200
        assert len(woken(lab)) == 2

    run(tmp_path, test)


def test_a_segment_that_goes_in_between(tmp_path: Path) -> None:
    """It is looked for again with the write: no message of a segment that is gone."""

    async def test(lab: Lab) -> None:
        await lab.users(["u_1"])
        path = f"/v1/admin/projects/{lab.id}/segments"
        rules = {"operator": "AND", "conditions": [{"field": "id", "op": "exists"}]}
        made = (await lab.world.post(path, {"name": "All", "rules": rules})).data
        answers = await asyncio.gather(
            lab.fan_out(made["id"]), lab.world.delete(f"{path}/{made['id']}")
        )
        assert answers[1].status == 200
        sent = answers[0]
        assert sent.status == 200 or sent.said == MISSING
        assert len(await lab.jobs()) == (sent.status == 200)

    run(tmp_path, test)


def test_who_may(tmp_path: Path) -> None:
    """The project's own credentials; another project's users and functions are not reached."""

    async def test(lab: Lab) -> None:
        other = await lab.world.project("Other")
        await lab.users(["u_1"])
        there = Lab(lab.world, other)
        assert (await there.fan_out()).said == MISSING  # the function is the first one's
        await there.function()
        assert (await there.fan_out()).body["estimated_user_count"] == 0
        internal = (await lab.world.get(f"/v1/admin/projects/{lab.id}/internal-credentials")).data[
            "internal_token"
        ]
        body = json.dumps({"segment_id": "all", "invoke": {"function": "digest"}}).encode()
        path = f"/v1/admin/projects/{lab.id}/fan-out/segment"
        assert (await lab.world.ask("POST", path, body, token=internal)).status == 200
        assert (await lab.world.ask("POST", path, body, token=None)).said == (401, "UNAUTHORIZED")
        path = f"/v1/admin/projects/{other['id']}/fan-out/segment"
        got = await lab.world.ask("POST", path, body, token=internal)
        assert got.said == (403, "WRONG_PROJECT")
        assert len(await lab.jobs()) == 1
        assert await there.jobs() == []

    run(tmp_path, test)
