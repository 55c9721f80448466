"""`amba-run keys`: the API keys of a project."""

from __future__ import annotations

from typing import Any

import click

from amba_run.cli.options import (
    api_option,
    json_option,
    print_json,
    project_id_option,
    token_option,
)


@click.group("keys", epilog="Example:  amba-run keys create client")
def command() -> None:
    """Make and revoke the API keys of a project."""


@command.command("create", epilog="Example:  amba-run keys create server --environment production")
@click.argument("type_", metavar="TYPE", type=click.Choice(["client", "server"]))
@click.option(
    "--environment",
    type=click.Choice(["development", "production"]),
    help="Default: the project's.",
)
@api_option
@token_option
@project_id_option
@json_option
def create(
    type_: str,
    environment: str | None,
    api: str | None,
    token: str | None,
    project: str | None,
    json_: bool,
) -> int:
    """Make a `client` or `server` key. It is printed this once."""
    from amba_run.api_client import find_api

    client = find_api(api=api, token=token, project=project)
    stage = {} if environment is None else {"environment": environment}
    answer = client.post(client.at("api-keys"), {"key_type": type_, **stage})
    data: dict[str, Any] = answer["data"]
    if json_:
        print_json(data)
    else:
        click.echo(f"{data['key']}")
        click.echo(f"id {data['id']}; it is not shown again", err=True)
    return 0


@command.command("revoke", epilog="Example:  amba-run keys revoke 3b1f…")
@click.argument("key_id", metavar="ID")
@api_option
@token_option
@project_id_option
@json_option
def revoke(
    key_id: str, api: str | None, token: str | None, project: str | None, json_: bool
) -> int:
    """Revoke the key with this id, at once."""
    from amba_run.api_client import find_api

    client = find_api(api=api, token=token, project=project)
    answer = client.delete(client.at("api-keys", key_id))
    if json_:
        print_json(answer.get("data"))
    else:
        click.echo(f"revoked {key_id}")
    return 0
