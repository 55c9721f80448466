"""Canned embeddings: the same, of unit length, and near where words are shared (E.10)."""

from __future__ import annotations

import random

import pytest

from amba_router.services.ai.canned import embed, tokens_of

WORDS = (
    *("river", "mountain", "forest", "glacier", "desert", "island", "harbor", "meadow"),
    *("canyon", "volcano", "piano", "violin", "trumpet", "guitar", "drummer"),
    *("singer", "concert", "orchestra", "melody", "rhythm", "bread", "cheese"),
    *("tomato", "pepper", "onion", "garlic", "lemon", "butter", "honey", "walnut"),
)


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "text", ["three rivers", "", "!!!", "東京は夜の七時", "x" * 10_000, "\udcff"]
)
@pytest.mark.parametrize("dimensions", [1, 2, 3, 256, 1536])
def test_a_vector_is_of_unit_length(text: str, dimensions: int) -> None:
    """Whatever the text, and the same each time (E.10)."""
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert cosine(vector, vector) == pytest.approx(1)
    assert embed(text, dimensions) == vector


@pytest.mark.parametrize("dimensions", [256, 1536])
def test_texts_that_share_words_are_nearer(dimensions: int) -> None:
    """Of 200 questions each is nearer to a text with two of its words than to one with none."""
    chance = random.Random(7)
    for _ in range(200):
        words = chance.sample(WORDS, 14)
        asked, none = words[:4], words[8:14]
        some = [*words[:2], *words[4:8]]
        chance.shuffle(some)
        vector = embed(" ".join(asked), dimensions)
        near = cosine(vector, embed(" ".join(some), dimensions))
        far = cosine(vector, embed(" ".join(none), dimensions))
        assert near > far + 0.05


def test_what_makes_no_difference() -> None:
    """Case, punctuation and compatibility forms do not; related words are nearer than others."""
    plain = embed("the rivers of france", 512)
    assert cosine(plain, embed("The RIVERS, of France!", 512)) == pytest.approx(1)
    assert cosine(plain, embed("the rivers of \uff46rance", 512)) == pytest.approx(1)
    assert cosine(embed("rivers", 512), embed("river", 512)) > 0.05
    assert abs(cosine(embed("rivers", 512), embed("piano", 512))) < 0.05


def test_tokens() -> None:
    """One for each four bytes, and one for nothing."""
    assert [tokens_of(size) for size in (0, 1, 4, 5, 400)] == [1, 1, 1, 2, 100]
