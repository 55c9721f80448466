"""The multipart body of an upload, exactly as contract D.2 has it, and what it must not be."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.router.control.world import (
    CODE,
    FakeTrial,
    Got,
    Part,
    World,
    meta,
    multipart,
    pieces,
    script,
)

from amba_router.api.faults import Refused
from amba_router.api.intake import Body
from amba_router.control.multipart import read_upload
from amba_runtime import limits
from amba_runtime.clock import ManualClock

MAP = b'{"version":3,"sources":["hello.ts"],"mappings":""}'
BAD = (400, "INVALID_UPLOAD")


def uploaded(tmp_path: Path, *parts: Part, **more: Any) -> tuple[Got, list[FakeTrial]]:
    """The answer to one upload, and what was put on trial."""

    async def main() -> tuple[Got, list[FakeTrial]]:
        async with World(tmp_path) as world:
            project = await world.project()
            got = await world.upload(project["id"], parts, **more)
            assert len(world.host.serving) == (1 if got.status == 201 else 0)
            return got, world.host.trials

    return asyncio.run(main())


def in_world(tmp_path: Path, work: Callable[[World, str], Awaitable[None]]) -> None:
    """Run `work` with a world and a project's id."""

    async def main() -> None:
        async with World(tmp_path) as world:
            await work(world, (await world.project())["id"])

    asyncio.run(main())


@pytest.mark.parametrize(
    "parts",
    [
        (script(), meta()),
        (meta(), script()),
        (Part("sourcemap", MAP, "hello.js.map", "application/json"), meta(), script()),
        (script(), Part("metadata", b'{"name": "hello"}')),
        (script(), Part("metadata", b'{"name": "hello"}', None, "text/plain")),
        (script(type_="application/javascript"), meta(type_="application/json; charset=UTF-8")),
        (script(type_='text/javascript; charset="utf-8"'), meta()),
        (Part("script", CODE), meta()),
        (script(), meta(), Part("other", b"a field of a later release")),
        (script(extra="\r\nContent-Transfer-Encoding: binary"), meta()),
        (script(CODE + b"\r\n--X\r\n--XY--\r\n"), meta()),
    ],
)
def test_what_is_an_upload(tmp_path: Path, parts: tuple[Part, ...]) -> None:
    """Any order; metadata as a file or a plain field; unknown fields are ignored (D.2)."""
    got, trials = uploaded(tmp_path, *parts)
    assert got.status == 201, got.raw
    wanted = next(part.body for part in parts if part.name == "script")
    assert [trial.bundle.code for trial in trials] == [wanted]
    has_map = any(part.name == "sourcemap" for part in parts)
    assert trials[0].bundle.source_map == (MAP if has_map else None)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), BAD),
        ((meta(),), BAD),
        ((script(),), (400, "INVALID_METADATA")),
        ((script(), meta(), meta()), BAD),
        ((script(), meta(), Part("sourcemap", MAP), Part("sourcemap", MAP)), BAD),
        ((script(type_="text/html"), meta()), BAD),
        ((script(type_="application/json"), meta()), BAD),
        ((script(type_="application/octet-stream"), meta()), BAD),
        ((script(type_="not a type"), meta()), BAD),
        ((script(type_=None), meta()), BAD),
        ((script(type_="application/javascript+module; charset=latin-1"), meta()), BAD),
        ((script(), meta(type_="text/yaml")), BAD),
        ((script(), Part("metadata", b"{}", None, "text/yaml")), BAD),
        ((script(), meta(), Part("sourcemap", MAP, "m", "text/css")), BAD),
        ((script(extra="\r\nContent-Transfer-Encoding: base64"), meta()), BAD),
        ((script(extra="\r\nContent-Type: text/css"), meta()), BAD),
        ((Part(None, b"x"), script(), meta()), BAD),
        ((*[Part(f"p{n}", b"") for n in range(33)], script(), meta()), BAD),
        ((script(), meta(b"")), (400, "INVALID_METADATA")),
        ((script(extra="\r\n" + "X-A: b\r\n" * 8), meta()), BAD),
        ((script(extra="\r\nX-A: " + "b" * 5000), meta()), BAD),
    ],
)
def test_what_is_none(tmp_path: Path, parts: tuple[Part, ...], expected: tuple[int, str]) -> None:
    """Missing, doubled, mistyped and too many parts are named; nothing is started (issue 3)."""
    got, trials = uploaded(tmp_path, *parts)
    assert got.said == expected, got.raw
    assert trials == []


@pytest.mark.parametrize(
    "parts",
    [
        (script(), meta(), script()),
        (script(), meta(), Part("helper.js", b"export {}", "helper.js", "text/javascript")),
    ],
)
def test_more_than_one_file(tmp_path: Path, parts: tuple[Part, ...]) -> None:
    """A function is one module: DEPLOY_REJECTED says so (B, D.3)."""
    got, trials = uploaded(tmp_path, *parts)
    assert got.said == (400, "DEPLOY_REJECTED")
    assert got.details["upstream_status"] == 400
    assert [v["code"] for v in got.details["violations"]] == ["MULTIPLE_FILES"]
    assert trials == []


def test_an_empty_script_is_for_admission_to_judge(tmp_path: Path) -> None:
    """The one place for rules on a bundle is admission (D.3)."""
    _, trials = uploaded(tmp_path, script(b""), meta())
    assert trials[0].bundle.code == b""


@pytest.mark.parametrize(
    "type_",
    [
        *("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data;boundary"),
        *('multipart/form-data; boundary="é"', f"multipart/form-data; boundary={'b' * 71}"),
        'multipart/form-data; boundary="a\tb"',
    ],
)
def test_a_boundary_that_is_none(tmp_path: Path, type_: str) -> None:
    """1 to 70 printable characters (RFC 2046 5.1.1)."""
    assert uploaded(tmp_path, script(), meta(), type_=type_)[0].said == BAD


@pytest.mark.parametrize(
    "type_",
    [
        *("application/json", "multipart/mixed; boundary=XX", "", None),
        *("application/x-www-form-urlencoded", "nonsense"),
    ],
)
def test_an_upload_that_is_no_form(tmp_path: Path, type_: str | None) -> None:
    """Another content type is 415."""
    got = uploaded(tmp_path, script(), meta(), type_=type_)[0]
    assert got.said == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not multipart at all",
        multipart([script(), meta()], boundary="YY"),
        multipart([script(), meta()], closed=False),
        multipart([script(), meta()])[:-20],
        b"--XX\r\nContent-Disposition form-data\r\n\r\nx\r\n--XX--\r\n",
        b"--XX\r\n\r\nno headers\r\n--XX--\r\n",
        b"\r\n" * 50_000,
    ],
)
def test_a_body_that_is_no_multipart(tmp_path: Path, body: bytes) -> None:
    """Cut off, another boundary, no head: 400, said what is wrong."""
    assert uploaded(tmp_path, body=body or b"\r\n")[0].said == BAD


@pytest.mark.parametrize(
    ("name", "limit", "code"),
    [
        ("metadata", limits.CONTROL_METADATA_BYTES, "INVALID_METADATA"),
        ("sourcemap", limits.SOURCE_MAP, "INVALID_UPLOAD"),
    ],
)
@pytest.mark.slow
def test_a_part_that_is_too_long(tmp_path: Path, name: str, limit: limits.Limit, code: str) -> None:
    """At the limit it is read, one byte more is refused (D.2)."""

    async def work(world: World, project_id: str) -> None:
        for size, refused in ((limit.value, False), (limit.value + 1, True)):
            padded = b'{"name": "hello"}'.ljust(size)
            parts = [script(), meta(), Part(name, padded, "f", "application/json")]
            if name == "metadata":
                del parts[1]
            got = await world.upload(project_id, parts)
            assert (got.status == 201) is not refused
            if refused:
                assert got.said == (400, code)
                assert got.details["part"] == name

    in_world(tmp_path, work)


def test_it_is_read_piece_by_piece(tmp_path: Path) -> None:
    """However the bytes are cut, the parts are the same."""

    async def work(world: World, project_id: str) -> None:
        code = CODE + b"//\r\n--X" * 20
        whole = multipart([script(code), meta()])
        for size in (1, 2, 3, 7, 64):
            got = await world.upload(project_id, [], body=pieces(whole, size))
            assert got.status == 201
        assert {trial.bundle.code for trial in world.host.trials} == {code}

    in_world(tmp_path, work)


@given(
    st.binary(max_size=200).filter(lambda b: b"--B" not in b),
    st.binary(max_size=60).filter(lambda b: b"--B" not in b),
    st.integers(1, 40),
)
def test_any_bytes_come_through(code: bytes, metadata: bytes, size: int) -> None:
    """Parts are what was sent, byte for byte, wherever the pieces were cut."""
    body = multipart([script(code), meta(metadata)], boundary="B")

    async def main() -> None:
        messages = pieces(body, size)

        async def receive() -> Any:
            return messages.pop(0)

        fields = ((b"content-type", b"multipart/form-data; boundary=B"),)
        read = await read_upload(Body(receive, fields, clock=ManualClock(), bytes_max=limits.MIB))
        assert (read.script, read.metadata) == (code, metadata)

    asyncio.run(main())


@given(st.binary(max_size=300), st.integers(1, 50))
def test_rubbish_is_refused_and_nothing_else_happens(body: bytes, size: int) -> None:
    """No bytes make the parser fail in another way."""

    async def main() -> None:
        messages = pieces(b"--B\r\n" + body, size)

        async def receive() -> Any:
            return messages.pop(0)

        fields = ((b"content-type", b"multipart/form-data; boundary=B"),)
        with pytest.raises(Refused) as caught:
            await read_upload(Body(receive, fields, clock=ManualClock(), bytes_max=limits.MIB))
        assert caught.value.fault.status in (400, 415)

    asyncio.run(main())


def test_gzip_as_content_encoding(tmp_path: Path) -> None:
    """The whole form may be gzipped once (reliability D5)."""

    async def work(world: World, project_id: str) -> None:
        body = gzip.compress(multipart([script(), meta()]))
        for encoding in ("gzip", "GZIP", "x-gzip"):
            got = await world.upload(
                project_id, [], body=body, headers=[("Content-Encoding", encoding)]
            )
            assert got.status == 201
        for encoding in ("br", "zstd", "deflate", "gzip, gzip", "compress", "gzip;q=1"):
            got = await world.upload(
                project_id, [], body=body, headers=[("Content-Encoding", encoding)]
            )
            assert got.said == (415, "UNSUPPORTED_MEDIA_TYPE")
        for wrong in (body[:-1], body[:10], body + b"x", body + body, b"not gzip", CODE):
            got = await world.upload(
                project_id, [], body=wrong, headers=[("Content-Encoding", "gzip")]
            )
            assert got.said == (400, "INVALID_ENCODING"), wrong

    in_world(tmp_path, work)


@pytest.mark.slow
def test_a_gzip_bomb_is_stopped_at_the_cap(tmp_path: Path) -> None:
    """64 MiB, or 200 to 1 from 1 MiB on: BUNDLE_TOO_LARGE, and no more is unpacked (D5)."""

    async def work(world: World, project_id: str) -> None:
        bomb = gzip.compress(multipart([script(bytes(80 * limits.MIB)), meta()]), 9)
        got = await world.upload(
            project_id, [], body=pieces(bomb), headers=[("Content-Encoding", "gzip")]
        )
        assert got.said == (400, "DEPLOY_REJECTED")
        assert [v["code"] for v in got.details["violations"]] == ["BUNDLE_TOO_LARGE"]
        assert world.host.trials == []

    in_world(tmp_path, work)


@pytest.mark.slow
def test_a_request_over_64_mib(tmp_path: Path) -> None:
    """413, and reading stops there; a Content-Length that says so is believed at once (D.3)."""

    async def work(world: World, project_id: str) -> None:
        most = limits.CONTROL_UPLOAD_BYTES.value
        got = await world.upload(
            project_id, [], body=[], headers=[("Content-Length", str(most + 1))]
        )
        assert got.said == (413, "PAYLOAD_TOO_LARGE")
        messages = pieces(multipart([script(bytes(most)), meta()]), limits.MIB)
        got = await world.upload(project_id, [], body=messages)
        assert got.said == (413, "PAYLOAD_TOO_LARGE")
        # whoever lies about the length is found out by the bytes
        got = await world.upload(project_id, [], body=messages, headers=[("Content-Length", "10")])
        assert got.said == (413, "PAYLOAD_TOO_LARGE")

    in_world(tmp_path, work)


def test_a_client_that_leaves(tmp_path: Path) -> None:
    """A body that ends before it is complete is refused; nothing was started."""

    async def work(world: World, project_id: str) -> None:
        body = multipart([script(), meta()])
        got = await world.upload(project_id, [], body=pieces(body, 20, then="leave"))
        assert got.said == (400, "BODY_INCOMPLETE")
        assert world.host.trials == []

    in_world(tmp_path, work)


@pytest.mark.parametrize(("step_s", "steps"), [(31.0, 1), (20.0, 15)])
def test_a_body_that_never_ends(tmp_path: Path, step_s: float, steps: int) -> None:
    """30 s without a byte, or 300 s in all: 408 (chunked without end)."""

    async def work(world: World, project_id: str) -> None:
        body = multipart([script(), meta()])
        later = asyncio.Event()
        messages = pieces(body[: steps * 2], 2, then="hang")

        async def drip() -> Any:
            await later.wait()
            later.clear()
            return messages.pop(0) if messages else await asyncio.Future[Any]()

        fields = ((b"content-type", b"multipart/form-data; boundary=XX"),)
        reading = asyncio.create_task(
            read_upload(Body(drip, fields, clock=world.clock, bytes_max=limits.MIB))
        )
        for _ in range(steps):
            assert not reading.done()
            await world.clock.advance(step_s)
            later.set()
        with pytest.raises(Refused) as caught:
            await reading
        assert caught.value.fault.code == "REQUEST_TIMEOUT"

    in_world(tmp_path, work)


def test_uploads_share_a_budget(tmp_path: Path) -> None:
    """Bytes in memory are bounded over all uploads; what was held is given back (D5)."""

    async def work(world: World, project_id: str) -> None:
        budget = world.app._bodies  # pyright: ignore[reportPrivateUsage]
        budget.take(limits.CONTROL_UPLOADS_BYTES.value - 10)
        got = await world.deploy(project_id)
        assert got.said == (503, "OVERLOADED")
        assert got.headers["retry-after"] == "1"
        budget.give(limits.CONTROL_UPLOADS_BYTES.value - 10)
        assert (await world.deploy(project_id)).status == 201
        budget.take(limits.CONTROL_UPLOADS_BYTES.value)

    in_world(tmp_path, work)


def test_what_it_looks_like_from_the_platforms_own_command_line(tmp_path: Path) -> None:
    """The names, types and order that contract D.2 saw on the wire, byte for byte."""
    body = (
        b"------formdata-undici-012345678901\r\n"
        b'Content-Disposition: form-data; name="script"; filename="hello.js"\r\n'
        b"Content-Type: application/javascript+module\r\n\r\n"
        + CODE
        + b"\r\n------formdata-undici-012345678901\r\n"
        b'Content-Disposition: form-data; name="metadata"; filename="metadata.json"\r\n'
        b"Content-Type: application/json\r\n\r\n"
        + json.dumps({"name": "hello", "rate_limit": None}).encode()
        + b"\r\n------formdata-undici-012345678901--\r\n"
    )
    type_ = "multipart/form-data; boundary=----formdata-undici-012345678901"
    got, trials = uploaded(tmp_path, body=body, type_=type_)
    assert got.status == 201
    assert trials[0].name == "hello"
