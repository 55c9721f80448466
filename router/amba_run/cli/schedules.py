"""`amba-run schedules`: when functions run by themselves."""

from __future__ import annotations

from typing import Any

import click

from amba_run.cli.options import Asked, client_command, print_json


@click.group("schedules", epilog="Example:  amba-run schedules add digest '0 8 * * MON-FRI'")
def command() -> None:
    """Add, list and delete schedules; a function may have several."""


@command.command(
    "add",
    epilog="Example:  amba-run schedules add digest '0 8 * * MON-FRI' --timezone Europe/Berlin",
)
@click.argument("name")
@click.argument("cron")
@click.option(
    "--timezone", metavar="Z", default="UTC", show_default=True, help="An IANA zone: Europe/Berlin."
)
@click.option(
    "--missed",
    type=click.Choice(["skip", "run_once"]),
    help="What becomes of a run that was missed while the server was down. [skip]",
)
@client_command
def add(asked: Asked, name: str, cron: str, timezone: str, missed: str | None) -> int:
    """Run the function NAME at the times of CRON (five fields); the same again changes nothing."""
    body: dict[str, object] = {"name": name, "cron": cron, "timezone": timezone}
    if missed is not None:
        body["missed"] = missed
    client = asked.client()
    data: dict[str, Any] = client.post(client.at("functions", "schedules"), body)["data"]
    if asked.json_:
        print_json(data)
    else:
        click.echo(f"{name} runs at {cron} ({timezone}); schedule {data['schedule_id']}")
    return 0


@command.command("list", epilog="Example:  amba-run schedules list digest")
@click.argument("name", required=False)
@client_command
def list_(asked: Asked, name: str | None) -> int:
    """The schedules, of the function NAME alone if given: next five runs, and how the last went.

    Times are those of the schedule's zone, and of this machine where its clock says another.
    """
    from amba_run import trigger_lines
    from amba_run.api_client import pages

    client = asked.client()
    rows = pages(client, client.at("functions", "schedules"), name=name)
    if asked.json_:
        print_json(rows)
        return 0
    if not rows:
        click.echo("no schedules: amba-run schedules add NAME CRON makes one", err=True)
    for row in rows:
        click.echo(trigger_lines.schedule(row))
    return 0


@command.command("delete", epilog="Example:  amba-run schedules delete 0198c2f4-...")
@click.argument("id_", metavar="ID")
@client_command
def delete(asked: Asked, id_: str) -> int:
    """Delete the schedule ID, as `list` shows it; a run that is under way ends as it would."""
    client = asked.client()
    data: dict[str, Any] = client.delete(client.at("functions", "schedules", id_))["data"]
    if asked.json_:
        print_json(data)
    else:
        click.echo(f"deleted {id_}")
    return 0
