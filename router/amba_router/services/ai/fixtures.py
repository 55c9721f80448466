"""Recorded replies: a folder with one JSON file per prompt, named after it.

    {"text": "What the model says."}                    words, in the shape of the prompt's provider
    {"response": {...}}                                 a provider's whole reply, as it was recorded
    {"status": 429, "retry_after": 7, "response": {...}}    a failure to be ready for

Read at each call, so that an edit counts at once. The format is ours. Source: contract E.10.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from amba_router.api import faults
from amba_router.api.decoding import decode_json
from amba_runtime import limits


class AiFixture(Struct, forbid_unknown_fields=True):
    """One file. Attributes: retry_after: seconds."""

    text: str | None = None
    response: dict[str, Any] | None = None
    status: Annotated[int, Meta(ge=200, le=599)] = 200
    retry_after: Annotated[int, Meta(ge=0, le=86_400)] | None = None


class Fixtures:
    """Args: folder: need not be there; None has none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    async def of(self, name: str) -> AiFixture | None:
        """The recorded reply of a prompt; None where there is none.

        Args:
            name: of a prompt: no path can be made of it.

        Raises:
            Refused: AI_FIXTURE_INVALID, with the file's name and what is wrong.
        """
        if self._folder is None:
            return None
        file = self._folder / f"{name}.json"
        try:
            raw = await asyncio.to_thread(_read, file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _invalid(file, error.strerror or "it cannot be read") from None
        if len(raw) > limits.AI_FIXTURE_BYTES.value:
            raise _invalid(file, f"it is larger than {limits.AI_FIXTURE_BYTES.value} bytes")
        wrong = faults.AI_FIXTURE_INVALID
        found = decode_json(raw, AiFixture, what=file.name, not_json=wrong, wrong=wrong)
        if (found.text is None) == (found.response is None):
            raise _invalid(file, "it has text or response, one of the two")
        if found.text is not None and found.status != 200:
            raise _invalid(file, "a status other than 200 goes with a response")
        return found


def _read(file: Path) -> bytes:
    # a pipe in the folder would be waited for: it is opened without waiting, and is no file
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as opened:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "it is no file")
        return opened.read(limits.AI_FIXTURE_BYTES.value + 1)


def _invalid(file: Path, why: str) -> faults.Refused:
    return faults.AI_FIXTURE_INVALID.refuse(f"{file.name}: {why}", {"file": file.name})
