"""What a dev server keeps in its state directory: the project's id and keys, and `dev.json`.

Ids and keys stay the same for one directory, so that saved requests and clients keep working.
Source: interface.md sections 2 and 3.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from amba_runtime import entropy
from amba_runtime.errors import UserCode, UserError
from amba_runtime.manifest import ProjectId

CREDENTIALS = "credentials.json"
DEV_FILE = "dev.json"


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
            pat=entropy.token("amb_dpat_"),
            client_key=entropy.token("amb_dev_ck_"),
            server_key=entropy.token("amb_dev_sk_"),
            internal_token=entropy.token("amb_int_"),
            signing_secret=entropy.token("whsec_"),
            session_key=entropy.key_bytes(32).hex(),
        )

    @property
    def project(self) -> ProjectId:
        """The project's id, typed."""
        return ProjectId(self.project_id)


def default_state(folder: Path) -> Path:
    """One state directory per absolute path of what is served."""
    import platformdirs

    where = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    return Path(platformdirs.user_data_dir("amba-run", appauthor=False)) / "dev" / where


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


def announce(
    state: Path, *, origin: str, credentials: Credentials, slug: str, folder: Path
) -> None:
    """Write `dev.json`, by which client commands find this server."""
    write_private(
        state / DEV_FILE,
        {
            "origin": origin,
            "pat": credentials.pat,
            "project": {"id": credentials.project_id, "slug": slug},
            "folder": str(folder),
            "pid": os.getpid(),
        },
    )


def withdraw(state: Path) -> None:
    """Remove our own `dev.json`."""
    path = state / DEV_FILE
    with contextlib.suppress(OSError, ValueError):
        if json.loads(path.read_bytes()).get("pid") == os.getpid():
            path.unlink()


def find_running(folder: Path) -> dict[str, Any] | None:
    """What the dev server of this folder, or of one above it, announced; None if none runs."""
    for place in (folder.absolute(), *folder.absolute().parents):
        path = default_state(place) / DEV_FILE
        with contextlib.suppress(OSError, ValueError):
            data: dict[str, Any] = json.loads(path.read_bytes())
            os.kill(int(data["pid"]), 0)
            return data
    return None
