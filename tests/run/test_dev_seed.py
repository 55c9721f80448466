"""Seeds, snapshots and resets around a running dev server, on the real engine (issue 5 item 8)."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.run.serving import Dev, function, run_cli

pytestmark = pytest.mark.slow

PROMPT = {"name": "hello", "model": "m", "template": "Hello {{who}}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is served, with seeds of which one cannot be read."""
    place = tmp_path / "functions"
    (place / "seed" / "collections").mkdir(parents=True)
    (place / "hello.js").write_text(function("'hello'"))
    (place / "amba.toml").write_text('[seed]\nfolder = "seed"\n')
    (place / "seed" / "collections" / "things.json").write_text("{")
    return place


def prompts(server: Dev, body: Any = None) -> Any:
    """Ask for the prompts, or keep one."""
    ready = server.ready
    target = f"/v1/admin/projects/{ready['project']['id']}/ai/prompts"
    headers = {"Authorization": f"Bearer {ready['keys']['pat']}"}
    with server.connection() as connection:
        method = "GET" if body is None else "POST"
        connection.request(method, target, body=json.dumps(body) if body else None, headers=headers)
        return json.loads(connection.getresponse().read())["data"]


def test_a_dev_server_and_its_state(folder: Path, tmp_path: Path, data_home: Path) -> None:
    """Seeds that fail are warnings; `--reseed` empties; a snapshot comes back; keys stay."""
    state, file = tmp_path / "state", tmp_path / "kept.tar.gz"
    options = ("--no-watch", "--state", str(state))
    keep = ("state", "snapshot", str(file), "--state", str(state))
    with Dev(folder, *options, data_home=data_home) as server:
        assert "seed/collections/things.json is not JSON" in server.said("seed: ")
        assert server.ask("hello") == "hello"
        prompts(server, PROMPT)
        done = run_cli(*keep, data_home=data_home)
        assert (done.returncode, "STATE_IN_USE" in done.stderr) == (1, True)
        keys = server.ready["keys"]
        assert server.stop(signal.SIGTERM) == 0
    done = run_cli(*keep, data_home=data_home)
    assert done.returncode == 0, done.stderr
    with Dev(folder, *options, "--reseed", data_home=data_home) as server:
        assert prompts(server) == []
        assert server.ready["keys"] == keys
        assert server.stop(signal.SIGTERM) == 0
    done = run_cli(
        "state", "restore", str(file), "--force", "--state", str(state), data_home=data_home
    )
    assert done.returncode == 0, done.stderr
    with Dev(folder, *options, data_home=data_home) as server:
        assert [row["name"] for row in prompts(server)] == ["hello"]
        assert server.ready["keys"] == keys
    fresh = ("--no-watch", "--state", str(tmp_path / "fresh"), "--reseed")
    with Dev(folder, *fresh, data_home=data_home) as server:
        assert prompts(server) == []
