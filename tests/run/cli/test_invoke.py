"""`amba-run invoke`: one real request, its answer as `curl -i` prints it."""

from __future__ import annotations

import base64
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.run.cli.conftest import Command
from tests.run.serving import Dev, function

pytestmark = pytest.mark.slow


@pytest.fixture
def invoke(command: Command, dev: Dev, served: Path) -> Command:
    """The command, in the folder of the running server."""

    def call(*args: str, stdin: bytes = b"") -> Any:
        return command("invoke", *args, stdin=stdin, cwd=served)

    return call


def seen(out: str) -> dict[str, Any]:
    """What the echo function saw; headers as an object."""
    echoed: dict[str, Any] = json.loads(out.split("\n\n", 1)[1])
    return echoed | {"headers": dict(echoed["headers"])}


def test_a_plain_request(invoke: Command, dev: Dev) -> None:
    """Status line, headers, empty line, body; the function sees its own URL."""
    done = invoke("echo")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("HTTP/1.1 200 OK\n")
    assert "content-type: application/json\n" in done.out
    echo = seen(done.out)
    assert (echo["method"], echo["body"]) == ("GET", "")
    assert echo["url"] == f"http://local.fn.localhost:{dev.port}/"
    assert echo["headers"]["x-amba-user-id"] == ""


def test_path_method_data_and_headers(invoke: Command, tmp_path: Path) -> None:
    """Everything a request has; data is a POST, and JSON is recognised."""
    done = invoke("echo", "--path", "/a b/é?q=1&r=%20", "--method", "put", "--data", '{"n": 1}')
    echo = seen(done.out)
    assert (echo["method"], echo["body"]) == ("PUT", '{"n": 1}')
    assert echo["url"].endswith("/a%20b/%C3%A9?q=1&r=%20")
    assert echo["headers"]["content-type"] == "application/json"
    echo = seen(invoke("echo", "--data", "plain", "--header", "X-Two: a: b").out)
    assert (echo["method"], echo["headers"]["x-two"]) == ("POST", "a: b")
    assert echo["headers"]["content-type"] == "text/plain; charset=utf-8"
    (tmp_path / "body").write_bytes(b"from a file")
    assert seen(invoke("echo", "--data", f"@{tmp_path}/body").out)["body"] == "from a file"
    assert seen(invoke("echo", "--data", "@-", stdin=b"piped").out)["body"] == "piped"


@pytest.mark.parametrize(
    ("persona", "user", "developer"),
    [("user:u_9", "u_9", ""), ("developer:d_local", "", "d_local"), ("anonymous", "", "")],
)
def test_as_a_persona(invoke: Command, persona: str, user: str, developer: str) -> None:
    """Identity comes through a real credential, minted with the server's keys (contract A.6)."""
    fields = seen(invoke("echo", "--as", persona).out)["headers"]
    assert (fields["x-amba-user-id"], fields["x-amba-developer-id"]) == (user, developer)


def test_json_and_fail(invoke: Command) -> None:
    """--json is one value, bytes as base64; --fail turns a status of 400 on into exit code 1."""
    told = json.loads(invoke("echo", "--path", "/teapot", "--json").out)
    assert told["status"] == 418
    assert ["content-type", "application/json"] in told["headers"]
    assert json.loads(told["body"])["method"] == "GET"
    told = json.loads(invoke("bytes", "--json").out)
    assert base64.b64decode(told["body_base64"]) == b"\xff\x00\x01"
    assert [invoke("echo", "--path", p, "--fail").code for p in ("/", "/teapot")] == [0, 1]
    assert invoke("nothing-here", "--fail").code == 1
    assert invoke("echo", "--method", "HEAD").out.endswith("\n\n")


def test_an_answer_with_many_headers_is_printed(invoke: Command) -> None:
    """What the server sent is shown, also where it is more than Python's client takes."""
    done = invoke("odd", "--path", "/headers")
    assert (done.code, done.err) == (0, "")
    assert [f"x-many-{n}: {n}\n" in done.out for n in range(150)] == [True] * 150
    assert done.out.endswith("\n\nmany")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_answer_that_breaks_off_is_told_as_such(
    invoke: Command, options: tuple[str, ...]
) -> None:
    """The server did answer: the part that came is printed, then why there is no more."""
    done = invoke("odd", "--path", "/breaks", *options)
    assert done.code == 1
    assert "error [BROKEN_ANSWER]: the answer broke off after 6 bytes" in done.err
    assert "did not answer" not in done.err
    assert done.out.endswith("" if options else "\n\nonetwo")


def test_other_broken_answers(command: Command) -> None:
    """A body shorter than its length and a head that is none were answers; silence is none."""
    for answer, code, told in (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\nshort", "BROKEN_ANSWER", "after 5 bytes"),
        (b"what?\r\n\r\n", "BROKEN_ANSWER", "a head that cannot be read"),
        (b"", "NO_SERVER", "did not answer"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve(answer: bytes = answer, listener: socket.socket = listener) -> None:
                client, _ = listener.accept()
                with client:
                    client.recv(65536)
                    client.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            port = listener.getsockname()[1]
            done = command("invoke", "x", "--api", f"http://127.0.0.1:{port}")
            thread.join()
        assert done.code == 1
        assert f"error [{code}]" in done.err
        assert told in done.err


def test_a_server_by_its_address(
    command: Command, dev: Dev, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--api, then AMBA_API_URL; by address the /fn/ path is used (interface.md 2)."""
    done = command("invoke", "echo", "--api", dev.ready["origin"] + "/v1/")
    assert seen(done.out)["url"] == f"http://127.0.0.1:{dev.port}/"
    monkeypatch.setenv("AMBA_API_URL", dev.ready["origin"])
    assert command("invoke", "echo").code == 0
    done = command("invoke", "echo", "--as", "user:u_1")
    assert (done.code, done.out) == (1, "")
    assert "--as needs the keys" in done.err
    assert command("invoke", "echo", "--state", dev.ready["state"], "--as", "user:u_1").code == 0


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("echo", "--header", "nonsense"), 2, "not 'Name: value'"),
        (("echo", "--header", "A: b\nX-Evil: 1"), 2, "cannot be sent"),
        (("echo", "--method", "A B"), 2, "no HTTP method"),
        (("echo", "--as", "root"), 1, "INVALID_PERSONA"),
        (("echo", "--as", "developer:d_other"), 1, "INVALID_PERSONA"),
        (("echo", "--data", "@/nowhere/at/all"), 1, "cannot be read"),
        (("echo", "--api", "127.0.0.1"), 1, "no address"),
        (("echo", "--api", "http://127.0.0.1:1"), 1, "did not answer"),
    ],
)
def test_what_cannot_be_sent(invoke: Command, args: tuple[str, ...], code: int, told: str) -> None:
    """In words, with the right exit code, and nothing on stdout."""
    done = invoke(*args)
    assert (done.code, done.out) == (code, "")
    assert told in done.err


def test_the_persona_of_the_server_can_be_left_out(
    command: Command, tmp_path: Path, data_home: Path
) -> None:
    """`dev --as` speaks for requests without a credential; `invoke --as anonymous` is nobody."""
    (tmp_path / "who.js").write_text(function("request.headers.get('x-amba-user-id') || 'nobody'"))
    with Dev(tmp_path, "--as", "user:u_1", "--no-watch", data_home=data_home):
        assert command("invoke", "who").out.endswith("\n\nu_1")
        assert command("invoke", "who", "--as", "anonymous").out.endswith("\n\nnobody")
