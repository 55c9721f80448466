"""Secrets for dev from `.dev.vars` and `.env`, in PATH's folder: which value wins, and whence.

Read with python-dotenv's grammar (quotes, escapes in double quotes, `export`, comments), without
expanding variables. No message holds a value, nor a name that may be a piece of one.
Source: interface.md section 4; names and values by contract C.2.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amba_runtime import limits
from amba_runtime.bindings.secrets import check_secret_name, check_secret_value
from amba_runtime.errors import UserCode
from amba_runtime.secret import SecretText

from .problems import Problems, read_text, shown

SECRETS_FILES = (".dev.vars", ".env")
"""In order of precedence: the first that has a name gives its value. `dev` watches both."""

_BLANKS = re.compile(r"[^\S\n]+")


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret and the place it came from (`file` as the user would write it)."""

    name: str
    value: SecretText
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of a folder.

    Attributes:
        items: what functions get, sorted by name.
        overridden: the values that lost, for `secrets list --explain`, sorted by name.
        warnings: one sentence for each name that one file sets twice.
    """

    items: tuple[Secret, ...] = ()
    overridden: tuple[Secret, ...] = ()
    warnings: tuple[str, ...] = ()

    def env(self) -> tuple[tuple[str, str], ...]:
        """Names and revealed values, as a `Manifest` takes them."""
        return tuple((secret.name, secret.value.reveal()) for secret in self.items)


def load_secrets(folder: Path) -> Secrets:
    """Read the secrets files of `folder`; none there is no error.

    Raises:
        UserError: INVALID_SECRETS_FILE, listing every problem of both files with file and line:
            lines that are no NAME=value, reserved and misspelt names, names over 64 characters,
            values over 64 KiB, files that are not UTF-8 text.
    """
    problems = Problems()
    winners: dict[str, Secret] = {}
    overridden: list[Secret] = []
    warnings: list[str] = []
    for filename in SECRETS_FILES:
        own: dict[str, Secret] = {}
        for secret in _read(folder / filename, problems):
            earlier = own.pop(secret.name, None)
            if earlier is not None:
                overridden.append(earlier)
                warnings.append(
                    f"{secret.file} sets {secret.name} twice: line {secret.line} wins over "
                    f"line {earlier.line}; remove one"
                )
            own[secret.name] = secret
        for name, secret in own.items():
            if name in winners:
                overridden.append(secret)
            else:
                winners[name] = secret
    problems.raise_any(
        UserCode.INVALID_SECRETS_FILE,
        "the secrets cannot be used",
        hint="a line is NAME=value: NAME in capital letters, digits and _; quote odd values",
    )
    return Secrets(
        items=tuple(winners[name] for name in sorted(winners)),
        overridden=tuple(sorted(overridden, key=lambda secret: secret.name)),
        warnings=tuple(warnings),
    )


def _read(path: Path, problems: Problems) -> Iterator[Secret]:
    """The good secrets of one file, in order; the rest goes to `problems`."""
    text = read_text(path, problems=problems)
    file = shown(path)
    if text is None:
        return
    # one kind of line end, inside quotes too, as other dotenv readers have it
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not _scannable(text, file, problems):
        return
    # imported only where there is a file to read: dotenv takes 25 ms, and start-up time counts
    from dotenv.parser import parse_stream

    for binding in parse_stream(io.StringIO(text)):
        blank = binding.original.string
        blank = blank[: len(blank) - len(blank.lstrip())]
        line = binding.original.line + blank.count("\n")
        if binding.error or (binding.key is not None and binding.value is None):
            problems.add(file, line, "is not NAME=value (or its quotes do not match)")
            continue
        if binding.key is None or binding.value is None:  # a comment, or the end
            continue
        fault = check_secret_name(binding.key) or check_secret_value(binding.value)
        if fault is not None:
            problems.add(file, line, f"{fault.message}; {fault.hint}")
            continue
        yield Secret(binding.key, SecretText(binding.value), file, line)


def _scannable(text: str, file: str, problems: Problems) -> bool:
    """False, with a problem, for a run of blanks on which dotenv's parser takes quadratic time."""
    most = limits.SECRETS_BLANKS.value
    for run in _BLANKS.finditer(text):
        if run.end() - run.start() > most:
            line = text.count("\n", 0, run.start()) + 1
            problems.add(file, line, f"has more than {most} blanks in a row; take them out")
            return False
    return True
