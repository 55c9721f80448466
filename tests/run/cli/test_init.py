"""The command line as a whole: help, exit codes, and what it costs to start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from tests.run.cli.conftest import Command
from tests.run.serving import run_cli

from amba_run import cli
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError

LEAVES = (
    *(["dev"], ["doctor"], ["invoke"], ["limits"], ["verify"]),
    *(["secrets", "list"], ["token", "user"], ["token", "developer"]),
)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_command_has_an_example_and_json(command: Command, path: list[str]) -> None:
    """`--help` ends with an example that begins with the command, and there is `--json`."""
    done = command(*path, "--help")
    assert (done.code, done.err) == (0, "")
    text = " ".join(done.out.split())
    assert f"amba-run {' '.join(path)}" in text.split("Example: ")[1]
    assert "--json" in done.out


def test_the_group_lists_every_command(command: Command) -> None:
    """Each command has its one line, though none was imported."""
    done = command("--help")
    assert done.code == 0
    assert all(f"  {name} " in done.out for name in cli.COMMANDS)
    assert command("--version").out.startswith("amba-run, version ")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ((), "Usage:"),
        (("devv",), "Did you mean 'dev'?"),
        (("frobnicate",), "no command 'frobnicate'"),
        (("limits", "--nonsense"), "--nonsense"),
        (("token",), "Usage:"),
    ],
)
def test_wrong_usage_is_2(command: Command, args: tuple[str, ...], told: str) -> None:
    """Exit code 2 is for usage only (architecture.md 6)."""
    done = command(*args)
    assert (done.code, done.out) == (2, "")
    assert told in done.err


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError(UserCode.NO_SERVER, "gone", hint="do this"), 1, "[NO_SERVER]: gone\n  do this"),
        (InternalError(InternalCode.INVARIANT, "broken"), 70, "[INVARIANT]: broken"),
        (KeyError("what"), 70, "mistake in amba-run"),
        (KeyboardInterrupt(), 130, ""),
        (click.exceptions.Abort(), 130, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_exit_codes(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    told: str,
) -> None:
    """Each kind of error has its code, and none reaches the person as a bare traceback."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", fail)
    done = command("limits")
    assert done.code == code
    assert told in done.err


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_mistake(data_home: Path, tmp_path: Path) -> None:
    """`amba-run limits | head -0` ends quietly."""
    first = subprocess.Popen(
        [sys.executable, "-c", "import time; print(end=''); raise SystemExit"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    first.wait()
    assert first.stdin is not None
    done = subprocess.run(
        [sys.executable, "-m", "amba_run", "limits", str(tmp_path)],
        stdout=first.stdin,
        stderr=subprocess.PIPE,
        check=False,
        env={"HOME": str(data_home)},
    )
    first.stdin.close()
    assert done.returncode in (0, 1)
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


@pytest.mark.slow
def test_help_imports_little(data_home: Path) -> None:
    """`amba-run --help` needs click and itself: nothing that serves, bundles or stores."""
    script = (
        "import sys; from amba_run.cli import run; code = run(['--help']);"
        "heavy = {'uvicorn', 'httptools', 'sqlalchemy', 'watchfiles', 'jwt', 'websockets',"
        " 'httpx2', 'psutil', 'platformdirs', 'asyncio', 'amba_router', 'amba_bundler'};"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_nothing_breaks_at_import_without_unix(tmp_path: Path) -> None:
    """Windows has no fcntl, resource or uvloop: every module of ours is imported without them."""
    script = """
import importlib, pkgutil, sys
for name in ("fcntl", "resource", "uvloop", "grp", "pwd", "termios"):
    sys.modules[name] = None
failed = []
for package in ("amba_runtime", "amba_bundler", "amba_router", "amba_run"):
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ImportError as error:
                failed.append(f"{module.name}: {error}")
sys.exit("\\n".join(failed) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_python_m_is_the_same_program(data_home: Path) -> None:
    """`python -m amba_run` and the console script share one entry."""
    done = run_cli("--version", data_home=data_home)
    assert (done.returncode, done.stdout.split(",")[0]) == (0, "amba-run")
