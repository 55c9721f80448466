"""`amba-run state`: a state directory kept in a file, put back, emptied. No server may hold it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from amba_run.cli.options import json_option, print_json

path_option = click.option(
    "--path",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="What amba-run dev serves with this state. [the current folder]",
)
folder_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The state directory itself, of dev or of a node.",
)


@click.group("state", epilog="Example:  amba-run state snapshot before.tar.gz")
def command() -> None:
    """Keep a state directory in a file, put it back, or empty it; end its server before."""


@command.command("snapshot", epilog="Example:  amba-run state snapshot before.tar.gz")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@path_option
@folder_option
@json_option
def snapshot(file: Path, path: Path | None, state: Path | None, json_: bool) -> int:
    """Write all that is kept to FILE (a .tar.gz), which is replaced once the new one is whole.

    It holds the keys of the project and its secrets: keep it as private as the directory.
    """
    from amba_run import state_folder
    from amba_runtime.clock import SystemClock

    folder = _folder(path, state)
    saved = asyncio.run(state_folder.snapshot(folder, file, SystemClock()))
    if json_:
        print_json(
            {
                "file": str(file),
                "state": str(folder),
                "bytes": saved.size,
                "blobs": saved.blobs,
                "missing": list(saved.missing),
            }
        )
    else:
        click.echo(f"{file}: {saved.size} bytes, the database and {saved.blobs} blobs of {folder}")
    if saved.missing:
        click.echo(
            f"warning: {len(saved.missing)} blobs are gone or damaged, and not in it", err=True
        )
    return 0


@command.command("restore", epilog="Example:  amba-run state restore before.tar.gz --force")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace what is there.")
@path_option
@folder_option
@json_option
def restore(file: Path, force: bool, path: Path | None, state: Path | None, json_: bool) -> int:
    """Put the snapshot FILE in the place of a state directory.

    What is there is replaced with --force alone, and not before all of FILE is there and opens.
    """
    from amba_run import state_folder
    from amba_runtime.clock import SystemClock

    folder = _folder(path, state)
    restored = asyncio.run(state_folder.restore(file, folder, SystemClock(), force=force))
    if json_:
        print_json(
            {
                "state": str(folder),
                "blobs": restored.blobs,
                "upgraded_from": restored.upgraded_from,
            }
        )
    else:
        click.echo(f"{folder}: restored from {file}, with {restored.blobs} blobs")
    return 0


@command.command("reset", epilog="Example:  amba-run state reset --yes")
@click.option("--yes", is_flag=True, help="You mean it: all that is kept goes.")
@click.option("--keys", is_flag=True, help="A dev project's id and keys, too.")
@path_option
@folder_option
@json_option
def reset(yes: bool, keys: bool, path: Path | None, state: Path | None, json_: bool) -> int:
    """Empty a state directory. A dev project's id and keys stay, so that clients keep working."""
    from amba_run import state_folder

    folder = _folder(path, state)
    if not yes:
        raise click.UsageError(f"all that {folder} holds would go: add --yes if you mean it")
    asyncio.run(state_folder.reset(folder, keys=keys))
    if json_:
        print_json({"state": str(folder)})
    else:
        click.echo(f"{folder}: emptied")
    return 0


def _folder(path: Path | None, state: Path | None) -> Path:
    from amba_run.dev_state import default_state

    if path is not None and state is not None:
        raise click.UsageError("--path and --state name the same thing: choose one")
    return state if state is not None else default_state(path or Path())
