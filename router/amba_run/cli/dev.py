"""`amba-run dev`: serve a folder's functions, offline, and reload them as they are saved."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amba_runtime import limits

if TYPE_CHECKING:
    from amba_run.dev import DevOptions
    from amba_run.report import Reporter

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@click.command(
    "dev",
    epilog="Example:  amba-run dev ./functions --port 0 --as user:u_42",
)
@click.argument("path", type=click.Path(path_type=Path), default=Path())
@click.option("--port", default=8787, show_default=True, help="0 takes any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback serves ::1 too.")
@click.option("--project", metavar="SLUG", help="Project slug. [default: amba.toml's, or local]")
@click.option("--state", type=click.Path(path_type=Path), help="State directory. [one per PATH]")
@click.option("--ephemeral", is_flag=True, help="Keep nothing after the end.")
@click.option("--no-watch", is_flag=True, help="Do not reload when files change.")
@click.option(
    "--as",
    "persona",
    default="anonymous",
    metavar="PERSONA",
    help="Who callers without a credential are: user:ID, developer:ID, anonymous.",
)
@click.option(
    "--allow-egress",
    multiple=True,
    metavar="HOST:PORT",
    help="Let functions reach this address too. Repeatable.",
)
@click.option(
    "--engine", type=click.Choice(["auto", "workerd", "wasm"]), default="auto", show_default=True
)
@click.option(
    "--token",
    metavar="TOKEN",
    help="Needed to listen beyond loopback: callers from there send it as Amba-Run-Token.",
)
@click.option(
    "--sandbox",
    type=click.Choice(["best-effort", "off"]),
    default="best-effort",
    show_default=True,
    help="Walls around each function, as strong as they can be here; off: none.",
)
@click.option(
    "--allow-origin",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin call too, besides this machine's. Repeatable.",
)
@click.option("--reseed", is_flag=True, help="Empty the state first, so that [seed] loads anew.")
@click.option("--inspect", is_flag=True, help="A debugger's port. Not emulated yet.")
@click.option("--json", "json_", is_flag=True, help="One JSON object per event on stdout.")
def command(
    path: Path,
    port: int,
    host: str,
    project: str | None,
    state: Path | None,
    ephemeral: bool,
    no_watch: bool,
    persona: str,
    allow_egress: tuple[str, ...],
    engine: str,
    token: str | None,
    sandbox: str,
    allow_origin: tuple[str, ...],
    reseed: bool,
    inspect: bool,
    json_: bool,
) -> int:
    """Serve the functions under PATH (a file or a folder)."""
    from amba_router.identity import parse_persona
    from amba_router.pages import parse_origin
    from amba_run.config import Environment
    from amba_run.dev import DevOptions
    from amba_run.dev_state import default_state
    from amba_run.discovery import folder_of
    from amba_run.report import LogHandler, for_terminal
    from amba_runtime.errors import NotEmulatedError, UserCode, UserError
    from amba_runtime.manifest import PROJECT_SLUG
    from amba_runtime.private import PrivateFolder

    if inspect:
        raise NotEmulatedError("--inspect", hint="leave it out; console lines and stacks are shown")
    if project is not None and PROJECT_SLUG.match(project) is None:
        raise UserError(
            UserCode.INVALID_NAME,
            f"{project[:80]!r} is no project slug: 2 to 63 of a-z, 0-9 and '-', not '-' first",
            hint="leave out --project, or use --project local",
        )
    if host not in _LOOPBACK and not token:
        raise UserError(
            UserCode.UNSAFE_LISTEN,
            f"listening on {host} lets everybody on the network call your functions",
            hint=f"if you mean it: amba-run dev --host {host} --token SECRET",
        )
    if not 0 <= port <= 65535:
        raise click.UsageError(f"--port {port} is not between 0 and 65535")
    if ephemeral and state is not None:
        raise click.UsageError("--ephemeral keeps nothing, --state keeps it: choose one")
    who = parse_persona(persona)
    for origin in allow_origin:
        parse_origin(origin)
    folder_of(path)
    kept = state or (None if ephemeral else default_state(path))
    # one whose owner was killed is removed when the next engine opens
    passing = PrivateFolder("state-") if kept is None else None
    place = kept if passing is None else passing.path
    assert place is not None
    _make(place)
    if reseed:
        _empty(place)
    environment = Environment.of_process()
    say = for_terminal(json_=json_, no_colour=environment.no_color)
    handler = LogHandler(say)
    logging.getLogger("amba").addHandler(handler)
    options = DevOptions(
        path=path,
        state=place,
        host=host,
        port=port,
        project=project,
        persona=who,
        allow_egress=allow_egress,
        watch=not no_watch,
        token=token,
        allow_origin=allow_origin,
    )
    if host not in _LOOPBACK:
        say.warn(
            f"listening on {host}: whoever reaches this port and knows the token can call your "
            "functions, and what they send can be read on the way"
        )
    try:
        return _run(options, say, engine, sandbox)
    finally:
        logging.getLogger("amba").removeHandler(handler)
        say.close()
        if passing is not None:
            passing.close()


def _make(state: Path) -> None:
    from amba_runtime.errors import UserCode, UserError

    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(
            UserCode.INVALID_CONFIG,
            f"the state directory {state} cannot be made: {error.strerror}",
            hint="name another with --state, or use --ephemeral",
        ) from error


def _empty(state: Path) -> None:
    """As `amba-run state reset`; one that was never used is empty already."""
    import asyncio

    from amba_run import state_folder

    if state_folder.is_used(state):
        asyncio.run(state_folder.reset(state, keys=False))


def _run(options: DevOptions, say: Reporter, engine_name: str, sandbox: str) -> int:
    from amba_bundler.esbuild import Esbuild
    from amba_run.cli.serving import Life, serve
    from amba_run.config import Environment
    from amba_run.dev import DevServer
    from amba_runtime.clock import SystemClock
    from amba_runtime.engine.auto import choose
    from amba_runtime.sandbox import STRONGEST

    environment = Environment.of_process()

    def make() -> Life:
        server = DevServer(
            options,
            engine=choose(
                engine_name,
                workerd=str(environment.workerd) if environment.workerd else None,
                most=0 if sandbox == "off" else STRONGEST,
            ),
            esbuild=Esbuild(environment.esbuild, memory_max=limits.BUILD_MEMORY.value),
            clock=SystemClock(),
            say=say,
        )
        return Life(lambda: server.ready, lambda stop, _now: server.run(stop))

    return serve(make, {"SIGINT": 130, "SIGTERM": 0, "SIGHUP": 130})
