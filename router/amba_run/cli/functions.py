"""`amba-run functions`: what is deployed, its versions, and what it said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import click

from amba_run.cli.options import (
    api_option,
    json_option,
    print_json,
    project_id_option,
    token_option,
)

Row = dict[str, Any]


@click.group("functions", epilog="Example:  amba-run functions logs hello --follow")
def command() -> None:
    """List, roll back or delete deployed functions; read their logs."""


@command.command("list", epilog="Example:  amba-run functions list")
@api_option
@token_option
@project_id_option
@json_option
def list_(api: str | None, token: str | None, project: str | None, json_: bool) -> int:
    """The functions that serve, one line each."""
    from amba_run.api_client import find_api, pages

    client = find_api(api=api, token=token, project=project)
    rows = pages(client, client.at("functions", "deployments"), active=1)
    return _print_rows(sorted(rows, key=lambda row: str(row["name"])), json_=json_)


@command.command("versions", epilog="Example:  amba-run functions versions hello")
@click.argument("name")
@api_option
@token_option
@project_id_option
@json_option
def versions(
    name: str, api: str | None, token: str | None, project: str | None, json_: bool
) -> int:
    """Every deployment of the function NAME, newest first."""
    from amba_run.api_client import find_api, pages

    client = find_api(api=api, token=token, project=project)
    rows = pages(client, client.at("functions", "deployments"), name=name)
    rows = [row for row in rows if row["name"] == name]
    if not rows:
        click.echo(f"no function is called {name}, and none ever was", err=True)
    return _print_rows(rows, json_=json_)


@command.command("rollback", epilog="Example:  amba-run functions rollback hello 3")
@click.argument("name")
@click.argument("version", type=click.IntRange(min=1))
@api_option
@token_option
@project_id_option
@json_option
def rollback(
    name: str, version: int, api: str | None, token: str | None, project: str | None, json_: bool
) -> int:
    """Deploy VERSION of the function NAME again, as a new version."""
    from amba_run.api_client import find_api

    client = find_api(api=api, token=token, project=project)
    answer = client.post(client.at("functions", name, "rollback"), {"version": version})
    if json_:
        print_json(answer)
        return 0
    click.echo(f"{name} version {answer['data']['version']} serves what version {version} did")
    click.echo(f"  {answer.get('fn_url')}")
    return 0


@command.command("delete", epilog="Example:  amba-run functions delete hello --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@api_option
@token_option
@project_id_option
@json_option
def delete(
    name: str, yes: bool, api: str | None, token: str | None, project: str | None, json_: bool
) -> int:
    """Take the function NAME away: its URL answers 404 at once. Its history stays."""
    from amba_run.api_client import find_api

    client = find_api(api=api, token=token, project=project)
    if not yes:
        click.confirm(f"Delete the function {name}?", abort=True, err=True)
    answer = client.delete(client.at("functions", name), confirm=name)
    if json_:
        print_json(answer.get("data"))
    else:
        click.echo(f"deleted {name}")
    return 0


@command.command("logs", epilog="Example:  amba-run functions logs hello --follow")
@click.argument("name")
@click.option("--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--since", metavar="TIME", help="ISO 8601, or an age: 90s, 15m, 2h. [1h]")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--request", "request_id", metavar="ID", help="Only of this request.")
@api_option
@token_option
@project_id_option
@json_option
def logs(
    name: str,
    follow: bool,
    since: str | None,
    limit: int,
    request_id: str | None,
    api: str | None,
    token: str | None,
    project: str | None,
    json_: bool,
) -> int:
    """What the function NAME said, oldest first. With --json: one event a line."""
    from amba_run.api_client import find_api
    from amba_run.log_lines import since_ms
    from amba_runtime import limits
    from amba_runtime.clock import SystemClock, iso, time_ms

    client = find_api(api=api, token=token, project=project)
    clock = SystemClock()
    start = since_ms(since, now_ms=time_ms(clock))
    while True:
        asked = iso(start / 1000) if start is not None else None
        answer = client.get(
            client.at("functions", name, "logs"), since=asked, limit=limit, request_id=request_id
        )
        data: Row = answer["data"]
        events: list[Row] = data["events"][::-1]
        _print_events(events, json_=json_)
        if data.get("truncated"):
            click.echo("older events were left out: raise --limit or --since", err=True)
        if not follow:
            return 0
        newest = max((int(e["EventTimestampMs"]) for e in events), default=None)
        if newest is not None:
            start = newest + 1
        elif start is None:  # by the server's clock: ours may differ
            start = since_ms(str(data["until"]), now_ms=0)
        limit = limits.LOGS_PAGE.value
        asyncio.run(clock.sleep(limits.LOGS_POLL_S.value))


def _print_rows(rows: list[Row], *, json_: bool) -> int:
    if json_:
        print_json(rows)
        return 0
    width = max((len(str(row["name"])) for row in rows), default=0)
    for row in rows:
        click.echo(
            f"{str(row['name']).ljust(width)}  v{row['version']}  {row['status']}"
            f"  {row['created_at']}  {str(row['bundle_sha'])[:12]}"
        )
    return 0


def _print_events(events: Iterable[Row], *, json_: bool) -> None:
    from amba_run.log_lines import text_of

    for event in events:
        click.echo(json.dumps(event) if json_ else text_of(event))
