"""Keys that stay, a claim that one process has, and how a running server is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from amba_run import dev_state
from amba_run.dev_state import Claim, Credentials, Running, find_running, load_credentials
from amba_runtime.errors import UserCode, UserError


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State directories of this test alone."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))


def announced(folder: Path, *, pid: int | None = None) -> Path:
    """A state directory whose server says that it serves this folder."""
    state = dev_state.default_state(folder)
    running = Running(
        *(state, "http://127.0.0.1:1", "amb_dpat_x", "p", "local", "fn.localhost", folder),
        pid=os.getpid() if pid is None else pid,
        persona="anonymous",
    )
    dev_state.announce(state, running)
    return state


def test_credentials_are_made_once(tmp_path: Path) -> None:
    """Ids and keys stay the same for one state directory; the file is this user's alone."""
    first = load_credentials(tmp_path)
    assert load_credentials(tmp_path) == first
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert first.pat.startswith("amb_dpat_")
    assert first.pat not in repr(first)
    assert Credentials.new().session_key != first.session_key


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"pat": "x"}', "\xff"])
def test_damaged_credentials_are_never_overwritten(tmp_path: Path, text: str) -> None:
    """An error with the file's name; what is left of it stays for the person to look at."""
    path = tmp_path / "credentials.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"credentials\.json") as caught:
        load_credentials(tmp_path)
    assert caught.value.code is UserCode.INVALID_CONFIG
    assert path.read_bytes() == text.encode("latin-1")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """Whole or not at all."""
    with pytest.raises(TypeError):
        dev_state.write_private(tmp_path / "x.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_one_process_claims_a_directory(tmp_path: Path) -> None:
    """A second claim is refused with the pid of the first; dropped or dead, it is free again."""
    first = Claim(tmp_path)
    first.take()
    with pytest.raises(UserError) as caught:
        Claim(tmp_path).take()
    assert caught.value.code is UserCode.STATE_IN_USE
    assert caught.value.details == {"pid": os.getpid()}
    first.drop()
    first.drop()
    script = (
        "import os, signal, sys; from pathlib import Path; from amba_run.dev_state import Claim;"
        "Claim(Path(sys.argv[1])).take(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert (tmp_path / "dev.lock").read_text() != f"{os.getpid()}\n"
    again = Claim(tmp_path)
    again.take()
    again.drop()


def test_a_system_without_locks_claims_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has no fcntl: two servers in one directory are not told apart there."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    claim = Claim(tmp_path)
    claim.take()
    claim.drop()


def test_found_by_its_folder_one_above_or_the_only_one_below(tmp_path: Path) -> None:
    """The running dev of this folder (interface.md 2)."""
    for name in ("app/functions/deep", "app/other", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    functions = tmp_path / "app" / "functions"
    assert find_running(functions) is None
    state = announced(functions)
    for place in (functions, functions / "deep", tmp_path / "app", tmp_path):
        found = find_running(place)
        assert found is not None
        assert found.state == state
        assert found.folder == functions
    assert find_running(tmp_path / "elsewhere") is None
    announced(tmp_path / "app" / "other")
    with pytest.raises(UserError, match="2 dev servers run below") as caught:
        find_running(tmp_path / "app")
    assert caught.value.code is UserCode.NO_SERVER
    announced(functions / "deep")
    nearest = find_running(functions / "deep")
    assert nearest is not None
    assert nearest.folder == functions / "deep"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x", "project": {}}', '{"pid": 1}'])
def test_a_file_that_says_nothing_is_no_server(tmp_path: Path, text: str) -> None:
    """A torn or foreign dev.json is passed over."""
    state = announced(tmp_path)
    (state / "dev.json").write_text(text)
    assert dev_state.read_running(state) is None
    assert find_running(tmp_path) is None


def test_a_dead_server_is_no_server(tmp_path: Path) -> None:
    """A pid that is gone, or that another process has by now, counts for nothing."""
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    state = announced(tmp_path, pid=int(done.stdout))
    assert dev_state.read_running(state) is None
    state = announced(tmp_path)
    assert dev_state.read_running(state) is not None
    os.utime(state / "dev.json", (1, 1))  # written long before this process began
    assert dev_state.read_running(state) is None
    dev_state.withdraw(state)
    assert not (state / "dev.json").exists()


def test_only_our_own_announcement_is_withdrawn(tmp_path: Path) -> None:
    """Another server's dev.json stays."""
    state = announced(tmp_path, pid=1)
    dev_state.withdraw(state)
    assert json.loads((state / "dev.json").read_text())["pid"] == 1
    dev_state.withdraw(tmp_path / "nowhere")
