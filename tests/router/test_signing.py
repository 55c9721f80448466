"""The signature: golden vectors, tampering, rotation, and ids that would forge the lines."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amba_router.signing import Keyring, Stamp, canonical_string, check_id, mac_hex
from amba_runtime.errors import UserCode, UserError

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "contract" / "vectors" / "dispatch.json").read_text()
)
STAMP = Stamp("p-1", "u_42", "", "01890a5d-ac96-774b-bcce-b302099a8057", "hello", 1767225600)
SECRET = b"k" * 32


def stamp_of(vector: dict[str, Any]) -> Stamp:
    return Stamp(
        vector["project_id"],
        vector["user_id"],
        vector["developer_id"],
        vector["request_id"],
        vector["function_name"],
        vector["timestamp"],
    )


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: v["name"])
def test_golden_vectors(vector: dict[str, Any]) -> None:
    """Canonical string and MAC are byte for byte those of the platform's code (J, A.4)."""
    stamp = stamp_of(vector)
    secret = vector["secret"].encode()
    assert canonical_string(stamp) == vector["canonical"].encode()
    assert mac_hex(secret, stamp) == vector["hmac_sha256_hex"]
    assert Keyring((secret,)).sign(stamp) == vector["hmac_sha256_hex"]
    assert Keyring((secret,)).verify(stamp, vector["hmac_sha256_hex"])


def test_two_hundred_stamps_against_an_independent_reading() -> None:
    """The rule of the vector file, written a second time, gives the same 200 MACs (B3)."""
    rng = random.Random(20261122)
    chars = [chr(c) for c in range(0x21, 0x7F)]

    def text(most: int) -> str:
        return "".join(rng.choices(chars, k=rng.randrange(most)))

    for _ in range(200):
        stamp = Stamp(text(36), text(100), text(100), text(36), text(58), rng.randrange(2**40))
        secret = text(64).encode() + b"!"
        fields = ["v1", stamp.project_id, stamp.user_id, stamp.developer_id, stamp.request_id]
        fields += [stamp.function_name, str(stamp.timestamp_s)]
        expected = hmac.new(secret, "\n".join(fields).encode(), hashlib.sha256).hexdigest()
        assert Keyring((secret,)).sign(stamp) == expected == mac_hex(secret, stamp)


def test_any_change_of_a_stamp_breaks_it() -> None:
    """No single flipped bit in any field verifies (B4)."""
    ring = Keyring((SECRET,))
    mac = ring.sign(STAMP)
    tried = 0
    for name in ("project_id", "user_id", "request_id", "function_name"):
        value: str = getattr(STAMP, name)
        for at, bit in itertools.product(range(len(value)), range(7)):
            flipped = value[:at] + chr(ord(value[at]) ^ (1 << bit)) + value[at + 1 :]
            changed: dict[str, Any] = {name: flipped}
            assert not ring.verify(STAMP._replace(**changed), mac)
            tried += 1
    for bit in range(40):
        assert not ring.verify(STAMP._replace(timestamp_s=STAMP.timestamp_s ^ (1 << bit)), mac)
        tried += 1
    assert not ring.verify(STAMP._replace(developer_id="d"), mac)
    assert not ring.verify(STAMP._replace(user_id="", developer_id="u_42"), mac)
    assert tried == 376


def test_any_change_of_a_mac_breaks_it() -> None:
    """No flipped bit, upper case, padding or truncation of the 64 hex digits verifies (B4)."""
    ring = Keyring((SECRET,))
    mac = ring.sign(STAMP)
    assert ring.verify(STAMP, mac)
    for at, bit in itertools.product(range(64), range(8)):
        assert not ring.verify(STAMP, mac[:at] + chr(ord(mac[at]) ^ (1 << bit)) + mac[at + 1 :])
    for wrong in ("", mac[:-1], mac + "0", " " + mac, mac + "\n", mac.upper(), "é" * 64, mac[::-1]):
        assert not ring.verify(STAMP, wrong)


def test_rotation() -> None:
    """The newest secret signs, every secret in the ring verifies, a dropped one does not."""
    old, new, other = b"o" * 32, b"n" * 32, b"x" * 32
    before, during, after = Keyring((old,)), Keyring((new, old)), Keyring((new,))
    assert during.sign(STAMP) == after.sign(STAMP) == mac_hex(new, STAMP)
    assert during.verify(STAMP, before.sign(STAMP))
    assert during.verify(STAMP, during.sign(STAMP))
    assert not after.verify(STAMP, before.sign(STAMP))
    assert not before.verify(STAMP, during.sign(STAMP))
    assert not during.verify(STAMP, mac_hex(other, STAMP))


def test_a_keyring_signs_again_and_again() -> None:
    """The kept key state is copied, not used up."""
    ring = Keyring((SECRET,))
    assert {ring.sign(STAMP) for _ in range(3)} == {mac_hex(SECRET, STAMP)}


def test_a_ring_without_a_secret_is_refused() -> None:
    """Nothing may run unsigned because a list was empty."""
    with pytest.raises(ValueError, match="at least one"):
        Keyring(())


def test_no_project_verifies_anothers() -> None:
    """30 projects, every ordered pair: nothing crosses (B7)."""
    rings = [Keyring((b"%032d" % n,)) for n in range(30)]
    macs = [ring.sign(STAMP) for ring in rings]
    assert len(set(macs)) == 30
    for (n, ring), (m, mac) in itertools.product(enumerate(rings), enumerate(macs)):
        assert ring.verify(STAMP, mac) is (n == m)


@pytest.mark.parametrize("good", ["", "u_42", "!", "~", "a" * 512, "u/1=+:@", "11111111-2222"])
def test_ids_that_may_be_signed(good: str) -> None:
    """Visible ASCII up to 512 characters, and nobody (B6)."""
    assert check_id("user id", good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "u\n42",
        "u_42\n",
        "\n",
        "u\r42",
        "u\0",
        "\x7f",
        "u 42",
        "\t",
        "u\x1b[31m",
        "é",
        "пользователь",
        "🔑",
        "\u202eadmin",
        "\ud800",
        "a" * 513,
        "a" * 4096,
    ],
)
def test_ids_that_would_forge_a_line_are_refused(bad: str) -> None:
    """Control, non-ASCII and overlong ids never reach the canonical string (B6)."""
    with pytest.raises(UserError, match="user id") as caught:
        check_id("user id", bad)
    assert caught.value.code is UserCode.INVALID_STAMP
    assert len(str(caught.value)) < 400


_ID = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=6)
_STAMPS = st.builds(Stamp, _ID, _ID, _ID, _ID, _ID, st.integers(0, 2**33))


@given(_STAMPS, _STAMPS)
@settings(max_examples=500, deadline=None)
def test_no_two_stamps_share_a_canonical_string(one: Stamp, other: Stamp) -> None:
    """Ids without line feeds make the string unambiguous (B6)."""
    assert (canonical_string(one) == canonical_string(other)) is (one == other)
    assert canonical_string(one).count(b"\n") == 6


def test_the_newest_secret_is_the_first() -> None:
    """It signs, and it is what new isolates verify with (contract A.4)."""
    ring = Keyring((b"new", b"old", b"older"))
    assert ring.newest == b"new"
    assert ring.sign(STAMP) == mac_hex(b"new", STAMP)
    assert all(ring.verify(STAMP, mac_hex(secret, STAMP)) for secret in (b"new", b"old", b"older"))
