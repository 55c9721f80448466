"""`amba-run token`."""

from __future__ import annotations

import click


@click.command("token")
def command() -> None:
    """Soon."""
