"""What answers where no provider does: the same words for the same question, and embeddings.

Nothing here understands anything. A reply says that it is canned and repeats the question; an
embedding counts words and their trigrams, so that texts that share words are near each other.
Source: contract E.10 ("a deterministic canned responder").
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from amba_runtime import limits

_WORD = re.compile(r"\w+")
_PIECE = re.compile(r"\s*(?:\w{1,6}|[^\w\s])|\s+\Z")
_TRIGRAM_WEIGHT = 0.2
"""A word counts five times one of its trigrams: a shared word beats shared syllables."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a call, both ways."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """What a call wants of a text, whatever its provider calls it.

    Attributes:
        last: the text of the newest message of the user.
        tokens_max: pieces of the reply; None is as many as it has.
        stops: texts that end the reply, and are not in it.
        digest: hex of SHA-256 of the body: ids are made of it.
    """

    model: str
    last: str
    tokens_max: int | None
    stops: tuple[str, ...]
    stream: bool
    digest: str
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Text:
    """A reply: its pieces, which are what a stream sends one by one; why it ends there.

    Attributes:
        stop: the stop text that ended it. cut: `tokens_max` did.
    """

    pieces: tuple[str, ...]
    stop: str | None
    cut: bool
    usage: Usage

    @property
    def whole(self) -> str:
        return "".join(self.pieces)


def reply(ask: Ask, text: str | None = None) -> Text:
    """The words that answer a call. Args: text: recorded ones; None is a canned sentence."""
    if text is None:
        said = " ".join(ask.last[: limits.AI_ECHO_CHARS.value].split())
        text = f"Canned reply of amba-run: no AI provider was asked. You said: {said}"
    stop = None
    for one in ask.stops:
        at = text.find(one) if one else -1
        if at >= 0:
            text, stop = text[:at], one
    pieces = tuple(_PIECE.findall(text))
    cut = ask.tokens_max is not None and len(pieces) > ask.tokens_max
    if cut:
        pieces, stop = pieces[: ask.tokens_max], None
    return Text(pieces, stop, cut, Usage(tokens_of(ask.body_bytes), len(pieces)))


def tokens_of(size: int) -> int:
    """How many tokens so many bytes of text are taken for: one for each four, at least one."""
    return max(1, -(-size // 4))


def embed(text: str, dimensions: int) -> list[float]:
    """A unit vector that counts a text's words and their trigrams.

    Upper and lower case, compatibility forms and punctuation make no difference. The cosine of
    two texts grows with the words they share; without a shared word or trigram it is about 0
    (for 64 dimensions and more: with fewer, features fall together).

    Args:
        dimensions: 1 or more.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    counts: Counter[str] = Counter()
    for word, times in Counter(_WORD.findall(folded)).items():
        counts[word] += times
        padded = f"^{word}$"
        for at in range(len(padded) - 2):
            counts[f"\0{padded[at : at + 3]}"] += times
    vector = [0.0] * dimensions
    for feature, times in counts.items():
        weight = math.sqrt(times) * (_TRIGRAM_WEIGHT if feature[0] == "\0" else 1.0)
        _add(vector, feature, weight)
    norm = math.hypot(*vector)
    if norm < 1e-9:  # no word in it, or features that cancel each other out
        vector = [0.0] * dimensions
        _add(vector, f"\1{folded}", 1.0)
        norm = 1.0
    return [value / norm for value in vector]


def _add(vector: list[float], feature: str, weight: float) -> None:
    raw = feature.encode("utf-8", "surrogatepass")
    hashed = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")
    vector[(hashed >> 1) % len(vector)] += weight if hashed & 1 else -weight
