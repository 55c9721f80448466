"""Group C, rows C8 and C9: what reaches a developer's terminal, and traps in a project's folder."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import queue
import socket
import subprocess
import sys
import termios
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.e2e.raw_http import RawClient
from tests.run.serving import Dev, environment_of, run_cli

pytestmark = pytest.mark.battery

ESC = "\x1b"
SEQUENCES = [
    # CSI: colours, cursor, erase, scroll, modes, window titles, reports
    *(f"{ESC}[{body}" for body in ("31m", "0m", "8m", "2J", "3J", "H", "1;1H", "A", "10D", "K")),
    *(f"{ESC}[{body}" for body in ("?25l", "?1049h", "?1000h", "?2004h", "6n", "c", "5i", "21t")),
    *(f"{ESC}[{body}" for body in ("4;1;1t", "9999999999m", "1;31;4;5;7;9m", "s", "u", "2;1r")),
    # OSC: title, links, clipboard, images, colours, notifications
    *(f"{ESC}]{body}\x07" for body in ("0;owned", "2;owned", "8;;http://evil.example", "8;;")),
    *(f"{ESC}]{body}\x07" for body in ("52;c;ZXZpbA==", "1337;File=name=eA==:AAAA", "4;1;#fff")),
    *(f"{ESC}]{body}{ESC}\\" for body in ("10;?", "777;notify;a;b", "9;4;1;50", "133;C", "50;x")),
    # DCS, APC, PM, SOS, and two-character escapes
    *(f"{ESC}P+q544e{ESC}\\", f"{ESC}P0;1|17/ab{ESC}\\", f"{ESC}_Gf=24;AAAA{ESC}\\"),
    *(f"{ESC}^pm{ESC}\\", f"{ESC}Xsos{ESC}\\", f"{ESC}c", f"{ESC}7", f"{ESC}(0", f"{ESC}#8"),
    # C1, as one character
    *("\x9b31m", "\x9d0;owned\x9c", "\x90q\x9c", "\x85", "\x84"),
    # C0
    *("\x07" * 200, "\x08" * 40 + "sudo", "safe\rEVIL", "a\x0bb\x0cc", "\x0e\x0f", "\x00\x7f"),
    # bidirectional overrides and the invisible
    *("\u202etxt.exe", "\u2066hidden\u2069", "a\u200fb", "\u200b\u2060\ufeffx"),
]
FUNCTION = """
const sequences = %s;
class Odd extends Error { constructor(text) { super(text); this.name = text; } }
export default { async fetch(request, env, ctx) {
  const text = sequences[Number(new URL(request.url).searchParams.get("i"))];
  const how = new URL(request.url).searchParams.get("how");
  if (how === "log") console.log(text, { [text]: text });
  if (how === "warn") console.warn(text);
  if (how === "header") console.log(decodeURIComponent(request.headers.get("x-said")));
  if (how === "error") throw new Odd(text);
  if (how === "late") ctx.waitUntil(new Promise((done) => setTimeout(() => {
    console.log(text); done();
  }, 50)));
  return new Response("ok");
} };
"""


@pytest.fixture
def data_home(tmp_path: Path) -> Path:
    """Where state directories go that no test names."""
    return tmp_path / "data"


@pytest.fixture
def talker(tmp_path: Path) -> Path:
    """A folder with a function that says each of the sequences."""
    assert len(SEQUENCES) >= 60
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "talker.js").write_text(FUNCTION % json.dumps(SEQUENCES))
    return folder


def steers(text: str) -> list[str]:
    """Characters that a terminal acts on, but LF and tab; or that reorder or hide others."""
    return sorted(
        {
            f"U+{ord(ch):04X}"
            for ch in text
            if ch not in "\n\t" and unicodedata.category(ch) in ("Cc", "Cf", "Zl", "Zp")
        }
    )


def requests(port: int) -> None:
    """Every sequence on every way to the terminal, in one connection's turn each."""
    for i, text in enumerate(SEQUENCES):
        for how in ("log", "warn", "header", "error", "late"):
            with RawClient(port) as client:
                said = f"x-said: {quote(text)}"
                client.begin("GET", f"/fn/local/talker/{quote(text)}?i={i}&how={how}", said)
                assert client.answer().status in (200, 500)
        with RawClient(port) as client, contextlib.suppress(Exception):
            # as it is: the edge refuses what may not stand in a target; what it lets in is shown
            target = text.encode().decode("latin-1").replace(" ", "")
            client.begin("GET", f"/fn/local/talker/raw{target}?i={i}&how={target}")
            client.answer()


@pytest.mark.skipif(sys.platform == "win32", reason="no terminals of this kind here")
def test_c8_nothing_steers_the_terminal(talker: Path, data_home: Path) -> None:
    """C8: 60 and more sequences through log lines, headers, paths and errors, on a real terminal:
    no control character but LF and tab comes out.
    """
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST  # else the terminal itself adds CR
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    came = bytearray()
    told: queue.Queue[int] = queue.Queue()

    def read() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(ours, 65536):
                came.extend(data)
                told.put(len(data))

    environment = environment_of(data_home) | {"NO_COLOR": "1", "TERM": "xterm-256color"}
    options = ("--port", "0", "--ephemeral", "--no-watch")
    process = subprocess.Popen(
        [sys.executable, "-m", "amba_run", "dev", str(talker), *options],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while b"Ctrl-C stops" not in came:
            told.get(timeout=20)
        head = bytes(came).decode()
        port = int(head.partition("http://127.0.0.1:")[2].split()[0])
        requests(port)
        last = len(SEQUENCES) - 1
        with RawClient(port) as client:
            client.begin("GET", f"/fn/local/talker/the-end?i={last}&how=none")
            client.answer()
        while b"the-end" not in came:
            told.get(timeout=20)
    finally:
        process.terminate()
        process.wait(20)
        reader.join(5)
        os.close(ours)
    text = bytes(came).decode()
    assert steers(text) == []
    assert text.count("/talker/") + text.count("GET ") >= 5 * len(SEQUENCES)
    assert "Traceback" not in text
    print(f"C8: {len(SEQUENCES)} sequences, 6 ways, {len(text)} characters, 0 control characters")


def test_c8_json_lines_lose_nothing(talker: Path, data_home: Path) -> None:
    """C8: with --json each line of output is one object, and holds what was said, as it was."""
    with Dev(talker, "--ephemeral", "--no-watch", data_home=data_home) as dev:
        for i, text in enumerate(SEQUENCES):
            for how in ("log", "error"):
                mark = dev.mark()
                dev.ask("talker", f"/?i={i}&how={how}")
                event = dev.event("request", since=mark)
                if how == "log":
                    assert event["logs"][0]["Message"] == [text, {text: text}]
                else:
                    assert event["exceptions"][0]["Message"] == text
        assert len(dev.lines) == len(dev.events)
        assert [line for line in dev.lines if steers(line)] == []


# C9

GOOD = "export default { fetch: () => new Response('good') }"
SECRET = "TOP-SECRET-6f1c"
Trap = Callable[[Path, Path], None]


def _fifo(name: str) -> Trap:
    return lambda folder, _outside: os.mkfifo(folder / name)


def _sparse(name: str) -> Trap:
    def make(folder: Path, _outside: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(10 * 1024**3)

    return make


def _link(name: str, target: str) -> Trap:
    return lambda folder, outside: (folder / name).symlink_to(target.format(outside=outside))


def _file(name: str | bytes, text: str = GOOD) -> Trap:
    def make(folder: Path, outside: Path) -> None:
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        with open(path, "w") as file:
            file.write(text.replace("{outside}", str(outside)))

    return make


def _folder(name: str, trap: Trap | None = None) -> Trap:
    def make(folder: Path, outside: Path) -> None:
        (folder / name).mkdir()
        if trap is not None:
            trap(folder / name, outside)

    return make


def _socket(folder: Path, _outside: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{here}/sock.js")
    finally:
        os.close(here)


def _device(folder: Path, _outside: Path) -> None:
    try:
        os.mknod(folder / "device.js", 0o20666, os.makedev(1, 5))
    except PermissionError:
        (folder / "device.js").symlink_to("/dev/zero")


def _imports_a_pipe(folder: Path, outside: Path) -> None:
    os.mkfifo(outside / "pipe.js")
    _file("eats.js", "import x from '{outside}/pipe.js'; export default x")(folder, outside)


def _deep(folder: Path, _outside: Path) -> None:
    for i in range(200):
        folder = folder / f"d{i}"
        folder.mkdir()


TRAPS: dict[str, Trap] = {
    "a link to a file outside": _link("out.js", "{outside}/secret.js"),
    "a link to a folder outside": _link("out", "{outside}"),
    "a link to nothing": _link("gone.js", "nowhere.js"),
    "links in a circle": _link("self.js", "self.js"),
    "a link to the folder itself": _link("again", "."),
    "a pipe": _fifo("pipe.js"),
    "a pipe as an index": _folder("piped", _fifo("index.js")),
    "a pipe as .env": _fifo(".env"),
    "a pipe as .dev.vars": _fifo(".dev.vars"),
    "a pipe as amba.toml": _fifo("amba.toml"),
    "a device": _device,
    "a device that is imported": _file("zero.js", "import x from '/dev/zero'; export default x"),
    "a pipe that is imported": _imports_a_pipe,
    "a Unix socket": _socket,
    "10 GB of nothing": _sparse("big.js"),
    "10 GB of .env": _sparse(".env"),
    "10 GB of amba.toml": _sparse("amba.toml"),
    ".env that links outside": _link(".env", "{outside}/env"),
    ".env as a folder": _folder(".env"),
    "amba.toml as a folder": _folder("amba.toml"),
    "a name like an option": _file("-rf.js"),
    "two dashes": _file("--help.js"),
    "a name that is no text": _file(b"\xff\xfe\xfd.js"),
    "a name that steers": _file("\x1b[31mred\x1b]0;x\x07.js"),
    "a name with a line": _file("a\nb.js"),
    "a long name": _file("n" * 250 + ".js"),
    "a name of another script": _file("héllo.js"),
    "a folder like a file": _folder("folder.js"),
    "a deep tree": _deep,
}


@pytest.fixture
def outside() -> Iterator[Path]:
    """Where no dev server has business: beside nothing that it serves."""
    import shutil
    import tempfile

    place = Path(tempfile.mkdtemp(prefix="amba-test-outside-"))
    (place / "secret.js").write_text(
        f"export default {{ fetch: () => new Response('{SECRET}') }}; //{SECRET}"
    )
    (place / "index.js").write_text((place / "secret.js").read_text())
    (place / "env").write_text(f"LEAK={SECRET}\nnot a line {SECRET}\n")
    try:
        yield place
    finally:
        shutil.rmtree(place)


def begin(folder: Path, data_home: Path) -> tuple[subprocess.Popen[bytes], list[bytes]]:
    """`amba-run dev`, and its first line, [] where it ended without one."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "amba_run",
            "dev",
            str(folder),
            "--port",
            "0",
            "--ephemeral",
            "--json",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment_of(data_home),
    )
    stdout = process.stdout
    assert stdout is not None
    first: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=lambda: first.put(stdout.readline()), daemon=True).start()
    try:
        line = first.get(timeout=20)
    except queue.Empty:
        process.kill()
        process.wait()
        raise AssertionError("it hangs") from None
    return process, [line] if line else []


@pytest.mark.skipif(sys.platform == "win32", reason="no such files here")
@pytest.mark.parametrize("trap", TRAPS)
def test_c9_traps_in_a_folder(trap: str, tmp_path: Path, outside: Path, data_home: Path) -> None:
    """C9: with each of 20 and more traps beside a good function, it is served (or the start
    refused) within seconds, nothing outside is read, and the message says what and where.
    """
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "good.js").write_text(GOOD)
    TRAPS[trap](folder, outside)
    process, line = begin(folder, data_home)
    answers: list[str] = []
    try:
        if line:
            ready: dict[str, Any] = json.loads(line[0])
            port = int(ready["origin"].rpartition(":")[2])
            for function in ready["functions"]:
                with RawClient(port, timeout_s=10) as client:
                    client.begin("GET", f"/fn/local/{quote(function['name'])}")
                    answers.append(client.answer().body.decode())
    finally:
        process.terminate()
        said, talk = process.communicate(timeout=20)
    everything = (b"".join(line) + said + talk).decode(errors="replace")
    assert "Traceback" not in everything
    assert SECRET not in everything + "".join(answers)
    assert steers(talk.decode(errors="replace")) == []
    if line:
        assert "good" in answers
        assert process.returncode == 0
    else:
        assert process.returncode in (1, 2), everything
        assert any(word in everything for word in ("amba.toml", ".env", ".dev.vars")), everything


def test_c9_a_path_that_looks_like_an_option(tmp_path: Path) -> None:
    """C9: a folder named `-rf` is a folder behind `--`, and an unknown option before it."""
    (tmp_path / "-rf").mkdir()
    (tmp_path / "-rf" / "f.js").write_text(GOOD)
    done = run_cli("check", "--", "-rf", data_home=tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run_cli("check", "-rf", data_home=tmp_path, cwd=tmp_path)
    assert done.returncode == 2
