"""`amba-run projects`: the projects of a node."""

from __future__ import annotations

from typing import Any

import click

from amba_run.cli.options import api_option, json_option, print_json, token_option


@click.group("projects", epilog="Example:  amba-run projects create shop")
def command() -> None:
    """Make and list the projects of a node."""


@command.command("create", epilog="Example:  amba-run projects create shop --json")
@click.argument("name")
@click.option(
    "--environment",
    type=click.Choice(["development", "production"]),
    default="development",
    show_default=True,
    help="Which keys are made.",
)
@api_option
@token_option
@json_option
def create(name: str, environment: str, api: str | None, token: str | None, json_: bool) -> int:
    """Make a project called NAME. Its keys are printed this once."""
    from amba_run.api_client import find_api

    client = find_api(api=api, token=token, project=None, need_project=False)
    answer = client.post("/v1/admin/projects", {"name": name, "environment": environment})
    if json_:
        print_json(answer["data"])
        return 0
    data: dict[str, Any] = answer["data"]
    keys: dict[str, Any] = data.get("api_keys", {})
    click.echo(f"project {data['id']}  {data.get('slug', '')}".rstrip())
    for kind in ("client", "server"):
        if kind in keys:
            click.echo(f"  {kind} key: {keys[kind].get('key')}")
    return 0


@command.command("list", epilog="Example:  amba-run projects list")
@api_option
@token_option
@json_option
def list_(api: str | None, token: str | None, json_: bool) -> int:
    """The projects of this token, newest first."""
    from amba_run.api_client import find_api, pages

    client = find_api(api=api, token=token, project=None, need_project=False)
    rows = pages(client, "/v1/admin/projects")
    if json_:
        print_json(rows)
        return 0
    for row in rows:
        click.echo(f"{row['id']}  {row.get('slug', '')}  {row.get('name', '')}")
    return 0
