"""A disk that is full or turns read-only, for real: a small tmpfs in a mount namespace of its own.

Needs root (or a user namespace that may mount); skipped where that cannot be.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PRELUDE = """
import asyncio, os, subprocess, sys
from pathlib import Path
from amba_router.services.storage.service import StorageService
from amba_router.store.control import ControlStore
from amba_router.store.state import State
from amba_runtime.clock import SystemClock
from amba_runtime.errors import UserError
from amba_runtime.secret import SecretText
from tests.router.store.world import deploy, project

PATH = Path(sys.argv[1])

async def refused(what):
    try:
        result = await what
    except UserError as error:
        return error.code.value
    return result

async def body(data):
    yield data

def fill():
    fd = os.open(PATH / "filler", os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(fd, bytes(512))
    except OSError:
        os.close(fd)

def remount(how):
    subprocess.run(["mount", "-o", f"remount,{how}", PATH], check=True)
"""

FULL = """
async def main():
    clock = SystemClock()
    state = await State.open(PATH / "state", clock)
    store, storage = ControlStore(state, clock), StorageService(state, clock)
    owner = (await project(store)).record.id
    (PATH / "reserve").write_bytes(bytes(500_000))
    made, code = [], None
    while len(made) < 100:
        try:
            made.append(await deploy(store, owner, "f", os.urandom(100_000)))
        except UserError as error:
            code = error.code
            break
    assert code == "DISK_FULL", code
    assert 5 < len(made) < 30, len(made)
    assert os.listdir(PATH / "state/blobs/incoming") == []
    fill()
    assert await refused(deploy(store, owner, "f", os.urandom(9000))) == "DISK_FULL"
    for _ in range(200):  # SQLite has some room left in its log
        said = await refused(store.set_secret(owner, "A", SecretText("x" * 60_000), None))
        if said == "DISK_FULL":
            break
        value = said.version
    assert said == "DISK_FULL"
    assert await refused(storage.put(owner, "k", body(bytes(9000)))) == "DISK_FULL"
    # reads go on
    assert (await store.snapshot()).projects[0].active == (made[-1],)
    for one in made:
        assert len((await store.load_bundle(one.id)).code) == 100_000
    # and so does everything, once there is space
    (PATH / "filler").unlink()
    (PATH / "reserve").unlink()
    await store.set_secret(owner, "A", SecretText("v"), None)
    assert (await storage.put(owner, "k", body(bytes(9000)))).size == 9000
    assert await store.delete_function(owner, "f") == len(made)
    last = await deploy(store, owner, "f", b"small")
    assert last.version == len(made) + 1
    fill()
    await state.close()
    code = await refused(State.open(PATH / "state", clock))
    if isinstance(code, State):
        await code.close()
    else:
        assert code == "DISK_FULL", code
    (PATH / "filler").unlink()
    state = await State.open(PATH / "state", clock)
    store = ControlStore(state, clock)
    assert (await store.snapshot()).projects[0].active == (last,)
    assert [(n, v.reveal()) for n, v in await store.secrets_for(last.id)] == [("A", "v")]
    for one in made:
        assert len((await store.load_bundle(one.id)).code) == 100_000
    await state.close()
"""

READ_ONLY = """
async def main():
    clock = SystemClock()
    state = await State.open(PATH / "state", clock)
    store = ControlStore(state, clock)
    owner = (await project(store)).record.id
    made = await deploy(store, owner, "f", b"code")
    await state.close()
    remount("ro")
    assert await refused(State.open(PATH / "state", clock)) == "STATE_READ_ONLY"
    assert await refused(State.open(PATH / "other", clock)) == "STATE_READ_ONLY"
    remount("rw")
    state = await State.open(PATH / "state", clock)
    assert (await ControlStore(state, clock).snapshot()).projects[0].active == (made,)
    await state.close()
"""


def in_tmpfs(folder: Path, code: str) -> None:
    """Run a program whose argument is a tmpfs of 2 MiB; it vanishes with the program."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    mount = f"mount -t tmpfs -o size=2m tmpfs {folder}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("may not mount here")
    program = PRELUDE + code + "\nasyncio.run(main())\n"
    command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    done = subprocess.run(
        [*command, sys.executable, "-c", program, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """DISK_FULL, reads go on, nothing acknowledged is lost, works again by itself (row 11; I7)."""
    in_tmpfs(tmp_path, FULL)


@pytest.mark.slow
def test_a_read_only_disk_is_told(tmp_path: Path) -> None:
    """STATE_READ_ONLY at open; nothing is lost (row 11; I8)."""
    in_tmpfs(tmp_path, READ_ONLY)
