"""The issue's list of bad input, end to end: the real server, the real engine, the real command."""

from __future__ import annotations

import html
import json
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.raw_http import Answer, RawClient
from tests.run.serving import Dev, function, run_cli

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parents[2] / "fixtures"
GOOD = function("'good ' + request.url")
SYNTAX = "const a = 1;\nexport default {\n  fetch( { return new Response('x') }\n};\n"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One folder with a good function and every kind of broken one."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(FIXTURES / "echo-headers", folder / "echo-headers")
    (folder / "good.js").write_text(GOOD)
    (folder / "empty.js").write_bytes(b"")
    (folder / "blank.ts").write_text("\n // nothing here\n")
    (folder / "latin.js").write_bytes(GOOD.replace("good", "gööd").encode("latin-1"))
    (folder / "utf16.js").write_bytes(GOOD.encode("utf-16"))
    (folder / "nul.js").write_bytes(b"\0\0\0")
    (folder / "syntax.js").write_text(SYNTAX)
    (folder / "unresolved.ts").write_text('import { x } from "./nowhere";\n' + function("x"))
    (folder / "Upper.js").write_text(GOOD)
    (folder / "gone.js").symlink_to(folder / "nowhere.js")
    data_home = tmp_path_factory.mktemp("data")
    with Dev(folder, "--ephemeral", "--no-watch", data_home=data_home) as server:
        yield server
    assert server.process.returncode == 0
    assert not [line for line in server.talk if "Traceback" in line]


def ask(dev: Dev, target: str = "/good/x", *headers: str, host: str | None = None) -> Answer:
    """One request with exactly this Host."""
    if host is None:
        host = f"local.fn.localhost:{dev.port}"
    with RawClient(dev.port) as client:
        lines = [f"GET {target} HTTP/1.1", f"Host: {host}", *headers, "", ""]
        client.send("\r\n".join(lines).encode("latin-1"))
        return client.answer()


def code(answer: Answer) -> tuple[int, str]:
    """Status and code of a refusal in the envelope of A.7; 421 has no body (C1)."""
    if answer.status == 421:
        return 421, answer.body.decode()
    error: dict[str, Any] = json.loads(answer.body)["error"]
    assert error["status"] == answer.status
    assert set(error) >= {"kind", "code", "message", "request_id"}
    return answer.status, error["code"]


# hosts


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("fn.localhost", (421, "")),  # no slug
        ("a.local.fn.localhost", (421, "")),  # two labels
        ("evil.example", (421, "")),
        ("[::2]", (421, "")),
        ("[::ffff:127.0.0.1]", (421, "")),
        ("nobody.fn.localhost", (404, "PROJECT_NOT_FOUND")),
        ("xn--bcher-kva.fn.localhost", (404, "PROJECT_NOT_FOUND")),
        ("a" * 63 + ".fn.localhost", (404, "PROJECT_NOT_FOUND")),
        ("a" * 64 + ".fn.localhost", (400, "BAD_HOST")),
        ("", (400, "BAD_HOST")),
        (".fn.localhost", (400, "BAD_HOST")),
        ("local.fn.localhost..", (400, "BAD_HOST")),
        ("local.fn.localhost:0", (400, "BAD_HOST")),
        ("local.fn.localhost:65536", (400, "BAD_HOST")),
        ("local.fn.localhost:", (400, "BAD_HOST")),
        ("local.fn.localhost:80@evil", (400, "BAD_HOST")),
        ("evil@local.fn.localhost", (400, "BAD_HOST")),
        ("local.fn.localhost/x", (400, "BAD_HOST")),
        ("local.fn.localhost, evil", (400, "BAD_HOST")),
        ("[::1", (400, "BAD_HOST")),
        ("bücher.fn.localhost", (400, "BAD_HOST")),
        ("lo\x01cal.fn.localhost", (400, "BAD_REQUEST")),
        ("lo\0cal.fn.localhost", (400, "BAD_REQUEST")),
        ("lo\x7fcal.fn.localhost", (400, "BAD_REQUEST")),
    ],
)
def test_bad_hosts(dev: Dev, host: str, expected: tuple[int, str]) -> None:
    """Malformed 400, not ours 421, unknown 404: never another function (interface.md 1; C1)."""
    assert code(ask(dev, host=host)) == expected


@pytest.mark.parametrize(
    ("host", "seen"),
    [
        ("LOCAL.FN.LocalHost", "local.fn.localhost"),
        ("local.fn.localhost.", "local.fn.localhost"),
        ("local.fn.localhost:1", "local.fn.localhost:1"),
        ("  local.fn.localhost\t", "local.fn.localhost"),
    ],
)
def test_odd_but_good_hosts(dev: Dev, host: str, seen: str) -> None:
    """The function sees a host rebuilt from the routing decision (finding 4)."""
    assert ask(dev, host=host).body == f"good http://{seen}/x".encode()


def test_missing_and_two_hosts(dev: Dev) -> None:
    """Neither routes (A1)."""
    for head in (
        b"GET /good HTTP/1.1\r\n\r\n",
        b"GET /good HTTP/1.1\r\nHost: local.fn.localhost\r\nHost: local.fn.localhost\r\n\r\n",
    ):
        with RawClient(dev.port) as client:
            client.send(head)
            assert code(client.answer()) == (400, "BAD_HOST")
            assert client.ended()


# functions and paths


@pytest.mark.parametrize(
    "target", ["/", "//good", "/nope", "/GOOD", "/good%2F", "/good%00", "/g%6fod"]
)
def test_unknown_functions(dev: Dev, target: str) -> None:
    """404 by name, and no near match is taken for it (A.7)."""
    assert code(ask(dev, target)) == (404, "FUNCTION_NOT_FOUND")
    assert code(ask(dev, f"/fn/local{target}", host="127.0.0.1")) == (404, "FUNCTION_NOT_FOUND")
    assert code(ask(dev, f"/fn/nobody{target}", host="127.0.0.1")) == (404, "PROJECT_NOT_FOUND")


@pytest.mark.parametrize(
    "path",
    [
        *("/", "//", "//x//y//", "/%2F", "/%2f%2F", "/%00", "/a%00b", "/../x", "/a/./../b"),
        *("/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%5c", "/%c0%ae%c0%ae/", "/%zz", "/;x=1", "/a@b:c"),
        *(
            "/%0d%0aX-Amba-User-Id:%20evil",
            "/?",
            "/?q",
            "/x?a=%20&a=+&b",
            "/x??//..",
            "/;\\^{|}'[]?`\\^{|}'[]",
        ),
    ],
)
def test_paths_arrive_as_sent(dev: Dev, path: str) -> None:
    """`//`, `%2F`, `%00`, dot segments: the function's URL has the very bytes (B12)."""
    expected = f"good http://local.fn.localhost:{dev.port}{path}"
    assert ask(dev, f"/good{path}").body.decode() == expected
    by_path = ask(dev, f"/fn/local/good{path}", host="127.0.0.1").body.decode()
    assert by_path == f"good http://127.0.0.1{path}"


# heads and bodies


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["A: b\r\n folded"], (400, "BAD_REQUEST")),
        (["A: b\nX-Amba-User-Id: evil"], (400, "BAD_REQUEST")),
        (["A: b\rX-Amba-User-Id: evil"], (400, "BAD_REQUEST")),
        (["A: b\0"], (400, "BAD_REQUEST")),
        (["Content-Length: 4", "Transfer-Encoding: chunked"], (400, "BAD_REQUEST")),
        (["Content-Length: 0", "Content-Length: 0"], (400, "BAD_REQUEST")),
        (["Transfer-Encoding: gzip, chunked"], (501, "TRANSFER_ENCODING")),
        ([f"A{n}: b" for n in range(10_000)], (431, "HEADERS_TOO_LARGE")),
        (["A: " + "b" * 2**20], (431, "HEADERS_TOO_LARGE")),
    ],
    ids=["obs-fold", "LF", "CR", "NUL", "CL and TE", "CL twice", "TE", "10,000", "1 MiB"],
)
def test_bad_heads(dev: Dev, lines: list[str], expected: tuple[int, str]) -> None:
    """Refused in the envelope, also to a client that is still sending (A1, A8)."""
    assert code(ask(dev, "/good", *lines)) == expected


@pytest.mark.parametrize(
    "chunk", ["0x1\r\na\r\n", "-1\r\na\r\n", "g\r\n", "1\r\nab\r\n", " 1\r\na\r\n"]
)
def test_bad_chunks(dev: Dev, chunk: str) -> None:
    """A body with a bad chunk ends the request and the connection (A1, A9)."""
    with RawClient(dev.port) as client:
        client.send(b"POST /good/chunk HTTP/1.1\r\nHost: local.fn.localhost\r\n")
        client.send(b"Transfer-Encoding: chunked\r\n\r\n" + chunk.encode() + b"0\r\n\r\n")
        answer = client.answer()
        # a function that does not wait for its body may have answered before it was seen
        assert answer.status == 200 or code(answer) == (400, "BAD_REQUEST")
        assert client.ended()


@pytest.mark.parametrize(
    "head", ["Content-Length: 10\r\n\r\n0123", "Transfer-Encoding: chunked\r\n\r\na\r\n0123"]
)
def test_truncated_bodies(dev: Dev, head: str) -> None:
    """A client that leaves mid-body costs nothing: the function serves on (A9)."""
    with RawClient(dev.port) as client:
        client.send(b"POST /echo-headers HTTP/1.1\r\nHost: local.fn.localhost\r\n" + head.encode())
        client.socket.shutdown(socket.SHUT_WR)
    assert ask(dev, "/echo-headers").status == 200


# source files


def broken(dev: Dev, name: str, kind: str = "build_failed") -> dict[str, Any]:
    """The event of a function that does not serve; a request for it says the same."""
    event = dev.event(kind, name=name)
    answer = ask(dev, f"/{name}")
    assert code(answer) == (500, "FUNCTION_BROKEN")
    page = ask(dev, f"/{name}", "Accept: text/html")
    assert page.status == 500
    assert page.header("content-type") == "text/html; charset=utf-8"
    found: list[dict[str, Any]] = event["errors" if kind == "build_failed" else "violations"]
    assert html.escape(found[0]["message"]) in page.body.decode()
    return found[0]


def test_what_is_broken_does_not_hold_up_the_rest(dev: Dev) -> None:
    """One refused function does not stop the others (interface.md 2)."""
    assert [f["name"] for f in dev.ready["functions"] if f["version"]] == ["echo-headers", "good"]
    assert ask(dev).status == 200


def test_an_empty_entry_file(dev: Dev) -> None:
    """Says that it is empty, and what the least function is."""
    error = broken(dev, "empty")
    assert "is empty" in error["message"]
    assert "export default" in error["fix"]


def test_an_entry_file_with_nothing_in_it(dev: Dev) -> None:
    """Comments alone leave no bundle, and the least function is shown (B)."""
    violation = broken(dev, "blank", "rejected")
    assert (violation["code"], violation["file"]) == ("EMPTY_BUNDLE", "blank.ts")
    assert "export default" in violation["fix"]


@pytest.mark.parametrize("name", ["latin", "utf16"])
def test_an_entry_file_that_is_not_utf_8(dev: Dev, name: str) -> None:
    """Says which byte in which line, and what to do: nothing is guessed."""
    error = broken(dev, name)
    assert re.search(r"is not UTF-8 \(byte 0x[0-9a-f]{2} in line \d+\)", error["message"])
    assert error["fix"] == "Save it as UTF-8."


def test_an_entry_file_of_nul_bytes(dev: Dev) -> None:
    """A file of zeros is a build error with its place."""
    assert broken(dev, "nul")["line"] == 1


def test_an_entry_file_with_a_syntax_error(dev: Dev) -> None:
    """File, line, column, the source line, the compiler's own words (item 2)."""
    error = broken(dev, "syntax")
    assert (error["file"], error["line"]) == ("syntax.js", 3)
    assert error["source_line"].strip() == "fetch( { return new Response('x') }"
    assert error["column"] >= 1


def test_an_import_that_is_not_there(dev: Dev) -> None:
    """Names the import and where it stands."""
    error = broken(dev, "unresolved")
    assert "./nowhere" in error["message"]
    assert (error["file"], error["line"]) == ("unresolved.ts", 1)


def test_files_that_cannot_be_functions(dev: Dev) -> None:
    """Passed over with a warning that says why and what to do."""
    assert "Upper.js is skipped" in dev.said("Upper.js")
    assert "gone.js is skipped" in dev.said("gone.js")


# the command


def refused(path: Path, data_home: Path, *options: str) -> tuple[int, str]:
    """Exit code and stderr of a `dev` that must not start; stdout stays empty."""
    done = run_cli("dev", str(path), "--port", "0", "--ephemeral", *options, data_home=data_home)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.fixture
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("name", ["nope.ts", "nowhere", "no\x1b[31mthing"])
def test_a_path_that_is_not_there(tmp_path: Path, data_home: Path, name: str) -> None:
    """Exit 1, with the path (nothing a terminal would obey) and what to name instead."""
    status, said = refused(tmp_path / name, data_home)
    assert status == 1
    assert said.startswith("error [ENTRY_NOT_FOUND]: ")
    assert "amba-run dev PATH" in said
    assert "\x1b" not in said


def test_a_file_that_is_no_entry_file(tmp_path: Path, data_home: Path) -> None:
    """Exit 1: the endings are listed, and a name that breaks the rule gets a better one."""
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "Hello World.ts").write_text(GOOD)
    status, said = refused(tmp_path / "notes.txt", data_home)
    assert (status, ".ts" in said) == (1, True)
    assert said.startswith("error [ENTRY_NOT_FOUND]: ")
    status, said = refused(tmp_path / "Hello World.ts", data_home)
    assert said.startswith("error [INVALID_NAME]: ")
    assert (status, "rename it to hello-world.ts" in said) == (1, True)


def test_an_entry_of_the_configuration_that_is_not_there(tmp_path: Path, data_home: Path) -> None:
    """Exit 1, with file and key of every problem at once."""
    (tmp_path / "amba.toml").write_text(
        '[functions.one]\nentry = "src/one.ts"\n\n[functions.two.limits]\ncpu_ms = 1\n'
    )
    status, said = refused(tmp_path, data_home)
    assert status == 1
    assert said.startswith("error [INVALID_CONFIG]: ")
    assert "functions.one.entry" in said
    assert "there is no file" in said
    assert "functions.two" in said


def test_a_configuration_that_cannot_be_read(tmp_path: Path, data_home: Path) -> None:
    """Exit 1, with the line."""
    (tmp_path / "amba.toml").write_text("[functions\nx = 1\n")
    status, said = refused(tmp_path, data_home)
    assert (status, said.split(":")[0]) == (1, "error [INVALID_CONFIG]")
    assert "amba.toml" in said


def test_two_sources_of_one_name(tmp_path: Path, data_home: Path) -> None:
    """Exit 1: neither is chosen."""
    (tmp_path / "hello.js").write_text(GOOD)
    (tmp_path / "hello.ts").write_text(GOOD)
    status, said = refused(tmp_path, data_home)
    assert status == 1
    assert said.startswith("error [NAME_TAKEN]: ")
    assert "hello.js" in said
    assert "hello.ts" in said


def test_no_functions_in_the_folder(tmp_path: Path, data_home: Path) -> None:
    """The server starts, says what to save, answers 404 in the envelope, and ends with 0."""
    (tmp_path / "README.md").write_text("nothing")
    (tmp_path / "types.d.ts").write_text("export {}")
    (tmp_path / "_draft.js").write_text(GOOD)
    (tmp_path / "one.test.js").write_text(GOOD)
    with Dev(tmp_path, "--ephemeral", data_home=data_home) as dev:
        assert dev.ready["functions"] == []
        assert "save one as hello.js" in dev.said("holds no functions")
        assert code(ask(dev, "/hello")) == (404, "FUNCTION_NOT_FOUND")
        assert dev.get("/healthz").status == 200
        assert dev.stop(signal.SIGTERM) == 0


SECRETS = """\
GOOD=fine
AMBA_API_URL=do-not-print-1
EDGE_ANYTHING=do-not-print-2
STORAGE=do-not-print-3
lower_case=do-not-print-4
do-not-print-5
QUOTE="do-not-print-6
"""


@pytest.mark.parametrize("file", [".dev.vars", ".env"])
def test_a_malformed_secrets_file(tmp_path: Path, data_home: Path, file: str) -> None:
    """Exit 1: every line with its fault, and no value on the terminal (C.2; H9)."""
    (tmp_path / "hello.js").write_text(GOOD)
    (tmp_path / file).write_text(SECRETS)
    status, said = refused(tmp_path, data_home)
    assert status == 1
    assert said.startswith("error [INVALID_SECRETS_FILE]: ")
    lines = {int(n) for n in re.findall(re.escape(file) + r":(\d+): ", said)}
    assert lines >= {2, 3, 4, 5, 6}
    assert "reserved" in said
    assert "do-not-print" not in said


@pytest.mark.parametrize(
    "name", ["AMBA_X", "EDGE_HEADER_SIGNING_SECRET", "HYPERDRIVE", "EDGE_DB_PROXY"]
)
def test_a_reserved_name_in_a_secrets_file(tmp_path: Path, data_home: Path, name: str) -> None:
    """Exit 1: a user's file never replaces a binding of the platform (C.2)."""
    (tmp_path / "hello.js").write_text(GOOD)
    (tmp_path / ".env").write_text(f"\n# mine\n{name}=do-not-print\n")
    status, said = refused(tmp_path, data_home)
    assert status == 1
    assert ".env:3: " in said
    assert "do-not-print" not in said


def test_a_secrets_file_that_is_not_utf_8(tmp_path: Path, data_home: Path) -> None:
    """Exit 1, with the file's name."""
    (tmp_path / "hello.js").write_text(GOOD)
    (tmp_path / ".env").write_bytes(b"KEY=caf\xe9\n")
    status, said = refused(tmp_path, data_home)
    assert (status, ".env" in said, "UTF-8" in said) == (1, True, True)


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--as", "nobody"], 1, "INVALID_PERSONA"),
        (["--as", "user:a b"], 1, "INVALID_PERSONA"),
        (["--project", "Not A Slug"], 1, "INVALID_NAME"),
        (["--host", "0.0.0.0"], 1, "UNSAFE_LISTEN"),
        (["--port", "65536"], 2, "65536"),
        (["--port", "x"], 2, "x"),
        (["--state", "s"], 2, "--ephemeral"),
        (["--no-such-option"], 2, "--no-such-option"),
    ],
)
def test_bad_options(
    tmp_path: Path, data_home: Path, options: list[str], status: int, said: str
) -> None:
    """Exit 1 for what a value says, 2 for usage; each names what is wrong (architecture.md 6)."""
    (tmp_path / "hello.js").write_text(GOOD)
    code_, talk = refused(tmp_path, data_home, *options)
    assert (code_, said in talk) == (status, True)
