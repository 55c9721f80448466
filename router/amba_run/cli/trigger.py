"""`amba-run trigger`: one event now, to a function that serves, and what came of it."""

from __future__ import annotations

from typing import Any

import click

from amba_run.cli.options import Asked, client_command, print_json


@click.group("trigger", epilog="Example:  amba-run trigger scheduled digest --cron '0 6 * * *'")
def command() -> None:
    """Call a function's `scheduled` or `queue` handler now; nothing is stored for it.

    The exit code is 1 when the handler did not end well.
    """


@command.command(
    "scheduled",
    epilog="Example:  amba-run trigger scheduled digest --at 2026-03-29T02:30:00+01:00",
)
@click.argument("name")
@click.option("--cron", metavar="C", help="What controller.cron says.")
@click.option(
    "--at",
    metavar="TIME",
    help="What controller.scheduledTime says: ISO 8601 (UTC without a zone), or Unix ms. [now]",
)
@client_command
def scheduled(asked: Asked, name: str, cron: str | None, at: str | None) -> int:
    """Fire the function NAME's `scheduled` handler, whatever its schedules say."""
    from amba_run.log_lines import at_ms

    body: dict[str, object] = {}
    if cron is not None:
        body["cron"] = cron
    if (when := at_ms(at)) is not None:
        body["scheduled_time"] = when
    client = asked.client()
    path = client.at("functions", name, "scheduled")
    answer = client.post(path, body, within_s=_within_s())
    return _told("scheduled", name, answer["data"], json_=asked.json_)


@command.command(
    "queue",
    epilog="Example:  amba-run trigger queue orders --data '{\"id\": 7}' --data @order.json",
)
@click.argument("queue")
@click.option(
    "--data",
    "data",
    metavar="D",
    multiple=True,
    required=True,
    help="A message: JSON, @FILE, or @- for stdin; other text is sent as a JSON string. "
    "Repeat it for a batch of up to 10.",
)
@client_command
def queue(asked: Asked, queue: str, data: tuple[str, ...]) -> int:
    """Deliver one batch to the consumer of QUEUE and print its verdicts; nothing is retried."""
    from amba_run.cli.payloads import payload_of, with_payload
    from amba_runtime import limits

    most = limits.QUEUE_BATCH.value
    if len(data) > most:
        raise click.UsageError(f"--data is given {len(data)} times; a batch has {most} at most")
    if data.count("@-") > 1:
        raise click.UsageError("standard input can be read once: one --data @-")
    payloads = ", ".join(payload_of(one) for one in data)
    client = asked.client()
    path = client.at("queue", queue, "deliver")
    body = with_payload({}, payloads=f"[{payloads}]")
    answer = client.post(path, body, within_s=_within_s())
    return _told("queue", queue, answer["data"], json_=asked.json_)


def _within_s() -> float:
    """How long an answer is waited for: as long as a handler may take, and the way there."""
    from amba_runtime import limits

    return limits.EVENT_MS.value / 1000 + limits.API_ANSWER_S.value


def _told(kind: str, name: str, data: dict[str, Any], *, json_: bool) -> int:
    from amba_run import trigger_lines

    if json_:
        print_json(data)
    else:
        click.echo(trigger_lines.fired(kind, name, data))
    return 0 if data.get("outcome") == "ok" else 1
