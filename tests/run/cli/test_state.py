"""`amba-run state`: what it says, and its exit codes (interface.md 2)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.run.cli.conftest import Command

from amba_run import dev_state


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory that a dev server has used."""
    folder = tmp_path / "state"
    folder.mkdir()
    dev_state.load_credentials(folder)
    return folder


def test_keep_and_put_back(command: Command, tmp_path: Path, state: Path) -> None:
    """For people and for programs; --force where something is there."""
    file, other = tmp_path / "kept.tar.gz", tmp_path / "other"
    done = command("state", "snapshot", str(file), "--state", str(state))
    assert done.code == 0
    assert done.out.startswith(f"{file}: {file.stat().st_size} bytes")
    done = command("state", "snapshot", str(file), "--state", str(state), "--json")
    said = json.loads(done.out)
    assert (said["file"], said["state"], said["missing"]) == (str(file), str(state), [])
    done = command("state", "restore", str(file), "--state", str(other))
    assert (done.code, done.out) == (0, f"{other}: restored from {file}, with 0 blobs\n")
    done = command("state", "restore", str(file), "--state", str(other))
    assert done.code == 1
    assert "STATE_NOT_EMPTY" in done.err
    done = command("state", "restore", str(file), "--state", str(other), "--force", "--json")
    assert json.loads(done.out) == {"state": str(other), "blobs": 0, "upgraded_from": None}
    assert dev_state.load_credentials(other) == dev_state.load_credentials(state)


def test_reset_wants_to_be_meant(command: Command, state: Path) -> None:
    """--yes, or exit code 2 and nothing goes."""
    before = (state / "credentials.json").read_bytes()
    (state / "blobs").mkdir()
    done = command("state", "reset", "--state", str(state))
    assert done.code == 2
    assert "--yes" in done.err
    assert (state / "blobs").is_dir()
    done = command("state", "reset", "--state", str(state), "--yes")
    assert (done.code, done.out) == (0, f"{state}: emptied\n")
    assert (state / "credentials.json").read_bytes() == before
    done = command("state", "reset", "--state", str(state), "--yes", "--keys", "--json")
    assert json.loads(done.out) == {"state": str(state)}
    assert list(state.iterdir()) == []


def test_which_directory(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the folder which `dev` serves; --path and --state exclude each other."""
    states = tmp_path / "states"
    monkeypatch.setattr(dev_state, "_states", lambda: states)
    folder = dev_state.default_state(tmp_path)
    file = str(tmp_path / "kept.tar.gz")
    done = command("state", "snapshot", file)
    assert done.code == 1
    assert "NO_STATE" in done.err
    folder.mkdir(parents=True)
    dev_state.load_credentials(folder)
    for where in ((), ("--path", str(tmp_path))):
        done = command("state", "snapshot", file, *where, "--json")
        assert json.loads(done.out)["state"] == str(folder)
    done = command("state", "snapshot", file, "--path", ".", "--state", str(folder))
    assert done.code == 2


def test_blobs_that_are_gone_are_told(command: Command, tmp_path: Path, state: Path) -> None:
    """On stderr, and the rest is kept (exit code 0)."""
    import asyncio

    from tests.run.test_state_folder import fill

    asyncio.run(fill(state))
    for blob in (state / "blobs").glob("??/*"):
        blob.unlink()
    done = command("state", "snapshot", str(tmp_path / "f"), "--state", str(state), "--json")
    assert done.code == 0
    assert "2 blobs" in done.err
    assert len(json.loads(done.out)["missing"]) == 2
