"""What all tests share: the engines that exist here, and a whole server on a loopback port."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def fixtures_dir(root: Path) -> Path:
    """The sample functions."""
    return root / "fixtures"


@pytest.fixture(scope="session")
def guests_dir(root: Path) -> Path:
    """Functions that only tests need."""
    return root / "tests" / "guests"
