"""`amba-run secrets`: which secrets the functions of a folder get, and from where."""

from __future__ import annotations

from pathlib import Path

import click

from amba_run.cli.options import json_option, print_json


@click.group("secrets", epilog="Example:  amba-run secrets list --explain")
def command() -> None:
    """Show the secrets that functions of this folder get."""


@command.command("list", epilog="Example:  amba-run secrets list ./functions --explain")
@click.argument("path", type=click.Path(path_type=Path), default=Path())
@click.option("--explain", is_flag=True, help="Say which file and line each value came from.")
@json_option
def list_(path: Path, explain: bool, json_: bool) -> int:
    """The names of the secrets of PATH's folder. Values are never printed."""
    from amba_run.discovery import folder_of
    from amba_run.secrets_files import SECRETS_FILES, load_secrets

    secrets = load_secrets(folder_of(path))
    lost: dict[str, list[tuple[str, int]]] = {}
    for loser in secrets.overridden:
        lost.setdefault(loser.name, []).append((loser.file, loser.line))
    for warning in secrets.warnings:
        click.echo(f"warning: {warning}", err=True)
    if json_:
        print_json(
            [
                {
                    "name": secret.name,
                    "file": secret.file,
                    "line": secret.line,
                    "overrides": [
                        {"file": file, "line": line} for file, line in lost.get(secret.name, [])
                    ],
                }
                for secret in secrets.items
            ]
        )
        return 0
    if not secrets.items:
        files = " and ".join(SECRETS_FILES)
        click.echo(f"no secrets: {files} in {folder_of(path)} hold none", err=True)
    width = max((len(secret.name) for secret in secrets.items), default=0)
    for secret in secrets.items:
        if not explain:
            click.echo(secret.name)
            continue
        where = f"{secret.file}:{secret.line}"
        over = ", ".join(f"{file}:{line}" for file, line in lost.get(secret.name, []))
        click.echo(f"{secret.name.ljust(width)}  {where}{f'  (wins over {over})' if over else ''}")
    if explain:
        click.echo(f"precedence: {' > '.join(SECRETS_FILES)}", err=True)
    return 0
