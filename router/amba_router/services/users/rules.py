"""What may be an email address or a time zone, and what a new user is called.

Source: contract E.3 (32 adjectives x 32 nouns; `INVALID_EMAIL`, `INVALID_TIMEZONE`); RFC 5321
section 4.5.3.1 (lengths); the words and the rest of the rules are ours.
"""

from __future__ import annotations

import re
import unicodedata

from amba_router.zones import is_timezone
from amba_runtime import entropy, limits

__all__ = ["display_name", "email_key", "is_timezone"]

_LOCAL = re.compile(r"[^\s@\"(),:;<>\[\\\]\x00-\x1f\x7f]{1,64}\Z")
_LABEL = re.compile(r"(?!-)(?:[^\W_]|-){1,63}(?<!-)\Z")


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


def display_name() -> str:
    """Two words, such as `Amber Otter`; many users have the same."""
    first, second = entropy.key_bytes(2)
    adjective = ADJECTIVES[first % len(ADJECTIVES)]
    return f"{adjective} {NOUNS[second % len(NOUNS)]}".title()
