"""Percentages are stable and uniform; the ladder of conditions; entity tags (E.8, H-17, H-18)."""

from __future__ import annotations

import hashlib
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amba_router.services.config.evaluation import bucket, etag, holds, matches, values
from amba_router.services.config.models import Condition
from amba_router.store.config_rows import Config

CHI_SQUARE_99 = 148.2
"""Of 99 degrees of freedom: 1 in 1,000 of what is uniform lies above."""

SEGMENTS = ("a", "b", "c")
conditions = st.lists(
    st.builds(
        Condition,
        segment_id=st.none() | st.sampled_from(SEGMENTS),
        percentage=st.none() | st.integers(0, 100) | st.floats(0, 100),
        value=st.integers(),
    ),
    max_size=6,
)


def config(key: str, given: list[Condition]) -> Config:
    return Config("id", key, "-1", "json", None, msgspec.json.encode(given).decode(), 1, 0, 0)


def chosen(key: str, given: list[Condition], user: str, segments: frozenset[str]) -> int:
    """What `values` has for one key."""
    raw = values([config(key, given)], user, segments)[key]
    return int(bytes(raw))


@pytest.mark.parametrize("key", ["checkout_v2", "theme", "a.b:c-d"])
@pytest.mark.parametrize("ids", ["u_{}", "{:032x}"])
def test_places_are_uniform(key: str, ids: str) -> None:
    """20,000 users over a hundred places: chi-square within what chance gives (H-17)."""
    users = 20_000
    counts = Counter(bucket(ids.format(number), key) for number in range(users))
    assert set(counts) == set(range(100))
    expected = users / 100
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < CHI_SQUARE_99


def test_places_of_two_keys_are_independent() -> None:
    """Who is in one rollout is as likely in another: chi-square of a ten by ten table (H-17)."""
    users = 20_000
    cells = Counter((bucket(f"u{n}", "a") // 10, bucket(f"u{n}", "b") // 10) for n in range(users))
    expected = users / 100
    assert sum((cells[x, y] - expected) ** 2 / expected for x in range(10) for y in range(10)) < (
        CHI_SQUARE_99
    )


@pytest.mark.parametrize(("user", "key"), [("u_42", "greeting"), ("ü", "k"), ("", "k")])
def test_the_hash_is_the_documented_one(user: str, key: str) -> None:
    """sha256 of `uid|key`, its first eight hex digits, modulo 100 (H-17)."""
    digest = hashlib.sha256(f"{user}|{key}".encode()).hexdigest()
    assert bucket(user, key) == int(digest[:8], 16) % 100


@given(st.text(max_size=20), st.integers(0, 100), st.integers(0, 100))
def test_who_is_in_stays_in_as_the_share_grows(user: str, one: int, other: int) -> None:
    """Stable per user and key: a larger percentage takes nobody out (H-17)."""
    low, high = sorted((one, other))
    if holds(Condition(percentage=low, value=0), "k", user, ()):
        assert holds(Condition(percentage=high, value=0), "k", user, ())


@given(conditions, st.text(min_size=1, max_size=8), st.frozensets(st.sampled_from(SEGMENTS)))
def test_the_first_that_holds_wins(
    given: list[Condition], user: str, segments: frozenset[str]
) -> None:
    """As a plain reading of the ladder has it; nobody gets the default (E.8, H-18)."""
    expected = -1
    for condition in reversed(given):
        member = condition.segment_id is None or condition.segment_id in segments
        share = 100 if condition.percentage is None else condition.percentage
        if member and (share >= 100 or bucket(user, "k") < share):
            expected = condition.value
    assert chosen("k", given, user, segments) == expected
    assert chosen("k", given, "", segments) == -1


@given(st.text(max_size=30), st.lists(st.text(max_size=5), max_size=4))
def test_a_tag_is_one_and_matches_itself(user: str, segments: list[str]) -> None:
    """Whatever a user is called, a tag is what RFC 9110 8.8.3 lets it be."""
    tag = etag("0" * 64, user, segments)
    assert tag == etag("0" * 64, user, segments[::-1])
    assert all(c == "!" or "#" <= c <= "~" for c in tag[1:-1])
    assert matches(f'"x",W/{tag} , "y"', tag)
    assert not matches(f'"x", {tag}"y"', tag)


def test_tags_of_two_users_differ() -> None:
    """Also of those whose ids are spelled alike once encoded."""
    users = ["a", "a%20", "a ", "a%2520", 'a"', "a:b", "A"]
    assert len({etag("v", user, ()) for user in users}) == len(users)
