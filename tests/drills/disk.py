"""Row 11: a full disk, a read-only state directory, damaged pages and blobs.

Runs itself again inside a mount namespace of its own, where it may mount a small tmpfs.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from tests.drills.figures import Figure
from tests.drills.nodes import DrillError, NodeProcess, ask, create_project, tagged
from tests.drills.nodes import deploy as upload

from amba_runtime.errors import UserError

INSIDE = "--inside-a-namespace"


def run(folder: Path) -> list[Figure]:
    """The whole drill, or one line that says why not."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return [Figure("11", "disk drill", "not run: it needs root and unshare")]
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-m", "tests.drills.disk", INSIDE, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode != 0:
        return [Figure("11", "disk drill", (done.stderr or done.stdout)[-400:], "ends", False)]
    return [Figure(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def _last_error(log: Path) -> str:
    """The last error that the node told."""
    lines = log.read_text().splitlines()
    return next((line for line in lines[::-1] if line.startswith("error")), "no error was told")


def _expect(what: str, seen: str, good: bool) -> Figure:
    return Figure("11", what, seen[:120], "a clear error; nothing lost", good)


def _refusal(call: object) -> tuple[int, str]:
    """(status, code and message) of a call that must be refused."""
    assert callable(call)
    try:
        call()
    except UserError as error:
        return int(error.details.get("status", 0)), error.message
    return 0, "it was accepted"


def full(folder: Path) -> list[Figure]:
    """Fill the disk to its last byte, go on serving, make room, go on writing."""
    disk = folder / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    found: list[Figure] = []
    try:
        with NodeProcess(disk / "state", log=folder / "state.log") as node:
            project, slug = create_project(node, "disk")
            api = node.api(project)
            upload(api, "one", tagged("first"))
            filler = disk / "filler"
            with filler.open("wb") as file:
                try:
                    while True:
                        file.write(bytes(65536))
                        file.flush()
                except OSError:
                    pass
            status, said = _refusal(lambda: upload(api, "one", tagged("second", filler_bytes=9999)))
            found.append(_expect("full disk: a deploy", f"{status} {said}", status == 507))
            body = {"name": "MARK", "value": "x" * 40_000}
            status, said = _refusal(lambda: api.post(api.at("secrets"), body))
            found.append(_expect("full disk: a secret", f"{status} {said}", status == 507))
            answer = ask(node.port, f"/fn/{slug}/one")
            good = answer.status == 200 and answer.body.startswith("first ")
            found.append(_expect("full disk: a request", f"{answer.status} {answer.body}", good))
            filler.unlink()
            row = upload(api, "one", tagged("third"))
            answer = ask(node.port, f"/fn/{slug}/one")
            good = answer.body.startswith("third ")
            found.append(_expect("room again: a deploy", f"version {row['version']}", good))
            node.kill()
            node.start()
            answer = ask(node.port, f"/fn/{slug}/one")
            good = answer.body.startswith("third ")
            found.append(_expect("after kill -9", f"{answer.status} {answer.body}", good))
            node.stop()
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            try:
                node.start()
                found.append(_expect("read-only: a start", "it started", False))
            except DrillError:
                said = _last_error(folder / "state.log")
                found.append(_expect("read-only: a start", said, "STATE_READ_ONLY" in said))
            finally:
                subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    finally:
        subprocess.run(["umount", str(disk)], check=False)
    return found


def damaged(folder: Path) -> list[Figure]:
    """A page of the database, and a bundle, that are not what they were."""
    found: list[Figure] = []
    node = NodeProcess(folder / "damaged")
    with node:
        project, slug = create_project(node, "damage")
        api = node.api(project)
        row = upload(api, "bad", tagged("bad"))
        upload(api, "good", tagged("good"))
    state = node.state
    blob = next(state.glob(f"blobs/*/{row['bundle_sha']}"))
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with node:
        answer = ask(node.port, f"/fn/{slug}/bad")
        found.append(_expect("a damaged bundle", f"{answer.status}", answer.status in (404, 502)))
        answer = ask(node.port, f"/fn/{slug}/good")
        found.append(_expect("its neighbour", answer.body, answer.body == "good  good"))
    database = state / "amba.db"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    raw = bytearray(database.read_bytes())
    before = bytes(raw)
    for page in range(1, len(raw) // 4096):
        raw[page * 4096 : page * 4096 + 64] = bytes(64)
    database.write_bytes(raw)
    try:
        node.start()
        found.append(_expect("a damaged database", "it started", False))
        node.stop()
    except DrillError:
        said = _last_error(state.with_name(f"{state.name}.log"))
        found.append(_expect("a damaged database", said, "STATE_DAMAGED" in said))
    kept = database.read_bytes() == bytes(raw)
    found.append(_expect("its file afterwards", "untouched" if kept else "changed", kept))
    database.write_bytes(before)
    with node:
        answer = ask(node.port, f"/fn/{slug}/good")
        good = answer.body == "good  good"
        found.append(_expect("the copy put back", answer.body, good))
    return found


if __name__ == "__main__":
    place = Path(sys.argv[2]) / "disk"
    place.mkdir()
    print(json.dumps([asdict(figure) for figure in (*full(place), *damaged(place))]))
