"""`amba-run secrets`."""

from __future__ import annotations

import click


@click.command("secrets")
def command() -> None:
    """Soon."""
