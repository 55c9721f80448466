"""Where client commands find a server: `--api` > AMBA_API_URL > the running dev of this folder.

Source: interface.md section 2, last paragraph.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from amba_run.api_client import ApiClient
    from amba_run.dev_state import Credentials, Running

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "json_", is_flag=True, help="One JSON value on stdout.")
state_option = click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="State directory of the dev server. [the one that runs for this folder]",
)
state_dir_option = click.option(
    "--state-dir",
    "state",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="State directory of the dev server. [the one that runs for this folder]",
)
api_option = click.option(
    "--api", metavar="URL", help="Address of the server. [AMBA_API_URL, or this folder's dev]"
)
project_option = click.option(
    "--project", metavar="SLUG", help="Project slug. [that dev server's, or local]"
)

token_option = click.option(
    "--token", metavar="TOKEN", help="[AMBA_PAT, or that of this folder's dev server]"
)
project_id_option = click.option(
    "--project", metavar="ID", help="Project id. [AMBA_PROJECT_ID, or that dev server's]"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options of a client command say: which server, as whom, and in which form.

    Attributes:
        json_: one JSON value on stdout is wanted.
    """

    api: str | None
    token: str | None
    project: str | None
    state: Path | None
    json_: bool

    def client(self) -> ApiClient:
        """The control plane that is meant. Raises UserError: NO_SERVER, NO_TOKEN, NO_PROJECT."""
        from amba_run.api_client import find_api

        return find_api(api=self.api, token=self.token, project=self.project, state=self.state)


def client_command(work: Callable[..., int]) -> Callable[..., int]:
    """Give a command `--api`, `--token`, `--project`, `--state` and `--json`.

    Args:
        work: gets them as its first argument, an `Asked`.
    """
    return _asking(work, state_option)


def client_command_of_states(work: Callable[..., int]) -> Callable[..., int]:
    """As `client_command`, for one whose own `--state` is a message's: ours is `--state-dir`."""
    return _asking(work, state_dir_option)


def _asking(
    work: Callable[..., int], state_: Callable[[Callable[..., int]], Callable[..., int]]
) -> Callable[..., int]:
    @functools.wraps(work)
    def call(
        *,
        api: str | None,
        token: str | None,
        project: str | None,
        state: Path | None,
        json_: bool,
        **rest: Any,
    ) -> int:
        return work(Asked(api, token, project, state, json_), **rest)

    command: Callable[..., int] = call
    return api_option(token_option(project_id_option(state_(json_option(command)))))


@dataclass(frozen=True, slots=True)
class Server:
    """A server to talk to.

    Attributes:
        running: what it says of itself; None for one that was named by its address alone.
    """

    origin: str
    slug: str
    running: Running | None = None


def find_server(*, api: str | None, state: Path | None, project: str | None) -> Server:
    """The server that a command means.

    Raises:
        UserError: NO_SERVER.
    """
    from amba_run.config import Environment

    address = api or (None if state else Environment.of_process().api_url)
    if address is not None:
        return Server(address.rstrip("/").removesuffix("/v1"), project or "local")
    running = find_dev(state)
    return Server(running.origin, project or running.slug, running)


def find_dev(state: Path | None) -> Running:
    """The dev server of a state directory, or of this folder.

    Raises:
        UserError: NO_SERVER.
    """
    from amba_run.dev_state import find_running, read_running
    from amba_runtime.errors import UserCode, UserError

    running = find_running(Path()) if state is None else read_running(state)
    if running is None:
        where = "for this folder" if state is None else f"from {state}"
        raise UserError(
            UserCode.NO_SERVER,
            f"no dev server runs {where}",
            hint="start one with: amba-run dev (or name the state directory of one that was "
            "started with --state or --ephemeral: --state DIR)",
        )
    return running


def credentials_of(state: Path) -> Credentials:
    """The keys of a state directory that is there already.

    Raises:
        UserError: NO_SERVER when it was never used, INVALID_CONFIG when it is damaged.
    """
    from amba_run.dev_state import CREDENTIALS, load_credentials
    from amba_runtime.errors import UserCode, UserError

    if not (state / CREDENTIALS).is_file():
        raise UserError(
            UserCode.NO_SERVER,
            f"{state} is no state directory of a dev server",
            hint="the ready line of amba-run dev says which one it uses",
        )
    return load_credentials(state)


def print_json(value: object) -> None:
    """One value on one line."""
    click.echo(json.dumps(value))
