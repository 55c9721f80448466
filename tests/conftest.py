"""What all tests share: the engines that exist here, and a whole server on a loopback port."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


# The battery (tests/battery): its options must be here, where pytest looks for them.
def pytest_addoption(parser: pytest.Parser) -> None:
    """`--nightly` and `--seed`, of tests/battery."""
    group = parser.getgroup("battery", "the battery of attacks (tests/battery)")
    group.addoption("--nightly", action="store_true", help="run the nightly counts")
    group.addoption("--seed", type=int, default=20261122, metavar="N", help="of all that is random")


def pytest_report_header(config: pytest.Config) -> str | None:
    """The seed, where the battery may run."""
    if config.getoption("markexpr") in ("", "not battery"):
        return None
    counts = "nightly" if config.getoption("nightly") else "PR"
    return f"battery: {counts} counts, --seed {config.getoption('seed')}"


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
