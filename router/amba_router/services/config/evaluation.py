"""What a user gets of remote config, and the names that such an answer has in caches.

Pure: the rows come from the store. Source: contract E.8, H-17, H-18.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from urllib.parse import quote

import msgspec

from amba_router.services.config.models import Condition
from amba_router.store.config_rows import Config

_TAGS = re.compile(r'(?:\A|,)[ \t]*(?:W/)?("[^"]*")(?=[ \t]*(?:,|\Z))')
_TAG_SAFE = "!#$&'()*+,/:;<=>?@[]^`{|}~"
"""Of what `quote` would encode: all that may stand between the quotes but `%`."""


def bucket(user_id: str, key: str) -> int:
    """A user's place among a hundred, the same for ever and another one for each key.

    Source: contract H-17 (the hash is ours).
    """
    digest = hashlib.sha256(f"{user_id}|{key}".encode("utf-8", "surrogatepass")).hexdigest()
    return int(digest[:8], 16) % 100


def holds(condition: Condition, key: str, user_id: str, segments: Collection[str]) -> bool:
    """Whether a user gets this condition's value."""
    if condition.segment_id is not None and condition.segment_id not in segments:
        return False
    share = condition.percentage
    return share is None or share >= 100 or bucket(user_id, key) < share


def values(
    configs: Iterable[Config], user_id: str, segments: Collection[str]
) -> Mapping[str, msgspec.Raw]:
    """A value for each key: of the first condition that holds, else the default.

    Args:
        user_id: "" is nobody, who gets the defaults.
    """
    chosen: dict[str, msgspec.Raw] = {}
    for config in configs:
        value = config.value
        if user_id and config.conditions != "[]":
            conditions = msgspec.json.decode(config.conditions, type=list[Condition])
            held = (c for c in conditions if holds(c, config.key, user_id, segments))
            first = next(held, None)
            if first is not None:
                value = msgspec.json.encode(first.value).decode()
        chosen[config.key] = msgspec.Raw(value.encode())
    return chosen


def version_hash(configs: Iterable[Config]) -> str:
    """SHA-256 in hex over rows in the order of their keys: all of each, times and version too."""
    digest = hashlib.sha256()
    for config in configs:
        row = (
            *(config.id, config.key, config.value, config.value_type, config.description),
            *(config.conditions, config.version, config.created_ms, config.updated_ms),
        )
        digest.update(msgspec.json.encode(row) + b"\n")
    return digest.hexdigest()


def etag(version: str, user_id: str, segments: Iterable[str]) -> str:
    """The entity tag of what a user gets, or nobody: in its quotes, as E.8 prints both forms.

    Segment ids are joined by LF before they are hashed (ours); what a tag may not hold of a user's
    id is percent-encoded (RFC 9110 section 8.8.3).
    """
    if not user_id:
        return f'"{version}"'
    joined = "\n".join(sorted(segments)).encode("utf-8", "surrogatepass")
    member_of = hashlib.sha256(joined).hexdigest()[:16]
    return f'"{version}:{quote(user_id, safe=_TAG_SAFE, errors="replace")}:{member_of}"'


def matches(if_none_match: str, tag: str) -> bool:
    """Whether a condition names this tag: weakly, one of several, or any.

    Source: RFC 9110 sections 8.8.3.2 and 13.1.2.
    """
    if if_none_match.strip() == "*":
        return True
    return any(found[1] == tag for found in _TAGS.finditer(if_none_match))
