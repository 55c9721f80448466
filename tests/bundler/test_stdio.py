"""esbuild's packets: what is said is heard, and nothing else is (esbuild's stdio_protocol.ts)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amba_bundler.stdio import Packet, PacketError, Value, decode, encode

_values: st.SearchStrategy[Value] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 2**32 - 1)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


@pytest.mark.slow
@given(st.integers(0, 2**31 - 1), st.booleans(), _values)
def test_a_packet_comes_back_as_it_was(number: int, is_request: bool, value: Value) -> None:
    """Decoding an encoded packet gives the same packet, for every kind of value."""
    sent = encode(Packet(number, is_request, value))
    assert len(sent) == 4 + struct.unpack("<I", sent[:4])[0]
    assert decode(sent[4:]) == Packet(number, is_request, value)


def test_a_packet_has_esbuilds_own_bytes() -> None:
    """One packet written out by hand, as lib/main.js 0.28.2 encodes it."""
    packet = Packet(1, True, {"command": "ping", "n": [None, True, 7, b"x"]})
    expected = (
        b"\x02\0\0\0" b"\x06\x02\0\0\0"
        b"\x07\0\0\0command" b"\x03\x04\0\0\0ping"
        b"\x01\0\0\0n" b"\x05\x04\0\0\0" b"\x00" b"\x01\x01" b"\x02\x07\0\0\0" b"\x04\x01\0\0\0x"
    )  # fmt: skip
    assert encode(packet) == struct.pack("<I", len(expected)) + expected


@given(st.binary(max_size=64))
def test_any_other_bytes_are_refused_by_name(body: bytes) -> None:
    """Bytes from a program that is not esbuild give a packet or a `PacketError`, nothing else."""
    try:
        packet = decode(body)
    except PacketError:
        return
    assert decode(encode(packet)[4:]) == packet


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "unpack"),
        (b"\0\0\0\0", "index"),
        (b"\0\0\0\0\x07\0\0\0\0", "unknown tag 7"),
        (b"\0\0\0\0\0\0", "1 bytes after"),
        (b"\0\0\0\0\x03\x05\0\0\0ab", "3 bytes missing"),
        (b"\0\0\0\0" + b"\x05\x01\0\0\0" * 40, "nested"),
    ],
)
def test_a_damaged_packet_says_how(body: bytes, why: str) -> None:
    """Each way to be damaged has its own words."""
    with pytest.raises(PacketError, match=why):
        decode(body)


def test_text_that_is_no_utf_8_is_read_all_the_same() -> None:
    """A guest's half surrogate pair, or a file name of another time, is no damage."""
    packet = b"\x00\x00\x00\x00\x03\x03\x00\x00\x00a\xff\xed"
    assert decode(packet).value == "a\ufffd\ufffd"
