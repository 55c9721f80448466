"""Addresses, time zones and names: just inside, just outside, absurd (contract E.3)."""

from __future__ import annotations

import pytest

from amba_router.services.users import rules


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("ada@example.com", "ada@example.com"),
        (" Ada.B+tag@Sub.Example.COM\n", "ada.b+tag@sub.example.com"),
        ("o'neil_1!#$%&*/=?^`{|}~-@e-x.io", "o'neil_1!#$%&*/=?^`{|}~-@e-x.io"),
        ("jo\u0308rg@mu\u0308nchen.de", "jörg@münchen.de"),
        ("l" * 64 + "@example.com", "l" * 64 + "@example.com"),
        ("a@" + ".".join(["d" * 63] * 3) + "." + "e" * 60, None),  # 254 in all
    ],
)
def test_addresses(address: str, key: str | None) -> None:
    """As they are compared: trimmed, composed, in lower case."""
    assert rules.email_key(address) == (key or address)


@pytest.mark.parametrize(
    "address",
    [
        *("", "@", "a@", "@example.com", "example.com", "a@localhost", "a@example.", "a@.com"),
        *("a@b..com", ".a@example.com", "a.@example.com", "a..b@example.com", "a b@example.com"),
        *(
            "a@-b.com",
            "a@b-.com",
            "a@b_c.com",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            '"a"@example.com',
            "a@b@c.de",
        ),
        *("a@exa mple.com", "a\0@example.com", "a@example.com\x7f", "\u202ea@example.com"),
        *("l" * 65 + "@example.com", "a@" + "d" * 64 + ".com", "a\u200b@example.com"),
        "a@" + ".".join(["d" * 63] * 3) + "." + "e" * 61,
        "a" * 100_000,
    ],
)
def test_no_addresses(address: str) -> None:
    """None, in no time."""
    assert rules.email_key(address) is None


@pytest.mark.parametrize("name", ["Europe/Vienna", "UTC", "America/Argentina/Ushuaia", "Etc/GMT+5"])
def test_timezones(name: str) -> None:
    """By the machine's database."""
    assert rules.is_timezone(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "Europe", "Europe/Nowhere", "europe/vienna!", "../../etc/passwd", "/etc/localtime"),
        *("Europe/../UTC", "UTC\0", "UTC\n", "localtime", "+02:00", "A" * 10_000, "Factory"),
    ],
)
def test_no_timezones(name: str) -> None:
    """A folder, a path, a link of this machine: none of them is a zone."""
    assert not rules.is_timezone(name)


def test_names_vary() -> None:
    """Two words each, and not the same ones."""
    names = {rules.display_name() for _ in range(64)}
    assert len(names) > 8
    assert all(name == name.title() and name.count(" ") == 1 for name in names)
