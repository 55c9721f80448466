"""`amba-run token`: credentials for calling the functions of a dev server."""

from __future__ import annotations

from pathlib import Path

import click

from amba_run.cli.options import json_option, print_json, state_option


@click.group("token", epilog="Example:  amba-run token user u_42")
def command() -> None:
    """Print a credential for local use, once: send it as `Authorization: Bearer TOKEN`."""


@command.command("user", epilog="Example:  amba-run token user u_42")
@click.argument("user_id", metavar="ID")
@state_option
@json_option
def user(user_id: str, state: Path | None, json_: bool) -> int:
    """A session token of the end user ID: functions see it as X-Amba-User-Id."""
    from amba_router.identity import SESSION_S
    from amba_run.cli.options import credentials_of
    from amba_runtime.clock import SystemClock, iso

    credentials = credentials_of(_state(state))
    now_s = SystemClock().time_s()
    token = mint_user(user_id, project_id=credentials.project_id, key=credentials.session_key)
    if json_:
        print_json(
            {
                "token": token,
                "user_id": user_id,
                "project_id": credentials.project_id,
                "expires_at": iso(int(now_s) + SESSION_S),
            }
        )
    else:
        click.echo(token)
    return 0


@command.command("developer", epilog="Example:  amba-run token developer --json")
@state_option
@json_option
def developer(state: Path | None, json_: bool) -> int:
    """The personal access token of this dev server's developer."""
    from amba_run.cli.options import credentials_of
    from amba_run.dev_state import DEVELOPER_ID

    credentials = credentials_of(_state(state))
    if json_:
        print_json(
            {
                "token": credentials.pat,
                "developer_id": DEVELOPER_ID,
                "project_id": credentials.project_id,
            }
        )
    else:
        click.echo(credentials.pat)
    return 0


def mint_user(user_id: str, *, project_id: str, key: str) -> str:
    """A session token for the dev server that has this session key (as hex).

    Raises:
        UserError: INVALID_PERSONA.
    """
    from amba_router.identity import Identities, parse_persona
    from amba_runtime.clock import SystemClock

    who = parse_persona(f"user:{user_id}")
    identities = Identities(project_id, session_key=bytes.fromhex(key), clock=SystemClock())
    return identities.mint_session(who.user_id)


def _state(given: Path | None) -> Path:
    from amba_run.cli.options import find_dev

    return given if given is not None else find_dev(None).state
