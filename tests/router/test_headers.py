"""Stripping: a truth table of forgeries, and the property that nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amba_router import headers
from amba_router.headers import is_reserved, strip

Field = tuple[bytes, bytes]


def spellings(name: bytes) -> list[bytes]:
    title = b"-".join(part.capitalize() for part in name.split(b"-"))
    mixed = bytes(c - 32 if n % 2 and 97 <= c <= 122 else c for n, c in enumerate(name))
    return [
        name,
        name.upper(),
        title,
        mixed,
        name.replace(b"-", b"_"),
        title.replace(b"-", b"_"),
        name.replace(b"-", b"_", 1),
        b" " + name,
        b"\t" + title,
        name + b" ",
        name + b"\0",
        name + b"-2",
    ]


@pytest.mark.parametrize(
    "spelled",
    [
        *(b"cf-connecting-ip", b"CF-Connecting-IP", b"CF_Connecting_IP", b"cf_connecting-ip"),
        *(b"cf-connecting_ip", b"CF_CONNECTING_IP"),
    ],
)
def test_no_spelling_of_the_peers_address_passes(spelled: bytes) -> None:
    """Underscores are no way around it; what is not ours passes (contract H-3)."""
    others = [(b"cf-ray", b"1"), (b"true-client-ip", b"2"), (b"cf-connecting-ipv6", b"3")]
    assert strip([(spelled, b"6.6.6.6"), *others, (spelled, b"")]) == others


@pytest.mark.parametrize("name", headers.STAMPED)
def test_no_spelling_of_a_stamped_header_passes(name: bytes) -> None:
    """Any case, underscores, padding, suffixes, once or twice: all go (contract A.3; B1)."""
    for spelled in spellings(name):
        forged: list[Field] = [(b"a", b"1"), (spelled, b"evil"), (spelled, b""), (b"b", b"2")]
        assert strip(forged) == [(b"a", b"1"), (b"b", b"2")]


@pytest.mark.parametrize(
    ("name", "reserved"),
    [
        (b"x-amba", True),
        (b"X_AMBA", True),
        (b"x-amba-", True),
        (b"x-amba-anything-new", True),
        (b"x-ambassador", True),  # the whole prefix is ours, as the rule says it
        (b"x-amb", False),
        (b"x--amba", False),
        (b"amba-user-id", False),
        (b"x-user-id", False),
        (b"", False),
    ],
)
def test_what_is_reserved(name: bytes, reserved: bool) -> None:
    """Everything that begins with `x-amba`, read with `_` as `-` (architecture.md 3, step 3)."""
    assert is_reserved(name) is reserved
    assert (strip([(name, b"v")]) == []) is reserved


@pytest.mark.parametrize(
    "name",
    [
        *sorted(headers.HOP_BY_HOP),
        b"host",
        b"content-length",
        b"expect",
        b"cf-connecting-ip",
    ],
)
def test_what_the_dispatcher_sets_or_ends_is_dropped(name: bytes) -> None:
    """Hop-by-hop fields, framing and the peer's address never pass (RFC 9110 7.6.1; H-3)."""
    assert strip([(name, b"x"), (name.upper(), b"y"), (b"a", b"1")]) == [(b"a", b"1")]


@pytest.mark.parametrize(
    "name",
    [
        b"authorization",
        b"cookie",
        b"x-api-key",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-original-url",
        b"x-rewrite-url",
        b"forwarded",
        b"stripe-signature",
        b"sec-websocket-key",
        b"hosts",
    ],
)
def test_what_is_the_functions_own_business_passes(name: bytes) -> None:
    """Credentials, cookies and the rest reach the function as sent (contract A.3, H-3)."""
    fields: list[Field] = [(name, b"one"), (name, b"two")]
    assert strip(fields) == fields


def test_connection_nominates() -> None:
    """A field that any `Connection` names goes too, in any case and with blanks (B1, B2)."""
    fields: list[Field] = [
        (b"A", b"1"),
        (b"Cookie", b"kept"),
        (b"connection", b"close,  X-Drop-Me\t, x-amba-user-id"),
        (b"x-drop-me", b"1"),
        (b"X-DROP-ME", b"2"),
        (b"Connection", b"a"),
        (b"x-amba-user-id", b"evil"),
    ]
    assert strip(fields) == [(b"cookie", b"kept")]


@pytest.mark.parametrize("option", [b"keep-alive", b"close", b"Keep-Alive", b"CLOSE", b""])
def test_plain_connection_options_nominate_nothing(option: bytes) -> None:
    """The everyday values of `Connection` cost no other header (RFC 9110 7.6.1)."""
    fields: list[Field] = [(b"connection", option), (b"a", b"1")]
    assert strip(fields) == [(b"a", b"1")]


_KNOWN = [
    *headers.STAMPED,
    *sorted(headers.HOP_BY_HOP),
    *(b"host", b"content-length", b"expect", b"cf-connecting-ip", b"cookie", b"set-cookie"),
    *(b"authorization", b"x-amba-other", b"x-forwarded-for", b"x-amb", b"a", b"a-b", b"c_d"),
]
_NAMES = [
    *_KNOWN,
    *[name.upper() for name in _KNOWN],
    *[name.replace(b"-", b"_").title() for name in _KNOWN],
    *[b"connection", b"Connection"] * 12,
]
_VALUES = [b"", b"v", b"keep-alive", b"close", *_KNOWN, b"a, C_D", b"x-amba-user-id ,COOKIE", b",,"]


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(_NAMES), st.sampled_from(_VALUES)), max_size=12))
@settings(max_examples=2000, deadline=None)
def test_out_is_in_less_what_must_go(fields: list[Field]) -> None:
    """Out = in - hop-by-hop - nominated - prefix - ours; order and duplicates kept (B2)."""
    nominated = {
        token.strip().lower()
        for name, value in fields
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    ours = {b"host", b"content-length", b"expect", b"cf-connecting-ip"}
    gone = set(headers.HOP_BY_HOP) | ours | nominated
    expected = [
        (name.lower(), value)
        for name, value in fields
        if name.lower() not in gone
        and name.lower().replace(b"_", b"-") != headers.CONNECTING_IP
        and not name.lower().replace(b"_", b"-").startswith(b"x-amba")
    ]
    assert strip(fields) == expected
    assert strip(tuple(fields)) == expected
