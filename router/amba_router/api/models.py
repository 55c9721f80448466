"""What the bodies of all planes share: plain types, and errors.

Imported when the first API request comes, as msgspec is. Source: contract A.7, E.0.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

TEXT = r"^[^\x00-\x1f\x7f]*$"
"""No control characters: names are shown in terminals and pages."""

Label = Annotated[str, Meta(min_length=1, max_length=200, pattern=TEXT)]
Environment = Literal["development", "production"]
Count = Annotated[int, Meta(ge=0)]
Version = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Iso = Annotated[str, Meta(description="ISO 8601 in UTC", examples=["2026-01-01T00:00:00.000Z"])]


# --- errors ---


class ErrorBody(Struct, kw_only=True):
    """Carries what every reader of the platform's errors wants (contract A.7)."""

    kind: str
    code: str
    status: int
    message: str
    request_id: str | None
    details: dict[str, Any] | UnsetType = UNSET


class ErrorAnswer(Struct):
    error: ErrorBody
