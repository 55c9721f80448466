"""The look at the walls from outside: each wall that is missing is named (row F4)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from amba_runtime.sandbox.walls import NAMESPACES, Promise, identity, missing

PID, OUTER, UID = 77, 70, 0x70000001
GOOD = {
    "Uid": f"{UID}\t{UID}\t{UID}\t{UID}",
    "PPid": str(OUTER),
    "NSpid": f"{PID}\t1",
    "CapInh": "0000000000000000",
    "CapPrm": "0000000000000000",
    "CapEff": "0000000000000000",
    "CapBnd": "0000000000000000",
    "CapAmb": "0000000000000000",
    "NoNewPrivs": "1",
    "Seccomp": "2",
}


LAUNCHERS = frozenset({identity(Path("/bin/true")), identity(Path("/bin/false"))})


class Proc:
    """A /proc with one process beside our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "workerd"
        self.program.touch()
        self.status = dict(GOOD)
        for pid, space in (("self", "1"), (str(PID), "2")):
            (folder / pid / "ns").mkdir(parents=True)
            (folder / pid / "status").write_text("Name:\tamba-run\n")
            for kind in NAMESPACES:
                (folder / pid / "ns" / kind).symlink_to(f"{kind}:[{space}]")
        self.runs(self.program)

    def runs(self, program: Path | str) -> None:
        link = self.folder / str(PID) / "exe"
        link.unlink(missing_ok=True)
        link.symlink_to(program)

    def shares(self, kind: str) -> None:
        link = self.folder / str(PID) / "ns" / kind
        link.unlink()
        link.symlink_to(f"{kind}:[1]")

    def missing(self, *, tier: int = 3, uid: int | None = UID) -> list[str] | None:
        lines = [f"{name}:\t{value}\n" for name, value in self.status.items()]
        (self.folder / str(PID) / "status").write_text("Name:\tworkerd\n" + "".join(lines))
        parent = OUTER if tier >= 3 else 0
        return missing(PID, Promise(tier, uid, parent, LAUNCHERS), proc=self.folder)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """One whose walls of tier 3 all stand."""
    return Proc(tmp_path)


def test_walls_that_stand_are_found_standing(proc: Proc) -> None:
    """As the kernel tells of a process in the jail."""
    assert proc.missing() == []


@pytest.mark.parametrize(
    ("theirs", "ours", "good"), [("1", "0", True), ("2", "1", True), ("1", "1", False)]
)
def test_a_filter_that_we_have_too_is_no_wall(
    proc: Proc, theirs: str, ours: str, good: bool
) -> None:
    """A container's own filter is inherited by every process in it, ours included."""
    proc.status["Seccomp_filters"] = theirs
    (proc.folder / "self" / "status").write_text(f"Seccomp_filters:\t{ours}\n")
    assert proc.missing() == ([] if good else [f"Seccomp_filters {theirs}"])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NoNewPrivs", "0", "NoNewPrivs 0"),
        ("CapEff", "0000000000000001", "CapEff 0000000000000001"),
        ("CapPrm", "000001ffffffffff", "CapPrm 000001ffffffffff"),
        ("CapInh", "0000000000000400", "CapInh 0000000000000400"),
        ("CapAmb", "0000000000000400", "CapAmb 0000000000000400"),
        ("CapBnd", "0000000000000001", "CapBnd 0000000000000001"),
        ("Uid", "0 0 0 0", "Uid 0 0 0 0"),
        ("Uid", f"{UID} {UID} 0 {UID}", f"Uid {UID} {UID} 0 {UID}"),
        ("PPid", "1", "PPid 1"),
        ("NSpid", str(PID), f"NSpid {PID}"),
        ("NSpid", f"{PID} 2", f"NSpid {PID} 2"),
    ],
)
def test_each_missing_wall_is_named(proc: Proc, name: str, value: str, said: str) -> None:
    """One alone is enough, whatever the others say."""
    proc.status[name] = value
    assert proc.missing() == [said]


@pytest.mark.parametrize("name", sorted({*GOOD} - {"Seccomp"}))
def test_a_line_that_is_not_there_is_no_wall(proc: Proc, name: str) -> None:
    """A kernel that does not tell is not believed."""
    del proc.status[name]
    faults = proc.missing()
    assert faults
    assert any(name in fault for fault in faults)


@pytest.mark.parametrize("kind", NAMESPACES)
def test_a_namespace_that_is_ours_is_no_wall(proc: Proc, kind: str) -> None:
    """Above all the network's."""
    proc.shares(kind)
    assert proc.missing() == [f"{kind} namespace"]


def test_walls_that_are_being_raised_are_waited_for(proc: Proc) -> None:
    """A filter may be inherited: nothing is said until the program runs."""
    for launcher in ("/bin/true", "/bin/false"):
        proc.runs(launcher)
        assert proc.missing() is None
    for seccomp in ("0", "1"):
        proc.status["Seccomp"] = seccomp
        proc.runs("/bin/true")
        assert proc.missing() is None
        proc.runs(proc.program)
        assert proc.missing() == [f"Seccomp {seccomp}"]


def test_lower_tiers_promise_less(proc: Proc) -> None:
    """Tier 2 shares namespaces; tier 1 has no filter."""
    for kind in NAMESPACES:
        proc.shares(kind)
    proc.status |= {"NSpid": str(PID), "PPid": "5", "CapBnd": "000001ffffffffff"}
    assert proc.missing(tier=2) == []
    proc.status |= {"Seccomp": "0", "Uid": "0 0 0 0"}
    assert proc.missing(tier=2) == ["Seccomp 0", "Uid 0 0 0 0"]
    assert proc.missing(tier=1, uid=None) == []
    proc.status["NoNewPrivs"] = "0"
    assert proc.missing(tier=1, uid=None) == ["NoNewPrivs 0"]


def test_who_has_our_user_is_not_asked_for_another(proc: Proc) -> None:
    """Without being root there is only one."""
    proc.status["Uid"] = "1000 1000 1000 1000"
    assert proc.missing(uid=None) == []


def test_a_process_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """Nobody's walls stand."""
    with pytest.raises(FileNotFoundError):
        missing(1, Promise(3, None, 0, frozenset()), proc=tmp_path)


def test_we_ourselves_are_not_in_a_jail() -> None:
    """The real /proc is read as the kernel writes it."""
    faults = missing(os.getpid(), Promise(3, None, 0, frozenset()))
    assert faults is not None
    assert {f"{kind} namespace" for kind in NAMESPACES} <= {*faults}
