"""The exceptions of the house, and the two closed sets of their codes.

    AmbaRunError
      UserError            the person can fix it: CLI exit 1 (or 2), HTTP 4xx
        NotEmulatedError   names a feature of the platform that is not here: HTTP 501
      InternalError        we are wrong, or the world is: CLI exit 70, HTTP 500

How a guest's invocation ended is not an exception: see `outcome`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class UserCode(StrEnum):
    """What a person can put right. Documented in README.md of the root that raises it."""

    API_REFUSED = "API_REFUSED"
    BROKEN_ANSWER = "BROKEN_ANSWER"
    BUILD_FAILED = "BUILD_FAILED"
    CONFLICT = "CONFLICT"
    DISK_FULL = "DISK_FULL"
    ENTRY_NOT_FOUND = "ENTRY_NOT_FOUND"
    INVALID_CONFIG = "INVALID_CONFIG"
    INVALID_NAME = "INVALID_NAME"
    INVALID_PERSONA = "INVALID_PERSONA"
    INVALID_RATE_LIMIT = "INVALID_RATE_LIMIT"
    INVALID_SECRETS_FILE = "INVALID_SECRETS_FILE"
    INVALID_SNAPSHOT = "INVALID_SNAPSHOT"
    INVALID_STAMP = "INVALID_STAMP"
    INVALID_TIME = "INVALID_TIME"
    NAME_TAKEN = "NAME_TAKEN"
    NOT_EMULATED = "NOT_EMULATED"
    NO_PROJECT = "NO_PROJECT"
    NO_SERVER = "NO_SERVER"
    NO_STATE = "NO_STATE"
    NO_TOKEN = "NO_TOKEN"  # noqa: S105  a code, not a secret
    OVERLOADED = "OVERLOADED"
    PORT_IN_USE = "PORT_IN_USE"
    PROGRAM_MISSING = "PROGRAM_MISSING"
    REJECTED = "REJECTED"
    RESERVED_NAME = "RESERVED_NAME"
    SANDBOX_WEAK = "SANDBOX_WEAK"
    STATE_DAMAGED = "STATE_DAMAGED"
    STATE_IN_USE = "STATE_IN_USE"
    STATE_KEY = "STATE_KEY"
    STATE_NOT_EMPTY = "STATE_NOT_EMPTY"
    STATE_READ_ONLY = "STATE_READ_ONLY"
    STATE_TOO_NEW = "STATE_TOO_NEW"
    UNSAFE_LISTEN = "UNSAFE_LISTEN"


class InternalCode(StrEnum):
    """What only we, or the machine's owner, can put right."""

    BLOB_DAMAGED = "BLOB_DAMAGED"
    BUNDLER_PROTOCOL = "BUNDLER_PROTOCOL"
    ENGINE_PROTOCOL = "ENGINE_PROTOCOL"
    ENGINE_START = "ENGINE_START"
    INVARIANT = "INVARIANT"
    SECRET_DAMAGED = "SECRET_DAMAGED"  # noqa: S105  a word, not a password
    SPAWNER_GONE = "SPAWNER_GONE"
    STATE_FAILED = "STATE_FAILED"
    WALLS_MISSING = "WALLS_MISSING"


class AmbaRunError(Exception):
    """Root of everything we raise on purpose."""


class UserError(AmbaRunError):
    """The person can fix it.

    Args:
        code: stable, one of `UserCode`.
        message: what, to what, where; one or two sentences.
        hint: what to do, pasteable where it can be; "" when the message says it.
        details: JSON-able facts for machines.
    """

    def __init__(
        self,
        code: UserCode,
        message: str,
        *,
        hint: str = "",
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details or {}


class NotEmulatedError(UserError):
    """A feature of the platform that is not here, by name: never a silent stub."""

    def __init__(self, feature: str, *, hint: str = "") -> None:
        super().__init__(
            UserCode.NOT_EMULATED,
            f"{feature} is not emulated",
            hint=hint,
            details={"feature": feature},
        )


class InternalError(AmbaRunError):
    """We are wrong, or the world is; the message names the broken invariant."""

    def __init__(self, code: InternalCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
