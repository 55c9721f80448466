"""Passwords cost next to nothing in these tests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amba_runtime import limits


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least work that bcrypt takes."""
    few = replace(limits.PASSWORD_ROUNDS, value=4)
    monkeypatch.setattr(limits, "PASSWORD_ROUNDS", few)
