"""Sealed values: what they say without the key, and when they open."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from amba_router.store.sealing import Sealer
from amba_runtime.errors import InternalCode, InternalError

KEY = bytes(range(32))
AAD = ("secret", "p-1", "", "STRIPE_KEY")


@pytest.mark.parametrize("plain", [b"", b"x", "grüße\0".encode(), b"\xff" * 65536])
def test_what_was_sealed_opens(plain: bytes) -> None:
    """Any bytes come back, with a key of the same bytes (contract C.2)."""
    sealed = Sealer(KEY).seal(plain, AAD)
    assert Sealer(KEY).open(sealed, AAD) == plain
    if len(plain) > 3:
        assert plain not in sealed


def test_each_seal_is_another() -> None:
    """Equal values cannot be told to be equal: a random nonce each."""
    sealer = Sealer(KEY)
    assert len({sealer.seal(b"same", AAD) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "aad",
    [
        ("secret", "p-2", "", "STRIPE_KEY"),
        ("secret", "p-1", "f", "STRIPE_KEY"),
        ("secret", "p-1", "", "OTHER"),
        ("api_key", "p-1", "", "STRIPE_KEY"),
        ("secret", "p-1", "STRIPE_KEY", ""),
        ("secret", "p-1S", "", "TRIPE_KEY"),
        ("secret", "p-1", "STRIPE_KEY"),
    ],
)
def test_a_value_opens_in_its_own_place_only(aad: tuple[str, ...]) -> None:
    """A row copied to another project, function or name does not open (issue 3, item 4)."""
    sealed = Sealer(KEY).seal(b"v", AAD)
    with pytest.raises(InternalError) as caught:
        Sealer(KEY).open(sealed, aad)
    assert caught.value.code is InternalCode.SECRET_DAMAGED


def test_each_flipped_bit_is_noticed() -> None:
    """What was changed on disk is told, never handed out (reliability I8)."""
    sealer = Sealer(KEY)
    sealed = sealer.seal(b"value", AAD)
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InternalError, match="p-1 / STRIPE_KEY does not open"):
            sealer.open(bytes(changed), AAD)


@pytest.mark.parametrize("length", [0, 1, 12, 13, 28])
def test_what_is_cut_short_is_noticed(length: int) -> None:
    """Also where not even a tag is left."""
    sealer = Sealer(KEY)
    with pytest.raises(InternalError):
        sealer.open(sealer.seal(b"", AAD)[:length], AAD)


def test_another_key_opens_nothing() -> None:
    """A copy of the database without its key is worth nothing."""
    with pytest.raises(InternalError, match="another key"):
        Sealer(bytes(32)).open(Sealer(KEY).seal(b"v", AAD), AAD)


def test_an_index_finds_a_token_and_tells_nothing() -> None:
    """The same value and key give the same 32 bytes; another key gives others."""
    one = Sealer(KEY).index("amb_int_x")
    assert len(one) == 32
    assert Sealer(KEY).index("amb_int_x") == one
    assert Sealer(KEY).index("amb_int_y") != one
    assert Sealer(bytes(32)).index("amb_int_x") != one


def test_nothing_heavy_is_imported_before_something_is_sealed() -> None:
    """`dev` starts without cryptography or SQLAlchemy (architecture.md 5)."""
    code = (
        "import sys, amba_router.store.control, amba_router.store.state;"
        "from amba_router.store.sealing import Sealer; Sealer(bytes(32)).index('x');"
        "print(sorted({'sqlalchemy', 'cryptography', 'alembic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.sub(r"\s", "", done.stdout) == "[]"
