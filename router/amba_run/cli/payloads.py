"""`--data` of the commands that send messages: JSON as it was written, or text as a JSON string.

What is JSON goes out byte for byte, so that a consumer gets big numbers, 1.0 and repeated keys as
they were written. Source: contract D.7 (delivered verbatim).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NoReturn

import click

from amba_runtime import limits


def payload_of(data: str) -> str:
    """The JSON text that one `--data` means: D itself, of @FILE, or of stdin for @-.

    What is no JSON is sent as a JSON string, which stderr says.

    Raises:
        UserError: ENTRY_NOT_FOUND for a file that cannot be read.
        click.UsageError: it is not UTF-8, too long to be a message, or nested too deeply.
    """
    text = _text(data)
    try:
        is_json = _is_json(text)
    except RecursionError:
        raise click.UsageError(f"{_named(data)} is nested too deeply") from None
    if is_json:
        return text
    click.echo(f"note: {_named(data)} is no JSON: sent as a JSON string", err=True)
    return json.dumps(text.removesuffix("\n").removesuffix("\r") if _is_file(data) else text)


def with_payload(members: dict[str, object], **payloads: str) -> str:
    """A JSON object of these members, and of others that are JSON text already."""
    written = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in members.items()]
    written += [f"{json.dumps(name)}: {text}" for name, text in payloads.items()]
    return f"{{{', '.join(written)}}}"


def _text(data: str) -> str:
    if not _is_file(data):
        raw = data.encode("utf-8", "surrogateescape")
    elif data == "@-":
        raw = sys.stdin.buffer.read(limits.TRIGGER_DATA_BYTES.value + 1)
    else:
        raw = _read(Path(data[1:]))
    if len(raw) > limits.TRIGGER_DATA_BYTES.value:
        raise click.UsageError(
            f"{_named(data)} has more than {limits.TRIGGER_DATA_BYTES.value:,} bytes"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise click.UsageError(f"{_named(data)} is not UTF-8") from None


def _read(path: Path) -> bytes:
    from amba_runtime.errors import UserCode, UserError

    try:
        with path.open("rb") as file:
            return file.read(limits.TRIGGER_DATA_BYTES.value + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            UserCode.ENTRY_NOT_FOUND,
            f"{path} cannot be read: {reason}",
            hint="--data @FILE sends a file; for a text that begins with @ use --data @-",
        ) from error


def _is_file(data: str) -> bool:
    return data.startswith("@")


def _named(data: str) -> str:
    return f"--data {data[:40]}{'…' if len(data) > 40 else ''}"


def _is_json(text: str) -> bool:
    def refuse(constant: str) -> NoReturn:  # NaN and Infinity are Python's, not JSON's
        raise ValueError(constant)

    try:
        # numbers are not looked at: Python takes none of more than 4,300 digits
        json.loads(text, parse_int=str, parse_float=str, parse_constant=refuse)
    except ValueError:
        return False
    return True
