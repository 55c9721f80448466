"""R2's rules, as tables."""

from __future__ import annotations

import pytest

from amba_router.services.storage.rules import (
    Condition,
    ETag,
    Fault,
    R2Error,
    Range,
    Strength,
    check_digests,
    check_key,
    check_metadata,
    choose_parts,
    holds,
    multipart_etag,
    parse_range,
    resolve,
)
from amba_router.store.records import Metadata, Part, Segment, StoredObject, Upload, after_prefix
from amba_runtime import limits

FOUND = StoredObject(b"k", "v", 10, "e", 5_500, {}, Metadata())
STRONG, WEAK, OTHER = ETag(Strength.STRONG, "e"), ETag(Strength.WEAK, "e"), ETag(Strength.STRONG)
ANY = ETag(Strength.WILDCARD)


@pytest.mark.parametrize(
    ("condition", "on_found", "on_nothing"),
    [
        (Condition(), True, True),
        (Condition(etag_matches=(STRONG,)), True, False),
        (Condition(etag_matches=(OTHER, STRONG)), True, False),
        (Condition(etag_matches=(WEAK,)), False, False),
        (Condition(etag_matches=(OTHER,)), False, False),
        (Condition(etag_matches=(ANY,)), True, False),
        (Condition(etag_differs=(STRONG,)), False, True),
        (Condition(etag_differs=(WEAK,)), False, True),
        (Condition(etag_differs=(OTHER,)), True, True),
        (Condition(etag_differs=(ANY,)), False, True),
        (Condition(uploaded_before_ms=5_501), True, True),
        (Condition(uploaded_before_ms=5_500), False, True),
        (Condition(uploaded_after_ms=5_499), True, False),
        (Condition(uploaded_after_ms=5_500), False, False),
        (Condition(uploaded_before_ms=5_900, whole_seconds=True), False, True),
        (Condition(uploaded_before_ms=6_000, whole_seconds=True), True, True),
        (Condition(uploaded_after_ms=4_999, whole_seconds=True), True, False),
        (Condition(uploaded_after_ms=5_000, whole_seconds=True), False, False),
        (Condition(etag_matches=(STRONG,), uploaded_before_ms=1), True, False),
        (Condition(etag_differs=(OTHER,), uploaded_after_ms=9_999), True, False),
        (Condition(etag_differs=(STRONG,), uploaded_after_ms=1), False, False),
    ],
)
def test_conditions(condition: Condition, on_found: bool, on_nothing: bool) -> None:
    """R2's conditional table, on an object and on nothing (contract C)."""
    assert (holds(condition, FOUND), holds(condition, None)) == (on_found, on_nothing)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, (0, 10)),
        (Range(offset=3), (3, 7)),
        (Range(length=3), (0, 3)),
        (Range(offset=9, length=1), (9, 1)),
        (Range(offset=9, length=2), (9, 1)),
        (Range(suffix=3), (7, 3)),
        (Range(suffix=11), (0, 10)),
        (Range(offset=10), None),
        (Range(offset=1 << 62), None),
        (Range(length=0), None),
        (Range(suffix=0), None),
    ],
)
def test_ranges(asked: Range | None, expected: tuple[int, int] | None) -> None:
    """Ranges are cut to the object; an empty one is refused (contract C)."""
    if expected is not None:
        assert resolve(asked, 10) == expected
        return
    with pytest.raises(R2Error) as caught:
        resolve(asked, 10)
    assert caught.value.fault is Fault.INVALID_RANGE


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=1-3", Range(offset=1, length=3)),
        (" Bytes = 1 - 3 ", Range(offset=1, length=3)),
        ("bytes=5-", Range(offset=5)),
        ("bytes=-5", Range(suffix=5)),
        ("bytes=-", None),
        ("bytes=3-1", None),
        ("bytes=1-2,4-5", None),
        ("items=1-2", None),
        ("bytes=a-b", None),
        ("", None),
        ("bytes=" + "9" * 40 + "-", None),
    ],
)
def test_range_headers(header: str, expected: Range | None) -> None:
    """One range is understood, anything else ignored (RFC 9110 section 14.2)."""
    assert parse_range(header) == expected


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        ("k", True),
        ("é" * 512, True),
        ("k" * 1024, True),
        ("", False),
        ("k" * 1025, False),
        ("é" * 512 + "k", False),
        ("k" * 10**6, False),
        ("\ud800", False),
    ],
)
def test_keys(key: str, fits: bool) -> None:
    """1 to 1,024 bytes of UTF-8 (H6)."""
    if fits:
        assert check_key(key) == key.encode()
        return
    with pytest.raises(R2Error) as caught:
        check_key(key)
    assert caught.value.fault is Fault.INVALID_OBJECT_NAME


def test_metadata_is_counted_in_bytes() -> None:
    """8,192 bytes of names and values, just inside and just outside; odd text is counted too."""
    size = limits.STORAGE_METADATA.value
    check_metadata(Metadata(custom=(("k", "v" * (size - 1)),)))
    check_metadata(Metadata(custom=(("\ud800", "v"),)))
    for custom in ((("k", "v" * size),), (("é", "v" * (size - 1)),), (("k" * size, "v"),)):
        with pytest.raises(R2Error) as caught:
            check_metadata(Metadata(custom=custom))
        assert caught.value.fault is Fault.METADATA_TOO_LARGE


def test_digests_name_the_algorithm_and_both_values() -> None:
    """R2's message for a wrong checksum (10037)."""
    check_digests({"md5": "aa"}, {"md5": "aa", "sha1": "bb"})
    with pytest.raises(R2Error, match=r"SHA-384 .*\n.*value: aa\nActual SHA-384 was: bb"):
        check_digests({"sha384": "aa"}, {"sha384": "bb"})


def part(number: int, size: int) -> Part:
    return Part(number, f"{number:032x}", Segment("b", size))


MIN = limits.STORAGE_PART_MIN.value
UPLOAD = Upload("u", b"k", Metadata(), open=True)


@pytest.mark.parametrize(
    ("sizes", "fault"),
    [
        ([], None),
        ([0], None),
        ([1], None),
        ([MIN, 1], None),
        ([MIN, MIN], None),
        ([MIN + 1, MIN + 1, MIN], None),
        ([MIN - 1, 1], Fault.ENTITY_TOO_SMALL),
        ([MIN, MIN + 1], Fault.BAD_UPLOAD),
        ([MIN, MIN + 1, 1], Fault.BAD_UPLOAD),
    ],
)
def test_part_sizes(sizes: list[int], fault: Fault | None) -> None:
    """5 MiB at least, all alike, the last as large at most (R2 multipart rules)."""
    there = [part(n, size) for n, size in enumerate(sizes, 1)]
    wanted = [(p.number, p.etag) for p in there]
    if fault is None:
        assert choose_parts(UPLOAD, there, wanted) == (UPLOAD, there)
        return
    with pytest.raises(R2Error) as caught:
        choose_parts(UPLOAD, there, wanted)
    assert caught.value.fault is fault


def test_multipart_etag_is_that_of_the_documentation() -> None:
    """The example of R2's multipart page: MD5 of the binary MD5s, hyphen, count."""
    parts = [
        Part(1, "bce6bf66aeb76c7040fdd5f4eccb78e6", Segment("b", 1)),
        Part(2, "8165449fc15bbf43d3b674595cbcc406", Segment("b", 1)),
    ]
    assert multipart_etag(parts) == "f77dc0eecdebcd774a2a22cb393ad2ff-2"


def test_after_prefix_is_the_next_place() -> None:
    """Everything with the prefix lies below it, nothing else does."""
    assert after_prefix(b"a/") == b"a0"
    assert "a\U0010ffff".encode() + b"zzz" < after_prefix("a\U0010ffff".encode())
