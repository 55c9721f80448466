"""The chooser names an engine or says, in words, why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from amba_runtime.engine.auto import choose
from amba_runtime.engine.workerd.engine import WorkerdEngine
from amba_runtime.errors import NotEmulatedError, UserCode, UserError


def _program(folder: Path, mode: int) -> Path:
    path = folder / "workerd"
    path.write_bytes(b"")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("name", ["auto", "workerd"])
def test_auto_and_workerd_are_the_same_engine(name: str, tmp_path: Path) -> None:
    """Both give workerd with the program asked for, and start nothing yet (interface.md 1)."""
    program = _program(tmp_path, 0o755)
    engine = choose(name, workerd=str(program))
    assert isinstance(engine, WorkerdEngine)
    assert engine.name == "workerd"
    assert engine.program == program


def test_the_wheels_own_program_is_found() -> None:
    """Without an override the program that travels in the wheel is taken (architecture.md 2)."""
    engine = choose("auto", workerd=None)
    assert isinstance(engine, WorkerdEngine)
    assert engine.program.parent.name == "native"
    assert engine.program.is_file()


def test_an_empty_override_is_none() -> None:
    """`AMBA_RUN_WORKERD=` says nothing: the wheel's program is taken."""
    engine = choose("auto", workerd="")
    assert isinstance(engine, WorkerdEngine)
    assert engine.program.parent.name == "native"


def test_wasm_is_named_and_not_stubbed(tmp_path: Path) -> None:
    """A known engine that is not here is refused by name (architecture.md 6)."""
    with pytest.raises(NotEmulatedError, match="the wasm engine is not emulated") as caught:
        choose("wasm", workerd=str(_program(tmp_path, 0o755)))
    assert caught.value.code is UserCode.NOT_EMULATED
    assert "workerd" in caught.value.hint


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message says which variable names which path (architecture.md 2)."""
    missing = tmp_path / "nowhere"
    with pytest.raises(UserError) as caught:
        choose("auto", workerd=str(missing))
    assert caught.value.code is UserCode.PROGRAM_MISSING
    assert "AMBA_RUN_WORKERD" in caught.value.message
    assert str(missing) in caught.value.message


def test_a_folder_or_a_file_that_cannot_run_is_no_program(tmp_path: Path) -> None:
    """Only an executable file will do: found out before a start, not by it."""
    for path in (tmp_path, _program(tmp_path, 0o644)):
        with pytest.raises(UserError, match="missing or not executable"):
            choose("workerd", workerd=str(path))
