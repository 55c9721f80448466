"""What a node does to its own process: nobody of its user reads its memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.run.noding import NodeProcess

from amba_run import harden
from amba_runtime.engine.workerd.engine import find_workerd
from amba_runtime.private import barrier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="others have no such switch"),
]

USER = 41_234
PYTHON = Path("/usr/bin/python3")
ROOT = Path(__file__).parents[2]
HARDENED = """
import ctypes, os, resource, subprocess, sys
from amba_run.harden import shut_memory
assert resource.getrlimit(resource.RLIMIT_CORE)[1] != 0, "it was so before"
shut_memory()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""
LOOK = """
import ctypes, sys
pid = int(sys.argv[1])
for what in ("environ", "mem", "maps"):
    try:
        open(f"/proc/{pid}/{what}", "rb").read(1)
        print(what, "can be read")
    except PermissionError:
        print(what, "refused")
libc = ctypes.CDLL(None, use_errno=True)
print("ptrace", libc.ptrace(16, pid, 0, 0), ctypes.get_errno())
"""
HELLO = "export default { fetch: () => new Response('hello') };"


def python_paths() -> str:
    """What an ordinary user may import of ours; skips the test where that is not all."""
    if os.getuid() != 0:
        pytest.skip("another user is needed, and who may become one")
    seen = [Path(place) for place in sys.path if place and Path(place).is_dir()]
    if barrier(find_workerd()) or not PYTHON.exists():
        pytest.skip("nothing of ours is where other users come")
    version = subprocess.run(
        [PYTHON, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True
    ).stdout.split()
    if version != [str(part) for part in sys.version_info[:2]]:
        pytest.skip("the system's Python is another one")
    return os.pathsep.join(str(path) for path in [ROOT, *seen] if barrier(path) is None)


@pytest.fixture
def home() -> Generator[Path]:
    """A folder of the ordinary user's, where it may come."""
    place = Path(tempfile.mkdtemp(prefix="amba-test-"))
    os.chown(place, USER, USER)
    yield place
    shutil.rmtree(place)


def test_a_hardened_process_leaves_no_core_and_is_not_dumpable() -> None:
    """Whoever it belongs to (reliability.md 4.2, CORE 0; threat T1)."""
    done = subprocess.run(
        [sys.executable, "-c", HARDENED], capture_output=True, text=True, timeout=20
    )
    if "it was so before" in done.stderr:
        pytest.skip("no core files here anyway")
    assert done.stdout == "0 0 0\n", done.stderr


def test_a_limit_that_cannot_be_lowered_is_lived_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a wall behind others: it keeps nobody from serving (ours)."""
    import resource

    def refuse(_kind: int, _limits: tuple[int, int]) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(sys, "platform", "darwin")
    harden.shut_memory()


def test_a_node_of_an_ordinary_user_serves_and_shows_its_memory_to_nobody(home: Path) -> None:
    """Not its environment, not its memory, no debugger: all of its user's (row F4, threat T1)."""
    paths = python_paths()
    command = ("sh", "-c", f'shift; exec {PYTHON} -B "$@"', "sh")
    user = (f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    environment = {"PYTHONPATH": paths, "COVERAGE_PROCESS_START": "", "TMPDIR": "/tmp"}
    with NodeProcess(
        home / "state",
        data_home=home,
        environment=environment,
        prefix=("setpriv", *user, *command),
    ) as node:
        node.deploy("hello", HELLO)
        assert node.call("hello").text == "hello"
        pid = node.process.pid
        looked = subprocess.run(
            [PYTHON, "-c", LOOK, str(pid)],
            user=USER,
            group=USER,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=20,
            env={},
        )
        assert looked.stdout.splitlines() == [
            "environ refused",
            "mem refused",
            "maps refused",
            "ptrace -1 1",
        ], looked.stderr
