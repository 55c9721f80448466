"""`amba-run verify`."""

from __future__ import annotations

import click


@click.command("verify")
def command() -> None:
    """Soon."""
