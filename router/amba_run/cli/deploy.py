"""`amba-run deploy`: bundle a function, judge it, upload it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amba_run.cli.options import (
    api_option,
    json_option,
    print_json,
    project_id_option,
    token_option,
)

if TYPE_CHECKING:
    from amba_run.uploads import Package


@click.command(
    "deploy",
    epilog="Example:  amba-run deploy functions/hello.ts --rate-limit-window 60s"
    " --rate-limit-max 100 --rate-limit-key user_id",
)
@click.argument("entry", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="Of the function. [the entry file's]")
@click.option("--dry-run", is_flag=True, help="Bundle and judge; upload nothing.")
@click.option("--no-bundle", is_flag=True, help="ENTRY is a finished bundle: upload it as it is.")
@click.option("--rate-limit-window", metavar="TIME", help="Such as 60s, 5m, 1h; at most 1h.")
@click.option("--rate-limit-max", type=int, metavar="N", help="Requests per window, 1 to 100000.")
@click.option("--rate-limit-key", type=click.Choice(["user_id", "ip"]), help="What is counted by.")
@api_option
@token_option
@project_id_option
@json_option
def command(
    entry: Path,
    name: str | None,
    dry_run: bool,
    no_bundle: bool,
    rate_limit_window: str | None,
    rate_limit_max: int | None,
    rate_limit_key: str | None,
    api: str | None,
    token: str | None,
    project: str | None,
    json_: bool,
) -> int:
    """Deploy the function whose entry file is ENTRY."""
    from amba_run.api_client import find_api
    from amba_run.uploads import package, parts_of, rate_limit_of

    limit = rate_limit_of(rate_limit_window, rate_limit_max, rate_limit_key)
    client = None if dry_run else find_api(api=api, token=token, project=project)
    click.echo(f"bundling {entry}", err=True)
    packed = asyncio.run(package(entry, name=name, rate_limit=limit, bundle_it=not no_bundle))
    for warning in packed.warnings:
        click.echo(f"warning: {warning}", err=True)
    if client is None:
        return _told_dry(packed, json_=json_)
    size = packed.bundle.bytes_gzip()
    click.echo(f"uploading {packed.name}: {size:,} bytes compressed, to {client.origin}", err=True)
    answer = client.upload(client.at("functions", "deploy"), parts_of(packed))
    for warning in answer.get("warnings", ()):
        click.echo(f"warning: {warning}", err=True)
    if json_:
        print_json(answer)
        return 0
    data: dict[str, Any] = answer.get("data", {})
    click.echo(f"deployed {data.get('name')} version {data.get('version')}")
    click.echo(f"  {answer.get('fn_url')}")
    return 0


def _told_dry(packed: Package, *, json_: bool) -> int:
    facts = {
        "name": packed.name,
        "bytes": len(packed.bundle.code),
        "bytes_gzip": packed.bundle.bytes_gzip(),
        "bundle_sha": packed.bundle.sha256,
        "handlers": list(packed.handlers),
    }
    if json_:
        print_json(facts)
        return 0
    click.echo(
        f"{packed.name}: {facts['bytes']} bytes, {facts['bytes_gzip']} compressed,"
        f" sha256 {packed.bundle.sha256[:16]}, handlers: {', '.join(packed.handlers)}"
    )
    click.echo("nothing was uploaded (--dry-run)", err=True)
    return 0
