"""`amba-run limits`."""

from __future__ import annotations

import click


@click.command("limits")
def command() -> None:
    """Soon."""
