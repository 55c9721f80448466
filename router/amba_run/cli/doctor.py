"""`amba-run doctor`: what is installed, what works here, and how to mend what does not."""

from __future__ import annotations

import click

from amba_run.cli.options import json_option, print_json


@click.command("doctor", epilog="Example:  amba-run doctor --json")
@json_option
def command(json_: bool) -> int:
    """Run every part once and say what is wrong. Exit code 1 when something is broken."""
    from amba_run import __version__
    from amba_run.config import Environment
    from amba_run.health import State, examine
    from amba_run.report import neutral
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
