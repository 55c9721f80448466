"""Secrets files: which value wins, and that no problem is missed and no value told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amba_run.secrets_files import Secrets, load_secrets
from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError


def write(folder: Path, text: str | bytes, name: str = ".dev.vars") -> Path:
    raw = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(raw)
    return folder


def problems(folder: Path) -> list[tuple[int | None, str]]:
    """Line and message of each problem of a folder that must not load."""
    with pytest.raises(UserError) as caught:
        load_secrets(folder)
    error = caught.value
    assert error.code is UserCode.INVALID_SECRETS_FILE
    assert "NAME=value" in error.hint
    return [(p["line"], p["message"]) for p in error.details["problems"]]


def test_no_files(tmp_path: Path) -> None:
    """A folder without secrets is complete."""
    assert load_secrets(tmp_path) == Secrets()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=1", "1"),
        ("A = 1 ", "1"),
        ("export A=1", "1"),
        ("A=", ""),
        ('A=""', ""),
        ("A=a=b==", "a=b=="),
        ("A=a b # comment", "a b"),
        ("A=a#b", "a#b"),
        ("A='single $B ${C} \\n'", "single $B ${C} \\n"),
        ('A="two\\nlines # kept"', "two\nlines # kept"),
        ('A="two\nlines"', "two\nlines"),
        ("A=$HOME/${HOME}", "$HOME/${HOME}"),
        ("\ufeffA=1", "1"),
        ("A=1\r\nB=2\r\n", "1"),
        ('A="two\r\nlines"\r\n', "two\nlines"),
        ("A=héllo-🔑", "héllo-🔑"),
        ("# comment\n\n  A=1", "1"),
    ],
)
def test_grammar(tmp_path: Path, text: str, value: str) -> None:
    """Quotes, escapes, `export` and comments as dotenv has them; no variable is expanded."""
    assert dict(load_secrets(write(tmp_path, text)).env())["A"] == value


def test_lines_are_counted_with_any_line_end(tmp_path: Path) -> None:
    """A bad line in a file from Windows does not shift the lines behind it."""
    assert [line for line, _ in problems(write(tmp_path, "1 1\r\n1\r\n\r\n1"))] == [1, 2, 4]


def test_dev_vars_wins_and_both_are_remembered(tmp_path: Path) -> None:
    """`.dev.vars` over `.env`, with file and line of either (interface.md 4; pain 17)."""
    write(tmp_path, "\n\nB=dev-b\nA=dev-a\n")
    write(tmp_path, "A=env-a\n# x\n\nC=env-c\n", ".env")
    secrets = load_secrets(tmp_path)
    assert secrets.env() == (("A", "dev-a"), ("B", "dev-b"), ("C", "env-c"))
    where = [(s.name, Path(s.file).name, s.line) for s in secrets.items]
    assert where == [("A", ".dev.vars", 4), ("B", ".dev.vars", 3), ("C", ".env", 4)]
    (lost,) = secrets.overridden
    assert (lost.name, Path(lost.file).name, lost.line) == ("A", ".env", 1)
    assert secrets.warnings == ()


def test_name_set_twice_in_one_file(tmp_path: Path) -> None:
    """The later line wins, and a warning names both lines (pain 17: silence is what hurts)."""
    secrets = load_secrets(write(tmp_path, "A=one\nB=x\nA=two\n"))
    assert dict(secrets.env()) == {"A": "two", "B": "x"}
    (warning,) = secrets.warnings
    assert "sets A twice: line 3 wins over line 1" in warning
    assert [s.line for s in secrets.overridden] == [1]


def test_values_are_masked(tmp_path: Path) -> None:
    """No representation of what was read shows a value (interface.md 4)."""
    secrets = load_secrets(write(tmp_path, "A=s3cr3t"))
    assert "s3cr3t" not in repr(secrets) + str(secrets.items[0].value)


def test_all_problems_of_both_files_at_once(tmp_path: Path) -> None:
    """Every bad line of both files is listed with its place; C.2's rules each by name."""
    lines = [
        "AMBA_KEY=v",
        "",
        "EDGE_X=v",
        "STORAGE=v",
        "HYPERDRIVE=v",
        "EDGE_DB_PROXY=v",
        "lower=v",
        "1A=v",
        "A-B=v",
        "=v",
        "NOVALUE",
        "'quoted'=v",
        "# a comment",
        'A="v" v',
        "A" * 64 + "=ok",
        "A" * 65 + "=v",
        f"BIG={'x' * (limits.SECRET_VALUE_BYTES.value + 1)}",
        f"FITS={'x' * limits.SECRET_VALUE_BYTES.value}",
        'OPEN="v',
    ]
    write(tmp_path, "\n".join(lines))
    write(tmp_path, "\n\nAMBA_ENV=v", ".env")
    told = problems(tmp_path)
    assert [line for line, _ in told] == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 17, 19, 3]
    says = dict(told[:-1])
    assert "begin with AMBA_ are reserved" in says[1]
    assert "begin with EDGE_ are reserved" in says[3]
    assert "STORAGE is the name of a binding" in says[4]
    assert "begin with EDGE_ are reserved" in says[6]
    assert "capital letter" in says[7]
    assert says[11] == "is not NAME=value (or its quotes do not match)"
    assert "65 characters, 64 are allowed" in says[16]
    assert "65537 bytes, 65536 are allowed" in says[17]


@pytest.mark.parametrize(
    "text",
    [
        "zq9secret",
        "AMBA_X=zq9secret",
        "lower=zq9secret",
        'A="zq9secret',
        "A='zq9secret' zq9secret",
        "MIIzq9secretAw+/x==",
        "zq9secret=\nzq9secret = 5",
        "A=" + "zq9secret" * 9000,
        "zq9secret" * 20 + "=x",
        "A=zq9secret\0",
        b"A=zq9secret\xff",
        "A=zq9secret" + " " * 300 + "x",
    ],
)
def test_no_error_holds_a_value(tmp_path: Path, text: str | bytes) -> None:
    """Neither value nor a word that may be part of one is told, whatever is wrong."""
    with pytest.raises(UserError) as caught:
        load_secrets(write(tmp_path, text))
    error = caught.value
    assert "zq9" not in f"{error.message} {error.hint} {error.details} {error!r}"


def test_files_that_are_no_text(tmp_path: Path) -> None:
    """UTF-16, NUL, too large, FIFO: told with the line where there is one, and no hang."""
    assert "not UTF-8" in problems(write(tmp_path, "A=1".encode("utf-16")))[0][1]
    assert problems(write(tmp_path, "A=1\nB=\0"))[0][0] == 2
    assert (
        "more than" in problems(write(tmp_path, b"#" * (limits.CONFIG_FILE_BYTES.value + 1)))[0][1]
    )
    (tmp_path / ".dev.vars").unlink()
    os.mkfifo(tmp_path / ".dev.vars")
    assert "is not a file" in problems(tmp_path)[0][1]


def test_blanks_on_which_the_parser_would_hang(tmp_path: Path) -> None:
    """256 blanks in a row are read, 257 are refused with their line: parsing stays linear."""
    most = limits.SECRETS_BLANKS.value
    assert load_secrets(write(tmp_path, f"A=x{' ' * most}y")).items[0].name == "A"
    assert problems(write(tmp_path, f"B=1\nA=x{' ' * (most + 1)}y")) == [
        (2, "has more than 256 blanks in a row; take them out")
    ]
    assert problems(write(tmp_path, "A=" + " x" * 10 + " " * 900_000))[0][0] == 1


@given(st.text(alphabet="AB_a1='\"\\# \n\r\té", max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """No text makes the reader fail in another way; lines stay within the file."""
    folder = write(tmp_path_factory.mktemp("any"), text)
    try:
        secrets = load_secrets(folder)
    except UserError as error:
        lines = [p["line"] for p in error.details["problems"]]
    else:
        lines = [secret.line for secret in (*secrets.items, *secrets.overridden)]
    last = text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
    assert all(1 <= line <= last for line in lines)
