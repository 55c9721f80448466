"""One strict host parser: every row of the truth table, and a property over anything at all."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amba_router.hosts import Hosts, Plane, Site
from amba_runtime import limits

PLATFORM = frozenset({"127.0.0.1", "localhost", "[::1]"})
L63 = "a" * 63
LONG_253 = ".".join(["a" * 61] * 3 + ["a" * 54, "fn.localhost"])


def hosts() -> Hosts:
    return Hosts(suffix="fn.localhost", cdn_suffix="cdn.localhost", platform=PLATFORM)


OURS = [
    (b"local.fn.localhost", Plane.FUNCTIONS, "local", b"local.fn.localhost"),
    (b"local.fn.localhost:8787", Plane.FUNCTIONS, "local", b"local.fn.localhost:8787"),
    (b"local.fn.localhost:1", Plane.FUNCTIONS, "local", b"local.fn.localhost:1"),
    (b"local.fn.localhost:65535", Plane.FUNCTIONS, "local", b"local.fn.localhost:65535"),
    (b"LOCAL.Fn.LocalHost:8787", Plane.FUNCTIONS, "local", b"local.fn.localhost:8787"),
    (b"local.fn.localhost.", Plane.FUNCTIONS, "local", b"local.fn.localhost"),
    (b"local.fn.localhost.:8787", Plane.FUNCTIONS, "local", b"local.fn.localhost:8787"),
    (b"xn--bcher-kva.fn.localhost", Plane.FUNCTIONS, "xn--bcher-kva", None),
    (L63.encode() + b".fn.localhost", Plane.FUNCTIONS, L63, None),
    (b"0-9.fn.localhost", Plane.FUNCTIONS, "0-9", None),
    (b"local.cdn.localhost:8787", Plane.CDN, "local", b"local.cdn.localhost:8787"),
    (b"LOCAL.CDN.localhost.", Plane.CDN, "local", b"local.cdn.localhost"),
    (b"127.0.0.1", Plane.PLATFORM, "", b"127.0.0.1"),
    (b"127.0.0.1:8787", Plane.PLATFORM, "", b"127.0.0.1:8787"),
    (b"127.0.0.1.:8787", Plane.PLATFORM, "", b"127.0.0.1:8787"),
    (b"localhost:8787", Plane.PLATFORM, "", b"localhost:8787"),
    (b"LOCALHOST.", Plane.PLATFORM, "", b"localhost"),
    (b"[::1]", Plane.PLATFORM, "", b"[::1]"),
    (b"[::1]:8787", Plane.PLATFORM, "", b"[::1]:8787"),
]
FOREIGN = [
    b"fn.localhost",  # no slug
    b"cdn.localhost",
    b"fn.localhost.",
    b"a.b.fn.localhost",  # two labels
    b"a.b.cdn.localhost",
    b"local.fn.localhost.evil.example",
    b"evil.example",
    b"local.fn.localhostx",
    b"localfn.localhost",
    b"10.0.0.1",
    b"127.0.0.1.nip.example",
    b"[::2]:8787",
    b"[::ffff:127.0.0.1]",
    b"[fe80::1]",
    b"x",
    LONG_253.encode(),
    LONG_253.encode() + b".:65535",  # the longest that a Host can be
]
MALFORMED = [
    None,
    b"",
    b" ",
    b".",
    b":",
    b":80",
    b".fn.localhost",
    b"local.fn.localhost..",
    b"local..fn.localhost",
    b"..fn.localhost",
    b"user@local.fn.localhost",
    b"user:pass@local.fn.localhost",
    b"local.fn.localhost@evil",
    b"local.fn.localhost@evil/..",
    b"local.fn.localhost/",
    b"local.fn.localhost/x",
    b"local\\.fn.localhost",
    b"local.fn.localhost#x",
    b"local.fn.localhost?x",
    b"local%2efn.localhost",
    b"http://local.fn.localhost",
    b"local.fn.localhost:",
    b"local.fn.localhost:0",
    b"local.fn.localhost:65536",
    b"local.fn.localhost:99999",
    b"local.fn.localhost:080",
    b"local.fn.localhost:80a",
    b"local.fn.localhost:-80",
    b"local.fn.localhost:+80",
    b"local.fn.localhost: 80",
    b"local.fn.localhost:80:80",
    b"local.fn.localhost:8_0",
    "local.fn.localhost:٨٠".encode(),
    b"[::1",
    b"::1",
    b"[::1]x",
    b"[::1].",
    b"[::1]:0",
    b"[]",
    b"[:]",
    b"[::::]",
    b"[1:2]",
    b"[127.0.0.1]",
    b"[fe80::1%25eth0]",
    b"[fe80::1%eth0]",
    b"[v1.x]",
    "bücher.fn.localhost".encode(),
    "bücher.fn.localhost".encode("latin-1"),
    "local\uff0efn.localhost".encode(),  # a full-width dot
    "lo\u200dcal.fn.localhost".encode(),  # a zero-width joiner
    "ⓛocal.fn.localhost".encode(),
    L63.encode() + b"a.fn.localhost",  # 64 characters
    b"local." + L63.encode() + b"a",
    b"a" * 64,
    b"a" + LONG_253.encode(),  # 254 characters
    b"local.fn.localhost" + b"x" * 5000,
    b"-local.fn.localhost",
    b"_local.fn.localhost",
    b"lo_cal.fn.localhost",
    b"local.fn.localhost,local.fn.localhost",
    b"local.fn.localhost, evil",
    b" local.fn.localhost",
    b"local.fn.localhost ",
    b"local .fn.localhost",
    b"local.fn.localhost\t",
    b"local.fn.localhost\n",
    b"local.fn.localhost\r\nx: y",
    b"local.fn.localhost\0",
    b"lo\0cal.fn.localhost",
    b"lo\x7fcal.fn.localhost",
    b"lo\x1bcal.fn.localhost",
    b"'local'.fn.localhost",
    b"*.fn.localhost",
]


@pytest.mark.parametrize(("host", "plane", "slug", "authority"), OURS)
def test_hosts_that_are_ours(host: bytes, plane: Plane, slug: str, authority: bytes | None) -> None:
    """Upper case and one trailing dot mean the same site (interface.md 1; B10)."""
    assert hosts().parse(host) == Site(plane, slug, host if authority is None else authority)


@pytest.mark.parametrize("host", FOREIGN)
def test_well_formed_hosts_that_are_not_ours(host: bytes) -> None:
    """A host that is not ours is 421, never another tenant's (interface.md 1; B10)."""
    site = hosts().parse(host)
    assert (site.plane, site.slug) == (Plane.FOREIGN, "")


@pytest.mark.parametrize("host", MALFORMED)
def test_malformed_hosts(host: bytes | None) -> None:
    """What is not exactly a host is refused whole: nothing is cut off or guessed (B10)."""
    assert hosts().parse(host) == Site(Plane.MALFORMED, "", b"")


def test_the_table_is_complete() -> None:
    """At least the 60 hosts of row B10 are judged."""
    assert len(OURS) + len(FOREIGN) + len(MALFORMED) >= 60
    assert len(LONG_253) == 253


@given(st.binary(max_size=80) | st.text("aA0-.:[]@/ \0é", max_size=30).map(str.encode))
@example(b"local.fn.localhost")
@settings(max_examples=500, deadline=None)
def test_whatever_comes_the_authority_is_harmless(host: bytes) -> None:
    """An accepted host is rebuilt from harmless characters only, in lower case (finding 4)."""
    site = hosts().parse(host)
    allowed = set(b"abcdefghijklmnopqrstuvwxyz0123456789-.:[]")
    assert set(site.authority) <= allowed
    assert (site.plane is Plane.MALFORMED) == (site.authority == b"")
    if site.slug:
        assert site.authority.startswith(site.slug.encode() + b".")


def test_a_flood_of_hosts_is_not_remembered() -> None:
    """Spellings are remembered up to a limit, and judged the same beyond it (A, row A8)."""
    parser = hosts()
    for n in range(limits.HOSTS_SEEN.value + 100):
        assert parser.parse(b"s%d.fn.localhost" % n).slug == f"s{n}"
    assert parser.parse(b"s0.fn.localhost") is parser.parse(b"s0.fn.localhost")
    late = b"s%d.fn.localhost" % limits.HOSTS_SEEN.value
    assert parser.parse(late) is not parser.parse(late)
    assert parser.parse(b"local.fn.localhost").slug == "local"


def test_the_first_foreign_hosts_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets no body (C1), so the log says what this server answers for; a flood of
    names does not flood it.
    """
    one = hosts()
    for _ in range(3):
        one.parse(b"tunnel.example:8787")
    assert caplog.messages == [
        "a request for tunnel.example:8787 was refused (421): this server answers for "
        "*.fn.localhost and for 127.0.0.1, [::1], localhost"
    ]
    for i in range(100):
        one.parse(b"h%d.example" % i)
    assert len(caplog.messages) == limits.FOREIGN_HOSTS_TOLD.value
