"""What every file of the battery shares: its mark, its counts, its seed.

The options `--nightly` and `--seed` are added in `tests/conftest.py`: pytest asks only the files
above what it is told to run for options.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Protocol

import pytest

HERE = Path(__file__).parent
TIMEOUT_S = {False: 300, True: 1800}  # of one test, unless it says so itself: PR, nightly


class Counts(Protocol):
    """How many cases a row of the battery runs."""

    def __call__(self, *, pr: int, nightly: int) -> int:
        """The one that is asked for."""
        ...


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything in this folder is the battery, and has minutes."""
    timeout_s = TIMEOUT_S[bool(config.getoption("nightly"))]
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.battery)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(timeout_s))


@pytest.fixture(scope="session")
def nightly(pytestconfig: pytest.Config) -> bool:
    """The N column of reliability.md 3 is asked for, not the PR column."""
    return bool(pytestconfig.getoption("nightly"))


@pytest.fixture(scope="session")
def counts(nightly: bool) -> Counts:
    """`counts(pr=20_000, nightly=1_000_000)`: how many cases to run."""

    def choose(*, pr: int, nightly: int) -> int:
        return nightly if chosen else pr

    chosen = nightly
    return choose


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """The seed of this run, which its header shows; `--seed N` repeats it."""
    return int(pytestconfig.getoption("--seed") or 0)


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """Randomness of one test: the same for the same seed, whatever ran before it."""
    return random.Random(f"{seed}:{request.node.name}")
