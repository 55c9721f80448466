"""What a child does to itself before it becomes the program (reliability.md 4.2).

The walls that it raises are looked at from outside in `sandbox/test_jail.py`.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from amba_runtime.sandbox import landlock

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="walls are Linux' own"),
]

CODE = """
import json, os, resource, sys
from amba_runtime.spawn_main import confine
orders = json.loads(sys.argv[1])
try:
    confine(orders, os.getppid(), sys.argv[2])
except OSError as error:
    print(json.dumps({"refused": str(error)}))
    sys.exit()
status = {}
for line in open("/proc/self/status"):
    name, _, rest = line.partition(":")
    status[name] = rest.split()
said = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name))
        for name in orders.get("limits", {})}
def tried(act):
    try:
        act()
        return "done"
    except OSError as error:
        return error.strerror
print(json.dumps({
    "status": status, "limits": said, "cwd": os.getcwd(),
    "execute": tried(lambda: os.execv(sys.argv[3], ["false"]) if sys.argv[3:] else None),
}))
"""
ALLOW_ALL = b64encode(struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)).decode()
EXECUTE = 1
"""Of Landlock's rights, so that the child can still write down what was covered."""


def confined(walls: dict[str, Any], cwd: str = "/", *more: str) -> dict[str, Any]:
    """What a process is like once it has obeyed."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(walls), cwd, *more],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_without_orders_nothing_changes(tmp_path: Path) -> None:
    """Tier 0: a child that is told nothing only goes to its folder."""
    told = confined({}, str(tmp_path))
    assert told["cwd"] == str(tmp_path)
    assert told["status"]["NoNewPrivs"] == ["0"]
    own = Path("/proc/self/status").read_text()
    assert told["status"]["Seccomp"] == own.split("\nSeccomp:")[1].split()[:1]


def test_privileges_are_given_up_for_good() -> None:
    """Tier 1: none that it has, and none to come; bubblewrap keeps what it needs."""
    told = confined({"privileges": False})["status"]
    assert told["NoNewPrivs"] == ["1"]
    assert told["CapEff"] == told["CapPrm"] == told["CapInh"] == ["0" * 16]
    kept = confined({"privileges": True})["status"]
    assert kept["NoNewPrivs"] == ["1"]
    if os.getuid() == 0:
        assert kept["CapEff"] != ["0" * 16]


def test_limits_are_lowered_and_never_raised() -> None:
    """Soft and hard at once; one that was lower already stays as it is."""
    told = confined({"limits": {"CORE": 0, "NOFILE": 64, "NPROC": 2**62}})["limits"]
    assert (told["CORE"], told["NOFILE"]) == ([0, 0], [64, 64])
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    assert told["NPROC"][1] == (2**62 if hard == resource.RLIM_INFINITY else hard)


def test_groups_are_joined_by_the_process_itself(tmp_path: Path) -> None:
    """ "0" is whoever writes it; a file that is not there ends the start."""
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.touch()
    confined({"join": [str(file) for file in files]})
    assert [file.read_text() for file in files] == ["0", "0"]
    (tmp_path / "folder").mkdir()
    assert "Is a directory" in confined({"join": [str(tmp_path / "folder")]})["refused"]


def test_a_user_of_its_own_is_all_that_it_is() -> None:
    """User and group, real, effective, saved and for files; no other group."""
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    told = confined({"uid": os.getuid()})["status"]
    assert (told["Uid"], told["Groups"]) == (["0"] * 4, [])


def test_landlock_and_the_filter_stand_after_it() -> None:
    """Tier 2: what no rule gives is refused, what one gives is not; a filter is in force."""
    if not landlock.abi():
        pytest.skip("this kernel has no Landlock")
    rules = {"handled": [EXECUTE], "paths": [["/usr", EXECUTE]]}
    walls = {"privileges": False, "landlock": rules, "seccomp": ALLOW_ALL}
    told = confined(walls)
    assert told["status"]["Seccomp"] == ["2"]
    assert told["execute"] == "done"
    none = {**walls, "landlock": {"handled": [EXECUTE], "paths": []}}
    assert confined(none, "/", "/bin/false")["execute"] == "Permission denied"


@pytest.mark.parametrize(
    ("walls", "said"),
    [
        ({"privileges": False, "seccomp": b64encode(b"12345678").decode()}, "seccomp: "),
        ({"landlock": {"handled": [2**63], "paths": []}}, "Landlock"),
        ({"landlock": {"handled": [1], "paths": [["/nowhere/at/all", 1]]}}, "No such file"),
        ({"landlock": {"handled": [1], "paths": [["/usr", 2]]}}, "Landlock for /usr: "),
    ],
)
def test_what_the_kernel_refuses_ends_the_start(walls: dict[str, Any], said: str) -> None:
    """Never a program with fewer walls than were ordered (row F4)."""
    if "landlock" in walls and not landlock.abi():
        pytest.skip("this kernel has no Landlock")
    assert said in confined(walls)["refused"]
