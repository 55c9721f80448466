"""`amba-run check`: what an upload would be told, for CI and before a commit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from amba_bundler.report import Report, Weights
    from amba_run.check import CheckOptions
    from amba_run.sizes import Size

_FORMATS = ("text", "json", "github", "sarif", "junit")


@click.command(
    "check",
    epilog="Example:  amba-run check functions --format github --max-size 1MiB",
)
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--format", "format_", type=click.Choice(_FORMATS), help="[default: text]")
@click.option("--json", "json_", is_flag=True, help="The same as --format json.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it to a file.")
@click.option("--max-size", metavar="SIZE", help="Refuse bundles over it, at gzip: 500KB, 1MiB.")
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Show the growth since a saved JSON report.",
)
@click.option("--max-growth", metavar="SIZE|PERCENT", help="Refuse more growth: 20KB, 10%.")
@click.option("--static", is_flag=True, help="Judge by the bytes alone; start nothing.")
@click.option(
    "--sandbox",
    type=click.Choice(["best-effort", "off"]),
    default="best-effort",
    show_default=True,
    help="Walls around each function, as strong as they can be here; off: none.",
)
@click.option("--no-bundle", is_flag=True, help="PATHS are finished bundles: take them as is.")
def command(
    paths: tuple[Path, ...],
    format_: str | None,
    json_: bool,
    out: Path | None,
    max_size: str | None,
    against: Path | None,
    max_growth: str | None,
    static: bool,
    sandbox: str,
    no_bundle: bool,
) -> int:
    """Bundle and judge the functions under PATHS (files or folders) without serving them.

    Exit code 0 when all pass, 1 when any is refused.
    """
    from amba_bundler.formats import render
    from amba_run import __version__
    from amba_run.check import CheckOptions

    if json_ and format_ not in (None, "json"):
        raise click.UsageError(f"--json and --format {format_}: choose one")
    if max_growth is not None and against is None:
        raise click.UsageError("--max-growth needs --against FILE, a saved JSON report")
    size = _size("--max-size", max_size)
    options = CheckOptions(
        paths,
        finished=no_bundle,
        static=static,
        max_size=None if size is None else int(size.value),
        max_growth=_size("--max-growth", max_growth, percent=True),
        against=None if against is None else _weights(against),
    )
    report = asyncio.run(_check(options, sandbox))
    format_ = format_ or ("json" if json_ else "text")
    text = render(report, format_, version=__version__)
    if out is None:
        click.echo(text, nl=False)
    else:
        _write(out, text)
        refused = sum(not function.ok for function in report.functions)
        count = len(report.functions)
        click.echo(f"{out}: {count} functions, {refused} refused", err=True)
    if not report.functions:
        from amba_bundler.messages import printable

        under = printable(", ".join(map(str, paths)))
        said = f"warning: nothing was checked: no functions were found under {under}"
        click.echo(said.encode(errors="replace"), err=True)
    return 0 if report.ok else 1


async def _check(options: CheckOptions, sandbox: str) -> Report:
    from amba_bundler.esbuild import Esbuild
    from amba_run.check import Checker
    from amba_run.config import Environment
    from amba_runtime import limits
    from amba_runtime.clock import SystemClock
    from amba_runtime.engine.base import Engine

    environment = Environment.of_process()
    engine: Engine | None = None
    if not options.static:
        from amba_runtime.engine.auto import choose
        from amba_runtime.sandbox import STRONGEST

        engine = choose(
            "auto",
            workerd=str(environment.workerd) if environment.workerd else None,
            most=0 if sandbox == "off" else STRONGEST,
        )
    confined = Esbuild(environment.esbuild, memory_max=limits.SCAN_MEMORY.value)
    own = Esbuild(environment.esbuild, memory_max=limits.BUILD_MEMORY.value)
    async with own as builder, confined as scanner:
        try:
            # side by side: a start takes longer than the build of a small function
            used = [scanner] if options.finished else [builder, scanner]
            await asyncio.gather(*[esbuild.start() for esbuild in used])
            checker = Checker(options, builder, scanner, engine, SystemClock())
            return await checker.run()
        finally:
            if engine is not None:
                await engine.close()


def _size(option: str, text: str | None, *, percent: bool = False) -> Size | None:
    from amba_run.sizes import parse_size

    if text is None:
        return None
    try:
        return parse_size(text, percent=percent)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error


def _weights(path: Path) -> dict[str, Weights]:
    from amba_bundler.report import read_weights
    from amba_runtime import limits
    from amba_runtime.errors import UserCode, UserError

    most = limits.REPORT_BYTES.value
    try:
        with path.open("rb") as file:
            document = file.read(most + 1)
        if len(document) > most:
            raise ValueError(f"it has more than {most} bytes")
        return read_weights(document)
    except (OSError, ValueError) as error:
        raise UserError(
            UserCode.INVALID_CONFIG,
            f"{path} is no report of amba-run check: {error}",
            hint=f"write one with: amba-run check PATH --format json --out {path}",
        ) from error


def _write(out: Path, text: str) -> None:
    from amba_runtime.errors import UserCode, UserError

    try:
        out.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(
            UserCode.INVALID_CONFIG,
            f"{out} cannot be written: {error.strerror}",
            hint="name a file in a folder that exists",
        ) from error
