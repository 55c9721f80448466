"""Projects: slugs, first keys, and what goes with a project that is deleted."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.router.store.world import blob_names, deploy, opened, opened_state, project

from amba_router.services.storage.service import StorageService
from amba_router.store import project_rows
from amba_router.store.control_records import NewProject
from amba_router.store.project_rows import slug_of
from amba_router.store.state import DATABASE
from amba_runtime import entropy
from amba_runtime.clock import ManualClock
from amba_runtime.errors import InternalError, UserCode, UserError
from amba_runtime.manifest import PROJECT_SLUG, ProjectId
from amba_runtime.secret import SecretText


def test_a_project_comes_with_its_keys(tmp_path: Path) -> None:
    """One credential of each kind and one key of each type, in the forms of contract A.6, E.0."""

    async def main() -> None:
        clock = ManualClock()
        async with opened(tmp_path, clock) as store:
            new = NewProject("My Shop", None, "ios", "production", "com.x", "d-1", storage=False)
            made = await store.create_project(new)
            record = made.record
            assert (record.name, record.slug, record.platform) == ("My Shop", "my-shop", "ios")
            assert (record.environment, record.bundle_id) == ("production", "com.x")
            assert (record.developer_id, record.storage) == ("d-1", False)
            assert record.created_ms == int(clock.time_s() * 1000)
            assert re.fullmatch(r"[0-9a-f-]{36}", record.id)
            one = made.credentials
            (internal,), (signing,), (session,) = one.internal, one.signing, one.session
            assert re.fullmatch(r"amb_int_[\w-]{43}", internal.value.reveal())
            assert re.fullmatch(r"whsec_[\w-]{43}", signing.value.reveal())
            assert re.fullmatch(r"[0-9a-f]{64}", session.value.reveal())
            (client, client_value), (server, server_value) = made.client_key, made.server_key
            assert re.fullmatch(r"amb_live_ck_[\w-]{32}", client_value)
            assert re.fullmatch(r"amb_live_sk_[\w-]{32}", server_value)
            assert (client.key_type, server.key_type) == ("client", "server")
            assert client.prefix == client_value[: len("amb_live_ck_") + 4]
            assert "amb_" not in repr(made)
            (state,) = (await store.snapshot()).projects
            assert state.record == record
            assert state.credentials == one
            assert [(k, v.reveal()) for k, v in state.api_keys] == [
                made.client_key,
                made.server_key,
            ]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Shop", "shop"),
        ("  My -- Shop!! ", "my-shop"),
        ("Café Über 2", "cafe-uber-2"),
        ("a" * 80, "a" * 50),
        ("x" * 49 + " y", "x" * 49),
        ("9", ""),
        ("日本", ""),
        ("", ""),
        ("---", ""),
    ],
)
def test_a_slug_is_made_of_a_name(name: str, slug: str) -> None:
    """Of A.1's form, or nothing."""
    assert slug_of(name) == slug
    assert not slug or PROJECT_SLUG.match(slug)


def test_derived_slugs_are_unique(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may be used twice; one of no letters gets 8 characters of the id (H-25)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            slugs = [(await project(store, "Shop")).record.slug for _ in range(3)]
            assert slugs[0] == "shop"
            assert all(re.fullmatch(r"shop-[0-9a-f]{8}", slug) for slug in slugs[1:])
            assert len(set(slugs)) == 3
            odd = (await project(store, "日本")).record
            assert odd.slug == odd.id[:8]

            def taken(*_: object) -> bool:
                return True

            with monkeypatch.context() as patch:
                patch.setattr(project_rows, "_taken", taken)
                with pytest.raises(InternalError, match="no free slug"):
                    await project(store, "Shop")

    asyncio.run(main())


def test_a_given_slug_is_taken_or_refused(tmp_path: Path) -> None:
    """NAME_TAKEN when another has it, INVALID_NAME by form (contract A.1); nothing is made."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            await project(store, slug="shop")
            with pytest.raises(UserError) as caught:
                await project(store, slug="shop")
            assert caught.value.code is UserCode.NAME_TAKEN
            assert caught.value.details == {"slug": "shop"}
            for slug in ("s", "Shop", "-x", "a_b", "a" * 64, "", "é" * 3, "ab\n"):
                with pytest.raises(UserError) as caught:
                    await project(store, slug=slug)
                assert caught.value.code is UserCode.INVALID_NAME
            await project(store, slug="a" * 63)
            assert len((await store.snapshot()).projects) == 2

    asyncio.run(main())


def test_a_project_is_changed_in_what_is_given(tmp_path: Path) -> None:
    """What is None stays; an unknown one is None."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            made = (await project(store)).record
            assert await store.update_project(made.id) == made
            changed = await store.update_project(made.id, name="New", storage=False)
            assert changed is not None
            assert (changed.name, changed.storage, changed.slug) == ("New", False, made.slug)
            again = await store.update_project(made.id, bundle_id="b", platform="ios")
            assert again is not None
            assert (again.bundle_id, again.platform, again.name) == ("b", "ios", "New")
            assert (await store.snapshot()).projects[0].record == again
            assert await store.update_project("nobody", name="x") is None

    asyncio.run(main())


async def body(data: bytes) -> AsyncIterator[bytes]:
    yield data


def test_a_deleted_project_takes_all_it_has(tmp_path: Path) -> None:
    """Rows of every table, STORAGE, and blobs that no other project shares (issue 3, item 3)."""

    async def main() -> None:
        async with opened_state(tmp_path) as state:
            from amba_router.store.control import ControlStore

            store = ControlStore(state, ManualClock())
            storage = StorageService(state, ManualClock())
            gone, stays = (await project(store)).record.id, (await project(store)).record.id
            await deploy(store, gone, "f", b"own", b'{"own":1}')
            await deploy(store, gone, "f", b"shared", b'{"shared":1}')
            kept = await deploy(store, stays, "f", b"shared", b'{"shared":1}')
            await store.set_secret(gone, "A", SecretText("1"), None)
            for owner in (gone, stays):
                await storage.put(owner, "k", body(b"object"))
                upload = await storage.create_upload(owner, "big")
                await storage.upload_part(owner, "big", upload, 1, body(b"part"))
            await storage.put(gone, "own", body(b"object of its own"))
            assert len(blob_names(tmp_path)) == 7
            assert await store.delete_project(gone)
            assert not await store.delete_project(gone)
            assert len(blob_names(tmp_path)) == 4
            assert (await store.load_bundle(kept.id)).source_map == b'{"shared":1}'
            assert await (await storage.get(stays, "k")).body.read() == b"object"
            assert (await storage.list(ProjectId(gone))).entries == ()
            assert [p.record.id for p in (await store.snapshot()).projects] == [stays]
            await storage.close()
        with sqlite3.connect(tmp_path / DATABASE) as plain:
            names = [
                r[0] for r in plain.execute("SELECT name FROM sqlite_master WHERE type='table'")
            ]
            for name in names:
                rows = plain.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608
                assert [row for row in rows if gone in row] == [], name
        plain.close()

    asyncio.run(main())


def test_what_needs_a_project_says_that_it_is_gone(tmp_path: Path) -> None:
    """A delete may overtake anything: CONFLICT, and nothing is kept."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            nobody = entropy.uuid4()
            for attempt in (
                deploy(store, nobody),
                store.set_secret(nobody, "A", SecretText("1"), None),
                store.add_api_key(nobody, "client", "development"),
                store.rotate_internal(nobody, which="session_key"),
            ):
                with pytest.raises(UserError, match="is not there") as caught:
                    await attempt
                assert caught.value.code is UserCode.CONFLICT
            assert blob_names(tmp_path) == set()

    asyncio.run(main())
