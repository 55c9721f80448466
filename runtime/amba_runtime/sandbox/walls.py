"""Whether the walls stand, read from outside: the last look before anybody's code is trusted
to be inside (row F4 of reliability.md).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapAmb")


@dataclass(frozen=True, slots=True)
class Promise:
    """What must hold of a process.

    Attributes:
        tier: of the sandbox; 1 to 3.
        uid: the user of its own, None where it has ours.
        parent: pid that its parent must have, 0 where any may.
        launchers: device and inode of programs that it is before it is its own.
    """

    tier: int
    uid: int | None
    parent: int
    launchers: frozenset[tuple[int, int]]


def identity(program: Path) -> tuple[int, int]:
    """Device and inode. Raises OSError."""
    found = program.stat()
    return found.st_dev, found.st_ino


def missing(pid: int, promise: Promise, *, proc: Path = PROC) -> list[str] | None:
    """What does not stand; [] when all does, None while the walls are still being raised.

    A process is there once it runs its own program: before that, a filter or the lack of
    privileges may be ours, which it inherits (a container's, a service manager's).

    Raises:
        OSError: there is no such process any more, or it cannot be looked at.
    """
    place = proc / str(pid)
    if identity(place / "exe") in promise.launchers:
        return None
    status = read_status(place)  # no older than what was just seen
    faults = _faults(status, promise)
    if promise.tier >= 2 and not _own_filter(status, read_status(proc / "self")):
        faults.append(f"Seccomp_filters {status.get('Seccomp_filters')}")
    if promise.tier >= 3:
        faults += [f"{kind} namespace" for kind in NAMESPACES if _shared(place, proc, kind)]
    return faults


def _faults(status: dict[str, str], promise: Promise) -> list[str]:
    wanted = {"NoNewPrivs": "1"}
    if promise.tier >= 2:
        wanted["Seccomp"] = "2"
    faults = [f"{name} {status.get(name)}" for name in wanted if status.get(name) != wanted[name]]
    capabilities = (*CAPABILITIES, "CapBnd") if promise.tier >= 3 else CAPABILITIES
    faults += [f"{n} {status.get(n)}" for n in capabilities if status.get(n, "").strip("0 ") != ""]
    faults += [f"{name} missing" for name in capabilities if name not in status]
    if promise.uid is not None and status.get("Uid", "").split() != [str(promise.uid)] * 4:
        faults.append(f"Uid {status.get('Uid')}")
    if promise.parent and status.get("PPid") != str(promise.parent):
        faults.append(f"PPid {status.get('PPid')}")
    levels = status.get("NSpid", "").split()
    if promise.tier >= 3 and (len(levels) < 2 or levels[-1] != "1"):
        faults.append(f"NSpid {status.get('NSpid')}")
    return faults


def _own_filter(status: dict[str, str], ours: dict[str, str]) -> bool:
    """Whether it has a filter more than we have; True where the kernel does not count them.

    Source: proc(5), Seccomp_filters, since Linux 5.9.
    """
    counts = [each.get("Seccomp_filters", "") for each in (status, ours)]
    return not all(counts) or int(counts[0]) > int(counts[1])


def read_status(place: Path) -> dict[str, str]:
    """Lines of a process's status: name -> words with one space between. Raises OSError."""
    lines = (place / "status").read_text(errors="replace").splitlines()
    return {
        name: " ".join(rest.split()) for name, _, rest in (line.partition(":") for line in lines)
    }


def _shared(place: Path, proc: Path, kind: str) -> bool:
    """Whether a namespace is our own."""
    theirs = os.readlink(place / "ns" / kind)
    return theirs == os.readlink(proc / "self" / "ns" / kind)
