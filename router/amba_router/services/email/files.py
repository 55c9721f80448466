"""Each mail as a file that mail programs open: `outbox/PROJECT/ID.eml` in the state directory.

A file is a convenience beside the row in the database, made from it alone: one that cannot be
written is logged, and the next sweep writes it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from amba_router.store.blobs import fsync_folder
from amba_runtime import entropy

if TYPE_CHECKING:
    from amba_router.store.email_rows import EmailRecord
    from amba_router.store.project_store import ProjectStore

logger = logging.getLogger("amba.email")

FOLDER = "outbox"
_POLICY = SMTP.clone(utf8=True)
_SENDER = "outbox@amba-run.invalid"


class Outbox:
    """The files of all projects. Args: state: the state directory."""

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER

    def path(self, project_id: str, id_: str) -> Path:
        """Where a mail lies."""
        return self._folder / project_id / f"{id_}.eml"

    async def put(self, project_id: str, record: EmailRecord, gone: Iterable[str]) -> None:
        """Write one, and be without those: on disk when this returns, or told in the log."""
        work = partial(_put, self.path(project_id, record.id), record)
        await self._try("write", project_id, work)
        for id_ in gone:
            remove = partial(self.path(project_id, id_).unlink, missing_ok=True)
            await self._try("remove", project_id, remove)

    async def sweep(self, known: Collection[str], store: ProjectStore) -> None:
        """Files and rows agree again: what a crash or a client that left has kept apart.

        Files of mails and projects that are no more go; missing ones are written from their rows,
        as after a restore of a snapshot. What fails is told in the log and ends nothing else.

        Args:
            known: the ids of the projects; asked as each folder is met.
        """
        await self._try("sweep", "all", partial(_sweep, self._folder, known))
        for project_id in list(known):
            try:
                await self._sweep(project_id, store)
            except Exception as error:  # the other projects' turn comes all the same
                _failed("sweep", project_id, error)

    async def _sweep(self, project_id: str, store: ProjectStore) -> None:
        from amba_router.store import email_rows

        folder = self._folder / project_id
        # before the rows: a row is there before its file, so one without is gone for good
        files = await asyncio.to_thread(_listed, folder)
        kept = await store.read(project_id, email_rows.ids)
        for name in files:
            id_, _, rest = name.partition(".")
            if id_ not in kept or (rest != "eml" and f"{id_}.eml" in files):
                await self._try("remove", project_id, partial(_remove, folder / name))
        for id_ in kept:
            if f"{id_}.eml" not in files:
                record = await store.read(project_id, partial(email_rows.find, id_=id_))
                if record is not None:
                    await self._rewrite(self.path(project_id, id_), record)

    async def _rewrite(self, path: Path, record: EmailRecord) -> None:
        try:
            await asyncio.to_thread(_put, path, record)
        except OSError:  # the disk: it would be told a thousand times
            raise
        except Exception as error:  # this mail alone has no file: the others' turn comes
            _failed("write", path.parent.name, error)

    async def _try(self, what: str, project_id: str, work: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(work)
        except Exception as error:  # the mail is sent when its row is there: a file is extra
            _failed(what, project_id, error)


def _failed(what: str, project_id: str, error: Exception) -> None:
    logger.warning("outbox.%s_failed project=%s error=%s", what, project_id, error)


def message(record: EmailRecord) -> bytes:
    """A mail as RFC 5322 has it."""
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = _SENDER
    mail["To"] = record.recipient
    mail["Subject"] = record.subject
    mail["Date"] = format_datetime(datetime.fromtimestamp(record.created_ms / 1000, UTC))
    mail["Message-ID"] = f"<{record.id}@amba-run.invalid>"
    if record.text is not None or record.html is None:
        mail.set_content(record.text or "")
    if record.html is not None and record.text is not None:
        mail.add_alternative(record.html, subtype="html")
    elif record.html is not None:
        mail.set_content(record.html, subtype="html")
    return mail.as_bytes()


def _put(path: Path, record: EmailRecord) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # a name of its own: the sweep may write the same mail at the same time
    beside = path.with_suffix(f".{entropy.short_id()}.part")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(message(record))
            file.flush()
            os.fsync(fd)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def _sweep(folder: Path, known: Collection[str]) -> None:
    if not folder.is_dir():
        return
    for project in list(folder.iterdir()):
        if project.name not in known:
            try:
                _remove(project)
            except OSError as error:  # the others' turn comes all the same
                _failed("sweep", project.name, error)


def _listed(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
