"""`amba-run limits`: the limits in force for each function, and what can be set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amba_run.cli.options import json_option, print_json

if TYPE_CHECKING:
    from amba_run.config import ProjectConfig


@dataclass(frozen=True, slots=True)
class Row:
    """One limit of one function.

    Attributes:
        value: in force in `dev`.
        default, hosted: of `dev` and `check`; of a node.
        set_in: `default`, or where `amba.toml` sets it.
    """

    name: str
    value: int
    unit: str
    default: int
    hosted: int
    maximum: int
    off: bool
    set_in: str
    bounds: str
    source: str


@click.command("limits", epilog="Example:  amba-run limits ./functions")
@click.argument("path", type=click.Path(path_type=Path), default=Path())
@json_option
def command(path: Path, json_: bool) -> int:
    """The limits in force for each function under PATH."""
    from amba_run.config import load_config
    from amba_run.discovery import discover, folder_of

    config = load_config(folder_of(path))
    found = discover(path, config)
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    tables = {source.name: rows(config, source.name) for source in found.functions}
    if json_:
        print_json(
            {
                "functions": [
                    {"name": name, "limits": {row.name: _plain(row) for row in table}}
                    for name, table in sorted(tables.items())
                ]
            }
        )
        return 0
    alike: dict[tuple[Row, ...], list[str]] = {}
    for name, table in sorted(tables.items()):
        alike.setdefault(table, []).append(name)
    if not alike:
        click.echo(f"{path} holds no functions; every one would have:", err=True)
        alike[rows(config, "")] = []
    for table, names in alike.items():
        click.echo("\n".join([*([", ".join(names)] if names else []), *_table(table), ""]))
    click.echo(
        "0 is off; dev and hosted are the defaults. "
        "Set them in amba.toml: [limits], or [functions.NAME.limits]."
    )
    return 0


def rows(config: ProjectConfig, name: str) -> tuple[Row, ...]:
    """The limits of one function, in the order of interface.md section 4."""
    from amba_runtime.limits import SETTINGS, FunctionLimits

    in_force = config.limits_for(name, FunctionLimits.dev())
    function = config.functions.get(name)
    own: Mapping[str, int] = function.limits if function is not None else {}
    file = config.file.name if config.file is not None else ""
    table: list[Row] = []
    for setting in SETTINGS:
        set_in = "default"
        if setting.name in own:
            set_in = f"{file} [functions.{name}.limits]"
        elif setting.name in config.limits:
            set_in = f"{file} [limits]"
        value: int = getattr(in_force, setting.name)
        table.append(
            Row(
                setting.name,
                value,
                setting.unit,
                setting.dev,
                setting.hosted,
                setting.maximum,
                setting.off,
                set_in,
                setting.bounds,
                setting.source,
            )
        )
    return tuple(table)


def _plain(row: Row) -> dict[str, object]:
    return {
        "value": row.value,
        "unit": row.unit,
        "default": row.default,
        "hosted_default": row.hosted,
        "maximum": row.maximum,
        "off": row.off,
        "set_in": row.set_in,
        "bounds": row.bounds,
        "source": row.source,
    }


def _table(table: tuple[Row, ...]) -> list[str]:
    head = ("limit", "value", "unit", "dev", "hosted", "most", "set in", "bounds", "source")
    cells: list[tuple[str, ...]] = [head]
    for row in table:
        defaults = (str(row.default), str(row.hosted), str(row.maximum))
        source = row.source.split(";")[0]
        cells.append(
            (row.name, str(row.value), row.unit, *defaults, row.set_in, row.bounds, source)
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines: list[str] = []
    for line in cells:
        padded = [
            cell.rjust(width) if column in (1, 3, 4, 5) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  " + "  ".join(padded).rstrip())
    return lines
