"""Secrets that a function uses and never holds (row G14)."""

from __future__ import annotations

import asyncio

import pytest

from amba_runtime import limits
from amba_runtime.egress import External, parse_target
from amba_runtime.egress_rules import NO_RULES, EgressRules
from amba_runtime.manifest import Bundle
from amba_runtime.placeholders import Concealing, Placeholders, UnfitSecretError, conceal
from amba_runtime.room import Env
from amba_runtime.wire import Headers

CANARY = "sk_live_canary_0123456789"
RULES = EgressRules.of({"secrets": {"KEY": ["api.stripe.com"], "OTHER": ["*.other.example"]}})
ENV = (("PLAIN", "plain"), ("KEY", CANARY), ("OTHER", "other-canary-value"))


def to(url: str, *addresses: str, opened: bool = False) -> External:
    return External(parse_target(url.encode()), addresses or ("93.184.215.14",), opened)


def filled(url: str, value: str = "Bearer {KEY}", **more: bool) -> tuple[bytes, int]:
    """What a header becomes on its way to a URL, and how many secrets were put in."""
    kept = Placeholders(RULES)
    given = dict(kept.mask(ENV))
    fields: Headers = [(b"authorization", value.format(**given).encode()), (b"x-other", b"1")]
    addresses = ("127.0.0.1",) if more else ()
    used = kept.fill(fields, to(url, *addresses, **more))
    assert fields[1] == (b"x-other", b"1")
    return fields[0][1], len(used)


def test_env_has_placeholders_for_what_is_named_and_nothing_else_changes() -> None:
    """Names and order stay; a placeholder cannot be guessed and says nothing of the value."""
    kept = Placeholders(RULES)
    masked = kept.mask(ENV)
    assert [name for name, _ in masked] == [name for name, _ in ENV]
    assert masked[0] == ("PLAIN", "plain")
    assert CANARY not in str(masked)
    assert "other-canary-value" not in str(masked)
    assert masked[1][1] != masked[2][1]
    assert kept.mask(ENV) == masked  # an isolate that starts again has the same ones
    assert Placeholders(RULES).mask(ENV) != masked
    assert CANARY not in repr(vars(kept))


def test_the_value_leaves_for_its_hosts_alone() -> None:
    """Over https, to a host named for it (row G14)."""
    assert filled("https://api.stripe.com/v1") == (f"Bearer {CANARY}".encode(), 1)
    for url in (
        *("https://evil.example/", "https://stripe.com/", "https://x.api.stripe.com/"),
        *("http://api.stripe.com/", "https://api.stripe.com:8443/", "https://a.other.example/"),
    ):
        text, used = filled(url)
        assert CANARY.encode() not in text
        assert used == 0


def test_each_secret_has_its_own_hosts() -> None:
    """Two in one header: the one that is meant there is put in, the other stays outside."""
    text, used = filled("https://a.other.example/", "{KEY} {OTHER} {OTHER}")
    assert used == 1
    assert text.endswith(b" other-canary-value other-canary-value")
    assert CANARY.encode() not in text


def test_in_clear_only_to_a_server_of_this_machine_that_was_opened() -> None:
    """Dev against a stand-in: the host is named, opened, and on loopback (row G14)."""
    rules = EgressRules.of({"secrets": {"KEY": ["localhost:3000"]}})
    kept = Placeholders(rules)
    given = dict(kept.mask(ENV))["KEY"].encode()

    def used(external: External) -> int:
        return len(kept.fill([(b"x-key", given)], external))

    url = "http://localhost:3000/"
    assert used(to(url, "127.0.0.1", "::1", opened=True)) == 1
    assert used(to(url, "127.0.0.1", "10.0.0.1", opened=True)) == 0
    assert used(to(url, "127.0.0.1", opened=False)) == 0


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nx-evil: 1",
        "a\n",
        "\x00",
        "\x01b",
        "\x1f",
        "a\x7f",
        "x" * (limits.EGRESS_SECRET_BYTES.value + 1),
    ],
)
def test_a_value_that_no_header_takes_stops_the_request(value: str) -> None:
    """No line break gets into a head; the message names the secret and not its value."""
    kept = Placeholders(RULES)
    given = dict(kept.mask((("KEY", value),)))["KEY"].encode()
    with pytest.raises(UnfitSecretError, match="the secret KEY ") as caught:
        kept.fill([(b"x-key", given)], to("https://api.stripe.com/"))
    assert value not in str(caught.value)


def test_a_new_value_takes_the_place_of_the_old_one() -> None:
    """A secret that is set anew is used from the next `mask` on: what is kept is read again
    (contract C.2)."""
    kept = Placeholders(RULES)
    values = [("KEY", "first-value")]

    class Store:
        async def bundle(self) -> Bundle:
            return Bundle.of(b"code")

        async def env(self) -> Env:
            return tuple(values)

    masked = kept.kept(Store())
    assert asyncio.run(masked.bundle()).code == b"code"
    given = dict(asyncio.run(masked.env()))["KEY"].encode()
    values[0] = ("KEY", "second-value")
    assert dict(asyncio.run(masked.env()))["KEY"].encode() == given
    fields: Headers = [(b"x-key", given)]
    kept.fill(fields, to("https://api.stripe.com/"))
    assert fields == [(b"x-key", b"second-value")]


def test_without_rules_there_is_nothing_in_between() -> None:
    """The content of most functions is read as it is."""

    class Store:
        async def bundle(self) -> Bundle:
            raise AssertionError

        async def env(self) -> Env:
            return ENV

    kept = Placeholders(NO_RULES)
    store = Store()
    assert not kept
    assert kept.kept(store) is store
    assert kept.mask(ENV) == ENV


def test_what_comes_back_shows_no_value() -> None:
    """A host that echoes a header tells the function its placeholder (row G14)."""
    used = [(CANARY.encode(), b"<KEY>"), (b"short", b"<SHORT>")]
    said = f"you sent {CANARY}{CANARY} and short".encode()
    assert conceal(said, used) == b"you sent <KEY><KEY> and short"
    for step in (1, 2, 7, 24, 25, 26, 1000):
        through = Concealing(used)
        parts = [through.feed(said[at : at + step]) for at in range(0, len(said), step)]
        assert b"".join([*parts, through.end()]) == b"you sent <KEY><KEY> and short"
        assert all(CANARY.encode() not in part for part in parts)


def test_only_what_may_be_the_beginning_of_a_value_is_held_back() -> None:
    """Streams keep flowing: nothing waits for bytes that would not matter."""
    through = Concealing([(b"abababab", b"-")])
    assert through.feed(b"event: x\n\n") == b"event: x\n\n"
    assert through.feed(b"zzaba") == b"zz"
    assert through.feed(b"c") == b"abac"
    assert through.feed(b"abababa") == b""
    assert through.feed(b"b") == b"-"
    assert through.feed(b"ab") == b""
    assert through.end() == b"ab"
    assert through.end() == b""


@pytest.mark.parametrize(
    "value", [" ", "~", "\x80", "\u00e9", "a b", "x" * limits.EGRESS_SECRET_BYTES.value]
)
def test_a_value_that_a_header_takes_is_put_in(value: str) -> None:
    """From the blank on, as UTF-8, up to the bound itself (row G14)."""
    kept = Placeholders(RULES)
    given = dict(kept.mask((("KEY", value),)))["KEY"].encode()
    fields: Headers = [(b"x-key", b"<" + given + b">")]
    assert kept.fill(fields, to("https://api.stripe.com/")) == [(value.encode(), given)]
    assert fields == [(b"x-key", b"<" + value.encode() + b">")]


@pytest.mark.parametrize("value", [b"aabaabaac", b"aaaaaaaab", b"abcabcabd", CANARY.encode()])
def test_a_value_in_pieces_never_passes(value: bytes) -> None:
    """Wherever it is cut, and whatever repeats in it or stands before it (row G14)."""
    for before in (b"", b"a", b"aa", b"ab", b"aab", value[:-1], value[:3]):
        said = before + value + b"z"
        for cut in range(len(said) + 1):
            through = Concealing([(value, b"-")])
            told = through.feed(said[:cut]) + through.feed(said[cut:]) + through.end()
            assert value not in told
            assert told == conceal(said, [(value, b"-")])


def test_values_are_looked_for_from_eight_bytes_on() -> None:
    """A shorter one stands in any text; eight are looked for, whole and in pieces (row G14)."""
    used = [(b"12345678", b"<8>"), (b"1234567", b"<7>")]
    assert conceal(b"12345678 1234567", used) == b"<8> 1234567"
    through = Concealing(used)
    assert through.feed(b"1234") == b""
    assert through.feed(b"5678 1234567") + through.end() == b"<8> 1234567"


@pytest.mark.parametrize("used", [[], [(b"short", b"<S>")]], ids=["none", "short"])
def test_nothing_is_held_back_where_nothing_is_looked_for(used: list[tuple[bytes, bytes]]) -> None:
    """A stream goes on byte by byte (row G14)."""
    through = Concealing(used)
    assert [through.feed(data) for data in (b"s", b"hor", b"t", b"")] == [b"s", b"hor", b"t", b""]
    assert through.end() == b""
