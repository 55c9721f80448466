"""A masked text stays masked wherever Python would print it."""

from __future__ import annotations

import copy
import json
import pickle
import traceback

import pytest

from amba_runtime.secret import SecretText

VALUE = "zq9-very-secret"


def test_reveal_is_the_one_way_out() -> None:
    """repr, str, every format and a container's repr are masked (interface.md section 4)."""
    secret = SecretText(VALUE)
    printed = [repr(secret), str(secret), f"{secret}", f"{secret!r:>30}", f"{secret:>30}"]
    printed += [repr([secret]), repr({"a": (secret,)}), f"{secret} {[secret]!r}"]
    assert all("***" in text and VALUE not in text for text in printed)
    assert secret.reveal() == VALUE


def test_equal_by_value_and_only_to_its_kind() -> None:
    """Two secrets compare by value; a plain string is never equal to one."""
    assert SecretText(VALUE) == SecretText(VALUE)
    assert SecretText(VALUE) != SecretText(VALUE + "x")
    assert SecretText(VALUE) != VALUE
    assert len({SecretText(VALUE), SecretText(VALUE), SecretText("\udcff")}) == 2
    assert SecretText("\udcff") == SecretText("\udcff")


def test_it_does_not_travel() -> None:
    """Neither pickle nor JSON takes it; a copy is the same object."""
    secret = SecretText(VALUE)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_it_does_not_change() -> None:
    """Its value cannot be set, and nothing can be hung on it."""
    with pytest.raises(AttributeError, match="does not change"):
        SecretText(VALUE).other = 1


def test_an_exception_that_carries_it_stays_masked() -> None:
    """A traceback with the secret as argument shows the mask."""
    text = "".join(traceback.format_exception(ValueError("bad", SecretText(VALUE))))
    assert VALUE not in text
    assert "***" in text
