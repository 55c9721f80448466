"""Deploys and rollbacks: the order of trial, commit and switch, and what happens in between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import CODE, REJECTED, World, meta, multipart, script

from amba_router.store.control_records import NewDeployment
from amba_runtime import limits
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError

BUSY = limits.DEPLOY_WAITERS.value


async def states(world: World, project_id: str) -> list[tuple[int, str]]:
    """(version, status), newest first."""
    got = await world.get(f"/v1/admin/projects/{project_id}/functions/deployments")
    return [(row["version"], row["status"]) for row in got.data]


def test_versions_and_their_states(tmp_path: Path) -> None:
    """A new deploy makes version n+1 active and the former one superseded (D.2, D.4)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            first = await world.deploy(id_)
            assert first.data["version"] == 1
            assert first.data["cf_script_name"] == "hello-v1"
            assert first.body["fn_url"] == "http://shop.fn.localhost:8788/hello"
            assert (await world.deploy(id_, code=CODE + b"//2")).data["version"] == 2
            assert await states(world, id_) == [(2, "active"), (1, "superseded")]
            assert world.host.serving[id_, "hello"].version == 2
            assert world.host.discarded == []

    asyncio.run(main())


def test_a_refused_bundle_changes_nothing(tmp_path: Path) -> None:
    """DEPLOY_REJECTED with upstream_status 400 and every reason; the old version serves (D.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            await world.deploy(id_)
            got = await world.deploy(id_, code=REJECTED)
            assert got.said == (400, "DEPLOY_REJECTED")
            assert got.details["upstream_status"] == 400
            first, second = got.details["violations"]
            assert first == {
                "code": "EXTERNAL_IMPORT",
                "message": "an import is left",
                "file": "hello.ts",
                "line": 1,
                "column": 8,
                "chain": ["hello.ts"],
                "fix": "bundle it",
            }
            assert second["code"] == "NO_HANDLER"
            message = got.body["error"]["message"]
            assert message.startswith("hello.ts:1:8: an import is left (and 1 more")
            assert await states(world, id_) == [(1, "active")]
            assert world.host.serving[id_, "hello"].version == 1

    asyncio.run(main())


def test_a_store_that_fails_ends_the_trial(tmp_path: Path, monkeypatch: Any) -> None:
    """Nothing that was started is left when the commit fails; the old version serves (I2)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            await world.deploy(id_)
            for error, said in (
                (UserError(UserCode.DISK_FULL, "/state is full"), (507, "DISK_FULL")),
                (UserError(UserCode.STATE_READ_ONLY, "/state"), (503, "STATE_READ_ONLY")),
                (UserError(UserCode.CONFLICT, "another won"), (409, "CONFLICT")),
                (InternalError(InternalCode.INVARIANT, "/state/amba.db"), (500, "INTERNAL")),
                (RuntimeError("/state/amba.db"), (500, "INTERNAL")),
            ):

                async def fail(_: NewDeployment, error: Exception = error) -> Any:
                    raise error

                with monkeypatch.context() as patch:
                    patch.setattr(world.store, "add_deployment", fail)
                    got = await world.deploy(id_)
                assert got.said == said
                assert b"/state" not in got.raw
                assert world.host.discarded[-1] is world.host.trials[-1]
            assert len(world.host.discarded) == 5
            assert await states(world, id_) == [(1, "active")]
            assert world.host.serving[id_, "hello"].version == 1
            assert (await world.deploy(id_)).data["version"] == 2

    asyncio.run(main())


@pytest.mark.slow
def test_many_deploys_of_one_function_at_once(tmp_path: Path) -> None:
    """Each gets its own version, in turn; the last answered one is active (D12)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            answers = await asyncio.gather(*[world.deploy(id_) for _ in range(50)])
            assert [got.status for got in answers] == [201] * 50
            assert sorted(got.data["version"] for got in answers) == list(range(1, 51))
            listed = await states(world, id_)
            assert listed[0] == (50, "active")
            assert {status for _, status in listed[1:]} == {"superseded"}

    asyncio.run(main())


@pytest.mark.slow
def test_too_many_wait(tmp_path: Path) -> None:
    """One more than may wait is told 429; another function does not wait (D12)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            world.host.gate = asyncio.Event()
            deploys = [asyncio.create_task(world.deploy(id_)) for _ in range(BUSY + 2)]
            done, waiting = await asyncio.wait(deploys, return_when=asyncio.FIRST_COMPLETED)
            (refused,) = done
            assert (await refused).said == (429, "TOO_MANY_DEPLOYS")
            assert (await refused).headers["retry-after"] == "5"
            other = asyncio.create_task(world.deploy(id_, "other"))
            await world.host.tried(2)
            world.host.gate.set()
            assert (await other).status == 201
            assert {(await task).status for task in waiting} == {201}

    asyncio.run(main())


def test_a_credential_that_is_revoked_during_the_upload(tmp_path: Path) -> None:
    """No deploy by a key that is gone before the commit; the trial ends, no blob stays (D11)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            key = project["api_keys"]["server"]
            world.host.gate = asyncio.Event()
            upload = asyncio.create_task(
                world.ask(
                    "POST",
                    f"/v1/admin/projects/{project['id']}/functions/deploy",
                    multipart([script(), meta()]),
                    token=key["key"],
                    type_="multipart/form-data; boundary=XX",
                )
            )
            await world.host.tried(1)
            await world.delete(f"/v1/admin/projects/{project['id']}/api-keys/{key['id']}")
            world.host.gate.set()
            assert (await upload).said == (401, "INVALID_TOKEN")
            assert world.host.discarded == world.host.trials
            assert await states(world, project["id"]) == []
            assert list((world.folder / "state" / "blobs").glob("??/*")) == []

    asyncio.run(main())


def test_a_client_that_leaves_undoes_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    """Commit and switch are not parted by a cancelled request (architecture 4, 9 to 10)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            add, gate = world.store.add_deployment, asyncio.Event()
            reached = asyncio.Event()

            async def slow(new: NewDeployment) -> Any:
                reached.set()
                await gate.wait()
                return await add(new)

            monkeypatch.setattr(world.store, "add_deployment", slow)
            upload = asyncio.create_task(world.deploy(id_))
            await reached.wait()
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
            assert world.host.serving == {}
            closing = asyncio.create_task(world.plane.close())
            gate.set()
            await closing
            assert world.host.serving[id_, "hello"].version == 1
            assert await states(world, id_) == [(1, "active")]

    asyncio.run(main())


def test_a_rollback_is_a_new_deployment_of_an_old_version(tmp_path: Path) -> None:
    """Same bundle, limits and rate limit, a new version, 201 in the shape of a deploy (D.4)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            limit = {"window": "60s", "max": 3, "key": "ip"}
            rules = {"only": ["a.example"], "secrets": {"KEY": ["a.example"]}}
            settings: dict[str, Any] = {
                "rate_limit": limit,
                "limits": {"memory_mib": 128},
                "egress": rules,
            }
            one = (await world.deploy(id_, **settings)).data
            assert one["egress"] == rules
            assert world.host.trials[-1].egress.wire() == rules
            await world.deploy(id_, code=CODE + b"//2")
            path = f"/v1/admin/projects/{id_}/functions/hello/rollback"
            got = await world.post(path, {"version": 1})
            assert got.status == 201
            assert got.data["version"] == 3
            assert got.data["rolled_back_from"] == 1
            for same in ("bundle_sha", "rate_limit", "limits", "handlers", "egress"):
                assert got.data[same] == one[same]
            assert got.body["fn_url"].endswith("/hello")
            assert world.host.trials[-1].bundle.code == CODE
            assert world.host.trials[-1].egress.wire() == rules
            assert await states(world, id_) == [
                (3, "active"),
                (2, "superseded"),
                (1, "superseded"),
            ]
            again = await world.post(path, {"deployment_id": one["id"]})
            assert (again.data["version"], again.data["rolled_back_from"]) == (4, 1)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("hello", {"version": 2}, (404, "VERSION_NOT_FOUND")),
        ("hello", {"deployment_id": "no-such"}, (404, "VERSION_NOT_FOUND")),
        ("never", {"version": 1}, (404, "FUNCTION_NOT_FOUND")),
        ("hello", {}, (400, "INVALID_INPUT")),
        ("hello", {"version": 1, "deployment_id": "x"}, (400, "INVALID_INPUT")),
        ("hello", {"version": 0}, (400, "INVALID_INPUT")),
        ("hello", {"version": "1"}, (400, "INVALID_INPUT")),
        ("hello", {"version": 2**63}, (400, "INVALID_INPUT")),
        ("hello", [], (400, "INVALID_INPUT")),
        ("hello", None, (400, "INVALID_INPUT")),
    ],
)
def test_a_rollback_to_what_never_was(
    tmp_path: Path, name: str, body: object, said: tuple[int, str]
) -> None:
    """404 for a version that never existed, 400 for a request that names none (issue 3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            await world.deploy(id_)
            got = await world.post(f"/v1/admin/projects/{id_}/functions/{name}/rollback", body)
            assert got.said == said
            assert len(world.host.trials) == 1

    asyncio.run(main())


def test_a_rollback_of_another_projects_deployment(tmp_path: Path) -> None:
    """A deployment id is looked for in its own project alone (C.1)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            mine, other = (await world.project())["id"], (await world.project("B"))["id"]
            theirs = (await world.deploy(other)).data["id"]
            await world.deploy(mine)
            path = f"/v1/admin/projects/{mine}/functions/hello/rollback"
            got = await world.post(path, {"deployment_id": theirs})
            assert got.said == (404, "VERSION_NOT_FOUND")

    asyncio.run(main())


def test_a_damaged_bundle_is_not_rolled_back_to(tmp_path: Path) -> None:
    """500 BLOB_DAMAGED, without a path; what serves goes on (I8)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            await world.deploy(id_)
            (blob,) = (world.folder / "state" / "blobs").glob("??/*")
            await world.deploy(id_, code=CODE + b"//2")
            blob.chmod(0o600)
            blob.write_bytes(b"other bytes")
            path = f"/v1/admin/projects/{id_}/functions/hello/rollback"
            got = await world.post(path, {"version": 1})
            assert got.said == (500, "BLOB_DAMAGED")
            assert str(world.folder).encode() not in got.raw
            assert world.host.serving[id_, "hello"].version == 2

    asyncio.run(main())


def test_a_secret_that_is_set_during_a_trial_is_not_missed(tmp_path: Path) -> None:
    """What was started before the secret was set gets it pushed once it serves (C.2)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            await world.post(f"/v1/admin/projects/{id_}/secrets", {"name": "OLD", "value": "0"})
            world.host.gate = asyncio.Event()
            upload = asyncio.create_task(world.deploy(id_))
            await world.host.tried(1)
            await world.post(f"/v1/admin/projects/{id_}/secrets", {"name": "NEW", "value": "1"})
            world.host.pushed.clear()
            world.host.gate.set()
            assert (await upload).status == 201
            assert world.host.trials[0].env == {"OLD": "0"}
            assert world.host.pushed == [("hello", "NEW", "1")]

    asyncio.run(main())


@pytest.mark.parametrize("again", [False, True])
def test_a_secret_that_is_unset_during_a_trial_is_not_served(tmp_path: Path, again: bool) -> None:
    """What was tried with it is not what serves: the version never has it (C.2); with another
    value since, the version has that one."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            base = f"/v1/admin/projects/{id_}/secrets"
            for name in ("GONE", "KEPT"):
                await world.post(base, {"name": name, "value": "1"})
            await world.deploy(id_, "steady")
            world.host.gate = asyncio.Event()
            upload = asyncio.create_task(world.deploy(id_))
            await world.host.tried(2)
            await world.delete(f"{base}/GONE")
            if again:
                await world.post(base, {"name": "GONE", "value": "2"})
            world.host.gate.set()
            deployed = (await upload).data
            assert world.host.trials[1].env == {"GONE": "1", "KEPT": "1"}
            assert world.host.stale == ["hello"]
            has = {name: v.reveal() for name, v in await world.store.secrets_for(deployed["id"])}
            assert has == {"KEPT": "1", **({"GONE": "2"} if again else {})}

    asyncio.run(main())


def test_a_deploy_that_is_committed_serves_whatever_the_secrets_are(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """Secrets that cannot be read after the commit do not part commit and switch (I2)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            await world.post(f"/v1/admin/projects/{id_}/secrets", {"name": "KEY", "value": "1"})

            async def fail(_: str) -> Any:
                raise InternalError(InternalCode.SECRET_DAMAGED, "KEY")

            monkeypatch.setattr(world.store, "secrets_for", fail)
            assert (await world.deploy(id_)).status == 201
            assert world.host.serving[id_, "hello"].version == 1
            assert world.host.stale == ["hello"]

    asyncio.run(main())


@pytest.mark.parametrize("what", ["delete", "disable"])
def test_what_waits_is_not_done_for_a_credential_that_is_revoked(tmp_path: Path, what: str) -> None:
    """A delete or disable behind a deploy asks again when its turn comes (D11)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            id_, key = project["id"], project["api_keys"]["server"]
            first = (await world.deploy(id_)).data["id"]
            world.host.gate = asyncio.Event()
            upload = asyncio.create_task(world.deploy(id_))
            await world.host.tried(2)
            base = f"/v1/admin/projects/{id_}/functions"
            method, path = {
                "delete": ("DELETE", f"{base}/hello?confirm=hello"),
                "disable": ("POST", f"{base}/deployments/{first}/disable"),
            }[what]
            waiting = asyncio.create_task(world.ask(method, path, token=key["key"]))
            # answered in order: the one that waits has got as far as it can
            for _ in range(3):
                assert (await world.get(f"{base}/deployments")).status == 200
            assert not waiting.done()
            await world.delete(f"/v1/admin/projects/{id_}/api-keys/{key['id']}")
            world.host.gate.set()
            assert (await upload).status == 201
            assert (await waiting).said == (401, "INVALID_TOKEN")
            assert world.host.serving[id_, "hello"].version == 2
            assert await states(world, id_) == [(2, "active"), (1, "superseded")]

    asyncio.run(main())


def test_disabling_one_deployment(tmp_path: Path) -> None:
    """The active one ends, 404 from then on; a superseded one is marked alone (D.4)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            one, two = [(await world.deploy(id_)).data["id"] for _ in range(2)]
            base = f"/v1/admin/projects/{id_}/functions/deployments"
            got = await world.post(f"{base}/{one}/disable")
            assert got.data == {"id": one, "status": "disabled"}
            assert world.host.serving[id_, "hello"].id == two
            assert (await world.post(f"{base}/{two}/disable")).status == 200
            assert world.host.serving == {}
            assert (await world.post(f"{base}/{two}/disable")).status == 200
            assert (await world.post(f"{base}/nope/disable")).said == (404, "DEPLOYMENT_NOT_FOUND")
            other = (await world.project("B"))["id"]
            path = f"/v1/admin/projects/{other}/functions/deployments/{one}/disable"
            assert (await world.post(path)).said == (404, "DEPLOYMENT_NOT_FOUND")

    asyncio.run(main())


def test_deleting_a_function(tmp_path: Path) -> None:
    """404 at once, history kept as `disabled`, `confirm` repeats the name, idempotent (D.4)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            for _ in range(2):
                await world.deploy(id_)
            path = f"/v1/admin/projects/{id_}/functions/hello"
            for query in ("", "?confirm=", "?confirm=Hello", "?confirm=hello&confirm=hello"):
                assert (await world.delete(path + query)).status == 400
            assert world.host.serving != {}
            got = await world.delete(f"{path}?confirm=hello")
            assert got.data == {
                "name": "hello",
                "deleted": True,
                "cascade": {
                    "cf_dispatch_script_deleted": True,
                    "function_deployments_marked_disabled": 2,
                    "schedules_deleted": 0,
                },
            }
            assert world.host.serving == {}
            assert await states(world, id_) == [(2, "disabled"), (1, "disabled")]
            again = (await world.delete(f"{path}?confirm=hello")).data["cascade"]
            assert again["function_deployments_marked_disabled"] == 0
            never = f"/v1/admin/projects/{id_}/functions/never?confirm=never"
            assert (await world.delete(never)).said == (404, "FUNCTION_NOT_FOUND")
            # the number goes on, and the old bundle can be brought back
            got = await world.post(f"{path}/rollback", {"version": 1})
            assert got.data["version"] == 3

    asyncio.run(main())


@pytest.mark.parametrize("name", ["deploy", "deployments", "namespace", "schedules", "sync"])
def test_a_function_may_be_called_like_a_path(tmp_path: Path, name: str) -> None:
    """Names that stand in paths deploy, have logs and are deleted as any other (A.2)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            assert (await world.deploy(id_, name)).status == 201
            path = f"/v1/admin/projects/{id_}/functions/{name}"
            assert (await world.get(f"{path}/logs")).status == 200
            assert (await world.delete(f"{path}?confirm={name}")).status == 200

    asyncio.run(main())
