"""`amba-run node`: the hosted runtime, for any number of projects and functions."""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from amba_runtime import limits

if TYPE_CHECKING:
    from amba_run.addresses import Addresses
    from amba_run.node_report import NodeReporter
    from amba_run.node_server import NodeOptions

_LISTEN = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})\Z")
_SUFFIX = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+\Z")


@click.command(
    "node",
    epilog="Example:  amba-run node --listen 127.0.0.1:0 --state ./state --json",
)
@click.option(
    "--listen",
    default="127.0.0.1:8788",
    show_default=True,
    metavar="HOST:PORT",
    help="Port 0 takes any free port.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="State directory: all that must not be lost. [one in your data folder]",
)
@click.option("--suffix", metavar="NAME", help="What follows a project's slug. [fn.localhost]")
@click.option(
    "--cdn-suffix", metavar="NAME", help="The same for STORAGE objects. [cdn. for fn. in --suffix]"
)
@click.option(
    "--public-url",
    metavar="URL",
    help="Where the API is reached; gives fn_url its scheme and port. [what is listened on]",
)
@click.option(
    "--trust-proxy",
    multiple=True,
    metavar="CIDR",
    help="Proxies whose X-Forwarded-For names the caller. Repeatable.",
)
@click.option(
    "--sandbox",
    type=click.Choice(["strict", "best-effort", "off"]),
    default="strict",
    show_default=True,
    help="strict: a jail (tier 3) or no start; off: no jail, one project.",
)
@click.option(
    "--allow-egress",
    multiple=True,
    metavar="HOST:PORT",
    help="Let functions reach this address too. Repeatable.",
)
@click.option(
    "--metrics-listen",
    metavar="HOST:PORT",
    help="Serve /metrics there without a token. [on --listen, with a developer's token]",
)
@click.option(
    "--live-isolates",
    type=click.IntRange(1, limits.LIVE_ISOLATES_HARD.value),
    default=limits.LIVE_ISOLATES.value,
    show_default=True,
    help="Functions kept running; idle ones over it are ended.",
)
@click.option(
    "--evict-after",
    type=click.FloatRange(0, 86400),
    default=limits.ISOLATE_IDLE_S.value,
    show_default=True,
    metavar="SECONDS",
    help="A function without a request for so long is ended; 0 is never.",
)
@click.option(
    "--engine", type=click.Choice(["auto", "workerd", "wasm"]), default="auto", show_default=True
)
@click.option("--json", "json_", is_flag=True, help="One JSON object per event on stdout.")
def command(
    listen: str,
    state: Path | None,
    suffix: str | None,
    cdn_suffix: str | None,
    public_url: str | None,
    trust_proxy: tuple[str, ...],
    sandbox: str,
    allow_egress: tuple[str, ...],
    metrics_listen: str | None,
    live_isolates: int,
    evict_after: float,
    engine: str,
    json_: bool,
) -> int:
    """Host deployed functions. SIGTERM lets requests under way end; a second one does not."""
    from amba_run.node_report import for_node
    from amba_run.node_server import NodeOptions
    from amba_run.report import LogHandler

    host, port = _address("--listen", listen)
    options = NodeOptions(
        state=state or _default_state(),
        host=host,
        port=port,
        addresses=_addresses(suffix, cdn_suffix, public_url),
        trust_proxy=trust_proxy,
        sandbox=sandbox,
        allow_egress=allow_egress,
        metrics_listen=_address("--metrics-listen", metrics_listen) if metrics_listen else None,
        live_isolates=live_isolates,
        evict_after_s=evict_after,
    )
    with contextlib.suppress(OSError):  # whatever is wrong with it is told when it is opened
        options.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    say = for_node(json_=json_)
    handler = LogHandler(say)
    logging.getLogger("amba").addHandler(handler)
    try:
        return _run(options, say, engine)
    finally:
        logging.getLogger("amba").removeHandler(handler)
        say.close()


def _address(option: str, text: str) -> tuple[str, int]:
    match = _LISTEN.match(text)
    if match is None or int(match["port"]) > 65535:
        raise click.UsageError(f"{option} {text[:80]!r} is not HOST:PORT, such as 127.0.0.1:8788")
    return match["host"].strip("[]"), int(match["port"])


def _addresses(suffix: str | None, cdn_suffix: str | None, public_url: str | None) -> Addresses:
    """Raises UsageError."""
    from amba_run.addresses import SUFFIX, Addresses

    for option, text in (("--suffix", suffix), ("--cdn-suffix", cdn_suffix)):
        if text is not None and (_SUFFIX.match(text.lower()) is None or len(text) > 180):
            raise click.UsageError(
                f"{option} {text[:80]!r} is no host name, such as fn.example.com"
            )
    suffix = (suffix or SUFFIX).lower()
    if cdn_suffix is None and suffix != SUFFIX and not suffix.startswith("fn."):
        raise click.UsageError(f"--suffix {suffix} does not begin with fn.: give --cdn-suffix too")
    cdn_suffix = (cdn_suffix or f"cdn.{suffix.removeprefix('fn.')}").lower()
    if cdn_suffix == suffix:
        raise click.UsageError("--suffix and --cdn-suffix are the same: one host, two meanings")
    return Addresses(suffix, cdn_suffix, _origin(public_url) if public_url else None)


def _origin(url: str) -> str:
    wrong = click.UsageError(
        f"--public-url {url[:80]!r} is no origin, such as https://api.example.com"
    )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong from None
    host = (parts.hostname or "").lower()
    rest = (parts.path.rstrip("/"), parts.query, parts.fragment, parts.username)
    if parts.scheme not in ("http", "https") or not host or any(rest):
        raise wrong
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


def _default_state() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("amba-run", appauthor=False)) / "node"


def _run(options: NodeOptions, say: NodeReporter, engine_name: str) -> int:
    from amba_bundler.esbuild import Esbuild
    from amba_run.cli.serving import Life, serve
    from amba_run.config import Environment
    from amba_run.harden import shut_memory
    from amba_run.node_server import NodeServer
    from amba_runtime.clock import SystemClock
    from amba_runtime.engine.auto import choose
    from amba_runtime.sandbox import STRONGEST

    shut_memory()
    environment = Environment.of_process()

    def make() -> Life:
        server = NodeServer(
            options,
            engine=choose(
                engine_name,
                workerd=str(environment.workerd) if environment.workerd else None,
                most=0 if options.sandbox == "off" else STRONGEST,
                strict=options.sandbox == "strict",
            ),
            esbuild=Esbuild(environment.esbuild, memory_max=limits.SCAN_MEMORY.value),
            clock=SystemClock(),
            say=say,
        )
        return Life(lambda: server.ready, lambda stop, now: server.run(stop, now=now))

    return serve(make, {"SIGINT": 130, "SIGTERM": 0})
