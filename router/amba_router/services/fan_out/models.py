"""Bodies of fan-out. Source: contract E.13; H-8 (doubled keys). Bounds are ours."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct, field

from amba_router.api.models import Count

_Id = Annotated[str, Meta(min_length=1, max_length=200)]


def _null() -> Raw:
    return Raw(b"null")


class FanOutInvoke(Struct, kw_only=True):
    """The function's `queue` handler gets `payload` as it was sent; null without one."""

    function: _Id
    payload: Annotated[Raw, Meta(description="any JSON, 64 KiB at most")] = field(
        default_factory=_null
    )


class DeliveryWindow(Struct, kw_only=True, forbid_unknown_fields=True):
    """Whole hours of each user's own day: from the first to before the second.

    The end may be the smaller one, over midnight; 24 is midnight, too. Equal ones are refused.
    """

    local_hour_start: Annotated[int, Meta(ge=0, le=23)]
    local_hour_end: Annotated[int, Meta(ge=0, le=24)]


class FanOutSegment(Struct, kw_only=True):
    """Without a window at once."""

    segment_id: _Id
    invoke: FanOutInvoke
    delivery_window: DeliveryWindow | None = None


class FannedOut(Struct, kw_only=True):
    batch_count: Count
    estimated_user_count: Count


class FannedOutAnswer(Struct, kw_only=True):
    """`data` and the same keys at the top."""

    data: FannedOut
    batch_count: Count
    estimated_user_count: Count
