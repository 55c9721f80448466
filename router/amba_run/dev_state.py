"""What a dev server keeps in its state directory: the project's id and keys, and `dev.json`.

Ids and keys stay the same for one directory, so that saved requests and clients keep working.
Source: interface.md sections 2 and 3.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from amba_runtime import entropy, limits
from amba_runtime.errors import UserCode, UserError
from amba_runtime.manifest import ProjectId

CREDENTIALS = "credentials.json"
DEV_FILE = "dev.json"
LOCK_FILE = "dev.lock"
DEVELOPER_ID = "d_local"
"""Whom the PAT of a dev server speaks for."""


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """The keys of one dev project. Never printed but where the ready line asks for them."""

    project_id: str
    pat: str
    client_key: str
    server_key: str
    internal_token: str
    signing_secret: str
    session_key: str

    @classmethod
    def new(cls) -> Credentials:
        """Fresh ones. Source: contract A.6, E.0, H-20, H-24 (forms)."""
        return cls(
            project_id=entropy.uuid4(),
            pat=entropy.pat(),
            client_key=entropy.api_key("client", "development"),
            server_key=entropy.api_key("server", "development"),
            internal_token=entropy.internal_token(),
            signing_secret=entropy.signing_secret(),
            session_key=entropy.session_key(),
        )

    @property
    def project(self) -> ProjectId:
        """The project's id, typed."""
        return ProjectId(self.project_id)


def default_state(path: Path) -> Path:
    """One state directory per absolute path of what is served."""
    where = hashlib.sha256(os.path.realpath(path).encode("utf-8", "surrogateescape"))
    return _states() / where.hexdigest()[:16]


def _states() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("amba-run", appauthor=False)) / "dev"


class Claim:
    """The right of one process to serve from a state directory. `take`, then `drop`.

    A lock that the system takes back when its holder ends, however it ends: nothing is stale.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._fd = -1

    def take(self) -> None:
        """Claim the directory.

        Raises:
            UserError: STATE_IN_USE, with the process that serves from it.
        """
        try:
            import fcntl
        except ImportError:  # Windows: two servers in one directory are not told apart
            return
        fd = os.open(self._state / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            raise UserError(
                UserCode.STATE_IN_USE,
                f"another dev server{f' (pid {holder})' if holder else ''} serves from "
                f"{self._state}",
                hint="use that one, end it, or start this one with --ephemeral or --state DIR",
                details={"pid": int(holder) if holder.isdigit() else None},
            ) from None
        except BaseException:
            os.close(fd)
            raise
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def drop(self) -> None:
        """Let it go. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def load_credentials(state: Path) -> Credentials:
    """Those of a state directory, made at its first use (mode 0600).

    Raises:
        UserError: INVALID_CONFIG when the file was damaged; it is never overwritten.
    """
    path = state / CREDENTIALS
    try:
        data: Any = json.loads(path.read_bytes())
        return Credentials(**{f.name: str(data[f.name]) for f in fields(Credentials)})
    except FileNotFoundError:
        made = Credentials.new()
        write_private(path, {f.name: getattr(made, f.name) for f in fields(made)})
        return made
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            UserCode.INVALID_CONFIG,
            f"{path} does not hold this project's keys any more ({error})",
            hint="restore it from a copy, or remove it to have new keys made",
        ) from error


def write_private(path: Path, value: object) -> None:
    """Write JSON whole or not at all, readable by this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_name(f".{path.name}.{entropy.short_id()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True, repr=False)
class Running:
    """What a dev server says of itself in `dev.json`.

    Attributes:
        origin: `http://127.0.0.1:PORT`.
        suffix: what follows the slug in a function's host.
        persona: who callers without a credential are, as `--as` takes it.
    """

    state: Path
    origin: str
    pat: str
    project_id: str
    slug: str
    suffix: str
    folder: Path
    pid: int
    persona: str


def announce(state: Path, running: Running) -> None:
    """Write `dev.json`, by which client commands find this server."""
    write_private(
        state / DEV_FILE,
        {
            "origin": running.origin,
            "pat": running.pat,
            "project": {"id": running.project_id, "slug": running.slug},
            "suffix": running.suffix,
            "folder": str(running.folder),
            "pid": running.pid,
            "persona": running.persona,
        },
    )


def withdraw(state: Path) -> None:
    """Remove our own `dev.json`."""
    path = state / DEV_FILE
    with contextlib.suppress(OSError, ValueError):
        if json.loads(path.read_bytes()).get("pid") == os.getpid():
            path.unlink()


def read_running(state: Path) -> Running | None:
    """The server that serves from this state directory; None when none does.

    A `dev.json` left by a process that was killed counts for nothing.
    """
    path = state / DEV_FILE
    try:
        written_s = path.stat().st_mtime
        data: Any = json.loads(path.read_bytes())
        running = Running(
            state=state,
            origin=str(data["origin"]),
            pat=str(data["pat"]),
            project_id=str(data["project"]["id"]),
            slug=str(data["project"]["slug"]),
            suffix=str(data["suffix"]),
            folder=Path(data["folder"]),
            pid=int(data["pid"]),
            persona=str(data.get("persona", "anonymous")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return running if _lived(running.pid, written_s) else None


def _lived(pid: int, at_s: float) -> bool:
    """True when this very process was there at that time: its number may have a new owner."""
    import psutil

    with contextlib.suppress(psutil.Error, ValueError, OverflowError):
        return bool(psutil.Process(pid).create_time() <= at_s + 1)
    return False


def find_running(folder: Path) -> Running | None:
    """The dev server of this folder, of the nearest one above it, or of the only one below it.

    Raises:
        UserError: NO_SERVER when several serve folders below this one: which is meant?
    """
    here = Path(os.path.realpath(folder))
    above: list[Running] = []
    below: list[Running] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(_states()) as entries:
        for entry in itertools.islice(entries, limits.DEV_STATES.value):
            running = read_running(Path(entry.path))
            if running is None:
                continue
            if here.is_relative_to(running.folder):
                above.append(running)
            elif running.folder.is_relative_to(here):
                below.append(running)
    if above:
        return max(above, key=lambda running: len(running.folder.parts))
    if len(below) > 1:
        folders = ", ".join(sorted(str(running.folder) for running in below))
        raise UserError(
            UserCode.NO_SERVER,
            f"{len(below)} dev servers run below {here}: {folders}",
            hint="go to the folder of the one you mean, or name it with --state or --api",
        )
    return below[0] if below else None
