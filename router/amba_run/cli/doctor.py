"""`amba-run doctor`: what is installed, what works here, and how to mend what does not.

With `--attack` it tries the walls instead of asking whether they are there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from amba_run.cli.options import json_option, print_json

if TYPE_CHECKING:
    from amba_run.attack import Walls, WaysOut


@click.command("doctor", epilog="Example:  amba-run doctor --json")
@click.option(
    "--attack",
    is_flag=True,
    help="Attack the walls around functions on this machine instead: a program in the engine's "
    "place, and a function that asks for what it must not reach. Loopback only; a second.",
)
@json_option
def command(attack: bool, json_: bool) -> int:
    """Run every part once and say what is wrong. Exit code 1 when something is broken."""
    return _attack(json_=json_) if attack else _examine(json_=json_)


def _examine(*, json_: bool) -> int:
    from amba_run import __version__
    from amba_run.config import Environment
    from amba_run.health import State, examine
    from amba_run.output import neutral
    from amba_runtime.clock import SystemClock

    environment = Environment.of_process()
    findings = list(examine(environment, SystemClock()))
    ok = all(finding.state is not State.FAIL for finding in findings)
    if json_:
        checks = [
            {"name": f.name, "state": f.state, "detail": f.detail, "fix": f.fix} for f in findings
        ]
        print_json({"ok": ok, "version": __version__, "checks": checks})
        return 0 if ok else 1
    click.echo(f"amba-run {__version__}")
    for finding in findings:
        click.echo(f"{finding.state.ljust(4)}  {finding.name.ljust(8)}  {neutral(finding.detail)}")
        if finding.fix:
            click.echo(f"{' ' * 16}fix: {finding.fix}")
    click.echo("all is well" if ok else "something is broken: see the lines that begin with fail")
    return 0 if ok else 1


def _attack(*, json_: bool) -> int:
    import asyncio

    from amba_run import __version__, attack
    from amba_run.config import Environment
    from amba_runtime.engine.workerd.engine import find_workerd

    named = Environment.of_process().workerd
    program = find_workerd(str(named) if named else None)
    walls, ways_out = asyncio.run(attack.attack(program))
    ok = walls.ok and ways_out.ok
    if json_:
        print_json(
            {
                "ok": ok,
                "version": __version__,
                "tier": walls.tier,
                "walls": {
                    "ok": walls.ok,
                    "fault": walls.fault,
                    "tries": [
                        {"name": f.name, "answer": f.answer, "verdict": f.verdict}
                        for f in walls.findings
                    ],
                },
                "ways_out": {
                    "ok": ways_out.ok,
                    "fault": ways_out.fault,
                    "tried": ways_out.tried,
                    "connections": ways_out.connections,
                    "answered": ways_out.answered,
                },
            }
        )
        return 0 if ok else 1
    click.echo(f"amba-run {__version__}")
    _print_walls(walls)
    _print_ways_out(ways_out)
    click.echo("no wall is missing" if ok else "a wall is missing: see the lines above")
    return 0 if ok else 1


def _print_walls(walls: Walls) -> None:
    from amba_runtime.sandbox.escape import Verdict

    click.echo(f"walls  tier {walls.tier}: {walls.description}")
    for note in walls.notes:
        click.echo(f"       not higher: {note}")
    for finding in walls.findings:
        click.echo(f"  {finding.verdict.ljust(9)}  {finding.name.ljust(32)}  {finding.answer}")
    if walls.fault:
        click.echo(f"  fail: {walls.fault}")
    elif walls.tier < 2:
        click.echo("  fail: there are no walls at this tier: run only code that you trust")
    refused = sum(f.verdict in (Verdict.REFUSED, Verdict.OTHERWISE) for f in walls.findings)
    tries = sum(f.verdict is not Verdict.NEEDED for f in walls.findings)
    known = sum(f.verdict is Verdict.KNOWN for f in walls.findings)
    click.echo(
        f"  {refused} of {tries} tries were refused, {known} are open at this tier by its table, "
        f"{len(walls.holes)} are holes"
    )
    if walls.fix and not walls.ok:
        click.echo(f"  fix: {walls.fix}")


def _print_ways_out(ways_out: WaysOut) -> None:
    from amba_run.output import neutral

    click.echo("ways out  a function asks for loopback and metadata addresses")
    if ways_out.fault:
        click.echo(f"  fail: {neutral(ways_out.fault)}")
        return
    for url, told in ways_out.answered.items():
        click.echo(f"  hole       {url}  {neutral(told)[:100]}")
    click.echo(
        f"  {ways_out.tried} requests, {ways_out.connections} connections, "
        f"{len(ways_out.answered)} answers"
    )
