"""Commands against a recorded server: what was asked of it, and what a person got."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.run.cli.conftest import Command, Done
from tests.run.stub import Stub

Ask = Callable[..., Done]


def asking(command: Command, stub: Stub) -> Ask:
    """Run a command that finds the recorded server by its options."""

    def call(*args: str, **more: Any) -> Done:
        where = ("--api", stub.origin, "--token", "t", "--project", "p-1")
        return command(*args, *where, **more)

    return call


def asked(stub: Stub, number: int = 0) -> tuple[str, str, Any]:
    """Method, path below the project, and body of a request."""
    method, path, _, body = stub.asked[number]
    below = path.removeprefix("/v1/admin/projects/p-1/")
    return method, below, json.loads(body) if body else None
