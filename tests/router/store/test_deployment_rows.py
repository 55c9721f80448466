"""Deployments: versions, one active, history, bundles, and what a failure leaves."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from tests.router.store.world import blob_names, deploy, opened, project

from amba_router.rate_limit import RateLimit
from amba_router.store import deployment_rows
from amba_router.store.control_records import NewDeployment
from amba_runtime.clock import ManualClock
from amba_runtime.egress_rules import EgressRules
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError
from amba_runtime.manifest import Bundle


def test_a_deployment_says_all_that_was_stored(tmp_path: Path) -> None:
    """Every field of contract D.2, and ours, over a restart."""

    async def main() -> None:
        clock = ManualClock()
        async with opened(tmp_path, clock) as store:
            owner = (await project(store)).record.id
            limit = RateLimit("60s", 60, 5, "ip")
            bundle = Bundle.of(b"export default {}" * 100, source_map=b"{}")
            rules = EgressRules.of({"only": ["a.example"], "secrets": {"KEY": ["a.example:8443"]}})
            new = NewDeployment(
                owner,
                "hello",
                1,
                bundle,
                ("fetch", "queue"),
                limit,
                {"cpu_ms": 5},
                "fake",
                None,
                rules,
            )
            made = await store.add_deployment(new)
            assert (made.project_id, made.name, made.version) == (owner, "hello", 1)
            assert (made.script_name, made.namespace) == ("hello-v1", "amba_tenant_functions")
            assert made.bundle_sha == bundle.sha256
            assert (made.bytes, made.bytes_gzip) == (1700, bundle.bytes_gzip())
            assert made.handlers == ("fetch", "queue")
            assert (made.status, made.note) == ("active", "")
            assert made.created_ms == int(clock.time_s() * 1000)
            assert made.rate_limit == limit
            assert made.limits == {"cpu_ms": 5}
            assert made.egress == rules
            assert (made.engine, made.has_map, made.rolled_back_from) == ("fake", True, None)
        async with opened(tmp_path) as store:
            assert await store.find_deployment(owner, deployment_id=made.id) == made
            assert (await store.snapshot()).projects[0].active == (made,)
            loaded = await store.load_bundle(made.id)
            assert (loaded.code, loaded.source_map) == (bundle.code, b"{}")
            assert loaded.sha256 == bundle.sha256

    asyncio.run(main())


def test_one_version_is_active_and_the_former_superseded(tmp_path: Path) -> None:
    """Numbers count per function; a rollback is a new deployment (contract D.4, H-26)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            one = await deploy(store, owner, "f", b"1")
            two = await deploy(store, owner, "f", b"2")
            other = await deploy(store, owner, "g", b"1")
            assert (one.version, two.version, other.version) == (1, 2, 1)
            bundle = await store.load_bundle(one.id)
            back = await store.add_deployment(
                NewDeployment(owner, "f", 3, bundle, ("fetch",), rolled_back_from=1)
            )
            assert (back.rolled_back_from, back.bundle_sha) == (1, one.bundle_sha)
            rows, total = await store.deployments(owner, active=False, name="f", offset=0, limit=9)
            assert [(d.version, d.status) for d in rows] == [
                (3, "active"),
                (2, "superseded"),
                (1, "superseded"),
            ]
            assert total == 3
            assert len(blob_names(tmp_path)) == 2  # equal bundles share one blob

    asyncio.run(main())


def test_pages_are_newest_first(tmp_path: Path) -> None:
    """By the order of writing, though the clock went back; totals without the page."""

    async def main() -> None:
        clock = ManualClock()
        async with opened(tmp_path, clock) as store:
            owner = (await project(store)).record.id
            for n in range(5):
                await deploy(store, owner, f"f{n % 2}", b"%d" % n)
                clock.jump(-3600)

            async def page(**kwargs: Any) -> tuple[list[tuple[str, int]], int]:
                wanted: dict[str, Any] = {
                    "active": False,
                    "name": None,
                    "offset": 0,
                    "limit": 10,
                    **kwargs,
                }
                rows, total = await store.deployments(owner, **wanted)
                return [(d.name, d.version) for d in rows], total

            assert await page(limit=2) == ([("f0", 3), ("f1", 2)], 5)
            assert await page(offset=3) == ([("f1", 1), ("f0", 1)], 5)
            assert await page(offset=9) == ([], 5)
            assert await page(limit=0) == ([], 5)
            assert await page(active=True) == ([("f0", 3), ("f1", 2)], 2)
            assert await page(active=True, name="f1") == ([("f1", 2)], 1)
            assert await page(name="nobody") == ([], 0)

    asyncio.run(main())


def test_a_version_that_is_not_the_next_is_refused(tmp_path: Path) -> None:
    """Of two deploys with one number one wins; the other is told, nothing of it stays."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            await deploy(store, owner, "f", b"first")

            def new(code: bytes, version: int) -> NewDeployment:
                return NewDeployment(owner, "f", version, Bundle.of(code), ("fetch",))

            both = await asyncio.gather(
                store.add_deployment(new(b"a", 2)),
                store.add_deployment(new(b"b", 2)),
                return_exceptions=True,
            )
            lost = [one for one in both if isinstance(one, UserError)]
            assert len(lost) == 1
            assert lost[0].code is UserCode.CONFLICT
            assert lost[0].details == {"version": 2, "next_version": 3}
            for version in (0, 1, 2, 4):
                with pytest.raises(UserError, match="the next one is 3"):
                    await store.add_deployment(new(b"c", version))
            assert len(blob_names(tmp_path)) == 2
            assert list((tmp_path / "blobs" / "incoming").iterdir()) == []

    asyncio.run(main())


def test_numbers_are_not_given_twice(tmp_path: Path) -> None:
    """After a delete, a restart and a failed deploy (issue 3, item 4)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            for _ in range(3):
                await deploy(store, owner, "f")
            assert await store.delete_function(owner, "f") == 3
        async with opened(tmp_path) as store:
            assert await store.next_version(owner, "f") == 4
            assert (await deploy(store, owner, "f")).version == 4

    asyncio.run(main())


def test_deleting_a_function_keeps_its_history(tmp_path: Path) -> None:
    """All rows disabled, idempotent, bundles kept; None when there never was one (D.4, J 15)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            one = await deploy(store, owner, "f", b"1")
            await deploy(store, owner, "f", b"2")
            other = await deploy(store, owner, "g", b"3")
            assert await store.delete_function(owner, "f") == 2
            assert await store.delete_function(owner, "f") == 0
            assert await store.delete_function(owner, "nobody") is None
            rows, _ = await store.deployments(owner, active=False, name="f", offset=0, limit=9)
            assert [d.status for d in rows] == ["disabled", "disabled"]
            assert (await store.snapshot()).projects[0].active == (other,)
            assert (await store.load_bundle(one.id)).code == b"1"

    asyncio.run(main())


def test_disabling_one_deployment(tmp_path: Path) -> None:
    """Only by its own project; idempotent; the first note stays; nothing else is promoted."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner, stranger = (await project(store)).record.id, (await project(store)).record.id
            await deploy(store, owner, "f", b"1")
            two = await deploy(store, owner, "f", b"2")
            assert await store.disable_deployment(stranger, two.id) is None
            assert await store.disable_deployment(owner, "nobody") is None
            done = await store.disable_deployment(owner, two.id, note="why")
            assert done is not None
            assert (done.status, done.note) == ("disabled", "why")
            assert await store.disable_deployment(owner, two.id, note="again") == done
            assert (await store.snapshot()).projects[0].active == ()
            assert (await deploy(store, owner, "f", b"3")).version == 3

    asyncio.run(main())


def test_finding_a_deployment(tmp_path: Path) -> None:
    """By name and version, by id, the newest of a name; never another project's."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner, stranger = (await project(store)).record.id, (await project(store)).record.id
            one, two = await deploy(store, owner), await deploy(store, owner)
            find = store.find_deployment
            old = await find(owner, name="f", version=1)
            assert old is not None
            assert (old.id, old.status) == (one.id, "superseded")
            assert await find(owner, name="f") == two
            assert await find(owner, deployment_id=two.id) == two
            assert await find(owner, name="g", deployment_id=two.id) is None
            assert await find(owner, name="f", version=3) is None
            assert await find(stranger, deployment_id=two.id) is None

    asyncio.run(main())


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_damaged_bytes_are_never_handed_out(tmp_path: Path, how: str) -> None:
    """BLOB_DAMAGED for the code; a damaged map is left out, it only makes stacks readable (I8)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            made = await deploy(store, owner, "f", b"the code", b"{the map}")
            for name in blob_names(tmp_path) - {made.bundle_sha}:
                damage(tmp_path / "blobs" / name[:2] / name)
            loaded = await store.load_bundle(made.id)
            assert (loaded.code, loaded.source_map) == (b"the code", None)
            damage(tmp_path / "blobs" / made.bundle_sha[:2] / made.bundle_sha)
            with pytest.raises(InternalError) as caught:
                await store.load_bundle(made.id)
            assert caught.value.code is InternalCode.BLOB_DAMAGED
            await deploy(store, owner, "g", b"the code")  # the same bytes again heal it
            assert (await store.load_bundle(made.id)).code == b"the code"

    def damage(path: Path) -> None:
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(b"X" + path.read_bytes()[1:])

    asyncio.run(main())


def test_a_bundle_of_nobody(tmp_path: Path) -> None:
    """A deployment that went with its project is told as such."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            for attempt in (store.load_bundle("nobody"), store.secrets_for("nobody")):
                with pytest.raises(UserError, match="nobody is not there") as caught:
                    await attempt
                assert caught.value.code is UserCode.CONFLICT

    asyncio.run(main())


def test_an_empty_bundle_needs_no_file(tmp_path: Path) -> None:
    """Admission refuses it; the store does not stumble over it."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            made = await deploy(store, (await project(store)).record.id, code=b"")
            assert (await store.load_bundle(made.id)).code == b""
        async with opened(tmp_path) as store:
            assert (await store.snapshot()).projects[0].active == (made,)

    asyncio.run(main())


def test_a_hash_that_lies_is_refused(tmp_path: Path) -> None:
    """The store computes its own (architecture.md 4, step 5)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            lie = Bundle(b"code", "0" * 64)
            with pytest.raises(InternalError, match="does not have the hash"):
                await store.add_deployment(NewDeployment(owner, "f", 1, lie, ()))
            assert blob_names(tmp_path) == set()

    asyncio.run(main())


@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_deploy_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """A failed fsync counts the file as lost: refused, nothing over, the next works (I2, I3)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            old = await deploy(store, owner, "f", b"old")

            def fails(*_: object) -> None:
                raise OSError(number, os.strerror(number))

            with monkeypatch.context() as patch:
                patch.setattr(os, call, fails)
                with pytest.raises((UserError, InternalError)) as caught:
                    await deploy(store, owner, "f", b"new", b"{}")
            code = UserCode.DISK_FULL if number == errno.ENOSPC else InternalCode.STATE_FAILED
            assert getattr(caught.value, "code", None) == code
            assert blob_names(tmp_path) == {old.bundle_sha}
            assert list((tmp_path / "blobs" / "incoming").iterdir()) == []
            assert (await store.snapshot()).projects[0].active == (old,)
            assert (await deploy(store, owner, "f", b"new", b"{}")).version == 2

    asyncio.run(main())


def test_a_row_that_fails_takes_its_blobs_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of a deploy that did not commit go again, shared ones stay."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            old = await deploy(store, owner, "f", b"shared")

            def fails(*_: object) -> None:
                raise OSError(errno.ENOSPC, "full")

            with monkeypatch.context() as patch:
                patch.setattr(deployment_rows, "_deployment", fails)
                with pytest.raises(UserError):
                    await deploy(store, owner, "f", b"shared", b'{"new":1}')
            assert blob_names(tmp_path) == {old.bundle_sha}
            assert (await store.load_bundle(old.id)).code == b"shared"

    asyncio.run(main())


def test_a_deploy_upon_a_close_leaves_nothing(tmp_path: Path) -> None:
    """What the next open finds it removes."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
        with pytest.raises(RuntimeError):
            await deploy(store, owner)
        async with opened(tmp_path) as store:
            assert (await store.snapshot()).projects[0].active == ()
            assert blob_names(tmp_path) == set()

    asyncio.run(main())
