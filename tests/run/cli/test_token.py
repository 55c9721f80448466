"""`amba-run token`: credentials that the running dev server takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.run.cli.conftest import Command
from tests.run.serving import Dev


def identity(dev: Dev, token: str) -> tuple[str, str]:
    """(user id, developer id) as a function sees them."""
    seen = json.loads(dev.ask("echo", Authorization=f"Bearer {token}"))
    fields = dict(seen["headers"])
    return fields["x-amba-user-id"], fields["x-amba-developer-id"]


@pytest.mark.slow
def test_a_user_token_is_that_user(command: Command, dev: Dev, served: Path) -> None:
    """A session token for an end user (contract A.6); alone on stdout."""
    done = command("token", "user", "u_42", cwd=served)
    assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
    assert identity(dev, done.out.strip()) == ("u_42", "")
    done = command("token", "user", "u_42", "--json", "--state", dev.ready["state"])
    told = json.loads(done.out)
    assert (told["user_id"], told["project_id"]) == ("u_42", dev.ready["project"]["id"])
    assert told["expires_at"].endswith("Z")
    assert identity(dev, told["token"]) == ("u_42", "")


@pytest.mark.slow
def test_a_developer_token_is_the_developer(command: Command, dev: Dev, served: Path) -> None:
    """The PAT of the ready line."""
    done = command("token", "developer", cwd=served)
    assert (done.code, done.out.strip()) == (0, dev.ready["keys"]["pat"])
    told = json.loads(command("token", "developer", "--json", cwd=served).out)
    assert identity(dev, told["token"]) == ("", told["developer_id"])


def test_without_a_server_it_says_what_to_do(command: Command, tmp_path: Path) -> None:
    """No dev server for this folder, or nothing at --state: exit 1 and a hint."""
    done = command("token", "developer")
    assert (done.code, done.out) == (1, "")
    assert "no dev server runs for this folder" in done.err
    assert "amba-run dev" in done.err
    done = command("token", "user", "u_1", "--state", str(tmp_path / "nowhere"))
    assert (done.code, done.out) == (1, "")


@pytest.mark.slow
@pytest.mark.parametrize("user_id", ["a b", "x" * 513, "line\nbreak", ""])
def test_ids_that_cannot_be_stamped(command: Command, dev: Dev, served: Path, user_id: str) -> None:
    """An id that could forge the canonical string gets no token (contract A.4)."""
    done = command("token", "user", user_id, cwd=served)
    assert (done.code, done.out) == (1, "")
    assert "INVALID_PERSONA" in done.err
