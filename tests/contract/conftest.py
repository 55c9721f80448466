"""One dev server for the must-pass checks of contract J, and the rule they are held against."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.hosted import Shop, make_shop
from tests.drills.nodes import NodeProcess, whole_life
from tests.run.serving import Dev

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def contract_dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """Real functions on the real engine; ended well after all of them."""
    folder = tmp_path_factory.mktemp("contract")
    for name in ("echo-headers", "verify-signature", "legacy", "upload-image"):
        shutil.copytree(TESTS.parent / "fixtures" / name, folder / name)
    for name in ("check-vectors", "env-dump", "storage-suite"):
        shutil.copytree(TESTS / "guests" / name, folder / name)
    data_home = tmp_path_factory.mktemp("data")
    with Dev(folder, "--ephemeral", "--no-watch", data_home=data_home) as server:
        yield server
    assert server.process.returncode == 0
    assert not [line for line in server.talk if "Traceback" in line]


@pytest.fixture(scope="session")
def signing_secret(contract_dev: Dev) -> str:
    """`EDGE_HEADER_SIGNING_SECRET`, as a function has it."""
    env: dict[str, str] = json.loads(contract_dev.ask("env-dump"))["values"]
    return env["EDGE_HEADER_SIGNING_SECRET"]


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    """The golden vectors: a copy of the shared file."""
    found: dict[str, Any] = json.loads(
        (TESTS / "contract/vectors/dispatch.json").read_text("utf-8")
    )
    return found


# --- a hosted node, and a project of its own for each test that wants one ---


@pytest.fixture(scope="session")
def contract_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """`amba-run node` on a fresh state directory; ended well after all tests."""
    with whole_life(tmp_path_factory.mktemp("node") / "state") as node:
        yield node


@pytest.fixture
def shop(contract_node: NodeProcess, request: pytest.FixtureRequest) -> Shop:
    """A new project."""
    return make_shop(contract_node, request.node.name[:60])
