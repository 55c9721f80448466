"""What is run: bundles and the declared facts about them. Frozen values, no I/O."""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass, field
from typing import NewType

from amba_runtime.limits import FunctionLimits

ProjectId = NewType("ProjectId", str)
FunctionName = NewType("FunctionName", str)
UserId = NewType("UserId", str)
DeveloperId = NewType("DeveloperId", str)

FUNCTION_NAME = re.compile(r"[a-z][a-z0-9_-]{0,57}\Z")
"""Function and queue names, 58 characters at most. Source: contract A.2."""

PROJECT_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{1,62}\Z")
"""Project slugs, 2 to 63 characters. Source: contract A.1."""

HANDLERS = ("fetch", "scheduled", "queue")
"""Members of the default export that are called. Source: contract B."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One ES module as the bundler made it, or as it was uploaded.

    Attributes:
        code: UTF-8 JavaScript, without a source map comment.
        sha256: lower-case hex of `code`. Source: contract D.1 (hash of the uncompressed output).
        source_map: version 3 JSON that leads back to the user's files, or None.
        metafile: esbuild's account of the build as JSON, or None; for reports, never trusted.
    """

    code: bytes
    sha256: str
    source_map: bytes | None = field(default=None, repr=False)
    metafile: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, code: bytes, *, source_map: bytes | None = None, metafile: bytes | None = None
    ) -> Bundle:
        """A bundle with its hash computed here, never taken from elsewhere."""
        return cls(code, hashlib.sha256(code).hexdigest(), source_map, metafile)

    def bytes_gzip(self) -> int:
        """Size after gzip level 9: what the upload cap is measured on (contract D.1, H-21)."""
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        return len(packer.compress(self.code)) + len(packer.flush())


@dataclass(frozen=True, slots=True)
class Manifest:
    """The declared facts about one version of a function.

    Attributes:
        env: the text bindings, in order: platform strings first, then secrets.
        storage: the function gets `STORAGE`.
        limits: what it may use; a slot puts in those in force for its function.
    """

    project_id: ProjectId
    name: FunctionName
    version: int
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    storage: bool = True
    compatibility_date: str = "2026-01-01"
    limits: FunctionLimits = field(default_factory=FunctionLimits.hosted)
