"""The esbuild child: found or refused, one for many builds, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from amba_bundler import esbuild as module
from amba_bundler.conversation import Request
from amba_bundler.esbuild import Esbuild, Overwhelmed, find_program
from amba_runtime import limits
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError

from .conftest import Write


def _request(folder: Path, name: str = "fn.js") -> Request:
    flags = ("--bundle", "--format=esm", "--outfile=o.mjs", "--metafile", "--log-limit=0")
    return Request(folder / name, folder, flags, "^https:", "no {path}")


_Children = Callable[[], list[psutil.Process]]


def _alive() -> list[psutil.Process]:
    return [c for c in psutil.Process().children() if c.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def children() -> _Children:
    """Gives the living children that began in this test: other tests share servers that live on."""
    before = {*_alive()}
    return lambda: [child for child in _alive() if child not in before]


def test_the_program_of_the_wheel_is_found() -> None:
    """Without an override the program inside the package is run (architecture.md section 2)."""
    program = find_program()
    assert program == Path(module.__file__).parent / "native" / "esbuild"
    version = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    assert version.stdout.strip() == module.VERSION


@pytest.mark.parametrize(("mode", "what"), [(None, "is not there"), (0o644, "is not executable")])
def test_a_missing_program_says_what_to_do(tmp_path: Path, mode: int | None, what: str) -> None:
    """PROGRAM_MISSING names the path, and the variable that led there."""
    path = tmp_path / "esbuild"
    if mode is not None:
        path.write_text("")
        path.chmod(mode)
    with pytest.raises(UserError, match=what) as caught:
        asyncio.run(Esbuild(path).start())
    assert caught.value.code == UserCode.PROGRAM_MISSING
    assert caught.value.details == {"program": str(path)}
    assert "AMBA_RUN_ESBUILD" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("sys.exit('wrong version: 9.9.9')", "wrong version: 9.9.9"),
        ("sys.exit(0)", "did not say its version"),
        ("sys.stdout.write('\\5\\0\\0\\x009.9.9'); sys.stdout.flush(); sys.stdin.read()", "9.9.9"),
        ("sys.stdout.write('hello, I am no esbuild')", "bytes announced"),
    ],
)
def test_another_program_is_refused_by_name(
    program: Callable[[str], Path], source: str, why: str, children: _Children
) -> None:
    """A program that is not this esbuild gives PROGRAM_MISSING and its own last words."""

    async def start() -> None:
        async with Esbuild(program(source)) as esbuild:
            await esbuild.start()

    with pytest.raises(UserError, match="is not a usable esbuild") as caught:
        asyncio.run(start())
    assert caught.value.code == UserCode.PROGRAM_MISSING
    assert why in caught.value.message
    assert children() == []


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    """An executable file the system cannot run is named with the system's reason."""
    path = tmp_path / "esbuild"
    path.write_bytes(b"\0not a program")
    path.chmod(0o755)
    with pytest.raises(UserError, match="Exec format error"):
        asyncio.run(Esbuild(path).start())


_SPEAKS = "v = b'0.28.2'; o = sys.stdout.buffer; o.write(struct.pack('<I', 6) + v); o.flush()\n"
_HEARS = "n, = struct.unpack('<I', sys.stdin.buffer.read(4)); sys.stdin.buffer.read(n)\n"


def _says(value: str) -> str:
    return f"b = {value}\no.write(struct.pack('<I', len(b)) + b); o.flush()\nsys.stdin.read()"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("sys.exit('panic: out of luck')", "panic: out of luck"),
        (_says("b'\\x03\\0\\0\\0\\0'"), "another language"),
        (_says("b'\\x03\\0\\0\\0\\x06\\0\\0\\0\\0'"), "another language"),
        (_says("b'\\x02\\0\\0\\0\\x06\\0\\0\\0\\0'"), "another language"),
        (_says("b'x'"), "another language"),
    ],
)
@pytest.mark.slow
def test_a_child_that_breaks_off_is_an_internal_error(
    program: Callable[[str], Path], write: Write, source: str, why: str, children: _Children
) -> None:
    """Dying or babbling in a build is BUNDLER_PROTOCOL, and leaves no child behind."""
    folder = write({"fn.js": "export default 1"})

    async def build() -> None:
        async with Esbuild(program(_SPEAKS + _HEARS + source)) as esbuild:
            await esbuild.build(_request(folder))

    with pytest.raises(InternalError, match=why) as caught:
        asyncio.run(build())
    assert caught.value.code == InternalCode.BUNDLER_PROTOCOL
    assert children() == []


def test_a_child_that_says_nothing_is_ended(
    program: Callable[[str], Path],
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    children: _Children,
) -> None:
    """Each wait has a deadline: for the version, for the build, and for the end."""
    folder = write({"fn.js": "export default 1"})
    short = limits.Deadline(0.05, "a test", "ours")
    for name in ("ESBUILD_BUILD_S", "ESBUILD_STOP_S"):
        monkeypatch.setattr(limits, name, short)
    deaf = program(_SPEAKS + "while True: time.sleep(60)")

    async def build() -> None:
        async with Esbuild(deaf) as esbuild:
            await esbuild.build(_request(folder))

    with pytest.raises(InternalError, match="did not answer"):
        asyncio.run(build())
    assert children() == []
    monkeypatch.setattr(limits, "ESBUILD_START_S", short)
    with pytest.raises(UserError, match="did not say its version"):
        asyncio.run(Esbuild(program("while True: time.sleep(60)")).start())
    assert children() == []


def test_one_child_serves_many_builds(write: Write, children: _Children) -> None:
    """Builds take turns on one child, also when asked for at once, and `close` ends it."""
    folder = write({f"{n}.js": f"export default {n}" for n in range(8)})

    async def build() -> None:
        async with Esbuild() as esbuild:
            replies = await asyncio.gather(
                *(esbuild.build(_request(folder, f"{n}.js")) for n in range(8))
            )
            for number, reply in enumerate(replies):
                assert f"default = {number};".encode() in next(iter(reply.outputs.values()))
            assert len(children()) == 1
            await esbuild.close()
            await esbuild.close()
            assert children() == []

    asyncio.run(build())


def test_a_child_that_died_is_replaced(write: Write, children: _Children) -> None:
    """A killed esbuild costs nothing but the start of another."""
    folder = write({"fn.js": "export default 1"})

    async def build() -> None:
        async with Esbuild() as esbuild:
            first = await esbuild.build(_request(folder))
            (child,) = children()
            child.kill()
            assert await esbuild.build(_request(folder)) == first

    asyncio.run(build())


def test_a_child_that_dies_at_every_build_is_not_tried_for_ever(
    program: Callable[[str], Path], write: Write
) -> None:
    """A second death in one build is reported, with what the program said at the end."""
    folder = write({"fn.js": "export default 1"})

    async def build() -> None:
        async with Esbuild(program(_SPEAKS + _HEARS + "sys.exit('no luck')")) as esbuild:
            await esbuild.start()
            await esbuild.build(_request(folder))

    with pytest.raises(InternalError, match="esbuild died twice: no luck"):
        asyncio.run(build())


def test_a_cancelled_build_leaves_the_next_one_whole(write: Write) -> None:
    """Cancelled half-way, the answer is never taken for that of the next build."""
    folder = write({"fn.js": "export default 1", "other.js": "export default 2"})

    async def build() -> None:
        async with Esbuild() as esbuild:
            await esbuild.start()
            task = asyncio.create_task(esbuild.build(_request(folder)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            reply = await esbuild.build(_request(folder, "other.js"))
            assert b"= 2;" in next(iter(reply.outputs.values()))

    asyncio.run(build())


def test_a_request_esbuild_refuses_is_an_internal_error(write: Write) -> None:
    """A regular expression that Go does not know is our fault, and is reported in its words."""
    folder = write({"fn.js": "export default 1"})

    async def build() -> None:
        async with Esbuild() as esbuild:
            await esbuild.build(replace(_request(folder), resolve="("))

    with pytest.raises(InternalError, match="not a valid Go regular expression"):
        asyncio.run(build())


def test_a_cancelled_start_leaves_no_child_half_greeted(
    program: Callable[[str], Path], write: Write, children: _Children
) -> None:
    """Cancelled before the version was said, the child is ended and not taken for a running one."""
    folder = write({"fn.js": "export default 1"})

    async def build() -> None:
        slow = Esbuild(program("sys.stdin.read()"))
        task = asyncio.create_task(slow.build(_request(folder)))
        while not children():  # noqa: ASYNC110 - the child is the event
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert children() == []
        await slow.close()

    asyncio.run(build())


def test_a_forgotten_child_is_warned_of() -> None:
    """An `Esbuild` that is dropped without `close` says so (style guide: ResourceWarning)."""

    async def forget() -> None:
        esbuild = Esbuild()
        await esbuild.start()
        with pytest.warns(ResourceWarning, match="was not closed"):
            esbuild.__del__()
        await esbuild.close()

    asyncio.run(forget())


_PARENT = """
import asyncio, sys
from amba_bundler.esbuild import Esbuild
async def main():
    esbuild = Esbuild()
    await esbuild.start()
    import psutil
    print(psutil.Process().children()[0].pid, flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


@pytest.mark.slow
def test_no_esbuild_survives_a_killed_parent() -> None:
    """`kill -9` of the parent closes the child's input, and that ends it (issue 2, item 3)."""
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent, parent.stdout:
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs([child], timeout=5)
    assert (len(gone), alive) == (1, [])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone can do that")
def test_a_confined_child_has_only_so_much_memory(children: _Children) -> None:
    """Bytes of strangers cannot take the machine's (reliability.md D6); others are not held."""
    import resource

    async def limit_of(memory_max: int | None) -> int:
        async with Esbuild(memory_max=memory_max) as esbuild:
            await esbuild.start()
            (child,) = children()
            return resource.prlimit(child.pid, resource.RLIMIT_AS)[0]

    assert asyncio.run(limit_of(limits.SCAN_MEMORY.value)) == limits.SCAN_MEMORY.value
    assert asyncio.run(limit_of(None)) == resource.getrlimit(resource.RLIMIT_AS)[0]


def test_a_build_that_overwhelms_it_is_told_apart(tmp_path: Path) -> None:
    """Its death is of the request, and the next build has a new child (reliability.md D6)."""
    (tmp_path / "fine.js").write_text("export default 1")

    async def main() -> None:
        async with Esbuild(memory_max=limits.SCAN_MEMORY.value) as esbuild:
            bomb = Request(
                tmp_path, tmp_path, ("--bundle",), ".*", "", scan=True, stdin=b"(" * 1_000_000
            )
            with pytest.raises(Overwhelmed, match="died"):
                await esbuild.build(bomb)
            flags = ("--bundle", "--metafile", "--outfile=o.mjs")
            reply = await esbuild.build(Request(tmp_path / "fine.js", tmp_path, flags, "^$", ""))
            assert reply.errors == []

    asyncio.run(main())
