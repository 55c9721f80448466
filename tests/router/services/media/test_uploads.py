"""Presign, PUT, commit: real presigned URLs, and all that they refuse (contract E.7, J.11)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from tests.router.control.world import pieces
from tests.router.services.media.lab import ASKED, ORIGIN, PNG, Lab, run

from amba_router.store.records import Metadata
from amba_runtime import limits
from amba_runtime.manifest import ProjectId


def test_presign_put_commit(tmp_path: Path) -> None:
    """J.11: the SDK's three steps, then the CDN host serves the object with its type."""

    async def work(lab: Lab) -> None:
        presigned = await lab.presign(retention_days=30)
        assert set(presigned) == {"upload_id", "upload_url", "upload_headers", "asset_id"}
        assert presigned["upload_headers"] == [["content-type", "image/png"]]
        headers = dict(presigned["upload_headers"])
        put = await lab.put(presigned["upload_url"], pieces(PNG, 50), headers["content-type"])
        assert (put.status, put.raw) == (200, b"")
        assert put.headers["etag"] == f'"{hashlib.md5(PNG).hexdigest()}"'  # noqa: S324  as S3
        got = await lab.commit(presigned)
        key = f"{presigned['asset_id']}/me.png"
        url = f"http://shop.cdn.localhost:8787/avatars/{key}"
        assert got.body == {
            "data": {
                "id": presigned["asset_id"],
                "asset_id": presigned["asset_id"],
                "bucket": "avatars",
                "key": key,
                "url": url,
                "storage_url": url,
                "mime_type": "image/png",
                "size_bytes": len(PNG),
                "filename": "me.png",
                "folder_id": None,
                "metadata": {},
                "created_at": "2026-01-01T00:00:00.000Z",
                "retention_days": 30,
            }
        }
        status, served, body = await lab.cdn(url)
        assert (status, served["content-type"], body) == (200, "image/png", PNG)
        assert await lab.keys() == [f"avatars/{key}"]
        await lab.world.clock.advance(5)
        assert (await lab.commit(presigned)).body == got.body  # told again, not done again

    run(tmp_path, work)


@pytest.mark.parametrize("name", ["expires", "upload", "user", "size", "type", "signature"])
def test_nothing_in_a_url_can_be_changed(tmp_path: Path, name: str) -> None:
    """Each parameter is covered: changed, emptied, left out, sent twice (E.7)."""

    async def work(lab: Lab) -> None:
        url = (await lab.presign())["upload_url"]
        base, _, query = url.partition("?")
        said = dict(parse_qsl(query))
        values = {"9999999999", "0", "x" * 64, "é", said.get(name, "") + "0", ""}
        for value in values - {said.get(name, "")}:
            got = await lab.put(f"{base}?{urlencode({**said, name: value})}")
            assert got.said == (403, "INVALID_SIGNATURE"), value
        if said.pop(name, None) is not None:
            got = await lab.put(f"{base}?{urlencode(said)}")
            assert got.said == (403, "INVALID_SIGNATURE")
        twice = await lab.put(f"{url}&{name}=x&{name}=x")
        assert twice.said == (400, "INVALID_INPUT")
        assert await lab.keys() == []

    run(tmp_path, work)


def test_a_url_is_for_one_place_and_method(tmp_path: Path) -> None:
    """Another project, bucket, key or method has another signature (E.7)."""

    async def work(lab: Lab) -> None:
        other = await lab.world.project("Other")
        url = str((await lab.presign())["upload_url"])
        path, _, query = url.partition("?")
        project, bucket, key = path.split("/")[-3:]
        assert (project, bucket) == (lab.id, "avatars")

        async def tried(project: str, bucket: str, key: str, method: str = "PUT") -> Any:
            target = f"/client/storage/objects/{project}/{bucket}/{key}?{query}"
            return (await lab.world.ask(method, target, PNG, token=None, type_="image/png")).said

        refused = (403, "INVALID_SIGNATURE")
        assert await tried(other["id"], bucket, key) == refused
        assert await tried("nobody", bucket, key) == refused
        assert await tried(lab.id, "other", key) == refused
        assert await tried(lab.id, bucket, key + "x") == refused
        assert await tried(lab.id, quote(f"{bucket}/x", safe=""), key) == refused
        assert await tried(lab.id, bucket, key, "GET") == refused
        assert await tried(lab.id, bucket, key, "POST") == (405, "METHOD_NOT_ALLOWED")
        assert (await lab.put(url)).status == 200

    run(tmp_path, work)


def test_a_url_ends(tmp_path: Path) -> None:
    """After 600 s, to the second (E.7)."""

    async def work(lab: Lab) -> None:
        first, second = await lab.presign(), await lab.presign()
        await lab.world.clock.advance(599)
        assert (await lab.put(first["upload_url"])).status == 200
        await lab.world.clock.advance(1)
        got = await lab.put(second["upload_url"])
        assert got.said == (403, "URL_EXPIRED")
        assert (await lab.commit(second)).said == (409, "UPLOAD_INCOMPLETE")
        assert (await lab.commit(first)).status == 200  # what was put in time may be committed

    run(tmp_path, work)


def test_an_object_is_put_once(tmp_path: Path) -> None:
    """The same bytes again are no harm, others are refused; after the commit all are (E.7)."""

    async def work(lab: Lab) -> None:
        presigned = await lab.presign()
        url = presigned["upload_url"]
        for _ in range(2):
            assert (await lab.put(url)).status == 200
        other = bytes(len(PNG))
        assert (await lab.put(url, other)).said == (409, "UPLOAD_DONE")
        asset = (await lab.commit(presigned)).data
        for body in (PNG, other):
            assert (await lab.put(url, body)).said == (409, "UPLOAD_DONE")
        assert (await lab.cdn(asset["url"]))[2] == PNG

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("body", "type_", "headers", "said"),
    [
        (PNG[:-1], "image/png", [], (400, "SIZE_MISMATCH")),
        (b"", "image/png", [], (400, "SIZE_MISMATCH")),
        (PNG + b"x", "image/png", [], (413, "PAYLOAD_TOO_LARGE")),
        (pieces(PNG + b"x" * 500, 10), "image/png", [], (413, "PAYLOAD_TOO_LARGE")),
        (pieces(PNG, 10, then="leave"), "image/png", [], (400, "BODY_INCOMPLETE")),
        (PNG, "image/jpeg", [], (415, "UNSUPPORTED_MEDIA_TYPE")),
        (PNG, "image/png; charset=utf-8", [], (415, "UNSUPPORTED_MEDIA_TYPE")),
        (PNG, None, [], (415, "UNSUPPORTED_MEDIA_TYPE")),
        (PNG, "x" * 256, [], (415, "UNSUPPORTED_MEDIA_TYPE")),
        (PNG, "image/png", [("content-encoding", "gzip")], (415, "UNSUPPORTED_MEDIA_TYPE")),
        (PNG, "image/png", [("content-encoding", "br")], (415, "UNSUPPORTED_MEDIA_TYPE")),
        (PNG, "image/png", [("content-length", str(len(PNG) + 1))], (413, "PAYLOAD_TOO_LARGE")),
        (PNG, "image/png", [("content-length", str(2**40))], (413, "PAYLOAD_TOO_LARGE")),
        (PNG, "IMAGE/PNG", [], None),
        (PNG, "image/png", [("content-encoding", "identity")], None),
        (PNG, "image/png", [("content-length", "many")], None),
    ],
)
def test_bodies(tmp_path: Path, body: Any, type_: Any, headers: Any, said: Any) -> None:
    """Larger, smaller, cut off, of another type: refused, and nothing is stored (E.7)."""

    async def work(lab: Lab) -> None:
        presigned = await lab.presign()
        got = await lab.put(presigned["upload_url"], body, type_, headers)
        if said is None:
            assert got.status == 200
            assert len(await lab.keys()) == 1
        else:
            assert got.said == said
            assert await lab.keys() == []
            assert (await lab.commit(presigned)).said == (409, "UPLOAD_INCOMPLETE")
            assert (await lab.put(presigned["upload_url"])).status == 200

    run(tmp_path, work)


def test_reading_stops_at_the_size(tmp_path: Path) -> None:
    """What follows the first byte too many is not read (issue 5, bad input)."""

    async def work(lab: Lab) -> None:
        url = (await lab.presign())["upload_url"]
        path, _, query = url.removeprefix(ORIGIN).partition("?")
        sent: list[Any] = []
        taken = 0

        async def receive() -> Any:
            nonlocal taken
            taken += 1
            return {"type": "http.request", "body": bytes(len(PNG) - 1), "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "PUT",
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"content-type", b"image/png")],
        }
        await lab.world.app(scope, receive, send)
        assert (sent[0]["status"], taken) == (413, 2)

    run(tmp_path, work)


def test_objects_may_be_as_large_as_this(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MEDIA_OBJECT bytes; announced or not, one more is refused (E.7: 100 MB)."""

    async def work(lab: Lab) -> None:
        most = limits.MEDIA_OBJECT.value
        assert most == 100 * 1024 * 1024
        got = await lab.client("POST", "storage/presign", {**ASKED, "size_bytes": most + 1})
        assert got.said == (413, "PAYLOAD_TOO_LARGE")
        assert got.details == {"field": "$.size_bytes", "bytes_max": most}
        assert (await lab.client("POST", "storage/presign", {**ASKED, "size_bytes": most})).status
        monkeypatch.setattr(limits, "MEDIA_OBJECT", limits.Limit(100, "bytes", "", ""))
        created = (await lab.client("POST", "media/upload", {})).body
        for size, status in ((101, 413), (100, 200)):
            got = await lab.put(created["upload_url"], pieces(bytes(size), 7))
            assert got.status == status

    run(tmp_path, work)


def test_empty_objects(tmp_path: Path) -> None:
    """Zero bytes are a size, too."""

    async def work(lab: Lab) -> None:
        presigned = await lab.presign(size_bytes=0)
        assert (await lab.put(presigned["upload_url"], b"x")).said == (413, "PAYLOAD_TOO_LARGE")
        assert (await lab.put(presigned["upload_url"], b"")).status == 200
        asset = (await lab.commit(presigned)).data
        assert (await lab.cdn(asset["url"]))[::2] == (200, b"")

    run(tmp_path, work)


def test_large_uploads_do_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on disk no longer counts against the node's room for uploads."""

    async def work(lab: Lab) -> None:
        from amba_router.api.intake import Budget

        lab.world.app._bodies = Budget(50_000)  # pyright: ignore[reportPrivateUsage]
        body = bytes(1_000_000)
        presigned = await lab.presign(size_bytes=len(body))
        got = await lab.put(presigned["upload_url"], pieces(body, 40_000))
        assert got.status == 200

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"bucket": ""}, "$.bucket"),
        ({"bucket": "a/b"}, "$.bucket"),
        ({"bucket": ".."}, "$.bucket"),
        ({"bucket": "a\n"}, "$.bucket"),
        ({"bucket": "b" * 64}, "$.bucket"),
        ({"bucket": None}, "$.bucket"),
        ({"filename": ""}, "$.filename"),
        ({"filename": "f" * 256}, "$.filename"),
        ({"filename": "a\r\nb"}, "$.filename"),
        ({"filename": 1}, "$.filename"),
        ({"mime_type": "png"}, "$.mime_type"),
        ({"mime_type": "image/png\r\nx: y"}, "$.mime_type"),
        ({"mime_type": "image/" + "p" * 250}, "$.mime_type"),
        ({"mime_type": "text/plain; ü"}, "$.mime_type"),
        ({"size_bytes": -1}, "$.size_bytes"),
        ({"size_bytes": 1.5}, "$.size_bytes"),
        ({"size_bytes": "1"}, "$.size_bytes"),
        ({"size_bytes": None}, "$.size_bytes"),
        ({"retention_days": 0}, "$.retention_days"),
        ({"retention_days": 3651}, "$.retention_days"),
    ],
)
def test_presigns_that_are_refused(tmp_path: Path, changed: Any, field: str) -> None:
    """With the member that is wrong (E.7)."""

    async def work(lab: Lab) -> None:
        got = await lab.client("POST", "storage/presign", {**ASKED, **changed})
        assert (got.said, got.details["field"]) == ((400, "INVALID_INPUT"), field)

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("filename", "named"),
    [
        ("../../etc/passwd", "etc_passwd"),
        ("a b/ü☃?#%.png", "a_b_.png"),
        ("...", ""),
        ("' OR 1=1 --.txt", "OR_1_1_--.txt"),
        ("f" * 255, "f" * 255),
    ],
)
def test_keys_are_plain(tmp_path: Path, filename: str, named: str) -> None:
    """A file's name becomes a key that no URL trips over; the asset keeps the name itself."""

    async def work(lab: Lab) -> None:
        asset = await lab.upload(filename=filename)
        assert asset["key"] == asset["id"] + (f"/{named}" if named else "")
        assert asset["filename"] == filename
        assert (await lab.cdn(asset["url"]))[2] == PNG

    run(tmp_path, work)


def test_commits_that_are_refused(tmp_path: Path) -> None:
    """Another user's, another project's, mixed up, never presigned: 404 each (issue 5, line 2)."""

    async def work(lab: Lab) -> None:
        mine, also = await lab.presign(), await lab.presign()
        for presigned in (mine, also):
            await lab.put(presigned["upload_url"])
        missing = (404, "UPLOAD_NOT_FOUND")
        assert (await lab.commit(mine, "u_2")).said == missing
        assert (await lab.commit({**mine, "asset_id": also["asset_id"]})).said == missing
        assert (await lab.commit({**mine, "upload_id": "' OR 1=1 --"})).said == missing
        theirs = Lab(lab.world, await lab.world.project("Other"))
        assert (await theirs.commit(mine)).said == missing
        assert (await theirs.client("GET", "media")).body["total"] == 0
        for body in ({}, {"upload_id": 1, "asset_id": "x"}, {"upload_id": "", "asset_id": "x"}):
            got = await lab.client("POST", "storage/commit", body)
            assert got.said == (400, "INVALID_INPUT")
        anonymous = await lab.world.as_client(
            "POST", "/v1/client/storage/presign", ASKED, project=lab.project
        )
        assert anonymous.said == (401, "UNAUTHORIZED")
        assert (await lab.client("GET", "media")).body["total"] == 0
        assert (await lab.commit(mine)).status == 200

    run(tmp_path, work)


def test_uploads_that_are_not_done_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MEDIA_PENDING of a user, whoever else uploads; MEDIA_ASSETS of a project (ours)."""

    async def work(lab: Lab) -> None:
        monkeypatch.setattr(limits, "MEDIA_PENDING", limits.Limit(2, "uploads", "", ""))
        first = await lab.presign()
        await lab.client("POST", "media/upload", {})
        got = await lab.client("POST", "storage/presign", ASKED)
        assert got.said == (409, "CONFLICT")
        await lab.presign("u_2")
        await lab.put(first["upload_url"])
        assert (await lab.commit(first)).status == 200
        await lab.presign()
        monkeypatch.setattr(limits, "MEDIA_PENDING", limits.Limit(99, "uploads", "", ""))
        monkeypatch.setattr(limits, "MEDIA_ASSETS", limits.Limit(5, "assets", "", ""))
        await lab.presign()
        got = await lab.client("POST", "storage/presign", ASKED)
        assert got.said == (409, "CONFLICT")

    run(tmp_path, work)


def test_a_rotated_session_key_takes_its_urls_with_it(tmp_path: Path) -> None:
    """All keys that hold verify, the newest signs; others hold no more (ours)."""

    async def work(lab: Lab) -> None:
        world = lab.world
        old = await lab.presign()
        base = f"/v1/admin/projects/{lab.id}/internal-credentials"
        rotated = await world.post(f"{base}/rotate", {"which": "session_key"})
        assert rotated.status in (200, 201), rotated.raw
        new = await lab.presign()
        assert (await lab.put(old["upload_url"])).status == 200
        keys = world.app.directory.credentials[lab.id].session
        assert len(keys) == 2
        assert (await world.delete(f"{base}/{keys[1].id}")).status == 200
        assert (await lab.put(old["upload_url"])).said == (403, "INVALID_SIGNATURE")
        assert (await lab.put(new["upload_url"])).status == 200

    run(tmp_path, work)


def test_an_upload_deleted_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    """Its object goes, whichever of the two is first (E.7)."""

    async def work(lab: Lab) -> None:
        presigned = await lab.presign()
        created = (await lab.client("POST", "media/upload", {})).body
        uploads: list[tuple[str, str]] = [
            (presigned["upload_url"], presigned["asset_id"]),
            (created["upload_url"], created["data"]["id"]),
        ]
        for url, id_ in uploads:

            async def slowly(id_: str = id_) -> Any:
                assert (await lab.client("DELETE", f"media/{id_}")).status == 200
                return {"type": "http.request", "body": PNG, "more_body": False}

            target = url.removeprefix(ORIGIN)
            sent: list[Any] = []

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            scope = {
                "type": "http",
                "method": "PUT",
                "path": target.partition("?")[0],
                "query_string": target.partition("?")[2].encode(),
                "headers": [(b"content-type", b"image/png")],
            }
            await lab.world.app(scope, slowly, send)
            assert sent[0]["status"] == 404
        assert await lab.keys() == []

    run(tmp_path, work)


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


def test_a_key_of_storage_is_not_overwritten_by_users(tmp_path: Path) -> None:
    """A presigned PUT of a user creates, or replaces its own; nobody else's (ours, E.7)."""

    async def work(lab: Lab) -> None:
        own = await lab.upload()
        await lab.world.storage.put(
            ProjectId(lab.id), "site/logo", one(b"logo"), metadata=Metadata({})
        )

        async def put_to(bucket: str, key: str, user: str = "u_1", body: bytes = b"new") -> Any:
            asked = {"bucket": bucket, "key": key, "method": "PUT"}
            got = await lab.client("POST", "media/presign", asked, user)
            return got.said if got.status != 200 else await lab.put(got.data["url"], body, "a/b")

        assert await put_to("avatars", own["key"], "u_2") == (403, "PROJECT_FORBIDDEN")
        assert (await put_to("site", "logo")).said == (409, "UPLOAD_DONE")
        assert (await put_to("site", "logo", body=b"logo")).said == (409, "UPLOAD_DONE")
        assert (await put_to("site", "mine/1")).status == 200
        assert (await put_to("site", "mine/1")).said == (409, "UPLOAD_DONE")
        assert (await put_to("avatars", own["key"])).status == 200
        status, headers, body = await lab.cdn(own["url"])
        assert (status, headers["content-type"], body) == (200, "a/b", b"new")
        shown = (await lab.client("GET", f"media/{own['id']}")).data
        assert (shown["size_bytes"], shown["mime_type"]) == (3, "a/b")
        got = await lab.client(
            "POST", "media/presign", {"bucket": "avatars", "key": "k", "method": "PUT"}
        )
        track = {"bucket": "avatars", "key": "k"}
        await lab.world.storage.put(ProjectId(lab.id), "avatars/k", one(b"theirs"))
        assert (await lab.world.post(f"{lab.admin}/track", track)).status == 200
        assert (await lab.put(got.data["url"])).said == (403, "PROJECT_FORBIDDEN")

    run(tmp_path, work)
