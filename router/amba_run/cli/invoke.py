"""`amba-run invoke`."""

from __future__ import annotations

import click


@click.command("invoke")
def command() -> None:
    """Soon."""
