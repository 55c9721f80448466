"""Bodies of remote config. Source: contract E.8."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from amba_router.api.models import Count, Iso, Version
from amba_runtime import limits

KEY = r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$(?!\n)"
"""Ours: what a key may be. `$` alone would take a line feed at the end."""

Key = Annotated[str, Meta(min_length=1, max_length=limits.CONFIG_KEY_CHARS.value, pattern=KEY)]
ValueType = Literal["string", "number", "boolean", "json"]
Description = Annotated[str, Meta(max_length=limits.CONFIG_DESCRIPTION_CHARS.value)]
_Share = Meta(ge=0, le=100)


class Condition(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Both must hold, where both are given (contract H-18); null is not given."""

    segment_id: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    percentage: Annotated[int, _Share] | Annotated[float, _Share] | None = None
    value: Any


Conditions = Annotated[list[Condition], Meta(max_length=limits.CONFIG_CONDITIONS.value)]


class SetConfig(Struct, kw_only=True):
    """A key and its value; what is left out of an old key stays, but for `value_type`."""

    key: Key
    value: Any
    value_type: ValueType = "string"
    description: Description | UnsetType | None = UNSET
    conditions: Conditions | UnsetType | None = UNSET


class PutConfig(Struct, kw_only=True):
    """As `SetConfig`; the key is in the path, and may be said again."""

    key: str | UnsetType = UNSET
    value: Any
    value_type: ValueType = "string"
    description: Description | UnsetType | None = UNSET
    conditions: Conditions | UnsetType | None = UNSET


class PatchConfig(Struct, kw_only=True):
    """Any of the three."""

    value: Any | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    conditions: Conditions | UnsetType | None = UNSET


class ConfigRow(Struct, kw_only=True):
    """`default_value` is always `value`."""

    id: str
    key: str
    value: Raw
    value_type: str
    description: str | None
    conditions: Raw
    default_value: Raw
    is_active: bool
    version: Version
    created_at: Iso
    updated_at: Iso


class ConfigAnswer(Struct):
    data: ConfigRow


class ConfigList(Struct):
    data: list[ConfigRow]
    total: Count
    offset: Count
    limit: Count


class DeletedConfig(Struct):
    deleted: bool


class DeletedConfigAnswer(Struct):
    data: DeletedConfig


class ConfigBundle(Struct):
    """A value for each key."""

    data: dict[str, Raw]
