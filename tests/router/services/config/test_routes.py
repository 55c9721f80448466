"""Remote config over the wire: shapes, types, versions, caches (contract E.8, J.10)."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import Got, World

from amba_router.api.asked import parse_ms
from amba_router.services.config.evaluation import bucket
from amba_router.store import segment_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import app_users, segment_members, segments
from amba_runtime import limits

Run = Callable[[World, Any], Awaitable[None]]


def run(tmp_path: Path, work: Run) -> None:
    """Do something with a world and a project of it."""

    async def main() -> None:
        async with World(tmp_path) as world:
            await work(world, await world.project())

    asyncio.run(main())


def base(project: Any) -> str:
    """Where the admin's keys are."""
    return f"/v1/admin/projects/{project['id']}/config"


async def fetch(world: World, project: Any, *, user: str = "", **headers: str) -> Got:
    """GET /client/config. Args: headers: underscores are hyphens."""
    return await world.ask(
        "GET",
        "/v1/client/config",
        token=world.session(project["id"], user) if user else None,
        headers=[
            ("x-api-key", project["api_keys"]["client"]["key"]),
            *((name.replace("_", "-"), value) for name, value in headers.items()),
        ],
    )


async def patch(world: World, project: Any, key: str, body: object) -> Got:
    return await world.ask("PATCH", f"{base(project)}/{key}", json.dumps(body).encode())


async def put(world: World, project: Any, key: str, body: object) -> Got:
    return await world.ask("PUT", f"{base(project)}/{key}", json.dumps(body).encode())


async def add_segment(world: World, project: Any, id_: str, *users: str) -> None:
    """A segment and its members."""

    def work(scoped: Scoped) -> None:
        times = {"created_ms": 0, "updated_ms": 0}
        scoped.add(segments, {"id": id_, "name": id_, "rules": "{}", **times})
        for user in users:
            seen = {"first_seen_ms": 0, "last_seen_ms": 0}
            lists = {"auth_providers": "[]", "properties": "{}"}
            scoped.add_missing(app_users, {"id": user, **seen, **lists})
            scoped.add(segment_members, {"segment_id": id_, "user_id": user})

    await ProjectStore(world.states).write(project["id"], work)


async def segments_of(world: World, project: Any, user: str) -> tuple[str, ...]:
    """As the store has them now."""
    now_ms = int(world.clock.time_s() * 1000)
    return await ProjectStore(world.states).read(
        project["id"], lambda scoped: segment_rows.segments_of(scoped, user, now_ms)
    )


def hash_of(rows: list[Any]) -> str:
    """SHA-256 over what the admin plane lists: a line of JSON per key (E.8)."""
    digest = hashlib.sha256()
    for row in rows:
        value, conditions = (
            json.dumps(row[name], separators=(",", ":")) for name in ("value", "conditions")
        )
        line = (
            *(row["id"], row["key"], value, row["value_type"], row["description"], conditions),
            *(row["version"], parse_ms(row["created_at"]), parse_ms(row["updated_at"])),
        )
        digest.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def test_the_wire(tmp_path: Path) -> None:
    """Set, list, change, delete: the members of contract E.8."""

    async def work(world: World, project: Any) -> None:
        body = {"key": "greeting", "value": "hello", "description": "what we say"}
        made = await world.post(base(project), body)
        assert made.status == 201
        id_ = made.data["id"]
        assert made.data == {
            "id": id_,
            "key": "greeting",
            "value": "hello",
            "value_type": "string",
            "description": "what we say",
            "conditions": [],
            "default_value": "hello",
            "is_active": True,
            "version": 1,
            "created_at": "2026-01-01T00:00:00.000Z",
            "updated_at": "2026-01-01T00:00:00.000Z",
        }
        await world.clock.advance(1)
        again = await world.post(base(project), {"key": "greeting", "value": "hi"})
        assert again.status == 201
        assert again.data == {
            **made.data,
            "value": "hi",
            "default_value": "hi",
            "version": 2,
            "updated_at": "2026-01-01T00:00:01.000Z",
        }
        await world.post(base(project), {"key": "Age", "value": 3, "value_type": "number"})
        listed = await world.get(base(project))
        assert [row["key"] for row in listed.data] == ["Age", "greeting"]
        assert {k: v for k, v in listed.body.items() if k != "data"} == {
            "total": 2,
            "offset": 0,
            "limit": 1000,
        }
        second = await world.get(f"{base(project)}?offset=1&limit=1")
        assert [row["key"] for row in second.data] == ["greeting"]
        for _ in range(2):
            gone = await world.delete(f"{base(project)}/greeting")
            assert gone.body == {"data": {"deleted": True}}
        assert (await patch(world, project, "greeting", {"value": "x"})).said == (404, "NOT_FOUND")
        new = await world.post(base(project), {"key": "greeting", "value": "hi"})
        assert new.data["version"] == 1
        assert new.data["id"] != id_

    run(tmp_path, work)


def test_a_patch_counts_values_alone(tmp_path: Path) -> None:
    """`value` present: version + 1, the same value too; the others leave it (E.8, J.10)."""

    async def work(world: World, project: Any) -> None:
        await world.post(base(project), {"key": "k", "value": "a", "description": "d"})
        steps: list[tuple[dict[str, Any], int]] = [
            ({"description": "e"}, 1),
            ({"value": "a"}, 2),
            ({"value": "b", "description": None}, 3),
            ({"conditions": [{"percentage": 25, "value": "c"}]}, 3),
            ({"conditions": []}, 3),
            ({"conditions": None}, 3),
        ]
        for body, version in steps:
            got = await patch(world, project, "k", body)
            assert got.status == 200
            assert got.data["version"] == version
            said: dict[str, Any] = {**body, "conditions": body.get("conditions") or []}
            assert {name: got.data[name] for name in said} == said
        row = (await world.get(base(project))).data[0]
        assert row["description"] is None
        assert row["value"] == row["default_value"] == "b"
        assert (await patch(world, project, "k", {})).said == (400, "INVALID_INPUT")

    run(tmp_path, work)


def test_put_is_the_upsert_of_the_command_line(tmp_path: Path) -> None:
    """`{key, value, value_type}` at the key's own path (E.8, J.10)."""

    async def work(world: World, project: Any) -> None:
        body = {"key": "limit", "value": 5, "value_type": "number"}
        first = await put(world, project, "limit", body)
        assert (first.status, first.data["version"]) == (201, 1)
        del body["key"]
        second = await put(world, project, "limit", {**body, "value": 6})
        assert (second.status, second.data["version"], second.data["value"]) == (201, 2, 6)
        other = await put(world, project, "limit", {**body, "key": "other"})
        assert other.said == (400, "INVALID_INPUT")
        assert other.details == {"field": "$.key"}
        for bad in ("a%20b", "%2e", "k" * 129, "a%0A", "%C3%A4"):
            assert (await put(world, project, bad, body)).said == (400, "INVALID_INPUT")
        kept = (await world.get(base(project))).data
        assert [(row["key"], row["value"]) for row in kept] == [("limit", 6)]

    run(tmp_path, work)


def test_what_an_upsert_leaves_out_stays(tmp_path: Path) -> None:
    """Ours: `config set` takes neither description nor conditions from a key."""

    async def work(world: World, project: Any) -> None:
        conditions = [{"percentage": 50, "value": "c"}]
        body = {"key": "k", "value": "a", "description": "d", "conditions": conditions}
        await world.post(base(project), body)
        kept = await put(world, project, "k", {"key": "k", "value": "b", "value_type": "string"})
        assert (kept.data["description"], kept.data["conditions"]) == ("d", conditions)
        # the conditions that stay would be of the wrong type
        got = await put(world, project, "k", {"value": 1, "value_type": "number"})
        assert got.said == (400, "INVALID_VALUE")
        assert got.details == {"field": "$.conditions[0].value"}
        cleared = {"value": 1, "value_type": "number", "description": None, "conditions": None}
        got = await put(world, project, "k", cleared)
        assert (got.data["description"], got.data["conditions"]) == (None, [])

    run(tmp_path, work)


VALUES: list[tuple[str, Any, bool]] = [
    ("string", "", True),
    ("string", "é\u0000\n'; DROP TABLE configs; --", True),
    ("string", 1, False),
    ("string", None, False),
    ("number", 0, True),
    ("number", -1.5, True),
    ("number", 10**30, True),
    ("number", "1", False),
    ("number", True, False),
    ("boolean", False, True),
    ("boolean", 0, False),
    ("boolean", "true", False),
    ("json", {"a": [1, {"b": None}]}, True),
    ("json", [], True),
    ("json", None, True),
    ("json", "text", True),
]


@pytest.mark.parametrize(("value_type", "value", "fits"), VALUES)
def test_values_fit_their_type(tmp_path: Path, value_type: str, value: object, fits: bool) -> None:
    """A value that does not fit is 400 INVALID_VALUE, and nothing is written (E.8)."""

    async def work(world: World, project: Any) -> None:
        body = {"key": "k", "value": value, "value_type": value_type}
        got = await world.post(base(project), body)
        if fits:
            assert got.status == 201
            assert got.data["value"] == got.data["default_value"] == value
            assert (await fetch(world, project)).data == {"k": value}
            return
        assert got.said == (400, "INVALID_VALUE")
        assert got.details == {"field": "$.value"}
        assert (await world.get(base(project))).data == []
        good: Any = {"string": "s", "number": 1, "boolean": True}[value_type]
        await world.post(base(project), {**body, "value": good})
        assert (await patch(world, project, "k", {"value": value})).said == (400, "INVALID_VALUE")
        condition = {"percentage": 1, "value": value}
        got = await patch(world, project, "k", {"conditions": [condition]})
        assert got.said == (400, "INVALID_VALUE")
        assert got.details == {"field": "$.conditions[0].value"}
        row = (await world.get(base(project))).data[0]
        assert (row["value"], row["conditions"], row["version"]) == (good, [], 1)

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"value": 1}, "$"),
        ({"key": "k"}, "$"),
        ({"key": "", "value": "v"}, "$.key"),
        ({"key": "a b", "value": "v"}, "$.key"),
        ({"key": "a\n", "value": "v"}, "$.key"),
        ({"key": "-a", "value": "v"}, "$.key"),
        ({"key": "k" * 129, "value": "v"}, "$.key"),
        ({"key": 1, "value": "v"}, "$.key"),
        ({"key": "k", "value": "v", "value_type": "text"}, "$.value_type"),
        ({"key": "k", "value": "v", "value_type": None}, "$.value_type"),
        ({"key": "k", "value": "v", "description": 1}, "$.description"),
        ({"key": "k", "value": "v", "description": "d" * 2001}, "$.description"),
        ({"key": "k", "value": "v", "conditions": {}}, "$.conditions"),
        ({"key": "k", "value": "v", "conditions": ["x"]}, "$.conditions[0]"),
        ({"key": "k", "value": "v", "conditions": [{"percentage": 1}]}, "$.conditions[0]"),
        (
            {"key": "k", "value": "v", "conditions": [{"value": "v", "percent": 1}]},
            "$.conditions[0]",
        ),
        (
            {"key": "k", "value": "v", "conditions": [{"value": "v", "percentage": 101}]},
            "$.conditions[0].percentage",
        ),
        (
            {"key": "k", "value": "v", "conditions": [{"value": "v", "percentage": -0.01}]},
            "$.conditions[0].percentage",
        ),
        (
            {"key": "k", "value": "v", "conditions": [{"value": "v", "percentage": "50"}]},
            "$.conditions[0].percentage",
        ),
        (
            {"key": "k", "value": "v", "conditions": [{"value": "v", "percentage": True}]},
            "$.conditions[0].percentage",
        ),
        (
            {"key": "k", "value": "v", "conditions": [{"value": "v", "segment_id": ""}]},
            "$.conditions[0].segment_id",
        ),
        (
            {"key": "k", "value": "v", "conditions": [{"value": "v", "segment_id": 7}]},
            "$.conditions[0].segment_id",
        ),
    ],
)
def test_bad_input_is_named(tmp_path: Path, body: object, field: str) -> None:
    """400 with the place, and nothing is written (issue 5: percentages out of range)."""

    async def work(world: World, project: Any) -> None:
        got = await world.post(base(project), body)
        assert got.said == (400, "INVALID_INPUT")
        assert got.details == {"field": field}
        assert (await world.get(base(project))).data == []

    run(tmp_path, work)


@pytest.mark.parametrize("value", ["NaN", "1e999", "1" * 5000, '"\\ud800"', "[" * 70 + "]" * 70])
def test_what_is_no_json_is_refused(tmp_path: Path, value: str) -> None:
    """NaN, what no number can be, half a surrogate pair, 70 levels (issue 5)."""

    async def work(world: World, project: Any) -> None:
        body = f'{{"key": "k", "value_type": "json", "value": {value}}}'
        got = await world.ask("POST", base(project), body.encode())
        assert got.status == 400
        assert got.code in ("INVALID_JSON", "INVALID_INPUT")

    run(tmp_path, work)


def test_conditions_in_order(tmp_path: Path) -> None:
    """The first that holds wins; segment and percentage both, nobody gets defaults (H-17, H-18)."""

    async def work(world: World, project: Any) -> None:
        await add_segment(world, project, "vips", "ann", "ben")
        await add_segment(world, project, "cats", "ann")
        users = ["ann", "ben", *(f"u{i}" for i in range(40))]
        inside = next(u for u in users[2:] if bucket(u, "k") < 30)
        outside = next(u for u in users[2:] if bucket(u, "k") >= 30)
        ann, ben = bucket("ann", "k"), bucket("ben", "k")
        conditions: list[dict[str, Any]] = [
            {"segment_id": "cats", "percentage": ann, "value": "never"},  # ann's own place: < fails
            {"segment_id": "cats", "percentage": ann + 1, "value": "cat"},
            {"segment_id": "vips", "percentage": None, "value": "vip"},
            {"percentage": 0, "value": "no one"},
            {"percentage": 30, "value": "some"},
        ]
        body = {"key": "k", "value": "rest", "conditions": conditions}
        made = await world.post(base(project), body)
        conditions[2].pop("percentage")
        assert made.data["conditions"] == conditions
        got = {u: (await fetch(world, project, user=u)).data["k"] for u in users}
        assert (got["ann"], got["ben"], got[inside], got[outside]) == ("cat", "vip", "some", "rest")
        assert (await fetch(world, project)).data == {"k": "rest"}
        assert 0 <= ben < 100
        last = [*conditions, {"percentage": 100, "value": "all"}]
        await patch(world, project, "k", {"conditions": last})
        assert (await fetch(world, project, user=outside)).data == {"k": "all"}
        assert (await fetch(world, project)).data == {"k": "rest"}

    run(tmp_path, work)


def test_a_cache_tells_projects_apart(tmp_path: Path) -> None:
    """What decides the answer is in `Vary`: a cache by it never gives one project's to another."""

    async def work(world: World, project: Any) -> None:
        other = await world.project("Other")
        await world.post(base(project), {"key": "k", "value": "ours"})
        await world.post(base(other), {"key": "k", "value": "theirs"})
        kept: dict[tuple[str, ...], bytes] = {}
        for whose in (project, other):
            for user in ("", "ann"):
                got = await fetch(world, whose, user=user)
                sent = {
                    "x-api-key": whose["api_keys"]["client"]["key"],
                    "authorization": user and world.session(whose["id"], user),
                }
                names = [name.strip().lower() for name in got.headers["vary"].split(",")]
                assert kept.setdefault(tuple(sent[name] for name in names), got.raw) == got.raw
        assert len(kept) == 4

    run(tmp_path, work)


def test_entity_tags_and_caches(tmp_path: Path) -> None:
    """Both forms of the tag, Cache-Control, Vary, 304 without a body (E.8, J.10)."""

    async def work(world: World, project: Any) -> None:
        await add_segment(world, project, "vips", "ann")
        await world.post(base(project), {"key": "k", "value": "v"})
        nobody = await fetch(world, project)
        assert nobody.headers["cache-control"] == "private, max-age=300"
        assert nobody.headers["vary"] == "Authorization, X-Api-Key"
        version = nobody.headers["etag"].strip('"')
        assert len(version) == 64
        assert int(version, 16) > 0
        ann = await fetch(world, project, user="ann")
        assert ann.headers["cache-control"] == "private, max-age=60"
        assert ann.headers["vary"] == "Authorization, X-Api-Key"
        ids = "\n".join(await segments_of(world, project, "ann"))
        tag = f'"{version}:ann:{hashlib.sha256(ids.encode()).hexdigest()[:16]}"'
        assert ann.headers["etag"] == tag
        for wanted in (tag, f"W/{tag}", f'"a", {tag}', f'{tag},W/"b"', "*", f'"x,y" ,\t{tag}'):
            got = await fetch(world, project, user="ann", if_none_match=wanted)
            assert (got.status, got.raw) == (304, b"")
            assert "content-length" not in got.headers
            for name in ("etag", "cache-control", "vary"):
                assert got.headers[name] == ann.headers[name]
        stale = (nobody.headers["etag"], tag.strip('"'), f'"{tag}"', "", '"', '"*"', f"x{tag}")
        for wanted in stale:
            assert (await fetch(world, project, user="ann", if_none_match=wanted)).status == 200
        # another segment is another tag, though no key has changed
        await add_segment(world, project, "cats", "ann")
        got = await fetch(world, project, user="ann", if_none_match=tag)
        assert got.status == 200
        assert got.headers["etag"].startswith(f'"{version}:ann:')

    run(tmp_path, work)


def test_two_headers_are_one_list(tmp_path: Path) -> None:
    """`If-None-Match` may come in several lines (RFC 9110 5.3)."""

    async def work(world: World, project: Any) -> None:
        tag = (await fetch(world, project)).headers["etag"]
        key = project["api_keys"]["client"]["key"]
        headers = [("x-api-key", key), ("if-none-match", '"a"'), ("if-none-match", tag)]
        got = await world.ask("GET", "/client/config", token=None, headers=headers)
        assert got.status == 304

    run(tmp_path, work)


def test_a_bad_session_is_nobody(tmp_path: Path) -> None:
    """Defaults and the anonymous tag; without a key nothing (E.0, E.8)."""

    async def work(world: World, project: Any) -> None:
        key = ("x-api-key", project["api_keys"]["client"]["key"])
        await world.post(
            base(project), {"key": "k", "value": "v", "conditions": [{"value": "known"}]}
        )
        got = await world.ask("GET", "/v1/client/config", token="no.such.token", headers=[key])
        assert got.data == {"k": "v"}
        assert got.headers["cache-control"] == "private, max-age=300"
        assert (await fetch(world, project, user="ann")).data == {"k": "known"}
        none = await world.ask("GET", "/v1/client/config", token=None)
        assert none.said == (401, "UNAUTHORIZED")

    run(tmp_path, work)


def test_each_mutation_changes_the_hash(tmp_path: Path) -> None:
    """Every one, also within a millisecond and back to what was; and nothing else does (E.8)."""

    async def work(world: World, project: Any) -> None:
        async def version() -> str:
            return (await fetch(world, project)).headers["etag"]

        seen = [await version()]
        mutations: list[tuple[str, str, object]] = [
            ("POST", "", {"key": "k", "value": "a"}),
            ("POST", "", {"key": "k", "value": "a"}),
            ("PATCH", "/k", {"description": "d"}),
            ("PATCH", "/k", {"description": "d"}),
            ("PATCH", "/k", {"description": None}),
            ("PATCH", "/k", {"conditions": []}),
            ("PUT", "/k", {"value": "a"}),
            ("DELETE", "/k", None),
            ("POST", "", {"key": "k", "value": "a"}),
        ]
        for method, path, body in mutations:
            got = await world.ask(method, base(project) + path, json.dumps(body).encode())
            assert got.status < 300
            seen.append(await version())
        # the hash of no keys is the one it was
        assert seen[0] == seen[8]
        assert len(set(seen)) == len(seen) - 1
        now = seen[-1]
        await world.clock.advance(3600)
        refused: list[tuple[str, str, object]] = [
            ("POST", "", {"key": "k", "value": 1}),
            ("PATCH", "/k", {"conditions": [{"segment_id": "none", "value": "x"}]}),
            ("PATCH", "/k", {}),
            ("PATCH", "/none", {"value": "x"}),
            ("DELETE", "/none", None),
            ("GET", "", None),
        ]
        for method, path, body in refused:
            await world.ask(method, base(project) + path, json.dumps(body).encode())
            assert await version() == now

    run(tmp_path, work)


def test_sixteen_writers_leave_the_hash_of_the_final_state(tmp_path: Path) -> None:
    """No update is lost, and the tag is that of the rows as they are (issue 5, row 4)."""

    async def work(world: World, project: Any) -> None:
        async def writer(number: int) -> None:
            for step in range(6):
                key = f"k{(number + step) % 5}"
                match step:
                    case 3:
                        await patch(world, project, key, {"description": f"{number}"})
                    case 5 if number % 4 == 0:
                        await world.delete(f"{base(project)}/{key}")
                    case _:
                        body = {"key": key, "value": f"{number}.{step}"}
                        assert (await world.post(base(project), body)).status == 201

        await world.post(base(project), {"key": "total", "value": 0, "value_type": "number"})
        await asyncio.gather(*(writer(number) for number in range(16)))
        await asyncio.gather(
            *(patch(world, project, "total", {"value": number}) for number in range(16))
        )
        rows = (await world.get(base(project))).data
        assert next(row["version"] for row in rows if row["key"] == "total") == 17
        before = await fetch(world, project)
        assert before.data == {row["key"]: row["value"] for row in rows}
        assert before.headers["etag"] == f'"{hash_of(rows)}"'
        await world.restart()  # from what is on the disk alone
        after = await fetch(world, project)
        assert after.headers["etag"] == before.headers["etag"]

    run(tmp_path, work)


def test_other_projects_are_not_touched(tmp_path: Path) -> None:
    """Keys, bundles, tags and segments of one project are nothing to another (issue 5, row 2)."""

    async def work(world: World, project: Any) -> None:
        other = await world.project("Other")
        await add_segment(world, other, "theirs", "ann")
        await world.post(base(other), {"key": "k", "value": "theirs"})
        was = await fetch(world, other)
        body = {"key": "k", "value": "ours", "conditions": [{"segment_id": "theirs", "value": "x"}]}
        got = await world.post(base(project), body)
        assert got.said == (404, "SEGMENT_NOT_FOUND")
        assert got.details["field"] == "$.conditions[0].segment_id"
        assert (await world.get(base(project))).data == []
        assert (await patch(world, project, "k", {"value": "x"})).said == (404, "NOT_FOUND")
        assert (await world.delete(f"{base(project)}/k")).status == 200
        await world.post(base(project), {"key": "k", "value": "ours"})
        token = project["api_keys"]["server"]["key"]
        for method, path in (("GET", ""), ("POST", ""), ("PATCH", "/k"), ("DELETE", "/k")):
            got = await world.ask(method, base(other) + path, b"{}", token=token)
            assert got.said == (403, "WRONG_PROJECT")
        now = await fetch(world, other)
        assert (now.raw, now.headers["etag"]) == (was.raw, was.headers["etag"])
        assert (await fetch(world, project)).data == {"k": "ours"}

    run(tmp_path, work)


def test_a_server_key_asks_for_a_user(tmp_path: Path) -> None:
    """As that user's session would, and caches are told (H-9)."""

    async def work(world: World, project: Any) -> None:
        await add_segment(world, project, "vips", "ann")
        conditions = [{"segment_id": "vips", "value": "vip"}]
        await world.post(base(project), {"key": "k", "value": "v", "conditions": conditions})
        got = await world.as_user("GET", "/client/config", project=project, user="ann")
        assert got.data == {"k": "vip"}
        assert got.headers["vary"] == "Authorization, X-Api-Key, x-amba-as-user"

    run(tmp_path, work)


def test_the_most_that_may_be(tmp_path: Path) -> None:
    """Value bytes, conditions, keys, bytes in all: just inside, one outside (limits.py)."""

    async def work(world: World, project: Any) -> None:
        most = limits.CONFIG_VALUE_BYTES.value
        for size, said in ((most - 2, 201), (most - 1, 400)):
            got = await world.post(base(project), {"key": "k", "value": "x" * size})
            assert got.status == said
        assert got.code == "INVALID_VALUE"
        many = [{"value": "x"}] * limits.CONFIG_CONDITIONS.value
        assert (await patch(world, project, "k", {"conditions": many})).status == 200
        got = await patch(world, project, "k", {"conditions": [*many, many[0]]})
        assert got.said == (400, "INVALID_INPUT")
        assert got.details == {"field": "$.conditions"}
        # a full project: 64 of the largest values
        value = "x" * (most - 2)
        count = limits.CONFIG_BYTES.value // most
        for number in range(count - 2):
            made = await world.post(base(project), {"key": f"v{number}", "value": value})
            assert made.status == 201
        await patch(world, project, "k", {"value": "", "conditions": None})
        assert (await world.post(base(project), {"key": "last", "value": value})).status == 201
        full = await world.post(base(project), {"key": "over", "value": value})
        assert full.said == (409, "CONFLICT")
        assert (await patch(world, project, "over", {"value": ""})).code == "NOT_FOUND"
        assert (await patch(world, project, "k", {"value": "x"})).status == 200

    run(tmp_path, work)


def test_as_many_keys_as_may_be(tmp_path: Path) -> None:
    """One more is refused; those that are there can be set (limits.CONFIG_KEYS)."""

    async def work(world: World, project: Any) -> None:
        most = limits.CONFIG_KEYS.value
        for at in range(0, most, 100):  # more at once would be told to wait
            keys = [f"k{n}" for n in range(at, min(at + 100, most))]
            await asyncio.gather(
                *(world.post(base(project), {"key": key, "value": ""}) for key in keys)
            )
        got = await world.post(base(project), {"key": "one-more", "value": ""})
        assert got.said == (409, "CONFLICT")
        assert (await world.post(base(project), {"key": "k0", "value": "x"})).status == 201
        assert len((await fetch(world, project)).data) == most

    run(tmp_path, work)
