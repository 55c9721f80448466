"""Events over HTTP: whose they are, when they happened, pages, counts, audit (contract E.6)."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import Got, World
from tests.router.services.known_users import add_user, last_seen_ms

from amba_router.store.event_rows import count_all, count_audit
from amba_router.store.project_store import ProjectStore
from amba_runtime import limits

DAY_S = 86_400
START = "2026-01-01T00:00:00.000Z"


def run(tmp_path: Path, work: Callable[[World, Any, str], Awaitable[None]]) -> None:
    """A world, a project with the user `u_1`, and the base of its admin paths."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            await add_user(world, project, "u_1")
            await work(world, project, f"/v1/admin/projects/{project['id']}")

    asyncio.run(main())


def at_second(second: int) -> str:
    return f"2025-12-31T12:00:{second:02}Z"


async def kept(world: World, project: Any) -> int:
    return await ProjectStore(world.states).read(project["id"], count_all)


async def internal_token(world: World, project: Any) -> str:
    got = await world.get(f"/v1/admin/projects/{project['id']}/internal-credentials")
    return str(got.data["internal_token"])


def test_a_session_tracks_for_its_user(tmp_path: Path) -> None:
    """One event or a list; the user is the session's, whatever the body says (E.6)."""

    async def work(world: World, project: Any, base: str) -> None:
        await add_user(world, project, "u_2")
        await world.clock.advance(60)
        one = await world.as_client(
            "POST",
            "/v1/client/events",
            {"event": "opened", "properties": {"n": [1, None]}, "user_id": "u_2"},
            project=project,
            user="u_1",
        )
        assert one.body == {"data": {"tracked": 1}}
        two = await world.as_client(
            "POST",
            "/client/events",
            {"events": [{"event": "a", "timestamp": START}, {"event": "b", "user_id": "no"}]},
            project=project,
            user="u_1",
        )
        assert two.data == {"tracked": 2}
        rows = (await world.get(f"{base}/events")).data
        assert {row["app_user_id"] for row in rows} == {"u_1"}
        assert [row["event_name"] for row in rows[2:]] == ["a"]
        opened = next(row for row in rows if row["event_name"] == "opened")
        assert set(opened) == {"id", "app_user_id", "event_name", "properties", "occurred_at"}
        assert opened["properties"] == {"n": [1, None]}
        assert opened["occurred_at"] == "2026-01-01T00:01:00.000Z"
        assert await last_seen_ms(world, project, "u_1") == int(world.clock.time_s() * 1000)
        assert await last_seen_ms(world, project, "u_2") == int(world.clock.time_s() - 60) * 1000

    run(tmp_path, work)


def test_a_function_says_whose_events_they_are(tmp_path: Path) -> None:
    """The 0.1.x SDK sends its internal token, `user_id` and `occurred_at` (E.6)."""

    async def work(world: World, project: Any, base: str) -> None:
        token = await internal_token(world, project)
        body = {"event": "paid", "user_id": "u_1", "occurred_at": "2025-12-31T23:00:00+01:00"}
        assert (await world.post("/client/events", body, token=token)).data == {"tracked": 1}
        got = await world.post("/client/events", {"event": "cron", "user_id": ""}, token=token)
        assert got.data == {"tracked": 1}
        rows = (await world.get(f"{base}/events")).data
        assert [(r["app_user_id"], r["occurred_at"]) for r in rows] == [
            (None, START),
            ("u_1", "2025-12-31T22:00:00.000Z"),
        ]
        got = await world.as_user(
            "POST",
            "/v1/client/events",
            {"event": "x", "user_id": "u_2"},
            project=project,
            user="u_1",
        )
        assert got.data == {"tracked": 1}
        assert {r["app_user_id"] for r in (await world.get(f"{base}/events")).data} == {None, "u_1"}

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2025-12-31T12:00:00Z", "2025-12-31T12:00:00.000Z"),
        ("2025-12-31T12:00:00.123456+02:00", "2025-12-31T10:00:00.123Z"),
        (1767139200000, "2025-12-31T00:00:00.000Z"),
        ("1767139200000", "2025-12-31T00:00:00.000Z"),
        (None, START),
        ("2026-01-01T00:00:01Z", START),  # ahead: counts as now
        ("9999-12-31T23:59:59Z", START),
        (10**30, START),
        ("yesterday", 400),
        ("", 400),
        ("2026-13-01T00:00:00Z", 400),
        (-1, 400),
        ("1969-12-31T23:59:59Z", 400),
        (1.5, 400),
        (True, 400),
        ({"$date": 1}, 400),
    ],
)
def test_when_it_happened(tmp_path: Path, when: object, expected: object) -> None:
    """Malformed is refused with its place, the future is now (ours; E.6 is silent)."""

    async def work(world: World, project: Any, base: str) -> None:
        for plane in ("client", "admin"):
            if plane == "client":
                body = {"events": [{"event": "ok"}, {"event": "e", "timestamp": when}]}
                got = await world.as_client(
                    "POST", "/v1/client/events", body, project=project, user="u_1"
                )
            else:
                sent = {"event": "e", "user_id": "u_1", "occurred_at": when}
                got = await world.post(f"{base}/events", sent)
            if expected == 400:
                assert got.said == (400, "INVALID_INPUT")
                assert got.details["field"].startswith("$")
                assert await kept(world, project) == 0
            else:
                assert got.status in (200, 201)
                rows = (await world.get(f"{base}/events?since=0&event_name=e")).data
                assert {row["occurred_at"] for row in rows} == {expected}

    run(tmp_path, work)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"event": ""},
        {"event": "a" * 201},
        {"event": "a\n"},
        {"event": "a\0b"},
        {"event": 3},
        {"event": None},
        {"event": "a", "properties": []},
        {"event": "a", "properties": {"x": "y" * (32 * 1024)}},
        {"event": "a", "events": []},
        {"events": [{"event": "ok"}, {"name": "x"}]},
        {"events": {"event": "a"}},
        {"event": "a", "user_id": 7},
    ],
)
def test_bodies_that_are_refused(tmp_path: Path, body: object) -> None:
    """With what is wrong and where; a list with one bad event records none (E.6)."""

    async def work(world: World, project: Any, _base: str) -> None:
        got = await world.as_client("POST", "/v1/client/events", body, project=project, user="u_1")
        assert got.said == (400, "INVALID_INPUT")
        assert got.details["field"].startswith("$")
        assert await kept(world, project) == 0

    run(tmp_path, work)


def test_batches_are_bounded(tmp_path: Path) -> None:
    """500 pass, 501 are 413 BATCH_TOO_LARGE and nothing is recorded (E.6)."""

    async def work(world: World, project: Any, _base: str) -> None:
        for count, status in ((501, 413), (500, 200), (0, 200)):
            body = {"events": [{"event": "e"}] * count}
            got = await world.as_client(
                "POST", "/v1/client/events", body, project=project, user="u_1"
            )
            assert got.status == status
            if status == 413:
                assert got.said == (413, "BATCH_TOO_LARGE")
                assert got.details == {"field": "$.events", "events_max": 500}
                assert await kept(world, project) == 0
        assert await kept(world, project) == 500
        got = await world.as_client("POST", "/v1/client/events", {"event": "e"}, project=project)
        assert got.said == (401, "UNAUTHORIZED")

    run(tmp_path, work)


def test_properties_may_be_as_large_as_this(tmp_path: Path) -> None:
    """32 KiB as JSON (EVENT_PROPERTIES); large and odd numbers come back as they were."""

    async def work(world: World, project: Any, base: str) -> None:
        room = limits.EVENT_PROPERTIES.value - len('{"x":""}')
        sent: tuple[dict[str, Any], ...] = (
            {"x": "y" * room},
            {"big": 2**80, "f": -0.5, "deep": [[[{}]]]},
        )
        for properties in sent:
            body = {"event": "e", "user_id": "u_1", "properties": properties}
            got = await world.post(f"{base}/events", body)
            assert (got.status, got.data["properties"]) == (201, properties)

    run(tmp_path, work)


def test_an_event_id_is_recorded_once(tmp_path: Path) -> None:
    """`event_id` is the idempotency key: the second is told the first (E.6)."""

    async def work(world: World, project: Any, base: str) -> None:
        body = {"event": "paid", "user_id": "u_1", "event_id": "order-1", "properties": {"n": 1}}
        first = await world.post(f"{base}/events", body)
        again = await world.post(f"{base}/events", {**body, "properties": {"n": 2}})
        assert (first.status, again.status) == (201, 200)
        assert first.data == {**again.data, "tracked": 1}
        assert (again.data["tracked"], again.data["event_id"]) == (0, "order-1")
        assert await kept(world, project) == 1
        other = await world.project("Other")
        await add_user(world, other, "u_1")
        got = await world.post(f"/v1/admin/projects/{other['id']}/events", body)
        assert got.status == 201
        assert got.data["id"] != first.data["id"]

    run(tmp_path, work)


def test_another_projects_user_is_nobody(tmp_path: Path) -> None:
    """404 in every position, nothing written, nobody's last_seen moved (issue 5, line 2)."""

    async def work(world: World, project: Any, base: str) -> None:
        other = await world.project("Other")
        await add_user(world, other, "theirs")
        token = await internal_token(world, project)
        event = {"event": "e", "user_id": "theirs"}
        await world.clock.advance(5)
        for got in (
            await world.post(f"{base}/events", event),
            await world.post("/v1/client/events", event, token=token),
            await world.post(
                "/v1/client/events", {"events": [{"event": "ok"}, event]}, token=token
            ),
            await world.post(
                f"{base}/audit-events", {"event_name": "e", "user_id": "theirs", "properties": {}}
            ),
        ):
            assert got.said == (404, "USER_NOT_FOUND")
            assert got.details == {"resource": "user", "id": "theirs"}
        assert await kept(world, project) == await kept(world, other) == 0
        assert await last_seen_ms(world, other, "theirs") == int(world.clock.time_s() - 5) * 1000
        await world.post(f"/v1/admin/projects/{other['id']}/events", event)
        assert (await world.get(f"{base}/events?user_id=theirs")).data == []
        assert (await world.get(f"{base}/events/count?since=0")).code == "INVALID_SINCE"
        theirs = f"/v1/admin/projects/{other['id']}/events"
        got = await world.get(theirs, token=token)
        assert got.said == (403, "WRONG_PROJECT")

    run(tmp_path, work)


def test_pages_are_stable(tmp_path: Path) -> None:
    """Newest first; a cursor goes on where its page ended, whatever came meanwhile (E.6)."""

    async def work(world: World, project: Any, base: str) -> None:
        for minute in range(5):  # pairs of the same moment
            at = f"2025-12-31T12:{minute:02}:00Z"
            for _ in range(2):
                body = {"event": f"m{minute}", "user_id": "u_1", "occurred_at": at}
                await world.post(f"{base}/events", body)
        whole = (await world.get(f"{base}/events")).data
        assert [row["event_name"] for row in whole] == [
            f"m{n}" for n in (4, 4, 3, 3, 2, 2, 1, 1, 0, 0)
        ]
        seen: list[Any] = []
        target = f"{base}/events?limit=3"
        while True:
            got = await world.get(target)
            seen += got.data
            await world.post(f"{base}/events", {"event": "new", "user_id": "u_1"})
            if got.body["next_cursor"] is None:
                break
            position = json.loads(urlsafe_b64decode(got.body["next_cursor"] + "=="))
            assert position == {"ts": got.data[-1]["occurred_at"], "id": got.data[-1]["id"]}
            target = f"{base}/events?limit=3&cursor={got.body['next_cursor']}"
        assert seen == whole
        ranged = await world.get(
            f"{base}/events?since=2025-12-31T12:01:00Z&until=2025-12-31T12:03:00Z&event_name=m2"
        )
        assert [row["event_name"] for row in ranged.data] == ["m2", "m2"]

    run(tmp_path, work)


def test_without_since_the_last_day_is_listed(tmp_path: Path) -> None:
    """`since` is 24 hours ago by default (E.6)."""

    async def work(world: World, project: Any, base: str) -> None:
        await world.post(f"{base}/events", {"event": "e", "user_id": "u_1"})
        await world.clock.advance(DAY_S)
        assert len((await world.get(f"{base}/events")).data) == 1
        await world.clock.advance(0.001)
        assert (await world.get(f"{base}/events")).data == []

    run(tmp_path, work)


def cursor(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


ID = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("since=soon", "INVALID_SINCE"),
        ("since=", "INVALID_SINCE"),
        ("until=never", "INVALID_UNTIL"),
        ("since=2026-01-02&until=2026-01-01", "INVALID_UNTIL"),
        ("limit=0", "INVALID_LIMIT"),
        ("limit=1001", "INVALID_LIMIT"),
        ("limit=ten", "INVALID_LIMIT"),
        ("limit=-1", "INVALID_LIMIT"),
        ("event_name=", "INVALID_FILTER"),
        ("event_name=" + "a" * 201, "INVALID_FILTER"),
        ("user_id=", "INVALID_FILTER"),
        ("user_id=a%0Ab", "INVALID_FILTER"),
        ("limit=1&limit=2", "INVALID_INPUT"),
        ("cursor=", "INVALID_CURSOR"),
        ("cursor=!", "INVALID_CURSOR"),
        ("cursor=" + "A" * 300, "INVALID_CURSOR"),
        ("cursor=" + cursor("not json"), "INVALID_CURSOR"),
        ("cursor=" + cursor([]), "INVALID_CURSOR"),
        ("cursor=" + cursor({"ts": START}), "INVALID_CURSOR"),
        ("cursor=" + cursor({"ts": 5, "id": ID}), "INVALID_CURSOR"),
        ("cursor=" + cursor({"ts": "today", "id": ID}), "INVALID_CURSOR"),
        ("cursor=" + cursor({"ts": "2026-99-01T00:00:00.000Z", "id": ID}), "INVALID_CURSOR"),
        ("cursor=" + cursor({"ts": START, "id": "' OR 1=1 --"}), "INVALID_CURSOR"),
        ("cursor=" + cursor({"id": ID, "ts": START}), "INVALID_CURSOR"),
        ("cursor=" + cursor({"ts": START, "id": ID, "x": 1}), "INVALID_CURSOR"),
        ("since=2026-01-02&cursor=" + cursor({"ts": START, "id": ID}), "INVALID_CURSOR"),
        ("until=2026-01-01&cursor=" + cursor({"ts": START, "id": ID}), "INVALID_CURSOR"),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, query: str, code: str) -> None:
    """Each parameter has its code, a cursor of another list too (E.6)."""

    async def work(world: World, _project: Any, base: str) -> None:
        assert (await world.get(f"{base}/events?{query}")).said == (400, code)

    run(tmp_path, work)


def test_sql_is_text(tmp_path: Path) -> None:
    """In names, users, ids and properties (issue 5, bad input)."""

    async def work(world: World, project: Any, base: str) -> None:
        text = "'; DROP TABLE events; --"
        await add_user(world, project, text)
        body = {"event": text, "user_id": text, "event_id": text, "properties": {text: text}}
        assert (await world.post(f"{base}/events", body)).data["properties"] == {text: text}
        quoted = "%27%3B%20DROP%20TABLE%20events%3B%20--"
        found = await world.get(f"{base}/events?event_name={quoted}&user_id={quoted}")
        assert [row["event_name"] for row in found.data] == [text]

    run(tmp_path, work)


def test_counts(tmp_path: Path) -> None:
    """In all, by day of UTC, by name; `since` is needed and 90 days are the most (E.6)."""

    async def work(world: World, _project: Any, base: str) -> None:
        for at, name in (
            ("2025-12-29T23:59:59.999Z", "a"),
            ("2025-12-30T00:00:00Z", "b"),
            ("2025-12-30T12:00:00Z", "b"),
            (START, "c"),
        ):
            await world.post(f"{base}/events", {"event": name, "user_id": "u_1", "occurred_at": at})
        since = "since=2025-12-01"
        got = await world.get(f"{base}/events/count?{since}")
        assert got.body == {"data": {"total": 4}}
        assert (await world.get(f"{base}/events/count?{since}&group_by=day")).data == {
            "total": 4,
            "buckets": [
                {"key": "2025-12-29", "count": 1},
                {"key": "2025-12-30", "count": 2},
                {"key": "2026-01-01", "count": 1},
            ],
        }
        assert (await world.get(f"{base}/events/count?{since}&group_by=event_name")).data == {
            "total": 4,
            "buckets": [
                {"key": "b", "count": 2},
                {"key": "a", "count": 1},
                {"key": "c", "count": 1},
            ],
        }
        one = await world.get(f"{base}/events/count?{since}&until=2025-12-30&event_name=a")
        assert one.data == {"total": 1}
        ahead = await world.get(f"{base}/events/count?since=2027-01-01")
        assert ahead.data == {"total": 0}
        whole = await world.get(f"{base}/events/count?since=2025-10-03&until=2026-01-01")
        assert whole.data == {"total": 3}
        for query, code in (
            ("", "INVALID_SINCE"),
            ("since=x", "INVALID_SINCE"),
            ("since=2025-10-02&until=2026-01-01", "INVALID_SINCE"),
            (f"{since}&until=x", "INVALID_UNTIL"),
            (f"{since}&until=2025-11-01", "INVALID_UNTIL"),
            (f"{since}&group_by=user_id", "INVALID_FILTER"),
            (f"{since}&event_name=", "INVALID_FILTER"),
        ):
            assert (await world.get(f"{base}/events/count?{query}")).said == (400, code), query

    run(tmp_path, work)


def test_the_audit_is_a_developers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a PAT alone, at the server's time, never dropped: when full, refused (E.6)."""

    async def work(world: World, project: Any, base: str) -> None:
        target = f"{base}/audit-events"
        body = {"event_name": "exported", "properties": {"rows": 3}, "occurred_at": "2020-01-01"}
        got = await world.post(target, body)
        assert got.status == 201
        assert got.data == {
            "id": got.data["id"],
            "event_name": "exported",
            "user_id": None,
            "developer_id": "dev_1",
            "properties": {"rows": 3},
            "created_at": START,
        }
        server = project["api_keys"]["server"]["key"]
        for token in (server, await internal_token(world, project)):
            refused = await world.post(target, body, token=token)
            assert refused.said == (403, "PROJECT_FORBIDDEN")
        monkeypatch.setattr(limits, "AUDIT_EVENTS", limits.Limit(2, "events", "", ""))
        assert (await world.post(target, {**body, "user_id": "u_1"})).status == 201
        assert (await world.post(target, body)).said == (409, "CONFLICT")
        count = await ProjectStore(world.states).read(project["id"], count_audit)
        assert count == 2
        for method in ("DELETE", "PATCH", "PUT"):
            got = await world.ask(method, target, b"{}")
            assert got.said == (405, "METHOD_NOT_ALLOWED")

    run(tmp_path, work)


def test_the_first_go_where_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EVENTS_KEPT of a project, of no other one; counted anew after a restart (ours)."""

    async def work(world: World, project: Any, base: str) -> None:
        monkeypatch.setattr(limits, "EVENTS_KEPT", limits.Limit(4, "events", "", ""))
        other = await world.project("Other")
        await add_user(world, other, "u_1")

        async def track(names: str, to: Any) -> Got:
            events = [
                {"event": name, "timestamp": f"2025-12-31T12:00:{at:02}Z"}
                for at, name in enumerate(names)
            ]
            return await world.as_client(
                "POST", "/v1/client/events", {"events": events}, project=to, user="u_1"
            )

        await track("xyz", other)
        assert (await track("abcdef", project)).data == {"tracked": 6}

        async def names() -> str:
            rows = (await world.get(f"{base}/events")).data
            return "".join(row["event_name"] for row in rows)

        assert await names() == "fedc"
        await world.post(f"{base}/events", {"event": "g", "user_id": "u_1"})
        assert await names() == "gfed"
        await world.restart()
        await world.post(f"{base}/events", {"event": "h", "user_id": "u_1"})
        assert sorted(await names()) == ["e", "f", "g", "h"]
        assert await kept(world, other) == 3

    run(tmp_path, work)


def test_the_same_event_id_at_once(tmp_path: Path) -> None:
    """Of 32 callers one records it, and all are told the same event (E.6)."""

    async def work(world: World, project: Any, base: str) -> None:
        body = {"event": "paid", "user_id": "u_1", "event_id": "order-1"}
        told = await asyncio.gather(*[world.post(f"{base}/events", body) for _ in range(32)])
        assert sorted(got.status for got in told) == [200] * 31 + [201]
        assert len({got.data["id"] for got in told}) == 1
        assert await kept(world, project) == 1

    run(tmp_path, work)


def test_pages_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EVENTS_PAGE of properties end a page early; one event is always given (ours)."""

    async def work(world: World, _project: Any, base: str) -> None:
        for second in range(4):
            properties = {"x": "y" * (200 if second == 2 else 20)}
            body = {"event": f"e{second}", "user_id": "u_1", "properties": properties}
            await world.post(f"{base}/events", {**body, "occurred_at": at_second(second)})
        monkeypatch.setattr(limits, "EVENTS_PAGE", limits.Limit(100, "bytes", "", ""))
        pages: list[list[str]] = []
        target = f"{base}/events"
        while True:
            got = await world.get(target)
            pages.append([row["event_name"] for row in got.data])
            if got.body["next_cursor"] is None:
                break
            target = f"{base}/events?cursor={got.body['next_cursor']}"
        assert pages == [["e3"], ["e2"], ["e1", "e0"]]

    run(tmp_path, work)


def test_many_projects_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more than EVENTS_COUNTED track, they are counted anew: the bound holds (ours)."""

    async def work(world: World, project: Any, base: str) -> None:
        monkeypatch.setattr(limits, "EVENTS_COUNTED", limits.Limit(1, "projects", "", ""))
        monkeypatch.setattr(limits, "EVENTS_KEPT", limits.Limit(2, "events", "", ""))
        other = await world.project("Other")
        await add_user(world, other, "u_1")
        for one in (project, other) * 3:
            target = f"/v1/admin/projects/{one['id']}/events"
            assert (await world.post(target, {"event": "e", "user_id": "u_1"})).status == 201
        assert await kept(world, project) == await kept(world, other) == 2
        assert len((await world.get(f"{base}/events")).data) == 2

    run(tmp_path, work)


def test_a_hundredth_goes_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first event too many; the next ones find room (ours)."""

    async def work(world: World, project: Any, base: str) -> None:
        monkeypatch.setattr(limits, "EVENTS_KEPT", limits.Limit(200, "events", "", ""))
        body = {"events": [{"event": "e"}] * 200}
        await world.as_client("POST", "/v1/client/events", body, project=project, user="u_1")
        counts: list[int] = []
        for _ in range(4):
            await world.post(f"{base}/events", {"event": "e", "user_id": "u_1"})
            counts.append(await kept(world, project))
        assert counts == [198, 199, 200, 198]

    run(tmp_path, work)
