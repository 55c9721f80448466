"""`amba-run secrets`: which secrets functions get, and from where; setting and unsetting them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from amba_run.cli.options import (
    api_option,
    json_option,
    print_json,
    project_id_option,
    token_option,
)

function_option = click.option(
    "--function", metavar="F", help="Of this function only. [the whole project]"
)


@click.group("secrets", epilog="Example:  amba-run secrets list --explain")
def command() -> None:
    """Show the secrets of this folder's functions; set and unset those of a node's project."""


@command.command("set", epilog="Example:  amba-run secrets set STRIPE_KEY --from-stdin < key.txt")
@click.argument("name")
@click.argument("value", required=False)
@click.option("--from-stdin", is_flag=True, help="Read the value from standard input.")
@function_option
@api_option
@token_option
@project_id_option
@json_option
def set_(
    name: str,
    value: str | None,
    from_stdin: bool,
    function: str | None,
    api: str | None,
    token: str | None,
    project: str | None,
    json_: bool,
) -> int:
    """Set the secret NAME; functions that run have it within a second."""
    from amba_run.api_client import find_api
    from amba_runtime import limits

    if (value is None) != from_stdin:
        raise click.UsageError("give VALUE, or --from-stdin (which keeps it out of your history)")
    if value is None:
        raw = sys.stdin.buffer.read(limits.SECRET_VALUE_BYTES.value + 2)
        value = raw.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    body = {"name": name, "value": value}
    if function is not None:
        body["function"] = function
    client = find_api(api=api, token=token, project=project)
    data: dict[str, Any] = client.post(client.at("secrets"), body)["data"]
    if json_:
        print_json(data)
    else:
        click.echo(f"set {name} for {_scope(function)}")
    return 0


@command.command("unset", epilog="Example:  amba-run secrets unset STRIPE_KEY")
@click.argument("name")
@function_option
@api_option
@token_option
@project_id_option
@json_option
def unset(
    name: str,
    function: str | None,
    api: str | None,
    token: str | None,
    project: str | None,
    json_: bool,
) -> int:
    """Unset the secret NAME; what is deployed keeps it until its next deploy."""
    from amba_run.api_client import find_api

    client = find_api(api=api, token=token, project=project)
    answer = client.delete(client.at("secrets", name), function=function)
    if json_:
        print_json(answer["data"])
    else:
        click.echo(f"unset {name} for {_scope(function)}; functions lose it at their next deploy")
    return 0


def _scope(function: str | None) -> str:
    return "the project" if function is None else f"the function {function}"


@command.command("list", epilog="Example:  amba-run secrets list ./functions --explain")
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--explain", is_flag=True, help="Say which file and line each value came from.")
@api_option
@token_option
@project_id_option
@json_option
def list_(
    path: Path | None,
    explain: bool,
    api: str | None,
    token: str | None,
    project: str | None,
    json_: bool,
) -> int:
    """The names of the secrets of PATH's folder, or with --api or --project those of a project.

    Values are never printed.
    """
    if api is None and project is None:
        return _of_folder(path or Path(), explain=explain, json_=json_)
    if path is not None or explain:
        raise click.UsageError("PATH and --explain are about files, --api and --project are not")
    return _of_project(api, token, project, json_=json_)


def _of_project(api: str | None, token: str | None, project: str | None, *, json_: bool) -> int:
    from amba_run.api_client import find_api

    client = find_api(api=api, token=token, project=project)
    rows: list[dict[str, Any]] = client.get(client.at("secrets"))["data"]
    if json_:
        print_json(rows)
        return 0
    for row in rows:
        scope = row["function"] or "project"
        click.echo(f"{row['name']}  {scope}  v{row['version']}  {row['sync_status']}")
    return 0


def _of_folder(path: Path, *, explain: bool, json_: bool) -> int:
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
