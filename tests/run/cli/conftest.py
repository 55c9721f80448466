"""One dev server for every command that talks to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.run.serving import Dev, environment_of, function

from amba_run.cli import run

ECHO = """
export default {
  async fetch(request) {
    return Response.json({
      method: request.method,
      url: request.url,
      headers: [...request.headers],
      body: await request.text(),
    }, { status: new URL(request.url).pathname === "/teapot" ? 418 : 200 });
  },
};
"""


ODD = """
export default {
  fetch(request) {
    if (new URL(request.url).pathname === "/headers") {
      const headers = new Headers();
      for (let n = 0; n < 150; n++) headers.set(`x-many-${n}`, `${n}`);
      return new Response("many", { headers });
    }
    const parts = ["one", "two"];
    return new Response(new ReadableStream({
      async pull(controller) {
        if (!parts.length) {
          await new Promise((done) => setTimeout(done, 50));  // until what came is on its way
          throw new Error("no more");
        }
        controller.enqueue(new TextEncoder().encode(parts.shift()));
      },
    }));
  },
};
"""


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a function that echoes, and one that answers bytes."""
    folder = tmp_path_factory.mktemp("served") / "functions"
    folder.mkdir()
    (folder / "echo.js").write_text(ECHO)
    (folder / "odd.js").write_text(ODD)
    (folder / "bytes.js").write_text(function("new Uint8Array([255, 0, 1])"))
    return folder


@pytest.fixture(scope="session")
def dev(served: Path, data_home: Path) -> Iterator[Dev]:
    """The server of that folder, in its default state directory: found by the folder."""
    with Dev(served, "--no-watch", data_home=data_home) as server:
        yield server


@dataclass(frozen=True)
class Done:
    """One command: its exit code and what it wrote."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    data_home: Path,
    tmp_path: Path,
) -> Command:
    """Run `amba-run` in this process, from a folder, with a clean environment and a stdin."""
    import io
    import os
    import sys

    for name in set(os.environ) - set(environment_of(data_home)):
        monkeypatch.delenv(name)
    for name, value in environment_of(data_home).items():
        monkeypatch.setenv(name, value)

    def call(*args: str, stdin: bytes = b"", cwd: Path | None = None) -> Done:
        monkeypatch.chdir(cwd or tmp_path)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        code = run(list(args))
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return Done(code, captured.out.decode(), captured.err.decode())

    return call
