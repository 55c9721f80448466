"""`amba-run limits`: what is in force for each function, and where it was set."""

from __future__ import annotations

import json
from pathlib import Path

from tests.run.cli.conftest import Command
from tests.run.serving import function

from amba_runtime.limits import SETTINGS


def test_the_table_of_each_function(command: Command, tmp_path: Path) -> None:
    """Unit, default, maximum and source; a function's own over the project's (interface.md 4)."""
    for name in ("plain", "also-plain", "special"):
        (tmp_path / f"{name}.js").write_text(function("''"))
    (tmp_path / "amba.toml").write_text(
        "[limits]\nidle_ms = 5000\n[functions.special.limits]\nidle_ms = 0\nmemory_mib = 64\n"
    )
    done = command("limits", "--json")
    assert (done.code, done.err) == (0, "")
    told = {f["name"]: f["limits"] for f in json.loads(done.out)["functions"]}
    assert set(told) == {"plain", "also-plain", "special"}
    assert list(told["plain"]) == [setting.name for setting in SETTINGS]
    idle = told["plain"]["idle_ms"]
    assert (idle["value"], idle["unit"], idle["default"], idle["maximum"]) == (
        *(5000, "ms", 60_000),
        3_600_000,
    )
    assert idle["set_in"] == "amba.toml [limits]"
    assert told["special"]["idle_ms"]["value"] == 0
    assert told["special"]["memory_mib"]["set_in"] == "amba.toml [functions.special.limits]"
    assert told["plain"]["memory_mib"]["set_in"] == "default"
    assert (idle["hosted_default"], told["plain"]["cpu_ms"]["hosted_default"]) == (30_000, 10_000)
    assert all(row["source"] for row in told["plain"].values())

    text = command("limits").out
    assert "also-plain, plain\n" in text
    assert text.count("request_body_mib") == 2
    assert "amba.toml [functions.special.limits]" in text


def test_a_folder_without_functions(command: Command, tmp_path: Path) -> None:
    """The defaults are shown; a path that is not there, or a bad file, is an error."""
    done = command("limits")
    assert done.code == 0
    assert "holds no functions" in done.err
    assert "first_byte_ms" in done.out
    assert json.loads(command("limits", "--json").out) == {"functions": []}
    assert command("limits", "nowhere").code == 1
    (tmp_path / "Bad.js").write_text("")
    assert "is skipped" in command("limits").err
    (tmp_path / "amba.toml").write_text("[limits]\nidle = 5\n")
    done = command("limits")
    assert (done.code, done.out) == (1, "")
    assert 'did you mean "idle_ms"' in done.err
