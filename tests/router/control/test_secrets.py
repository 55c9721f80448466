"""Secrets over the wire: names, values, scopes, sync; never read back (contract C.2, E.2)."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import World

from amba_router.control.pushes import Pushes
from amba_runtime.secret import SecretText


def said(tmp_path: Path, body: object) -> tuple[int, str]:
    """What POST .../secrets answers."""

    async def main() -> tuple[int, str]:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            got = await world.post(f"/v1/admin/projects/{id_}/secrets", body)
            assert "s3cr3t" not in got.raw.decode()
            return got.status, got.code if got.status >= 400 else ""

    return asyncio.run(main())


@pytest.mark.parametrize("name", ["A", "STRIPE_KEY", "X9_", "A" * 64, "AMBA", "STORAGE_2", "EDGE"])
def test_names_that_may_be(tmp_path: Path, name: str) -> None:
    """`^[A-Z][A-Z0-9_]*$`, 64 characters (C.2, H-11)."""
    assert said(tmp_path, {"name": name, "value": "s3cr3t"}) == (201, "")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "INVALID_NAME"),
        ("A" * 65, "INVALID_NAME"),
        ("AMBA_" + "A" * 60, "INVALID_NAME"),  # too long comes before reserved
        ("AMBA_X", "RESERVED_NAME"),
        ("AMBA_x!", "RESERVED_NAME"),  # reserved comes before spelling
        ("EDGE_HEADER_SIGNING_SECRET", "RESERVED_NAME"),
        ("STORAGE", "RESERVED_NAME"),
        ("HYPERDRIVE", "RESERVED_NAME"),
        ("EDGE_DB_PROXY", "RESERVED_NAME"),
        ("lower", "INVALID_NAME"),
        ("9A", "INVALID_NAME"),
        ("_A", "INVALID_NAME"),
        ("A-B", "INVALID_NAME"),
        ("A\n", "INVALID_NAME"),
        ("Ä", "INVALID_NAME"),
        ("A\0", "INVALID_NAME"),
    ],
)
def test_names_that_may_not(tmp_path: Path, name: str, code: str) -> None:
    """Checked in the platform's order: empty, long, reserved prefix, reserved, spelling (C.2)."""
    assert said(tmp_path, {"name": name, "value": "s3cr3t"}) == (400, code)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"name": "A", "value": "é" * 32768}, (201, "")),
        ({"name": "A", "value": "x" * 65536}, (201, "")),
        ({"name": "A", "value": ""}, (201, "")),
        ({"name": "A", "value": "v", "function": None, "env": "dev"}, (201, "")),
        ({"name": "A", "value": "x" * 65537}, (400, "INVALID_VALUE")),
        ({"name": "A", "value": "é" * 32769}, (400, "INVALID_VALUE")),
        ({"name": "A", "value": "x" * 66560}, (400, "INVALID_VALUE")),
        ({"name": "A"}, (400, "INVALID_INPUT")),
        ({"value": "s3cr3t"}, (400, "INVALID_INPUT")),
        ({"name": "A", "value": 1}, (400, "INVALID_INPUT")),
        ({"name": "A", "value": None}, (400, "INVALID_INPUT")),
        ({"name": ["A"], "value": "s3cr3t"}, (400, "INVALID_INPUT")),
        ({"name": "A", "value": "s3cr3t", "function": 3}, (400, "INVALID_INPUT")),
        ({"name": "A", "value": "s3cr3t", "function": ""}, (400, "INVALID_NAME")),
        ({"name": "A", "value": "s3cr3t", "function": "No"}, (400, "INVALID_NAME")),
        ({"name": "A", "value": "s3cr3t", "function": "f" * 59}, (400, "INVALID_NAME")),
        ([], (400, "INVALID_INPUT")),
    ],
)
def test_values_and_scopes(tmp_path: Path, body: object, expected: tuple[int, str]) -> None:
    """64 KiB of UTF-8; a scope is a function's name; no refusal repeats the value (C.2)."""
    assert said(tmp_path, body) == expected


def test_the_wire(tmp_path: Path) -> None:
    """Set, set again, list, unset: the members of contract E.2, and no value anywhere."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            base = f"/v1/admin/projects/{id_}/secrets"
            got = await world.post(base, {"name": "KEY", "value": "s3cr3t-1"})
            assert got.status == 201
            assert got.data == {
                "name": "KEY",
                "function": None,
                "version": 1,
                "version_path": "project/secrets/KEY/versions/1",
                "sync_status": "synced",
                "created_at": "2026-01-01T00:00:00.000Z",
            }
            again = await world.post(base, {"name": "KEY", "value": "s3cr3t-2"})
            assert again.data["version"] == 2
            scoped = await world.post(
                base, {"name": "KEY", "value": "s3cr3t-3", "function": "hello"}
            )
            assert scoped.data["function"] == "hello"
            assert scoped.data["version_path"] == "functions/hello/secrets/KEY/versions/1"
            listed = await world.get(base)
            assert [(row["function"], row["version"]) for row in listed.data] == [
                (None, 2),
                ("hello", 1),
            ]
            assert set(listed.data[0]) == {
                *("function", "name", "version", "sync_status", "attempts"),
                *("last_error", "updated_at"),
            }
            assert (listed.body["total"], listed.body["offset"]) == (2, 0)
            assert (await world.get(f"{base}?offset=1&limit=1")).data == listed.data[1:]
            for answer in (got, again, scoped, listed):
                assert not re.search(rb"s3cr3t", answer.raw)
            assert (await world.get(f"{base}/sync")).data == []
            gone = await world.delete(f"{base}/KEY")
            assert gone.data == {"name": "KEY", "function": None, "deleted": True}
            assert (await world.delete(f"{base}/KEY")).said == (404, "SECRET_NOT_FOUND")
            gone = await world.delete(f"{base}/KEY?function=hello")
            assert gone.data["function"] == "hello"
            assert (await world.delete(f"{base}/KEY?function=No")).said == (400, "INVALID_NAME")
            assert (await world.get(base)).data == []

    asyncio.run(main())


def test_what_a_deploy_is_given(tmp_path: Path) -> None:
    """Project-wide reaches later deploys, function scope its function and wins (C.2, H-12)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            base = f"/v1/admin/projects/{id_}/secrets"
            await world.post(base, {"name": "A", "value": "wide"})
            await world.post(base, {"name": "B", "value": "wide"})
            await world.post(base, {"name": "A", "value": "own", "function": "hello"})
            await world.deploy(id_)
            await world.deploy(id_, "other")
            other = (await world.project("B"))["id"]
            await world.deploy(other)
            assert [trial.env for trial in world.host.trials] == [
                {"A": "own", "B": "wide"},
                {"A": "wide", "B": "wide"},
                {},
            ]
            await world.delete(f"{base}/B")
            await world.deploy(id_)
            assert world.host.trials[-1].env == {"A": "own"}

    asyncio.run(main())


def test_a_set_value_is_pushed_before_the_answer(tmp_path: Path) -> None:
    """Running isolates have it when the answer says `synced` (C.2: within 1 s)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            base = f"/v1/admin/projects/{id_}/secrets"
            await world.post(base, {"name": "A", "value": "1"})
            await world.post(base, {"name": "A", "value": "2", "function": "hello"})
            assert world.host.pushed == [(None, "A", "1"), ("hello", "A", "2")]

    asyncio.run(main())


def test_a_push_that_fails_is_told_and_tried_again(tmp_path: Path, caplog: Any) -> None:
    """`sync_failed_retrying`, then `synced`; the error says nothing of the value (C.2, H9)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            base = f"/v1/admin/projects/{id_}/secrets"
            world.host.pushes_fail = 2
            setting = asyncio.create_task(world.post(base, {"name": "A", "value": "s3cr3t"}))
            await world.host.push_tried(1)
            row = (await world.get(f"{base}/sync")).data[0]
            assert (row["sync_status"], row["attempts"]) == ("sync_failed_retrying", 1)
            assert "s3cr3t" not in str(row["last_error"])
            await world.clock.advance(0.2)
            assert world.host.pushes_fail == 0
            await world.clock.advance(0.3)
            got = await setting
            assert got.data["sync_status"] in ("syncing", "sync_failed_retrying")
            await world.clock.advance(0.4)
            assert world.host.pushed == [(None, "A", "s3cr3t")]
            assert (await world.get(f"{base}/sync")).data == []

    asyncio.run(main())
    assert "s3cr3t" not in caplog.text


def test_a_newer_value_ends_the_push_of_an_older_one(tmp_path: Path) -> None:
    """What is pushed last is what was set last."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            base = f"/v1/admin/projects/{id_}/secrets"
            world.host.pushes_fail = 1
            first = asyncio.create_task(world.post(base, {"name": "A", "value": "1"}))
            await world.host.push_tried(1)
            second = asyncio.create_task(world.post(base, {"name": "A", "value": "2"}))
            for _ in range(3):
                await world.clock.advance(0.5)
            await asyncio.gather(first, second)
            await world.clock.advance(60)
            assert world.host.pushed[-1] == (None, "A", "2")
            assert (await world.get(base)).data[0]["version"] == 2

    asyncio.run(main())


def test_a_push_goes_on_until_it_is_told_or_has_nobody_to_tell(tmp_path: Path) -> None:
    """`sync_failed_retrying` is true while it is shown; told, unset or closed ends it (C.2)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            base = f"/v1/admin/projects/{id_}/secrets"
            world.host.pushes_fail = 10**6
            setting = asyncio.create_task(world.post(base, {"name": "A", "value": "1"}))
            await world.host.push_tried(1)
            await world.clock.advance(100)
            await setting
            assert world.host.push_tries == 9
            row = (await world.get(f"{base}/sync")).data[0]
            assert (row["sync_status"], row["attempts"]) == ("sync_failed_retrying", 9)
            await world.clock.advance(120)
            row = (await world.get(f"{base}/sync")).data[0]
            assert (row["sync_status"], row["attempts"]) == ("sync_failed_retrying", 11)
            world.host.pushes_fail = 0
            await world.clock.advance(60)
            assert world.host.pushed == [(None, "A", "1")]
            assert (await world.get(f"{base}/sync")).data == []
            world.host.pushes_fail, world.host.push_tries = 10**6, 8
            setting = asyncio.create_task(world.post(base, {"name": "B", "value": "1"}))
            await world.host.push_tried(9)
            await world.clock.advance(0.5)
            await setting
            await world.delete(f"{base}/B")
            setting = asyncio.create_task(world.post(base, {"name": "C", "value": "1"}))
            await world.host.push_tried(11)
            await world.clock.advance(0.5)
            await setting

    asyncio.run(main())


def test_a_value_is_pushed_again_on_demand(tmp_path: Path) -> None:
    """POST sync pushes the version that the caller knows, and lists what is pending (E.2)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            base = f"/v1/admin/projects/{id_}/secrets"
            await world.post(base, {"name": "A", "value": "s3cr3t-1"})
            await world.post(base, {"name": "A", "value": "s3cr3t-2", "function": "hello"})
            await world.post(base, {"name": "A", "value": "s3cr3t-3"})
            world.host.pushed.clear()
            wanted = {"secret_name": "A", "expected_version": 2}
            got = await world.post(f"{base}/sync", wanted)
            assert (got.status, got.data, got.body["total"]) == (200, [], 0)
            own = {"secret_name": "A", "expected_version": 1, "function_name": "hello"}
            assert (await world.post(f"{base}/sync", own)).status == 200
            assert world.host.pushed == [(None, "A", "s3cr3t-3"), ("hello", "A", "s3cr3t-2")]
            world.host.pushed.clear()

            got = await world.post(f"{base}/sync", {**wanted, "expected_version": 1})
            assert got.said == (409, "CONFLICT")
            assert got.details["version"] == 2
            missing = (404, "SECRET_NOT_FOUND")
            assert (
                await world.post(f"{base}/sync", {**wanted, "secret_name": "B"})
            ).said == missing
            elsewhere = {**wanted, "function_name": "other"}
            assert (await world.post(f"{base}/sync", elsewhere)).said == missing
            await world.delete(f"{base}/A")
            assert (await world.post(f"{base}/sync", wanted)).said == missing
            bad = {**wanted, "function_name": "No"}
            assert (await world.post(f"{base}/sync", bad)).said == (400, "INVALID_NAME")
            for body in (
                *({}, {"secret_name": "A"}, {**wanted, "expected_version": 0}),
                *({**wanted, "expected_version": "2"}, {**wanted, "secret_name": 1}),
            ):
                assert (await world.post(f"{base}/sync", body)).said == (400, "INVALID_INPUT")
            assert world.host.pushed == []

            world.host.pushes_fail = 10**6
            tries = world.host.push_tries
            asked = asyncio.create_task(world.post(f"{base}/sync", own))
            await world.host.push_tried(tries + 1)
            await world.clock.advance(0.5)
            pending = (await asked).data
            assert [(row["name"], row["sync_status"]) for row in pending] == [
                ("A", "sync_failed_retrying")
            ]

    asyncio.run(main())


def test_a_deleted_project_has_nothing_on_its_way(tmp_path: Path) -> None:
    """Its pushes end, and nothing is kept for a project that is gone (house rule: bounded)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_, other = (await world.project())["id"], (await world.project("B"))["id"]
            pushes = Pushes(world.host, world.clock)
            world.host.pushes_fail = 10**6
            setting = [
                asyncio.create_task(pushes.push(of, None, "A", SecretText("1")))
                for of in (id_, other)
            ]
            await world.host.push_tried(2)
            await world.clock.advance(0.5)
            await asyncio.gather(*setting)
            record = await world.store.set_secret(id_, "A", SecretText("1"), None)
            assert pushes.shown(record).sync_status == "sync_failed_retrying"
            assert (pushes.epoch(id_), pushes.epoch(other)) == (1, 1)
            tries = world.host.push_tries
            pushes.forget_project(id_)
            assert pushes.shown(record) == record
            assert (pushes.epoch(id_), pushes.epoch(other)) == (0, 1)
            await world.clock.advance(0.5)
            assert world.host.push_tries == tries + 1
            await pushes.close()

            world.host.push_tries = 0
            base = f"/v1/admin/projects/{id_}/secrets"
            asked = asyncio.create_task(world.post(base, {"name": "A", "value": "1"}))
            await world.host.push_tried(1)
            await world.delete(f"/v1/admin/projects/{id_}?confirm=shop")
            await asked
            await world.clock.advance(100)
            assert world.host.push_tries == 1

    asyncio.run(main())
