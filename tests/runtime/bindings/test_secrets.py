"""Names and values of secrets, at each edge of contract C.2."""

from __future__ import annotations

import pytest

from amba_runtime import limits
from amba_runtime.bindings.secrets import check_secret_name, check_secret_value
from amba_runtime.errors import UserCode


@pytest.mark.parametrize(
    "name", ["A", "API_KEY", "A1_", "A" * 64, "AMBAX", "AMBA", "EDGE", "STORAGE2", "MY_STORAGE"]
)
def test_good_names(name: str) -> None:
    """Capital letters, digits and _, up to 64, near the reserved ones too (C.2, H-11)."""
    assert check_secret_name(name) is None


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("", UserCode.INVALID_NAME, "empty"),
        ("A" * 65, UserCode.INVALID_NAME, "65 characters"),
        ("AMBA_" + "x" * 60, UserCode.INVALID_NAME, "65 characters"),
        ("AMBA_", UserCode.RESERVED_NAME, "begin with AMBA_"),
        ("AMBA_lower", UserCode.RESERVED_NAME, "begin with AMBA_"),
        ("EDGE_HEADER_SIGNING_SECRET", UserCode.RESERVED_NAME, "begin with EDGE_"),
        ("EDGE_DB_PROXY", UserCode.RESERVED_NAME, "begin with EDGE_"),
        ("STORAGE", UserCode.RESERVED_NAME, "STORAGE is"),
        ("HYPERDRIVE", UserCode.RESERVED_NAME, "HYPERDRIVE is"),
        ("a", UserCode.INVALID_NAME, "capital letter"),
        ("1A", UserCode.INVALID_NAME, "capital letter"),
        ("_A", UserCode.INVALID_NAME, "capital letter"),
        ("A-B", UserCode.INVALID_NAME, "capital letter"),
        ("A\n", UserCode.INVALID_NAME, "capital letter"),
        ("É", UserCode.INVALID_NAME, "capital letter"),
        ("amba_x", UserCode.INVALID_NAME, "capital letter"),
    ],
)
def test_rules_in_their_order(name: str, code: UserCode, says: str) -> None:
    """Empty, too long, reserved prefix, reserved name, spelling: the first broken one (C.2)."""
    fault = check_secret_name(name)
    assert fault is not None
    assert fault.code is code
    assert says in fault.message
    assert fault.hint


def test_a_misspelt_name_is_not_repeated() -> None:
    """What stands where a name should may be a piece of a key: it is not told (C.2)."""
    fault = check_secret_name("MIIEvQIBADANBg+/x")
    assert fault is not None
    assert "MII" not in fault.message + fault.hint


@pytest.mark.parametrize("char", ["x", "é", "🔑"])
def test_values_are_measured_in_utf8(char: str) -> None:
    """64 KiB of UTF-8 are taken, one byte more is not (C.2)."""
    most = limits.SECRET_VALUE_BYTES.value
    value = char * (most // len(char.encode()))
    assert check_secret_value(value) is None
    fault = check_secret_value(value + "x")
    assert fault is not None
    assert fault.message == f"the value has {most + 1} bytes, {most} are allowed"
    assert check_secret_value("") is None
