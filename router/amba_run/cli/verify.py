"""`amba-run verify`: say whether a dispatch signature holds, and if not, which rule broke."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amba_run.cli.options import json_option, print_json, state_option

if TYPE_CHECKING:
    from amba_router.verify import Verdict


@click.command(
    "verify",
    epilog="Example:  amba-run invoke echo-headers --json | jq -r .body | amba-run verify",
)
@click.option(
    "--secret",
    metavar="SECRET",
    help="[EDGE_HEADER_SIGNING_SECRET, or the running dev server's]",
)
@click.option(
    "--at", type=float, metavar="UNIX_S", help="Judge as of this time. [now]", show_default=False
)
@state_option
@json_option
def command(secret: str | None, at: float | None, state: Path | None, json_: bool) -> int:
    """Read a request's headers on stdin and check its dispatch signature.

    Taken: a JSON object, JSON pairs, an object with either under "headers", or raw HTTP.
    Exit code 0 when the signature holds, 1 when it does not.
    """
    from amba_router.verify import explain, parse_headers
    from amba_runtime import limits
    from amba_runtime.clock import SystemClock

    key, source = _secret(secret, state)
    if sys.stdin.isatty():
        click.echo("paste the headers, then press Ctrl-D", err=True)
    raw = sys.stdin.buffer.read(limits.VERIFY_TEXT_BYTES.value + 1)
    headers = parse_headers(raw.decode("utf-8", "surrogateescape"))
    verdict = explain(headers, key, SystemClock().time_s() if at is None else at)
    if json_:
        print_json(
            {
                "ok": verdict.ok,
                "rule": verdict.rule,
                "faults": [
                    {"rule": f.rule, "header": f.header, "message": f.message, "fix": f.fix}
                    for f in verdict.faults
                ],
                "canonical": verdict.canonical,
                "expected": verdict.expected,
                "got": verdict.got,
                "skew_s": verdict.skew_s,
                "secret_from": source,
            }
        )
    else:
        click.echo(_told(verdict, source))
    return 0 if verdict.ok else 1


def _secret(given: str | None, state: Path | None) -> tuple[bytes, str]:
    """The signing secret, and where it came from."""
    from amba_run.cli.options import credentials_of, find_dev
    from amba_run.config import Environment
    from amba_runtime.errors import UserCode, UserError

    if given:
        return given.encode(), "--secret"
    if state is not None:
        return credentials_of(state).signing_secret.encode(), f"the keys in {state}"
    from_environment = Environment.of_process().signing_secret
    if from_environment is not None:
        return from_environment.reveal().encode(), "EDGE_HEADER_SIGNING_SECRET"
    try:
        running = find_dev(None)
    except UserError as error:
        raise UserError(
            UserCode.NO_SERVER,
            f"there is no signing secret to check with: {error.message}",
            hint="give --secret, or set EDGE_HEADER_SIGNING_SECRET, or start amba-run dev",
        ) from error
    secret = credentials_of(running.state).signing_secret
    return secret.encode(), f"the dev server at {running.origin}"


def _told(verdict: Verdict, source: str) -> str:
    from amba_run.output import neutral

    lines = ["the signature holds" if verdict.ok else f"the signature fails: {verdict.rule}"]
    for fault in verdict.faults:
        lines.append(f"  {fault.rule}  {neutral(fault.header)}: {neutral(fault.message)}")
        lines.append(f"    fix: {neutral(fault.fix)}")
    lines.append(f"secret     from {source}")
    if verdict.canonical is not None:
        shown = neutral(verdict.canonical).split("\n")
        lines.append("canonical  " + "\n           ".join(line or '""' for line in shown))
        lines.append(f"expected   {verdict.expected}")
    if verdict.got is not None:
        lines.append(f"got        {neutral(verdict.got)}")
    if verdict.skew_s is not None:
        lines.append(f"skew       {verdict.skew_s} s (60 s either way are good)")
    return "\n".join(lines)
