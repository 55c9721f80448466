"""The dev loop on the real engine: what is saved is served, and no request fails because of it."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from tests.run.serving import Dev, function
from tests.waiting import pause, until

T = TypeVar("T")

pytestmark = pytest.mark.slow

STEADY = """
let requests = 0;
export default { fetch: () => new Response(String(++requests)) };
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is served."""
    place = tmp_path_factory.mktemp("functions")
    (place / "steady.ts").write_text(STEADY)
    return place


@pytest.fixture(scope="module")
def dev(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One server for all tests here: each test has functions of its own."""
    with Dev(folder, "--ephemeral", data_home=tmp_path_factory.mktemp("data")) as server:
        # the first look at the folder comes with the first watch: a new file proves it stands
        (folder / "first.js").write_text(function("'first'"))
        server.event("reload", name="first")
        yield server
    assert server.process.returncode == 0
    assert server.talk == []


def save(dev: Dev, path: Path, text: str, *, name: str | None = None) -> None:
    """Write a file and wait until its function is served anew."""
    since = dev.mark()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    dev.event("reload", since=since, name=name or path.stem)


def test_a_save_is_served(dev: Dev, folder: Path) -> None:
    """A change rebuilds, starts the new version and switches (issue 2, item 6)."""
    path = folder / "saved.ts"
    save(dev, path, function("'one' as string"))
    assert dev.ask("saved") == "one"
    since = dev.mark()
    path.write_text(function("'two' as string"))
    event = dev.event("reload", since=since, name="saved")
    assert dev.ask("saved") == "two"
    assert event["version"] == 2
    assert 0 < event["ms"] < 5000


@pytest.mark.parametrize("style", ["rename over", "move away, write anew", "remove, write anew"])
def test_an_editors_way_to_save(dev: Dev, folder: Path, style: str) -> None:
    """Editors replace files: none of their ways is missed, or makes the function a 404."""
    name = "edited-" + style.split(",", maxsplit=1)[0].replace(" ", "-")
    path = folder / f"{name}.js"
    save(dev, path, function("'old'"))
    since = dev.mark()
    seen: set[int] = set()
    over = threading.Event()

    def keep_asking() -> None:
        while not over.is_set():
            seen.add(dev.get(f"/fn/local/{name}").status)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        fresh = folder / f".{name}.swp"
        fresh.write_text(function("'new'"))
        if style == "rename over":
            fresh.replace(path)
        elif style == "move away, write anew":
            path.rename(folder / f"{name}.js~")
            shutil.copy(fresh, path)
        else:
            path.unlink()
            (folder / "4913").write_text("vim asks whether it may write here")
            (folder / "4913").unlink()
            shutil.copy(fresh, path)
        dev.event("reload", since=since, name=name)
    finally:
        over.set()
        asking.join()
    assert dev.ask(name) == "new"
    assert seen == {200}
    assert [e for e in dev.events[since:] if e["event"] == "build_failed"] == []


def test_half_a_save_is_no_failure(dev: Dev, folder: Path) -> None:
    """A shell's `>` empties the file before it writes: what is between the two is not told."""
    path = folder / "hurried.js"
    save(dev, path, function("'0'"))
    since = dev.mark()
    for count in range(1, 9):
        with path.open("w") as half:
            pause(0.02, "long enough for a build of the empty file")
            half.write(function(f"'{count}'"))
    until(lambda: dev.ask("hurried") == "8")
    assert [e for e in dev.events[since:] if e["event"] == "build_failed"] == []


def test_an_empty_file_is_told_whatever_its_time(dev: Dev, folder: Path) -> None:
    """Also where a file's time is ahead of ours, as on a mounted disk: nothing is swallowed."""
    path = folder / "ahead.js"
    save(dev, path, function("'here'"))
    since = dev.mark()
    fresh = folder / ".ahead"
    fresh.write_text("")
    ahead_s = time.time() + 3600
    os.utime(fresh, (ahead_s, ahead_s))
    fresh.replace(path)
    failed = dev.event("build_failed", since=since, name="ahead")
    assert "ahead.js: is empty" in failed["errors"][0]["message"]
    path.unlink()


@pytest.mark.parametrize("way", ["removed", "renamed"])
def test_a_replaced_subfolder_is_seen(dev: Dev, folder: Path, way: str) -> None:
    """A checkout or a script puts a new folder in its place: that is served, and later saves."""
    lib, name = folder / f"lib-{way}", f"uses-{way}"
    lib.mkdir()
    (lib / "value.js").write_text("export const v = 'v1';")
    call = function("v")
    save(dev, folder / f"{name}.js", f"import {{ v }} from './lib-{way}/value.js';\n{call}")
    assert dev.ask(name) == "v1"
    since = dev.mark()
    fresh = folder / "_fresh"
    fresh.mkdir()
    (fresh / "value.js").write_text("export const v = 'v2';")
    os.utime(fresh / "value.js", (1e9, 1e9))  # older than what it replaces
    if way == "removed":
        shutil.rmtree(lib)
    else:
        lib.rename(folder / "_aside")
    fresh.rename(lib)
    dev.event("reload", since=since, name=name)
    assert dev.ask(name) == "v2"
    since = dev.mark()
    (lib / "value.js").write_text("export const v = 'v3';")
    dev.event("reload", since=since, name=name)
    assert dev.ask(name) == "v3"
    shutil.rmtree(folder / "_aside", ignore_errors=True)


@pytest.mark.parametrize("way", ["removed", "renamed"])
def test_the_replaced_folder_itself_is_seen(tmp_path: Path, way: str) -> None:
    """PATH may be removed and written anew, or swapped for another: saves after it are served."""
    place = tmp_path / "functions"
    place.mkdir()
    (place / "here.js").write_text(function("'v1'"))
    with Dev(place, "--ephemeral", data_home=tmp_path / "data") as own:
        (place / "first.js").write_text(function("'first'"))
        own.event("reload", name="first")  # the watch stands
        since = own.mark()
        if way == "removed":
            shutil.rmtree(place)
            place.mkdir()
            (place / "here.js").write_text(function("'v2'"))
        else:
            fresh = tmp_path / "fresh"
            fresh.mkdir()
            (fresh / "here.js").write_text(function("'v2'"))
            place.rename(tmp_path / "aside")
            fresh.rename(place)
        own.event("reload", since=since, name="here")
        assert own.ask("here") == "v2"
        since = own.mark()
        (place / "here.js").write_text(function("'v3'"))
        own.event("reload", since=since, name="here")
        assert own.ask("here") == "v3"
        until(lambda: own.get("/fn/local/first").status == 404)
    assert own.talk == []


def test_a_new_file_and_a_new_folder_are_served(dev: Dev, folder: Path) -> None:
    """What appears in PATH is a function from then on (interface.md 2)."""
    assert dev.get("/fn/local/arrived").status == 404
    save(dev, folder / "arrived.js", function("'here'"))
    assert dev.ask("arrived") == "here"
    save(dev, folder / "moved-in" / "index.ts", function("'in a folder'"), name="moved-in")
    assert dev.ask("moved-in") == "in a folder"


def test_a_removed_file_is_a_404(dev: Dev, folder: Path) -> None:
    """What leaves PATH is no function any more; its process ends; back again, it counts on."""
    save(dev, folder / "leaving.js", function("'v1'"))
    save(dev, folder / "leaving.js", function("'v2'"))
    since = dev.mark()
    (folder / "leaving.js").unlink()
    until(lambda: dev.get("/fn/local/leaving").status == 404)
    (folder / "leaving.js").write_text(function("'v3'"))
    assert dev.event("reload", since=since, name="leaving")["version"] == 3
    assert dev.ask("leaving") == "v3"


def test_an_imported_file_counts(dev: Dev, folder: Path) -> None:
    """Exactly the files of the metafile are watched: code, JSON and text that is imported."""
    parts = folder / "_parts" / "deep"
    parts.mkdir(parents=True)
    (parts / "code.ts").write_text("export const code: string = 'a';")
    (parts / "data.json").write_text('{"n": 1}')
    (parts / "note.txt").write_text("x")
    before = (
        "import { code } from './_parts/deep/code';\nimport data from './_parts/deep/data.json';\n"
        "import note from './_parts/deep/note.txt';"
    )
    save(dev, folder / "importer.ts", function("code + data.n + note", before=before))
    assert dev.ask("importer") == "a1x"
    save(dev, parts / "code.ts", "export const code: string = 'b';", name="importer")
    assert dev.ask("importer") == "b1x"
    save(dev, parts / "data.json", '{"n": 2}', name="importer")
    assert dev.ask("importer") == "b2x"
    save(dev, parts / "note.txt", "y", name="importer")
    assert dev.ask("importer") == "b2y"


def test_a_broken_build_keeps_the_old_version(dev: Dev, folder: Path) -> None:
    """All errors are told, a browser sees them, everybody else gets the old version."""
    path = folder / "breaking.ts"
    save(dev, path, function("'good'"))
    since = dev.mark()
    path.write_text("const a: = 1;\nimport './_nowhere';\nexport default { fetch( };\n")
    event = dev.event("build_failed", since=since, name="breaking")
    assert event["errors"][0]["file"] == "breaking.ts"
    assert event["errors"][0]["line"] == 1
    assert dev.get("/fn/local/breaking").text == "good"
    page = dev.get("/fn/local/breaking", Accept="text/html,application/xhtml+xml;q=0.9")
    assert page.status == 500
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "breaking.ts:1:" in page.text
    assert dev.get("/fn/local/breaking", method="HEAD", Accept="text/html").body == b""
    save(dev, path, function("'mended'"))
    assert dev.get("/fn/local/breaking", Accept="text/html").text == "mended"


def test_undoing_the_mistake_heals_without_a_restart(dev: Dev, folder: Path) -> None:
    """The version that served all along is the newest again, its state untouched."""
    path = folder / "undone.ts"
    save(dev, path, STEADY)
    assert dev.ask("undone") == "1"
    since = dev.mark()
    path.write_text("nonsense(")
    dev.event("build_failed", since=since, name="undone")
    save(dev, path, STEADY)
    assert dev.get("/fn/local/undone", Accept="text/html").text == "2"


def test_a_bundle_that_throws_at_its_top_level_is_refused(dev: Dev, folder: Path) -> None:
    """It never serves; the old version does, and the place is told in the user's own file."""
    path = folder / "thrower.ts"
    save(dev, path, function("'calm'"))
    since = dev.mark()
    path.write_text("\n\nthrow new Error('no key');\nexport default { fetch() {} };\n")
    event = dev.event("rejected", since=since, name="thrower")
    violation = event["violations"][0]
    assert violation["code"] == "TOP_LEVEL_FAILED"
    assert "no key" in violation["message"]
    assert "thrower.ts:3" in violation["stack"]
    assert dev.ask("thrower") == "calm"
    page = dev.get("/fn/local/thrower", Accept="text/html")
    assert (page.status, "no key" in page.text) == (500, True)


def test_a_change_that_changes_nothing_restarts_nothing(dev: Dev, folder: Path) -> None:
    """A touched file, or a new comment, gives the same bundle: the version goes on living."""
    path = folder / "unchanged.ts"
    save(dev, path, STEADY)
    assert dev.ask("unchanged") == "1"
    since = dev.mark()
    path.write_text("// a remark\n" + STEADY)
    save(dev, folder / "after-unchanged.js", function("'told'"))
    save(dev, folder / "after-unchanged.js", function("'told again'"))
    assert dev.ask("unchanged") == "2"
    assert [e for e in dev.events[since:] if e.get("name") == "unchanged"] == []


def test_a_stack_leads_to_the_newest_lines_of_an_unchanged_bundle(dev: Dev, folder: Path) -> None:
    """A comment above moves the lines though the code stays: stacks follow."""
    path = folder / "lines.ts"
    body = "export default { fetch() {\n  throw new Error('here');\n} };\n"
    save(dev, path, body)
    path.write_text("// one\n// two\n" + body)
    save(dev, folder / "after-lines.js", function("'told'"))
    save(dev, folder / "after-lines.js", function("'told again'"))
    since = dev.mark()
    assert dev.get("/fn/local/lines").status == 500
    event = dev.event("request", since=since, function="lines")
    assert "lines.ts:4:" in event["exceptions"][0]["Stack"]


def test_a_request_under_way_ends_on_the_version_it_began_with(dev: Dev, folder: Path) -> None:
    """The old version drains: what it had begun, it finishes (architecture.md 4, step 10)."""

    def source(version: str) -> str:
        return function(
            "pair.readable",
            before=f"const version = '{version} ';\nconst encoder = new TextEncoder();",
        ).replace(
            "    return",
            "    const pair = new TransformStream();\n"
            "    const writer = pair.writable.getWriter();\n"
            "    ctx.waitUntil((async () => {\n"
            "      await writer.write(encoder.encode(version));\n"
            "      for await (const part of request.body ?? []) await writer.write(part);\n"
            "      await writer.close();\n"
            "    })());\n"
            "    return",
        )

    save(dev, folder / "draining.js", source("old"))
    with dev.connection() as connection:
        connection.putrequest("POST", "/fn/local/draining")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        response = connection.sock
        assert response is not None
        connection.send(b"2\r\n1,\r\n")
        seen = b""
        while b"old" not in seen:
            seen += response.recv(4096)
        save(dev, folder / "draining.js", source("new"))
        assert dev.ask("draining") == "new "
        connection.send(b"1\r\n2\r\n0\r\n\r\n")
        while not seen.endswith(b"0\r\n\r\n"):
            more = response.recv(4096)
            assert more, seen
            seen += more
    assert re.sub(rb"\r\n[0-9a-f]+\r\n", b"", seen.split(b"\r\n\r\n", 1)[1]).count(b"new") == 0
    assert b"2" in seen.split(b"old", 1)[1]


def test_a_storm_of_reloads_fails_no_request(dev: Dev, folder: Path) -> None:
    """30 reloads under the load of 8 connections: none fails, nothing is left (Must show 9)."""
    path = folder / "storm.js"
    save(dev, path, function("'v0'"))
    assert dev.ask("storm") == "v0"
    processes, descriptors = until(lambda: rest(dev))
    over = threading.Event()
    failures: list[str] = []
    answered: list[int] = []

    def load() -> None:
        count = 0
        with dev.connection() as connection:
            while not over.is_set():
                try:
                    connection.request("GET", "/fn/local/storm")
                    response = connection.getresponse()
                    body = response.read()
                except (OSError, http.client.HTTPException) as error:
                    failures.append(repr(error))
                    return
                if response.status != 200 or re.fullmatch(rb"v\d+", body) is None:
                    failures.append(f"{response.status} {body!r}")
                count += 1
        answered.append(count)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 31):
            save(dev, path, function(f"'v{number}'"))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert sum(answered) > 30
    assert dev.ask("storm") == "v30"
    # one more, so that the connections to the engine that the load made are gone as well
    save(dev, path, function("'calm'"))
    assert dev.ask("storm") == "calm"
    until(lambda: (now := rest(dev)) and now[0] == processes and now[1] <= descriptors)


def test_versions_that_were_replaced_leave_no_process(dev: Dev, folder: Path) -> None:
    """One engine process per function that serves, however often it was saved."""
    for number in range(4):
        save(dev, folder / "replaced.js", function(f"'{number}'"))
    until(lambda: len(dev.engines()) == len(served(folder)))


def served(folder: Path) -> list[Path]:
    """The entry files in the folder."""
    return [*folder.glob("*.js"), *folder.glob("*.ts"), *folder.glob("*/index.*")]


def rest(dev: Dev) -> tuple[int, int] | None:
    """Processes and open descriptors of the server, once every old version is gone."""
    engines = dev.engines()
    try:
        # within the strongest walls each engine has one of these above it
        children = [child for child in dev.descendants() if child.name() != "bwrap"]
    except psutil.Error:
        return None  # one of them has just ended
    if len(children) != len(engines) + 2:  # the spawner and esbuild
        return None
    return len(children), len(os.listdir(f"/proc/{dev.process.pid}/fd"))
