"""A data folder of the tests' own, so that no test sees or touches the user's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.run.stub import Stub, serving


@pytest.fixture(scope="session")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where state directories go that no test names."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A recorded server, for what is said to one."""
    with serving() as made:
        yield made
