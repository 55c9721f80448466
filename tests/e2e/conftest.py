"""A data folder of the tests' own, so that no test sees or touches the user's."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where state directories go that no test names."""
    return tmp_path_factory.mktemp("data")
