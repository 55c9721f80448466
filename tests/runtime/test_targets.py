"""Targets and hosts: every bound to the character (reliability.md 5, 2 and 7)."""

from __future__ import annotations

import pytest

from amba_runtime.targets import TargetError, canonical_host, default_port, parse_target, printable

LABEL = "a" * 63
NAME = ".".join([LABEL, LABEL, LABEL, "b" * 61])


def test_names_have_253_characters_at_most() -> None:
    """Without the trailing dot, which is none of the name (RFC 1035 2.3.4)."""
    assert len(NAME) == 253
    assert canonical_host(NAME) == NAME
    assert canonical_host(NAME + ".") == NAME
    with pytest.raises(TargetError, match="not a host name"):
        canonical_host(NAME + "b")


@pytest.mark.parametrize("host", ["a", "_", "0a", "a-b", "a_b", "_a._b", LABEL, "a." + LABEL, "1a"])
def test_labels_are_letters_digits_and_inner_hyphens(host: str) -> None:
    """63 characters at most; underscores are found in the wild (RFC 1035 2.3.4)."""
    assert canonical_host(host) == host


@pytest.mark.parametrize(
    "host",
    [
        *("", ".", "..", "a..b", ".a", "-a", "a-", "a.-b", "a b", "a/b", "a:80", "é", "a%41"),
        *(LABEL + "a", "a." + LABEL + "a.b", "1", "1.2", "0x", "a.1", "a.0x7f", "256.1.1.1"),
        *("[1.2.3.4]", "[::1%1]", "[]", "[:::]", "1.2.3.4.5", "01.2.3.4"),
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    """No second spelling of an address gets as far as a resolver (reliability.md 5, 2)."""
    with pytest.raises(TargetError):
        canonical_host(host)


@pytest.mark.parametrize("port", [1, 2, 65534, 65535])
def test_every_port_is_read(port: int) -> None:
    """From the first to the last (RFC 9110 4.2.1)."""
    assert parse_target(b"http://a.example:%d/" % port).port == port


@pytest.mark.parametrize("port", [b"0", b"00000", b"65536", b"99999", b"100000", b"-1", b" 1"])
def test_what_is_no_port_is_refused(port: bytes) -> None:
    """Zero included (reliability.md 5, 7)."""
    with pytest.raises(TargetError):
        parse_target(b"http://a.example:" + port + b"/")


def test_the_host_header_names_the_port_unless_it_is_the_schemes() -> None:
    """443 is said over http, and 80 over https (RFC 9110 7.2)."""
    said = {
        url: parse_target(url.encode()).authority
        for url in (
            *("http://a.b/", "http://a.b:80/", "http://a.b:79/", "http://a.b:81/"),
            *("http://a.b:443/", "https://a.b:443/", "https://a.b:80/", "https://a.b:444/"),
        )
    }
    assert list(said.values()) == [
        *("a.b", "a.b", "a.b:79", "a.b:81", "a.b:443", "a.b", "a.b:80", "a.b:444")
    ]
    assert (default_port("http"), default_port("https")) == (80, 443)


def test_a_log_line_of_a_target_has_200_bytes_at_most() -> None:
    """Counted before what is not printable is spelled out (row M2)."""
    assert printable(b"http://" + b"a" * 193) == "http://" + "a" * 193
    assert printable(b"http://" + b"a" * 194) == "http://" + "a" * 193
    assert printable(b"\xff" * 1) == "..."
