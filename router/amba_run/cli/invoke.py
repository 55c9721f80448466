"""`amba-run invoke`: one request through the real dispatcher, its answer printed as curl -i does.

Plain `http.client`: nothing is decoded, followed or added that the caller did not ask for.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import click

from amba_run.cli.options import (
    Server,
    api_option,
    json_option,
    print_json,
    project_option,
    state_option,
)

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_UNESCAPED = "/?:@!$&'()*+,;=-._~%[]#"


@click.command(
    "invoke",
    epilog="Example:  amba-run invoke hello --path /greet --as user:u_42 --data '{\"n\": 1}'",
)
@click.argument("name")
@click.option("--path", default="/", show_default=True, help="Path and query the function sees.")
@click.option("--method", metavar="M", help="[GET, or POST with --data]")
@click.option("--data", metavar="D", help="Body: text, @FILE, or @- for stdin.")
@click.option("--header", "headers", multiple=True, metavar="'N: V'", help="Repeatable.")
@click.option(
    "--as",
    "persona",
    metavar="PERSONA",
    help="user:ID, developer:ID or anonymous. [no credential is sent]",
)
@click.option("--fail", is_flag=True, help="Exit with 1 when the status is 400 or more.")
@click.option("--token", metavar="TOKEN", help="Of a dev server that listens beyond loopback.")
@api_option
@project_option
@state_option
@json_option
def command(
    name: str,
    path: str,
    method: str | None,
    data: str | None,
    headers: tuple[str, ...],
    persona: str | None,
    fail: bool,
    token: str | None,
    api: str | None,
    project: str | None,
    state: Path | None,
    json_: bool,
) -> int:
    """Send one request to the function NAME and print its answer."""
    from amba_run.cli.options import find_server

    if method is not None and _TOKEN.match(method) is None:
        raise click.UsageError(f"--method {method[:40]!r} is no HTTP method: letters, such as PUT")
    fields = [_field(text) for text in headers]
    body, content_type = _body(data)
    verb = (method or ("GET" if body is None else "POST")).upper()
    server = find_server(api=api, state=state, project=project)
    if persona is not None:
        credential = _credential(persona, server)
        if credential:
            fields.append(("Authorization", credential))
    if token is not None:
        fields.append(("Amba-Run-Token", token))
    if content_type and not any(n.lower() == "content-type" for n, _ in fields):
        fields.append(("Content-Type", content_type))
    target = f"/{name}/{path.lstrip('/')}" if path != "/" else f"/{name}"
    target = quote(target, safe=_UNESCAPED).partition("#")[0]
    status = _exchange(server, verb, target, fields, body, json_=json_)
    return 1 if fail and status >= 400 else 0


def _field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"--header {text[:80]!r} is not 'Name: value'")
    return name.strip(), value.strip()


def _body(data: str | None) -> tuple[bytes | None, str]:
    """The body, and what kind it looks like."""
    from amba_runtime import limits
    from amba_runtime.errors import UserCode, UserError

    if data is None:
        return None, ""
    if not data.startswith("@"):
        raw = data.encode("utf-8", "surrogateescape")
    elif data == "@-":
        raw = sys.stdin.buffer.read(limits.INVOKE_BODY_BYTES.value)
    else:
        try:
            raw = Path(data[1:]).read_bytes()
        except OSError as error:
            raise UserError(
                UserCode.ENTRY_NOT_FOUND,
                f"{data[1:]} cannot be read: {error.strerror}",
                hint="--data @FILE sends a file; for a text that begins with @ use --data @-",
            ) from error
    if raw.lstrip()[:1] in (b"{", b"["):
        try:
            json.loads(raw)
        except ValueError:
            pass
        else:
            return raw, "application/json"
    return raw, "text/plain; charset=utf-8" if not data.startswith("@") else ""


def _credential(persona: str, server: Server) -> str:
    """The Authorization header of a persona, made with the dev server's own keys; "" for none.

    Raises:
        UserError: INVALID_PERSONA, or NO_SERVER for a server whose keys are not here.
    """
    from amba_router.identity import parse_persona
    from amba_run.cli.options import credentials_of
    from amba_run.cli.token import mint_user
    from amba_run.dev_state import DEVELOPER_ID
    from amba_runtime.errors import UserCode, UserError

    who = parse_persona(persona)
    running = server.running
    if running is None:
        raise UserError(
            UserCode.NO_SERVER,
            f"--as needs the keys of a dev server on this machine; {server.origin} was named",
            hint="leave out --api and AMBA_API_URL, or send --header 'Authorization: Bearer ...'",
        )
    if who.user_id:
        credentials = credentials_of(running.state)
        token = mint_user(
            who.user_id, project_id=credentials.project_id, key=credentials.session_key
        )
        return f"Bearer {token}"
    if who.developer_id == DEVELOPER_ID:
        return f"Bearer {running.pat}"
    if who.developer_id:
        raise UserError(
            UserCode.INVALID_PERSONA,
            f"this dev server has one developer, {DEVELOPER_ID}; there is no {who.developer_id}",
            hint=f"use --as developer:{DEVELOPER_ID}, or start amba-run dev --as {persona}",
        )
    # the server would take a request without a credential for its own persona
    return "" if running.persona == "anonymous" else "Bearer anonymous"


def _exchange(
    server: Server,
    method: str,
    target: str,
    fields: list[tuple[str, str]],
    body: bytes | None,
    *,
    json_: bool,
) -> int:
    """Send the request, print the answer as it comes, and return the status."""
    from amba_runtime import limits
    from amba_runtime.errors import UserCode, UserError

    url = urlsplit(server.origin)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UserError(
            UserCode.NO_SERVER, f"{server.origin!r} is no address", hint="--api http://HOST:PORT"
        )
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname, url.port, timeout=limits.INVOKE_IDLE_S.value)
    try:
        host, target = _address(server, target)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        names = {name.lower() for name, _ in fields}
        if "host" not in names:
            connection.putheader("Host", host)
        if body is not None and "content-length" not in names:
            connection.putheader("Content-Length", str(len(body)))
        for name, value in fields:
            connection.putheader(name, value.encode("utf-8", "surrogateescape"))
        connection.endheaders(body)
        with _more_headers(limits.INVOKE_HEADERS.value):
            answer = connection.getresponse()
    except ValueError as error:  # http.client's own check of methods, paths and headers
        connection.close()
        raise click.UsageError(f"that cannot be sent: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        if isinstance(error, OSError):  # a connection that ends at once is one of these
            raise UserError(
                UserCode.NO_SERVER,
                f"{server.origin} did not answer: {error or type(error).__name__}",
                hint="is it running? amba-run dev prints its address",
            ) from error
        raise UserError(
            UserCode.BROKEN_ANSWER,
            f"{server.origin} answered with a head that cannot be read: {error!r:.200}",
        ) from error
    try:
        return _print_json(answer) if json_ else _print(answer)
    finally:
        connection.close()


@contextlib.contextmanager
def _more_headers(most: int) -> Generator[None]:
    """`http.client` takes 100 headers in an answer, and before Python 3.15 cannot be told more."""
    name = "_MAXHEADERS"
    before = getattr(http.client, name, None)
    setattr(http.client, name, most)
    try:
        yield
    finally:
        setattr(http.client, name, before)


def _address(server: Server, target: str) -> tuple[str, str]:
    """Host header and target: the function's own URL on a dev server, else the /fn/ path."""
    url = urlsplit(server.origin)
    if server.running is not None:
        return f"{server.slug}.{server.running.suffix}:{url.port}", target
    return url.netloc, f"/fn/{server.slug}{target}"


def _print(answer: http.client.HTTPResponse) -> int:
    out = sys.stdout.buffer
    version = "1.0" if answer.version == 10 else "1.1"
    out.write(f"HTTP/{version} {answer.status} {answer.reason}\n".encode("latin-1"))
    for name, value in answer.getheaders():
        out.write(f"{name}: {value}\n".encode("latin-1"))
    out.write(b"\n")
    out.flush()
    last = b"\n"
    for data in _pieces(answer):
        out.write(data)
        out.flush()
        last = data
    if sys.stdout.isatty() and not last.endswith(b"\n"):
        out.write(b"\n")
        out.flush()
    return answer.status


def _print_json(answer: http.client.HTTPResponse) -> int:
    raw = b"".join(_pieces(answer))
    facts: dict[str, object] = {
        "status": answer.status,
        "headers": [[name.lower(), value] for name, value in answer.getheaders()],
    }
    try:
        facts["body"] = raw.decode()
    except UnicodeDecodeError:
        facts["body_base64"] = base64.b64encode(raw).decode()
    print_json(facts)
    return answer.status


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it comes.

    Raises:
        UserError: BROKEN_ANSWER where it breaks off, or stands still for `limits.INVOKE_IDLE_S`.
    """
    from amba_runtime.errors import UserCode, UserError

    size = 0
    while True:
        reason = ""
        try:
            data = answer.read1(65536)
            broken = not data and bool(answer.length)
        except http.client.IncompleteRead as error:
            data, broken = error.partial, True
        except (OSError, http.client.HTTPException) as error:
            data, broken, reason = b"", True, f": {error}"
        if data:
            size += len(data)
            yield data
        if broken:
            raise UserError(
                UserCode.BROKEN_ANSWER,
                f"the answer broke off after {size} bytes of its body{reason}",
                hint="the log of amba-run dev says why",
            )
        if not data:
            return
