"""Sizes on a command line are read as people write them, and refused in words."""

from __future__ import annotations

import pytest

from amba_run.sizes import Size, parse_size, shown_size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("500KB", 500_000),
        ("500 kb", 500_000),
        ("1KiB", 1024),
        ("1.5MiB", 1_572_864),
        (" 2MB ", 2_000_000),
        ("1GiB", 1 << 30),
        ("1gb", 10**9),
    ],
)
def test_a_size_is_bytes(text: str, count: int) -> None:
    """KB is 1,000, KiB 1,024, a bare number bytes."""
    assert parse_size(text) == Size(count)


@pytest.mark.parametrize(
    "text", ["", "KB", "-1", "1KBs", "1e3", "ten", "1K", "0x10", "9" * 50, "5%"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    """Says what may be written."""
    with pytest.raises(ValueError, match="write 500KB"):
        parse_size(text)


def test_growth_may_be_a_percentage() -> None:
    """Only where that makes sense."""
    assert parse_size("10%", percent=True) == Size(10, is_percent=True)
    assert parse_size("2KB", percent=True) == Size(2000)
    assert shown_size(Size(7.5, is_percent=True)) == "7.5 %"
    assert shown_size(Size(2000)) == "2000 bytes"
    with pytest.raises(ValueError, match="or 10%"):
        parse_size("x", percent=True)
