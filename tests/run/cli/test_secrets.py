"""`amba-run secrets list`: names and places, never values."""

from __future__ import annotations

import json
from pathlib import Path

from tests.run.cli.conftest import Command


def test_names_alone_and_with_their_places(command: Command, tmp_path: Path) -> None:
    """--explain says which file and line won, and over which (interface.md 4)."""
    (tmp_path / ".dev.vars").write_text("# first\nSHARED=hidden-1\nSHARED=hidden-2\nOWN=hidden-3\n")
    (tmp_path / ".env").write_text("SHARED=hidden-4\nZED=hidden-5\n")
    done = command("secrets", "list")
    assert (done.code, done.out) == (0, "OWN\nSHARED\nZED\n")
    assert "sets SHARED twice" in done.err
    done = command("secrets", "list", str(tmp_path), "--explain")
    lines = done.out.splitlines()
    assert lines[0].split() == ["OWN", f"{tmp_path}/.dev.vars:4"]
    assert f"{tmp_path}/.dev.vars:3  (wins over " in lines[1]
    assert f"{tmp_path}/.env:1" in lines[1]
    assert "precedence: .dev.vars > .env" in done.err
    told = json.loads(command("secrets", "list", "--json").out)
    assert [(s["name"], s["file"], s["line"]) for s in told] == [
        ("OWN", ".dev.vars", 4),
        ("SHARED", ".dev.vars", 3),
        ("ZED", ".env", 2),
    ]
    assert told[1]["overrides"] == [
        {"file": ".dev.vars", "line": 2},
        {"file": ".env", "line": 1},
    ]
    assert "hidden" not in done.out + done.err + json.dumps(told)


def test_none_is_no_error_and_a_bad_file_is(command: Command, tmp_path: Path) -> None:
    """An empty list; a malformed line or a reserved name is told with file and line (C.2)."""
    done = command("secrets", "list")
    assert (done.code, done.out) == (0, "")
    assert "no secrets" in done.err
    assert command("secrets", "list", "--json").out == "[]\n"
    (tmp_path / ".env").write_text("AMBA_API_URL=hidden\n")
    done = command("secrets", "list")
    assert (done.code, done.out) == (1, "")
    assert ".env:1" in done.err
    assert "hidden" not in done.err
    assert command("secrets", "list", "nowhere").code == 1
