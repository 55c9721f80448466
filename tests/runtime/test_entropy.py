"""Ids, tokens and keys have the forms others parse, and no two are alike."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from itertools import pairwise

import pytest

from amba_runtime import entropy

NOW_S = 1_767_225_600.123


def test_a_request_id_is_a_uuid_version_7() -> None:
    """Version 7 and variant 10 at their places (contract A.6; RFC 9562 section 5.7)."""
    ids = entropy.RequestIds()
    for _ in range(1000):
        text = ids.new(NOW_S)
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


@pytest.mark.parametrize(
    ("time_s", "ms"),
    [(0.0, 0), (0.001, 1), (1.5, 1500), (1_645_557_742.0, 0x017F22E279B0), (2.0**37, 2**37 * 1000)],
)
def test_a_request_id_begins_with_its_milliseconds(time_s: float, ms: int) -> None:
    """The first 48 bits are Unix milliseconds; 0x017F22E279B0 is RFC 9562's own example (A.6)."""
    assert uuid.UUID(entropy.RequestIds().new(time_s)).int >> 80 == ms


def test_a_hundred_thousand_request_ids_of_one_instant_differ() -> None:
    """No collision within a millisecond, over many refills of the random block."""
    ids = entropy.RequestIds()
    made = {ids.new(NOW_S) for _ in range(100_000)}
    assert len(made) == 100_000
    assert len({text[:14] for text in made}) == 1


def test_every_random_bit_of_a_request_id_moves() -> None:
    """74 bits are random, and no other: none is stuck (RFC 9562 section 5.7)."""
    ids = entropy.RequestIds()
    first, moved = uuid.UUID(ids.new(NOW_S)).int, 0
    for _ in range(2000):
        moved |= first ^ uuid.UUID(ids.new(NOW_S)).int
    assert moved == (0xFFF << 64) | (2**62 - 1)


def test_request_ids_sort_by_time() -> None:
    """Text order is time order, from one millisecond to the next (RFC 9562 section 5.7)."""
    ids = entropy.RequestIds()
    made = [ids.new(NOW_S + step / 500) for step in range(2000)]
    assert all(earlier < later for earlier, later in pairwise(made))


def test_a_clock_that_goes_back_is_followed() -> None:
    """An id tells the time it was given, whatever came before."""
    ids = entropy.RequestIds()
    times_ms = [1000, 2000, 1000]
    made = [ids.new(ms / 1000) for ms in times_ms]
    assert [uuid.UUID(text).int >> 80 for text in made] == times_ms


def test_two_makers_do_not_repeat_each_other() -> None:
    """Each instance draws bits of its own."""
    one, other = entropy.RequestIds(), entropy.RequestIds()
    assert not {one.new(1.0) for _ in range(500)} & {other.new(1.0) for _ in range(500)}


def test_a_uuid4_is_one() -> None:
    """Version 4 in its usual spelling, each another."""
    made = [entropy.uuid4() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(str(uuid.UUID(text)) == text for text in made)
    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in made} == {
        (4, uuid.RFC_4122)
    }


def test_a_token_fits_the_public_pattern() -> None:
    """Prefix and 32 URL-safe characters (contract A.6: the PAT format)."""
    made = {entropy.token("amb_dpat_") for _ in range(1000)}
    assert len(made) == 1000
    pattern = re.compile(r"amb_dpat_[A-Za-z0-9_-]{32}\Z")
    assert [text for text in made if not pattern.match(text)] == []


@pytest.mark.parametrize(
    ("mint", "form"),
    [
        (entropy.pat, r"amb_dpat_[\w-]{32}"),
        (lambda: entropy.api_key("client", "development"), r"amb_dev_ck_[\w-]{32}"),
        (lambda: entropy.api_key("client", "production"), r"amb_live_ck_[\w-]{32}"),
        (lambda: entropy.api_key("server", "development"), r"amb_dev_sk_[\w-]{32}"),
        (lambda: entropy.api_key("server", "production"), r"amb_live_sk_[\w-]{32}"),
        (entropy.internal_token, r"amb_int_[\w-]{43}"),
        (entropy.signing_secret, r"whsec_[\w-]{43}"),
        (entropy.session_key, r"[0-9a-f]{64}"),
    ],
)
def test_each_credential_has_its_form(mint: Callable[[], str], form: str) -> None:
    """As contract A.6, C.1 and E.0 spell them; never the same twice."""
    made = {mint() for _ in range(100)}
    assert len(made) == 100
    assert [text for text in made if not re.fullmatch(form, text, re.ASCII)] == []


@pytest.mark.parametrize("size", [1, 16, 32, 64])
def test_key_bytes_has_the_size_asked_for(size: int) -> None:
    """Raw bytes, as many as asked for."""
    assert len(entropy.key_bytes(size)) == size


def test_keys_are_32_bytes_and_never_the_same() -> None:
    """256 bits where nothing else is said."""
    assert {len(entropy.key_bytes()) for _ in range(10)} == {32}
    assert len({entropy.key_bytes() for _ in range(1000)}) == 1000


def test_a_short_id_fits_a_file_name() -> None:
    """Eight lower-case hex characters, whatever the file system folds."""
    made = [entropy.short_id() for _ in range(200)]
    assert [text for text in made if not re.fullmatch(r"[0-9a-f]{8}", text)] == []
    assert len(set(made)) == 200


def test_a_fraction_lies_between_nothing_and_one() -> None:
    """For jitter: never 1, spread over all of it."""
    drawn = [entropy.fraction() for _ in range(1_000)]
    assert all(0 <= one < 1 for one in drawn)
    assert min(drawn) < 0.1
    assert max(drawn) > 0.9
