"""The outbox over HTTP, and as files (contract E.11, H-8)."""

from __future__ import annotations

import asyncio
import email
import email.policy
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, Select
from tests.router.control.world import World
from tests.router.services.known_users import add_user

from amba_router.services.email import files
from amba_router.services.email.files import Outbox, message
from amba_router.store.email_rows import EmailRecord
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_runtime import limits

START = "2026-01-01T00:00:00.000Z"
PLAIN = {"to": {"email": "ada@example.com"}, "subject": "Hi", "text": "hello"}


def run(tmp_path: Path, work: Callable[[World, Any, str], Awaitable[None]]) -> None:
    """A world, a project with the user `u_1`, and the base of its email paths."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            await add_user(world, project, "u_1", "u1@example.com")
            await work(world, project, f"/v1/admin/projects/{project['id']}/email")

    asyncio.run(main())


def opened(world: World, row: Any) -> Any:
    """The file of a mail, as a mail program reads it."""
    raw = (world.folder / "state" / row["file"]).read_bytes()
    return email.message_from_bytes(raw, policy=email.policy.default)


def content(part: Any) -> str:
    """Its text; on the wire lines end in CRLF (RFC 5322)."""
    return str(part.get_content()).replace("\r\n", "\n")


async def outbox(world: World, base: str) -> list[Any]:
    return list((await world.get(f"{base}/outbox")).data)


def test_a_mail_is_sent_into_the_outbox(tmp_path: Path) -> None:
    """To an address, listed and as a file that opens; doubled keys (E.11, H-8)."""

    async def work(world: World, project: Any, base: str) -> None:
        body = {**PLAIN, "subject": "Grüße ☃", "text": "häl\nlo", "html": "<p>häl</p>"}
        got = await world.post(f"{base}/send", body)
        assert got.status == 200
        assert got.body == {"data": got.data, **got.data}
        assert set(got.data) == {"id", "status"}
        row = (await outbox(world, base))[0]
        assert row == {
            "id": got.data["id"],
            "to": "ada@example.com",
            "user_id": None,
            "template": None,
            "subject": "Grüße ☃",
            "file": f"outbox/{project['id']}/{got.data['id']}.eml",
            "created_at": START,
        }
        mail = opened(world, row)
        assert (mail["to"], mail["subject"]) == ("ada@example.com", "Grüße ☃")
        assert mail["date"].datetime.isoformat() == "2026-01-01T00:00:00+00:00"
        assert content(mail.get_body(("plain",))) == "häl\nlo\n"
        assert content(mail.get_body(("html",))) == "<p>häl</p>\n"
        whole = (await world.get(f"{base}/outbox/{row['id']}")).data
        assert whole == {**row, "html": "<p>häl</p>", "text": "häl\nlo", "data": {}}
        state = world.folder / "state" / "outbox"
        assert not list(state.rglob("*.part"))
        assert (state / project["id"]).stat().st_mode & 0o777 == 0o700

    run(tmp_path, work)


def test_html_alone(tmp_path: Path) -> None:
    """`html` without `text` is one part (E.11)."""

    async def work(world: World, _project: Any, base: str) -> None:
        to = {"user_id": "u_1"}
        await world.post(f"{base}/send", {"to": to, "subject": "S", "html": "<b>x</b>"})
        row = (await outbox(world, base))[0]
        assert (row["to"], row["user_id"]) == ("u1@example.com", "u_1")
        mail = opened(world, row)
        assert mail.get_content_type() == "text/html"
        assert content(mail) == "<b>x</b>\n"

    run(tmp_path, work)


def test_a_template_lists_its_data(tmp_path: Path) -> None:
    """Templates are scope 3: any name is taken, and its mail says what it was given (ours)."""

    async def work(world: World, _project: Any, base: str) -> None:
        data = {"name": "Ada", "items": [1, {"x": None}]}
        body = {"to": {"email": "ada@example.com"}, "template": "welcome_2", "data": data}
        sent = (await world.post(f"{base}/send", body)).data
        whole = (await world.get(f"{base}/outbox/{sent['id']}")).data
        assert (whole["template"], whole["subject"], whole["html"]) == (
            "welcome_2",
            "welcome_2",
            None,
        )
        assert whole["data"] == data
        assert whole["text"] == 'Template: welcome_2\n\nname: Ada\nitems: [1,{"x":null}]\n'
        assert content(opened(world, whole)) == whole["text"]

    run(tmp_path, work)


def test_functions_send_without_a_project_in_the_path(tmp_path: Path) -> None:
    """The 0.1.x SDK's form: the internal token says which project it is (E.11)."""

    async def work(world: World, project: Any, base: str) -> None:
        credentials = f"/v1/admin/projects/{project['id']}/internal-credentials"
        token = (await world.get(credentials)).data["internal_token"]
        for path in ("/v1/admin/internal/email/send", "/admin/internal/email/send"):
            got = await world.post(path, PLAIN, token=token)
            assert got.body["id"] == got.data["id"]
        assert len(await outbox(world, base)) == 2
        other = await world.project("Other")
        header = [("x-amba-project-id", other["id"])]
        got = await world.post("/admin/internal/email/send", PLAIN, token=token, headers=header)
        assert got.said == (403, "WRONG_PROJECT")
        got = await world.post("/admin/internal/email/send", PLAIN, token=None)
        assert got.said == (401, "UNAUTHORIZED")
        assert await outbox(world, f"/v1/admin/projects/{other['id']}/email") == []

    run(tmp_path, work)


def test_a_session_mails_its_user(tmp_path: Path) -> None:
    """`{message_id, status}`; nobody without an address is mailed; INVALID_BODY (E.11)."""

    async def work(world: World, project: Any, base: str) -> None:
        async def send(body: object, user: str = "u_1") -> Any:
            return await world.as_client(
                "POST", "/v1/client/email/send", body, project=project, user=user
            )

        got = await send({"template": "welcome", "data": {"a": 1}})
        row = (await outbox(world, base))[0]
        assert got.body == {"data": {"message_id": row["id"], "status": "sent"}}
        assert (row["to"], row["user_id"]) == ("u1@example.com", "u_1")
        for address in (None, "", "no address"):
            await add_user(world, project, "u_2", address)
            got = await send({"template": "welcome"}, "u_2")
            assert got.data == {"message_id": None, "status": "suppressed"}
        refused: tuple[object, ...] = (
            {},
            {"template": "No"},
            {"template": "x\n"},
            {"template": 3},
            {"template": "x", "data": []},
            {"template": "x", "data": {"a": "b" * limits.EMAIL_BODY.value}},
        )
        for body in refused:
            assert (await send(body)).said == (400, "INVALID_BODY"), body
        assert (await send([])).said == (400, "INVALID_INPUT")
        got = await send({"template": "x"}, "")
        assert got.said == (401, "UNAUTHORIZED")
        server = [("x-api-key", project["api_keys"]["server"]["key"])]
        got = await world.post(
            "/v1/client/email/send", {"template": "x"}, token=None, headers=server
        )
        assert got.said == (401, "UNAUTHORIZED")
        assert len(await outbox(world, base)) == 1

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "$"),
        ([], "$"),
        ({"to": {}, "subject": "s", "text": "t"}, "$.to"),
        ({"to": {"user_id": "u_1", "email": "a@b.c"}, "subject": "s", "text": "t"}, "$.to"),
        ({**PLAIN, "to": "ada@example.com"}, "$.to"),
        ({**PLAIN, "to": {"email": "ada"}}, "$.to.email"),
        ({**PLAIN, "to": {"email": "a@b.c\r\nBcc: x@y.z"}}, "$.to.email"),
        ({**PLAIN, "to": {"email": "a@b.c\n"}}, "$.to.email"),
        ({**PLAIN, "to": {"email": "a@b.c, x@y.z"}}, "$.to.email"),
        ({**PLAIN, "to": {"email": "A <a@b.c>"}}, "$.to.email"),
        ({**PLAIN, "to": {"email": "a@" + "b" * 254}}, "$.to.email"),
        ({**PLAIN, "subject": "Hi\r\nBcc: x@y.z"}, "$.subject"),
        ({**PLAIN, "subject": "Hi\n"}, "$.subject"),
        ({**PLAIN, "subject": "\0"}, "$.subject"),
        ({**PLAIN, "subject": ""}, "$.subject"),
        ({**PLAIN, "subject": "x" * 401}, "$.subject"),
        ({**PLAIN, "subject": None}, "$.subject"),
        ({"to": PLAIN["to"], "subject": "s"}, "$.subject"),
        ({**PLAIN, "text": 5}, "$.text"),
        ({**PLAIN, "text": "x" * (256 * 1024 + 1)}, "$.text"),
        ({**PLAIN, "html": "x" * (256 * 1024 + 1)}, "$.html"),
        ({**PLAIN, "template": "welcome"}, "$.template"),
        ({"to": PLAIN["to"], "template": "../x"}, "$.template"),
        ({"to": PLAIN["to"], "template": "t" * 101}, "$.template"),
        ({"to": PLAIN["to"], "template": "t", "data": "x"}, "$.data"),
        ({"to": PLAIN["to"], "template": "t", "data": {"x": "y" * 256 * 1024}}, "$.data"),
    ],
)
def test_mails_that_are_refused(tmp_path: Path, body: object, field: str) -> None:
    """With the field; a line break in an address or subject writes no header (E.11)."""

    async def work(world: World, _project: Any, base: str) -> None:
        got = await world.post(f"{base}/send", body)
        assert (got.said, got.details["field"]) == ((400, "INVALID_INPUT"), field)
        assert await outbox(world, base) == []
        assert not (world.folder / "state" / "outbox").exists()

    run(tmp_path, work)


def test_who_cannot_be_mailed(tmp_path: Path) -> None:
    """A user of nobody's or of another project is 404, one without address 400 (E.11)."""

    async def work(world: World, project: Any, base: str) -> None:
        other = await world.project("Other")
        await add_user(world, other, "theirs", "t@example.com")
        await add_user(world, project, "mute")
        for user, said in (
            ("theirs", (404, "USER_NOT_FOUND")),
            ("nobody", (404, "USER_NOT_FOUND")),
            ("mute", (400, "INVALID_INPUT")),
        ):
            got = await world.post(f"{base}/send", {**PLAIN, "to": {"user_id": user}})
            assert got.said == said
        assert await outbox(world, base) == []
        sent = (await world.post(f"{base}/send", PLAIN)).data
        theirs = f"/v1/admin/projects/{other['id']}/email/outbox/{sent['id']}"
        assert (await world.get(theirs)).said == (404, "NOT_FOUND")
        assert (await world.get(f"{base}/outbox/nothing")).said == (404, "NOT_FOUND")

    run(tmp_path, work)


def test_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMAILS_KEPT of a project, rows and files; pages newest first (ours)."""

    async def work(world: World, project: Any, base: str) -> None:
        monkeypatch.setattr(limits, "EMAILS_KEPT", limits.Limit(3, "mails", "", ""))
        for number in range(5):
            await world.post(f"{base}/send", {**PLAIN, "subject": f"n{number}"})
        rows = await outbox(world, base)
        assert [row["subject"] for row in rows] == ["n4", "n3", "n2"]
        folder = world.folder / "state" / "outbox" / project["id"]
        assert {f.name for f in folder.iterdir()} == {f"{row['id']}.eml" for row in rows}
        got = await world.get(f"{base}/outbox?offset=1&limit=1")
        assert [row["subject"] for row in got.data] == ["n3"]
        assert (got.body["total"], got.body["offset"], got.body["limit"]) == (3, 1, 1)
        assert (await world.get(f"{base}/outbox?limit=0")).said == (400, "INVALID_LIMIT")

    run(tmp_path, work)


def test_a_file_that_cannot_be_written_fails_no_send(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The row is the mail; the log tells of the file (ours)."""

    async def work(world: World, _project: Any, base: str) -> None:
        (world.folder / "state" / "outbox").write_text("in the way")
        assert (await world.post(f"{base}/send", PLAIN)).status == 200
        assert len(await outbox(world, base)) == 1
        assert "outbox.write_failed" in caplog.text

    run(tmp_path, work)


def test_mail_of_deleted_projects_is_swept(tmp_path: Path) -> None:
    """Folders of projects that are no more go; where there is no outbox, nothing is done."""

    async def work(world: World, project: Any, base: str) -> None:
        folder = world.folder / "state" / "outbox"
        swept, store = Outbox(folder.parent), ProjectStore(world.states)
        await swept.sweep({project["id"]}, store)
        assert not folder.exists()
        await world.post(f"{base}/send", PLAIN)
        (folder / "p-2").mkdir()
        (folder / "p-2" / "m.eml").write_text("x")
        await swept.sweep({project["id"]}, store)
        assert [one.name for one in folder.iterdir()] == [project["id"]]
        assert len(list((folder / project["id"]).iterdir())) == 1

    run(tmp_path, work)


def test_files_agree_with_rows_after_a_sweep(tmp_path: Path) -> None:
    """Files without a mail go, mails without a file get theirs: as after a restore (ours)."""

    async def work(world: World, project: Any, base: str) -> None:
        for subject in ("kept", "lost"):
            await world.post(f"{base}/send", {**PLAIN, "subject": subject, "html": "<b>x</b>"})
        lost, kept = await outbox(world, base)
        folder = world.folder / "state" / "outbox" / project["id"]
        (folder / f"{lost['id']}.eml").unlink()
        for name in ("gone.eml", "gone.abc.part", f"{kept['id']}.abc.part"):
            (folder / name).write_text("x")
        (folder / "in-the-way.eml").mkdir()
        await Outbox(world.folder / "state").sweep({project["id"]}, ProjectStore(world.states))
        assert {one.name for one in folder.iterdir()} == {f"{n['id']}.eml" for n in (lost, kept)}
        assert opened(world, lost)["subject"] == "lost"

    run(tmp_path, work)


def test_a_sweep_tells_of_the_disk_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not for each mail; one that cannot be a file keeps no other from it; no scraps (ours)."""

    async def work(world: World, project: Any, base: str) -> None:
        ids = [(await world.post(f"{base}/send", PLAIN)).data["id"] for _ in range(3)]
        outbox = Outbox(world.folder / "state")
        folder = world.folder / "state" / "outbox" / project["id"]
        store = ProjectStore(world.states)
        broken: list[Exception] = [ValueError("odd")]

        def fails(record: EmailRecord) -> bytes:
            if record.id == ids[0] or isinstance(broken[0], OSError):
                raise broken[0]
            return message(record)

        monkeypatch.setattr(files, "message", fails)
        for error, told, there in (
            (ValueError("odd"), "write_failed", set(ids[1:])),
            (OSError("full"), "sweep_failed", set[str]()),
        ):
            broken[0] = error
            shutil.rmtree(folder)
            caplog.clear()
            await outbox.sweep({project["id"]}, store)
            assert {one.name for one in folder.iterdir()} == {f"{id_}.eml" for id_ in there}
            assert [f"outbox.{told}" in line for line in caplog.messages] == [True]

    run(tmp_path, work)


def test_one_that_fails_ends_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells of it; what else is to go, goes (ours)."""

    async def work(world: World, project: Any, base: str) -> None:
        await world.post(f"{base}/send", PLAIN)
        folder = world.folder / "state" / "outbox"
        for name in ("p-1", "p-2", "p-3"):
            (folder / name).mkdir()
        (folder / project["id"] / "gone.eml").write_text("x")
        remove = shutil.rmtree

        def fails(path: Path) -> None:
            if path.name != "p-3":
                raise PermissionError(f"not {path.name}")
            remove(path)

        monkeypatch.setattr(shutil, "rmtree", fails)
        await Outbox(folder.parent).sweep({project["id"]}, ProjectStore(world.states))
        assert {one.name for one in folder.iterdir()} == {project["id"], "p-1", "p-2"}
        assert not (folder / project["id"] / "gone.eml").exists()
        assert caplog.text.count("outbox.sweep_failed") == 2

    run(tmp_path, work)


def test_a_list_reads_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies, 768 KiB a mail, stay where they are (ours)."""

    async def work(world: World, _project: Any, base: str) -> None:
        await world.post(f"{base}/send", {**PLAIN, "html": "<b>x</b>"})
        read: list[set[str]] = []
        rows = Scoped.rows

        def told(self: Scoped, query: Select[Any]) -> Sequence[Row[Any]]:
            read.append(set(query.selected_columns.keys()))
            return rows(self, query)

        monkeypatch.setattr(Scoped, "rows", told)
        assert len(await outbox(world, base)) == 1
        assert {"id", "recipient", "template", "subject", "user_id", "created_ms"} in read
        assert not any({"html", "text", "data"} & columns for columns in read)

    run(tmp_path, work)
