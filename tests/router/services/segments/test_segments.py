"""Segments over the wire: made, changed, evaluated, and whom they hold (contract E.13)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import Got, World

from amba_router.services.segments.service import Segments
from amba_router.store import segment_rows, user_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_router.store.segment_rows import DAY_MS, SYSTEM
from amba_router.store.service_schema import segment_members
from amba_router.store.user_rows import NewUser
from amba_runtime import limits

PRO = {"operator": "AND", "conditions": [{"field": "properties.plan", "op": "eq", "value": "pro"}]}
EVERYBODY = {"operator": "AND", "conditions": [{"field": "id", "op": "exists"}]}


class Lab:
    """One project of a world, with some users."""

    def __init__(self, world: World, project_id: str) -> None:
        self.world = world
        self.id = project_id
        self.base = f"/v1/admin/projects/{project_id}/segments"
        self.store = ProjectStore(world.states)

    async def users(self, plans: Mapping[str, str]) -> None:
        """Args: plans: user -> plan."""

        def work(scoped: Scoped) -> None:
            for user, plan in plans.items():
                properties = f'{{"plan":"{plan}"}}'
                now_ms = int(self.world.clock.time_s() * 1000)
                user_rows.add(scoped, NewUser(user, now_ms, properties=properties))

        await self.store.write(self.id, work)

    async def plan(self, user: str, plan: str) -> None:
        """Another plan for one."""
        values = {"properties": f'{{"plan":"{plan}"}}'}
        await self.store.write(self.id, lambda s: user_rows.change(s, user, values))

    async def create(self, rules: object = PRO, **more: Any) -> Got:
        """POST segments."""
        return await self.world.post(self.base, {"name": "Pro", "rules": rules, **more})

    async def patch(self, segment_id: str, body: bytes) -> Got:
        """PATCH segments/:id."""
        return await self.world.ask("PATCH", f"{self.base}/{segment_id}", body)

    async def evaluate(self, segment_id: str) -> Got:
        """POST segments/:id/evaluate."""
        return await self.world.ask("POST", f"{self.base}/{segment_id}/evaluate", type_=None)

    async def of(self, user: str) -> tuple[str, ...]:
        """The project's own segments that a user is in."""
        now_ms = int(self.world.clock.time_s() * 1000)
        ids = await self.store.read(self.id, lambda s: segment_rows.segments_of(s, user, now_ms))
        return tuple(id_ for id_ in ids if id_ not in SYSTEM)

    async def members(self, segment_id: str) -> list[str]:
        """Who the list of users has for a segment."""
        target = f"/v1/admin/projects/{self.id}/users?segment_id={segment_id}"
        return sorted(row["id"] for row in (await self.world.get(target)).body["data"])


def test_a_segment_is_evaluated_as_it_is_made(tmp_path: Path) -> None:
    """201 with its row; who is in it, users and conditions know at once (E.13; ours)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            lab = Lab(world, (await world.project())["id"])
            await lab.users({"u_1": "pro", "u_2": "free"})
            got = await lab.create(description="Who pays")
            assert got.status == 201
            assert got.data == {
                "id": got.data["id"],
                "name": "Pro",
                "description": "Who pays",
                "rules": PRO,
                "is_system": False,
                "member_count": 1,
                "last_evaluated_at": "2026-01-01T00:00:00.000Z",
                "created_at": "2026-01-01T00:00:00.000Z",
                "updated_at": "2026-01-01T00:00:00.000Z",
            }
            id_ = got.data["id"]
            assert await lab.members(id_) == ["u_1"]
            assert await lab.of("u_1") == (id_,)
            assert await lab.of("u_2") == ()
            assert (await world.get(f"{lab.base}/{id_}")).data == got.data

    asyncio.run(main())


def test_evaluate(tmp_path: Path) -> None:
    """Members are as of the last evaluation; then those come in, and these go (E.13)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            lab = Lab(world, (await world.project())["id"])
            await lab.users({"u_1": "pro", "u_2": "free"})
            id_ = (await lab.create()).data["id"]
            await lab.plan("u_1", "free")
            await lab.plan("u_2", "pro")
            await lab.users({"u_3": "pro"})
            assert await lab.members(id_) == ["u_1"]
            await world.clock.advance(60)
            got = await lab.evaluate(id_)
            assert got.data == {
                "segment_id": id_,
                "member_count": 2,
                "evaluated_at": "2026-01-01T00:01:00.000Z",
            }
            assert await lab.members(id_) == ["u_2", "u_3"]
            shown = (await world.get(f"{lab.base}/{id_}")).data
            assert shown["last_evaluated_at"] == "2026-01-01T00:01:00.000Z"
            assert shown["updated_at"] == "2026-01-01T00:00:00.000Z"

    asyncio.run(main())


def test_more_users_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are not evaluated in the transaction of the change, but when asked, batch by batch."""

    async def main() -> None:
        async with World(tmp_path) as world:
            monkeypatch.setattr(limits, "SEGMENT_BATCH", replace(limits.SEGMENT_BATCH, value=3))
            lab = Lab(world, (await world.project())["id"])
            await lab.users({f"u_{at}": ("pro", "free")[at % 2] for at in range(8)})
            made = (await lab.create()).data
            assert (made["member_count"], made["last_evaluated_at"]) == (0, None)
            assert (await lab.evaluate(made["id"])).data["member_count"] == 4
            assert await lab.members(made["id"]) == ["u_0", "u_2", "u_4", "u_6"]

            def pages(scoped: Scoped) -> list[str]:
                found: list[str] = []
                after = 0
                while page := segment_rows.members(scoped, made["id"], 0, after=after, limit=3):
                    found += [user_id for _, user_id in page]
                    after = page[-1][0]
                return found

            assert await lab.store.read(lab.id, pages) == ["u_0", "u_2", "u_4", "u_6"]

    asyncio.run(main())


def test_change(tmp_path: Path) -> None:
    """What is given changes; other rules have other members at once (E.13)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            lab = Lab(world, (await world.project())["id"])
            await lab.users({"u_1": "pro", "u_2": "free"})
            made = (await lab.create(description="Who pays")).data
            await world.clock.advance(60)
            named = (await lab.patch(made["id"], b'{"name": "Paying"}')).data
            assert named == {
                **made,
                "name": "Paying",
                "updated_at": "2026-01-01T00:01:00.000Z",
            }
            body = b'{"description": null, "rules": {"operator": "OR", "conditions": [%b]}}'
            free = b'{"field": "properties.plan", "op": "neq", "value": "pro"}'
            changed = (await lab.patch(made["id"], body % free)).data
            assert (changed["name"], changed["description"]) == ("Paying", None)
            assert changed["last_evaluated_at"] == "2026-01-01T00:01:00.000Z"
            assert await lab.members(made["id"]) == ["u_2"]

    asyncio.run(main())


def test_list(tmp_path: Path) -> None:
    """The system's six, then one's own, oldest first, in pages (E.13, E.0)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            lab = Lab(world, (await world.project())["id"])
            await lab.users({"u_1": "pro", "u_2": "free"})
            first = (await lab.create(name="First")).data
            second = (await lab.create(EVERYBODY, name="Second")).data
            body = (await world.get(lab.base)).body
            assert (body["total"], body["offset"], body["limit"]) == (8, 0, 1000)
            assert [row["id"] for row in body["data"][:6]] == list(SYSTEM)
            assert body["data"][6:] == [first, second]
            assert second["member_count"] == 2
            page = (await world.get(f"{lab.base}?offset=5&limit=2")).body
            assert [row["id"] for row in page["data"]] == ["new_users", first["id"]]

    asyncio.run(main())


def test_remove(tmp_path: Path) -> None:
    """Gone with its members; a second time it is 404 (E.13)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            lab = Lab(world, (await world.project())["id"])
            await lab.users({"u_1": "pro"})
            id_ = (await lab.create()).data["id"]
            got = await world.delete(f"{lab.base}/{id_}")
            assert (got.status, got.data) == (200, {"id": id_, "deleted": True})
            assert await lab.of("u_1") == ()
            assert await lab.store.read(lab.id, lambda s: s.count(segment_members)) == 0
            for again in (
                await world.delete(f"{lab.base}/{id_}"),
                await world.get(f"{lab.base}/{id_}"),
                await lab.evaluate(id_),
                await lab.patch(id_, b"{}"),
                await world.get(f"/v1/admin/projects/{lab.id}/users?segment_id={id_}"),
            ):
                assert again.said == (404, "SEGMENT_NOT_FOUND")

    asyncio.run(main())


def test_the_segments_of_the_system(tmp_path: Path) -> None:
    """At their borders, the same in a list of users and for one user (E.13; README)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            lab = Lab(world, (await world.project())["id"])
            now_ms = int(world.clock.time_s() * 1000)
            seen = {
                "now": 0,
                "7d": 7 * DAY_MS,
                "over_7d": 7 * DAY_MS + 1,
                "30d": 30 * DAY_MS,
                "over_30d": 30 * DAY_MS + 1,
            }

            def work(scoped: Scoped) -> None:
                for user, ago_ms in seen.items():
                    user_rows.add(scoped, NewUser(user, now_ms - ago_ms))
                user_rows.add(scoped, NewUser("back", now_ms - 40 * DAY_MS))
                user_rows.seen(scoped, ["back"], now_ms)
                user_rows.seen(scoped, ["back"], now_ms - 1)  # never back in time

            await lab.store.write(lab.id, work)
            everybody = sorted([*seen, "back"])
            expected = {
                "all": everybody,
                "active_7d": ["7d", "back", "now"],
                "churning": ["30d", "over_7d"],
                "premium": [],
                "free": everybody,
                "new_users": ["7d", "now"],
            }
            assert {id_: await lab.members(id_) for id_ in SYSTEM} == expected
            counts = {
                row["id"]: row["member_count"] for row in (await world.get(lab.base)).body["data"]
            }
            assert counts == {id_: len(users) for id_, users in expected.items()}
            for user in everybody:
                ids = await lab.store.read(
                    lab.id, partial(segment_rows.segments_of, user_id=user, now_ms=now_ms)
                )
                wanted = sorted(id_ for id_, users in expected.items() if user in users)
                assert list(ids) == wanted
            got = await lab.evaluate("churning")
            assert got.data["member_count"] == 2
            nobody = await lab.store.read(
                lab.id, lambda s: segment_rows.segments_of(s, "u_none", now_ms)
            )
            assert nobody == ()

    asyncio.run(main())


def test_the_systems_stay(tmp_path: Path) -> None:
    """They are shown, and nothing else is done with them: 409 CONFLICT."""

    async def main() -> None:
        async with World(tmp_path) as world:
            lab = Lab(world, (await world.project())["id"])
            shown = (await world.get(f"{lab.base}/free")).data
            assert (shown["is_system"], shown["rules"], shown["created_at"]) == (True, None, None)
            assert (await lab.patch("free", b'{"name": "x"}')).said == (409, "CONFLICT")
            assert (await world.delete(f"{lab.base}/free")).said == (409, "CONFLICT")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"name": "x"}, "INVALID_INPUT", "$"),
        ({"rules": PRO}, "INVALID_INPUT", "$"),
        ({"name": "", "rules": PRO}, "INVALID_INPUT", "$.name"),
        ({"name": "x" * 201, "rules": PRO}, "INVALID_INPUT", "$.name"),
        ({"name": "x", "rules": PRO, "description": 1}, "INVALID_INPUT", "$.description"),
        ({"name": "x", "rules": None}, "INVALID_SEGMENT_RULES", "$.rules"),
        (
            {"name": "x", "rules": {**PRO, "note": "y" * 65536}},
            "INVALID_SEGMENT_RULES",
            "$.rules",
        ),
    ],
)
def test_what_no_segment_is(tmp_path: Path, body: object, code: str, field: str) -> None:
    """400 with the place, and none is made or changed (E.13)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            lab = Lab(world, (await world.project())["id"])
            got = await world.post(lab.base, body)
            assert got.said == (400, code)
            assert got.details["field"] == field
            assert (await world.get(lab.base)).body["total"] == len(SYSTEM)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"name": null}', "INVALID_INPUT"),
        (b'{"rules": null}', "INVALID_SEGMENT_RULES"),
        (b'{"name": "New", "rules": {"operator": "AND"}}', "INVALID_SEGMENT_RULES"),
        (b"[" * 65, "INVALID_JSON"),
    ],
)
def test_what_no_change_is(tmp_path: Path, body: bytes, code: str) -> None:
    """400, and the segment is as it was."""

    async def main() -> None:
        async with World(tmp_path) as world:
            lab = Lab(world, (await world.project())["id"])
            made = (await lab.create()).data
            assert (await lab.patch(made["id"], body)).said == (400, code)
            assert (await world.get(f"{lab.base}/{made['id']}")).data == made

    asyncio.run(main())


def test_segments_of_one_project_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more than there may be is 409, and room comes with a deletion."""

    async def main() -> None:
        async with World(tmp_path) as world:
            monkeypatch.setattr(limits, "SEGMENTS", replace(limits.SEGMENTS, value=2))
            lab = Lab(world, (await world.project())["id"])
            ids = [(await lab.create()).data["id"] for _ in range(2)]
            assert (await lab.create()).said == (409, "CONFLICT")
            await world.delete(f"{lab.base}/{ids[0]}")
            assert (await lab.create()).status == 201

    asyncio.run(main())


def test_another_projects_segment_is_none(tmp_path: Path) -> None:
    """404 in each position, and nothing of it changes (tenant isolation)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            one = Lab(world, (await world.project("One"))["id"])
            other = Lab(world, (await world.project("Two"))["id"])
            for lab in (one, other):
                await lab.users({"u_1": "pro"})
            made = (await one.create()).data
            users = f"/v1/admin/projects/{other.id}/users?segment_id={made['id']}"
            for got in (
                await world.get(f"{other.base}/{made['id']}"),
                await other.patch(made["id"], b'{"name": "Taken"}'),
                await world.delete(f"{other.base}/{made['id']}"),
                await other.evaluate(made["id"]),
                await world.get(users),
            ):
                assert got.said == (404, "SEGMENT_NOT_FOUND")
            assert (await world.get(f"{one.base}/{made['id']}")).data == made
            assert await other.of("u_1") == ()
            assert (await world.get(other.base)).body["total"] == len(SYSTEM)

    asyncio.run(main())


@pytest.mark.parametrize("what", ["changes", "goes"])
def test_a_segment_that_changes_meanwhile(tmp_path: Path, what: str) -> None:
    """An evaluation of the old rules writes nothing of theirs: 409 or 404."""

    async def main() -> None:
        async with World(tmp_path) as world:
            lab = Lab(world, (await world.project())["id"])
            await lab.users({"u_1": "pro", "u_2": "free"})
            id_ = (await lab.create()).data["id"]
            await lab.plan("u_2", "pro")

            class Meddled(ProjectStore):
                """Before its first write somebody else is there."""

                meddled = False

                async def write(self, project_id: str, work: Any) -> Any:
                    if not self.meddled:
                        self.meddled = True
                        if what == "goes":
                            await world.delete(f"{lab.base}/{id_}")
                        else:
                            rules = b'{"operator": "AND", "conditions": [%b]}'
                            nobody = b'{"field": "id", "op": "eq", "value": "x"}'
                            await lab.patch(id_, b'{"rules": %b}' % (rules % nobody))
                    return await super().write(project_id, work)

            segments = Segments(Meddled(world.states), world.clock)
            await segments.evaluate_all(lab.id)  # is not told, and goes on
            assert await lab.store.read(lab.id, lambda s: s.count(segment_members)) == 0

    asyncio.run(main())
