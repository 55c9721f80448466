"""A project in a folder of its own, and esbuilds that misbehave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[[dict[str, str | bytes]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files by relative path below a fresh folder, and gives that folder."""

    def write_files(files: dict[str, str | bytes]) -> Path:
        for name, content in files.items():
            path = tmp_path / "project" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / "project"

    return write_files


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a Python program that stands where esbuild would."""

    def write_program(source: str) -> Path:
        import sys

        path = tmp_path / "not-esbuild"
        path.write_text(f"#!{sys.executable} -I\nimport sys, time, struct\n{source}\n")
        path.chmod(0o755)
        return path

    return write_program
