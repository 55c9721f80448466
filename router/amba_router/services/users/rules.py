"""What may be an email address or a time zone, and what a new user is called.

Source: contract E.3 (32 adjectives x 32 nouns; `INVALID_EMAIL`, `INVALID_TIMEZONE`); RFC 5321
section 4.5.3.1 (lengths); the words and the rest of the rules are ours.
"""

from __future__ import annotations

import re
import unicodedata
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from amba_runtime import entropy, limits

_LOCAL = re.compile(r"[^\s@\"(),:;<>\[\\\]\x00-\x1f\x7f]{1,64}\Z")
_LABEL = re.compile(r"(?!-)(?:[^\W_]|-){1,63}(?<!-)\Z")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(?:/[A-Za-z0-9_+-]{1,31}){0,2}\Z")
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})
"""Files beside the zones on some machines, which name no place."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ADJECTIVES = _words(
    "amber bold brisk calm candid clever coral curious daring eager fair fleet gentle glad "
    "golden hardy jolly keen kind lively lucky mellow merry nimble proud quiet rapid silver "
    "steady sunny swift witty"
)
NOUNS = _words(
    "anchor badger beacon birch canyon cedar comet coyote cricket dolphin ember falcon fern "
    "fjord gecko harbor heron island juniper lantern lynx maple meadow otter panda pebble "
    "puffin raven river sparrow tiger walrus"
)


def email_key(address: str) -> str | None:
    """The address as it is compared: composed, in lower case; None for what is none.

    Quoted local parts, domains without a dot, and addresses of machines are none of ours.
    """
    text = unicodedata.normalize("NFC", address.strip()).lower()
    local, at, domain = text.rpartition("@")
    if not at or len(text) > limits.EMAIL_LENGTH.value:
        return None
    if any(unicodedata.category(character).startswith("C") for character in text):
        return None  # nobody sees them, or they turn others around
    if _LOCAL.match(local) is None or local.startswith(".") or local.endswith(".") or ".." in local:
        return None
    labels = domain.split(".")
    if (
        len(labels) < 2
        or labels[-1].isdigit()
        or any(_LABEL.match(label) is None for label in labels)
    ):
        return None
    return text


def is_timezone(name: str) -> bool:
    """Whether this machine's database has such a zone (`Europe/Vienna`, `UTC`)."""
    if _ZONE.match(name) is None or name in _NO_ZONES:
        return False
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of zones is an OSError
        return False
    return True


def display_name() -> str:
    """Two words, such as `Amber Otter`; many users have the same."""
    first, second = entropy.key_bytes(2)
    adjective = ADJECTIVES[first % len(ADJECTIVES)]
    return f"{adjective} {NOUNS[second % len(NOUNS)]}".title()
