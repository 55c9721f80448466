"""Each mail as a file that mail programs open: `outbox/PROJECT/ID.eml` in the state directory.

A file is a convenience beside the row in the database: one that cannot be written is logged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Container, Iterable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from amba_router.store.blobs import fsync_folder

if TYPE_CHECKING:
    from amba_router.store.email_rows import EmailRecord

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

    async def sweep(self, known: Container[str]) -> None:
        """Without the mail of projects that are no more. Args: known: asked as each is met."""
        await self._try("sweep", "all", partial(_sweep, self._folder, known))

    async def _try(self, what: str, project_id: str, work: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(work)
        except Exception as error:  # the mail is sent when its row is there: a file is extra
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
    beside = path.with_suffix(".part")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(message(record))
        file.flush()
        os.fsync(fd)
    beside.replace(path)
    fsync_folder(path.parent)


def _sweep(folder: Path, known: Container[str]) -> None:
    if not folder.is_dir():
        return
    for project in folder.iterdir():
        if project.name not in known:
            shutil.rmtree(project)
