"""Assets of users and of the project: made, listed, tracked, deleted, presigned (contract E.7)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.router.services.known_users import add_user
from tests.router.services.media.lab import PNG, Lab, run

from amba_router.store.records import Metadata
from amba_runtime import limits
from amba_runtime.manifest import ProjectId


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def store(lab: Lab, key: str, data: bytes = b"data", type_: str = "text/plain") -> None:
    """As `env.STORAGE.put` does."""
    metadata = Metadata({"contentType": type_} if type_ else {})
    await lab.world.storage.put(ProjectId(lab.id), key, one(data), metadata=metadata)


def test_an_upload_without_a_commit(tmp_path: Path) -> None:
    """CL's `media/upload`: 201, `upload_url` beside `data`; its PUT makes the asset (E.7)."""

    async def work(lab: Lab) -> None:
        body = {
            "bucket": "pics",
            "content_type": "image/png",
            "filename": "a.png",
            "retention_days": 7,
            "folder_id": "f1",
            "metadata": {"alt": "x"},
            "blurhash": "LEHV6n",
        }
        got = await lab.client("POST", "media/upload", body)
        assert got.status == 201
        assert set(got.body) == {"data", "upload_url"}
        asset = got.data
        assert (asset["mime_type"], asset["size_bytes"]) == ("image/png", None)
        assert asset["metadata"] == {"alt": "x", "blurhash": "LEHV6n"}
        assert (asset["folder_id"], asset["retention_days"]) == ("f1", 7)
        assert (await lab.client("GET", f"media/{asset['id']}")).data == asset
        url = got.body["upload_url"]
        assert (await lab.put(url, PNG, "image/gif")).said == (415, "UNSUPPORTED_MEDIA_TYPE")
        assert (await lab.put(url, PNG)).status == 200
        assert (await lab.put(url, PNG)).said == (409, "UPLOAD_DONE")
        shown = (await lab.client("GET", f"media/{asset['id']}")).data
        assert shown == {**asset, "size_bytes": len(PNG)}
        assert (await lab.cdn(asset["url"]))[2] == PNG

    run(tmp_path, work)


def test_the_older_body(tmp_path: Path) -> None:
    """`{filename, mime_type, size_bytes?}`: a bucket is ours, the size is kept to (E.7)."""

    async def work(lab: Lab) -> None:
        body = {"filename": "b.txt", "mime_type": "text/plain", "size_bytes": 3}
        got = (await lab.client("POST", "media/upload", body)).body
        assert (got["data"]["bucket"], got["data"]["size_bytes"]) == ("media", 3)
        url = got["upload_url"]
        assert (await lab.put(url, b"ab", "text/plain")).said == (400, "SIZE_MISMATCH")
        assert (await lab.put(url, b"abc", "text/plain")).status == 200
        bare = (await lab.client("POST", "media/upload", {})).body
        assert (await lab.put(bare["upload_url"], b"?", None)).status == 200
        shown = (await lab.client("GET", f"media/{bare['data']['id']}")).data
        assert shown["mime_type"] == "application/octet-stream"

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "$"),
        ({"bucket": 1}, "$.bucket"),
        ({"content_type": "x"}, "$.content_type"),
        ({"metadata": []}, "$.metadata"),
        ({"metadata": {"x": "y" * 8192}}, "$.metadata"),
        ({"blurhash": "x" * 201}, "$.blurhash"),
        ({"folder_id": ""}, "$.folder_id"),
        ({"retention_days": "7"}, "$.retention_days"),
    ],
)
def test_uploads_that_are_refused(tmp_path: Path, body: object, field: str) -> None:
    """With the member that is wrong; nothing is listed (E.7)."""

    async def work(lab: Lab) -> None:
        got = await lab.client("POST", "media/upload", body)
        assert (got.said, got.details["field"]) == ((400, "INVALID_INPUT"), field)
        assert (await lab.client("GET", "media")).body["total"] == 0

    run(tmp_path, work)


def test_lists(tmp_path: Path) -> None:
    """The user's own, newest first, by page and folder; uploads under way are none (E.7)."""

    async def work(lab: Lab) -> None:
        ids: list[str] = []
        for number in range(3):
            body = {"folder_id": "odd" if number % 2 else "even"}
            ids.insert(0, (await lab.client("POST", "media/upload", body)).data["id"])
        await lab.presign()
        theirs = await lab.upload("u_2")
        got = await lab.client("GET", "media")
        assert [asset["id"] for asset in got.data] == ids
        assert (got.body["total"], got.body["offset"], got.body["limit"]) == (3, 0, 1000)
        got = await lab.client("GET", "media?offset=1&limit=1")
        assert [asset["id"] for asset in got.data] == ids[1:2]
        got = await lab.client("GET", "media?folder_id=even")
        assert [asset["id"] for asset in got.data] == ids[::2]
        assert (await lab.client("GET", "media?limit=0")).said == (400, "INVALID_LIMIT")
        got = await lab.client("GET", "media", user="u_2")
        assert [asset["id"] for asset in got.data] == [theirs["id"]]
        got = await lab.world.get("/v1/client/media", token=await lab.internal())
        assert got.said == (401, "UNAUTHORIZED")

    run(tmp_path, work)


def test_an_asset_is_its_users(tmp_path: Path) -> None:
    """404 for another user and another project, by any id; nothing is deleted (issue 5, 2)."""

    async def work(lab: Lab) -> None:
        asset = await lab.upload()
        path = f"media/{asset['id']}"
        theirs = Lab(lab.world, await lab.world.project("Other"))
        for method in ("GET", "DELETE"):
            assert (await lab.client(method, path, user="u_2")).said == (404, "NOT_FOUND")
            assert (await theirs.client(method, path)).said == (404, "NOT_FOUND")
            assert (await lab.client(method, "media/nothing")).said == (404, "NOT_FOUND")
        pending = await lab.presign()
        got = await lab.client("GET", f"media/{pending['asset_id']}")
        assert got.said == (404, "NOT_FOUND")
        post = lab.world.post
        got = await post(f"{theirs.admin}/delete", {"id": asset["id"]})
        assert got.said == (404, "row_not_found")
        place = {"bucket": asset["bucket"], "key": asset["key"]}
        assert (await post(f"{theirs.admin}/delete", place)).said == (404, "object_not_found")
        assert (await post(f"{theirs.admin}/track", place)).said == (404, "object_not_found")
        server = theirs.project["api_keys"]["server"]["key"]
        got = await post(f"{lab.admin}/delete", place, token=server)
        assert got.said == (403, "WRONG_PROJECT")
        assert (await lab.cdn(asset["url"]))[2] == PNG

    run(tmp_path, work)


def test_delete(tmp_path: Path) -> None:
    """The asset and its object go; a second time there is none (E.7)."""

    async def work(lab: Lab) -> None:
        asset = await lab.upload()
        path = f"media/{asset['id']}"
        got = await lab.client("DELETE", path)
        assert got.body == {"data": {"id": asset["id"], "deleted": True}}
        assert (await lab.client("DELETE", path)).said == (404, "NOT_FOUND")
        assert (await lab.client("GET", path)).said == (404, "NOT_FOUND")
        assert await lab.keys() == []
        assert (await lab.cdn(asset["url"]))[0] == 404

    run(tmp_path, work)


def test_tracking_what_a_function_stored(tmp_path: Path) -> None:
    """Doubled `id` and `url`; the same place again is the same asset, changed (E.7, H-8)."""

    async def work(lab: Lab) -> None:
        await store(lab, "reports/2026/ä b.txt")
        body = {
            "bucket": "reports",
            "key": "2026/ä b.txt",
            "content_type": "text/markdown",
            "retention_days": 2,
            "metadata": {"by": "cron"},
        }
        got = await lab.world.post(f"{lab.admin}/track", body)
        assert got.status == 200
        assert got.body == {"data": got.data, **got.data}
        assert set(got.data) == {"id", "url"}
        assert got.data["url"].endswith("/reports/2026/%C3%A4%20b.txt")
        assert (await lab.cdn(got.data["url"]))[2] == b"data"
        again = await lab.world.post(f"{lab.admin}/track", {**body, "metadata": {"by": "hand"}})
        assert again.data == got.data
        query = "SELECT mime_type, size_bytes, metadata FROM media_assets"
        kept = await lab.world.state.database.read(lambda c: c.exec_driver_sql(query).all())
        assert [tuple(row) for row in kept] == [("text/markdown", 4, '{"by":"hand"}')]
        assert (await lab.client("GET", f"media/{got.data['id']}")).said == (404, "NOT_FOUND")
        missing = await lab.world.post(f"{lab.admin}/track", {**body, "key": "none"})
        assert missing.said == (404, "object_not_found")

    run(tmp_path, work)


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a\nb", "a\0", "k" * 1024, "ä" * 511]
)
def test_keys_that_are_refused(tmp_path: Path, key: str) -> None:
    """By every operation that takes one (E.7; the rule is ours)."""

    async def work(lab: Lab) -> None:
        place = {"bucket": "bb", "key": key}
        for target, body in (
            (f"{lab.admin}/track", place),
            (f"{lab.admin}/delete", place),
            (f"{lab.admin}/presign", {**place, "method": "GET"}),
        ):
            got = await lab.world.post(target, body)
            assert (got.said, got.details["field"]) == ((400, "INVALID_INPUT"), "$.key")
        got = await lab.client("POST", "media/presign", {**place, "method": "PUT"})
        assert (got.said, got.details["field"]) == ((400, "INVALID_INPUT"), "$.key")

    run(tmp_path, work)


def test_deleting_for_functions(tmp_path: Path) -> None:
    """By id, or by place: the object goes with the asset, or without one (E.7)."""

    async def work(lab: Lab) -> None:
        first, second = await lab.upload(), await lab.upload()
        await store(lab, "raw/x")
        post, target = lab.world.post, f"{lab.admin}/delete"
        got = await post(target, {"id": first["id"]})
        assert got.body == {"data": {"id": first["id"], "deleted": True}}
        got = await post(target, {"bucket": "avatars", "key": second["key"]})
        assert got.data == {"id": second["id"], "deleted": True}
        got = await post(target, {"bucket": "raw", "key": "x"})
        assert got.data == {"id": None, "deleted": True}
        assert await lab.keys() == []
        for body, said in (
            ({"id": first["id"]}, (404, "row_not_found")),
            ({"bucket": "raw", "key": "x"}, (404, "object_not_found")),
            ({}, (400, "INVALID_INPUT")),
            ({"bucket": "raw"}, (400, "INVALID_INPUT")),
            ({"id": "x", "bucket": "raw", "key": "x"}, (400, "INVALID_INPUT")),
        ):
            assert (await post(target, body)).said == said

    run(tmp_path, work)


@pytest.mark.parametrize("plane", ["client", "admin"])
def test_presigned_reading(tmp_path: Path, plane: str) -> None:
    """GET: an hour by default, a day at most; type, size and ETag of the object (E.7)."""

    async def work(lab: Lab) -> None:
        await store(lab, "docs/a/b c.html", b"<script>", "text/html")

        async def presign(**changed: Any) -> Any:
            body = {"bucket": "docs", "key": "a/b c.html", "method": "GET", **changed}
            if plane == "client":
                got = await lab.client("POST", "media/presign", body)
                assert set(got.body) == {"data"}
            else:
                got = await lab.world.post(f"{lab.admin}/presign", body)
                assert got.body == {"data": got.data, **got.data}
            assert set(got.data) == {"url", "expires_at"}
            return got.data

        said = await presign()
        assert said["expires_at"] == "2026-01-01T01:00:00.000Z"
        put = await presign(method="PUT", key="other")
        assert put["expires_at"] == "2026-01-01T00:10:00.000Z"
        longest = await presign(expires_in_seconds=10**9)
        assert longest["expires_at"] == "2026-01-02T00:00:00.000Z"
        short = await presign(expires_in_seconds=1)
        for method, body in (("GET", b"<script>"), ("HEAD", None)):
            got = await lab.put(said["url"], b"", None, method=method)
            assert got.status == 200
            assert got.headers["content-type"] == "text/html"
            assert got.headers["content-length"] == "8"
            assert got.headers["etag"].startswith('"')
            assert got.headers["x-content-type-options"] == "nosniff"
            assert got.headers["content-security-policy"].startswith("sandbox")
            if body is not None:
                assert got.raw == body
        assert (await lab.put(said["url"])).said == (403, "INVALID_SIGNATURE")  # a PUT
        await lab.world.clock.advance(1)
        got = await lab.put(short["url"], b"", method="GET")
        assert got.said == (403, "URL_EXPIRED")
        await lab.world.clock.advance(limits.MEDIA_GET_S.value)
        got = await lab.put(said["url"], b"", method="GET")
        assert got.said == (403, "URL_EXPIRED")
        missing = await presign(key="none", expires_in_seconds=60)
        got = await lab.put(missing["url"], b"", method="GET")
        assert got.said == (404, "object_not_found")

    run(tmp_path, work)


def test_presigned_writing_for_functions(tmp_path: Path) -> None:
    """PUT to any key of the project, as often as wanted; the asset there is told (E.7)."""

    async def work(lab: Lab) -> None:
        asset = await lab.upload()
        for key in ("new", asset["key"]):
            body = {"bucket": "avatars", "key": key, "method": "PUT"}
            url = (await lab.world.post(f"{lab.admin}/presign", body)).data["url"]
            for data in (b"one", b"four"):
                assert (await lab.put(url, data, "text/plain")).status == 200
        shown = (await lab.client("GET", f"media/{asset['id']}")).data
        assert (shown["size_bytes"], shown["mime_type"]) == (4, "text/plain")
        assert (await lab.cdn(asset["url"]))[1:] == (
            (await lab.cdn(asset["url"]))[1],
            b"four",
        )

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"method": "POST"}, "$.method"),
        ({"method": None}, "$.method"),
        ({"expires_in_seconds": 0}, "$.expires_in_seconds"),
        ({"expires_in_seconds": -5}, "$.expires_in_seconds"),
        ({"expires_in_seconds": 1.5}, "$.expires_in_seconds"),
        ({"bucket": "a/b"}, "$.bucket"),
        ({"key": None}, "$.key"),
    ],
)
def test_presigned_access_that_is_refused(tmp_path: Path, changed: Any, field: str) -> None:
    """With the member that is wrong (E.7)."""

    async def work(lab: Lab) -> None:
        body = {"bucket": "b", "key": "k", "method": "GET", **changed}
        for got in (
            await lab.client("POST", "media/presign", body),
            await lab.world.post(f"{lab.admin}/presign", body),
        ):
            assert (got.said, got.details["field"]) == ((400, "INVALID_INPUT"), field)

    run(tmp_path, work)


def test_a_type_that_no_header_can_carry(tmp_path: Path) -> None:
    """A function may store any text as a type; a presigned GET does without it."""

    async def work(lab: Lab) -> None:
        for type_ in ("a/b\r\nset-cookie: x", "ü/☃", ""):
            await store(lab, "b/k", b"x", type_)
            body = {"bucket": "b", "key": "k", "method": "GET"}
            url = (await lab.world.post(f"{lab.admin}/presign", body)).data["url"]
            got = await lab.put(url, b"", method="GET")
            assert got.headers["content-type"] == "application/octet-stream"
            assert "set-cookie" not in got.headers

    run(tmp_path, work)


def test_users_by_server_key(tmp_path: Path) -> None:
    """`asUser` uploads for the user (H-9)."""

    async def work(lab: Lab) -> None:
        await add_user(lab.world, lab.project, "u_1")
        asked = {"bucket": "b", "filename": "f", "mime_type": "a/b", "size_bytes": 1}
        got = await lab.world.as_user(
            "POST", "/v1/client/storage/presign", asked, project=lab.project, user="u_1"
        )
        await lab.put(got.data["upload_url"], b"x", "a/b")
        assert (await lab.commit(got.data, "u_2")).said == (404, "UPLOAD_NOT_FOUND")
        assert (await lab.commit(got.data, "u_1")).status == 200

    run(tmp_path, work)
