"""`amba-run queues`: who consumes them, what waits in them, and what is to become of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from amba_run.cli.options import (
    Asked,
    client_command,
    client_command_of_states,
    print_json,
)
from amba_runtime import limits

Row = dict[str, Any]
Command = Callable[..., int]

SETTINGS = ("batch_size", "batch_wait_ms", "consumers", "retries", "backoff_ms")
"""What a binding may set besides who consumes: ours, beside contract D.7."""


def _whole(option: str, least: int, limit: limits.Limit, text: str) -> Callable[[Command], Command]:
    """An option of a binding that is a whole number within its bounds."""
    return click.option(option, type=click.IntRange(least, limit.value), metavar="N", help=text)


@click.group("queues", epilog="Example:  amba-run queues send orders --data '{\"id\": 7}'")
def command() -> None:
    """Bind, watch and mend queues."""


@command.command("bind", epilog="Example:  amba-run queues bind orders ship --batch-size 10")
@click.argument("queue")
@click.argument("function")
@_whole("--batch-size", 1, limits.QUEUE_BATCH, "Messages in one call, at most. [1]")
@_whole("--batch-wait-ms", 0, limits.QUEUE_BATCH_WAIT_MS, "How long a batch waits to be full. [0]")
@_whole("--consumers", 1, limits.QUEUE_CONSUMERS, "Calls at once. [4]")
@_whole("--retries", 0, limits.QUEUE_RETRIES, "Failures after which a message is dead. [3]")
@_whole("--backoff-ms", 0, limits.QUEUE_BACKOFF_MOST_MS, "Before the first retry. [10000]")
@client_command
def bind(asked: Asked, queue: str, function: str, **settings: int | None) -> int:
    """Let FUNCTION consume QUEUE; who did before does not any more.

    Settings that are not given go back to what they are without.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    return _put(asked, queue, function, "active", given, said=f"{function} consumes {queue}")


@command.command("unbind", epilog="Example:  amba-run queues unbind orders --yes")
@click.argument("queue")
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_command
def unbind(asked: Asked, queue: str, yes: bool) -> int:
    """Leave QUEUE without a consumer: nothing can be sent to it, and what waits goes on waiting."""
    client = asked.client()
    if not yes:
        click.confirm(f"Unbind the queue {queue}?", abort=True, err=True)
    answer = client.delete(client.at("queue", "bindings", queue), confirm=queue)
    return _say(asked, answer["data"], f"unbound {queue}")


@command.command("pause", epilog="Example:  amba-run queues pause orders")
@click.argument("queue")
@client_command
def pause(asked: Asked, queue: str) -> int:
    """Deliver nothing of QUEUE; what becomes due is kept aside until `resume`."""
    return _switch(asked, queue, "paused")


@command.command("resume", epilog="Example:  amba-run queues resume orders")
@click.argument("queue")
@client_command
def resume(asked: Asked, queue: str) -> int:
    """Deliver again, and first what was kept aside while QUEUE was paused."""
    return _switch(asked, queue, "active")


@command.command("list", epilog="Example:  amba-run queues list")
@client_command
def list_(asked: Asked) -> int:
    """The queues: consumer, status, depth by state, age of the oldest that waits."""
    from amba_run import trigger_lines
    from amba_runtime.clock import SystemClock

    client = asked.client()
    rows: list[Row] = client.get(client.at("queue", "queues"))["data"]
    if asked.json_:
        print_json(rows)
        return 0
    if not rows:
        click.echo("no queues: amba-run queues bind QUEUE FUNCTION makes one", err=True)
        return 0
    now_s = SystemClock().time_s()
    for line in trigger_lines.columns([trigger_lines.queue(row, now_s=now_s) for row in rows]):
        click.echo(line)
    return 0


@command.command(
    "send", epilog="Example:  amba-run queues send orders --data '{\"id\": 7}' --delay 60 --key o-7"
)
@click.argument("queue")
@click.option(
    "--data",
    metavar="D",
    required=True,
    help="The message: JSON, @FILE, or @- for stdin; other text is sent as a JSON string.",
)
@click.option("--delay", type=int, metavar="S", help="Seconds until it is due. [0]")
@click.option("--key", metavar="K", help="Sent again within 24 hours, it is the same message.")
@client_command
def send(asked: Asked, queue: str, data: str, delay: int | None, key: str | None) -> int:
    """Put a message into QUEUE; it is stored when this returns."""
    from amba_run.cli.payloads import payload_of, with_payload

    members: dict[str, object] = {"name": queue}
    if delay is not None:
        members["delay_seconds"] = delay
    if key is not None:
        members["idempotency_key"] = key
    body = with_payload(members, payload=payload_of(data))
    client = asked.client()
    sent: Row = client.post(client.at("queue", "send"), body)["data"]
    return _say(asked, sent, f"sent {sent['job_id']}")


@command.command("peek", epilog="Example:  amba-run queues peek orders --state dead")
@click.argument("queue")
@click.option(
    "--state",
    "of",
    type=click.Choice(["waiting", "delayed", "leased", "dead"]),
    default="waiting",
    show_default=True,
)
@click.option(
    "--limit", type=click.IntRange(1, limits.API_PAGE.value), default=20, show_default=True
)
@client_command_of_states
def peek(asked: Asked, queue: str, of: str, limit: int) -> int:
    """Look at messages of QUEUE without taking any; of dead ones, why they are."""
    from amba_run import trigger_lines

    client = asked.client()
    answer = client.get(client.at("queue", queue, "jobs"), state=of, limit=limit)
    rows: list[Row] = answer["data"]
    if asked.json_:
        print_json(rows)
        return 0
    for row in rows:
        click.echo(trigger_lines.job(row))
    total = int(answer.get("total") or 0)
    if total > len(rows):
        click.echo(f"{total - len(rows)} more are {of}", err=True)
    elif not rows:
        click.echo(f"no message of {queue} is {of}", err=True)
    return 0


@command.command("redeliver", epilog="Example:  amba-run queues redeliver orders")
@click.argument("queue")
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@client_command
def redeliver(asked: Asked, queue: str, jobs: tuple[str, ...]) -> int:
    """Deliver dead letters of QUEUE again, all or the named ones, as if they had never failed."""
    client = asked.client()
    body: dict[str, object] = {"job_ids": list(jobs)} if jobs else {}
    done: Row = client.post(client.at("queue", queue, "redeliver"), body)["data"]
    return _say(asked, done, f"{done['redelivered']} of {queue} are delivered again")


@command.command(
    "purge", epilog="Example:  amba-run queues purge orders --state dead --confirm orders"
)
@click.argument("queue")
@click.option("--state", "of", type=click.Choice(["dead", "waiting", "all"]), required=True)
@click.option("--confirm", metavar="QUEUE", required=True, help="The queue's name once more.")
@client_command_of_states
def purge(asked: Asked, queue: str, of: str, confirm: str) -> int:
    """Remove messages of QUEUE for good; those being delivered stay."""
    if confirm != queue:
        raise click.UsageError(f"--confirm {confirm[:64]} is not {queue[:64]}: nothing was removed")
    client = asked.client()
    done: Row = client.post(client.at("queue", queue, "purge"), {"state": of})["data"]
    return _say(asked, done, f"removed {done['purged']} of {queue}")


@command.command("fail-next", epilog="Example:  amba-run queues fail-next orders 3")
@click.argument("queue")
@click.argument("count", type=click.IntRange(0, limits.QUEUE_FAIL_NEXT.value))
@client_command
def fail_next(asked: Asked, queue: str, count: int) -> int:
    """Let the next COUNT deliveries of QUEUE fail before they reach the handler; 0 ends it."""
    client = asked.client()
    done: Row = client.post(client.at("queue", queue, "fail-next"), {"count": count})["data"]
    return _say(asked, done, f"the next {done['count']} deliveries of {queue} fail")


def _switch(asked: Asked, queue: str, status: str) -> int:
    """Bind anew what is bound, with another status; its settings stay."""
    from amba_runtime.errors import UserCode, UserError

    client = asked.client()
    rows: list[Row] = client.get(client.at("queue", "bindings"))["data"]
    row = next((row for row in rows if row["queue_name"] == queue), None)
    if row is None:
        raise UserError(
            UserCode.API_REFUSED,
            f"QUEUE_NOT_BOUND: no function consumes {queue[:64]}",
            hint="amba-run queues list shows the queues that have a consumer",
        )
    kept = {name: row[name] for name in SETTINGS if name in row}
    function = str(row["function_name"])
    return _put(asked, queue, function, status, kept, said=f"{queue} is {status}")


def _put(
    asked: Asked, queue: str, function: str, status: str, settings: dict[str, int], *, said: str
) -> int:
    client = asked.client()
    body = {"queue_name": queue, "function_name": function, "status": status, **settings}
    return _say(asked, client.put(client.at("queue", "bindings"), body)["data"], said)


def _say(asked: Asked, data: Row, text: str) -> int:
    if asked.json_:
        print_json(data)
    else:
        click.echo(text)
    return 0
