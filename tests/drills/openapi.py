"""schemathesis over the control plane's own document: no 5xx, no undocumented answer (row 8).

A documented 501 would pass; no operation of the document has one. Half of the runs know a real
project and function, so that they get past the first look-up; the other half guess.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.drills.figures import Figure, at_least, at_most
from tests.drills.nodes import DrillError, NodeProcess, create_project, deploy, tagged

CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance"),
    *("negative_data_rejection", "unsupported_method", "ignored_auth"),
)
PER_OPERATION = 100
RUNS_MAX = 60
RUN_S = 1800.0


HOOKS = """\
import schemathesis


@schemathesis.serializer(
    "application/javascript+module", "application/javascript", "text/javascript"
)
def javascript(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
"""
"""schemathesis cannot write the media type of a script by itself."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of schemathesis: how many cases, and what failed, as it told it."""

    cases: int
    failures: tuple[str, ...]


def run(folder: Path, *, cases: int, seed: int) -> list[Figure]:
    """Run until so many cases have been sent; seeds count up from `seed`."""
    program = _program()
    sent = 0
    failures: list[str] = []
    (folder / "hooks.py").write_text(HOOKS)
    with NodeProcess(folder / "state") as node:
        project, _ = create_project(node, "Shop")
        deploy(node.api(project), "hello", tagged("hello"))
        for number in range(RUNS_MAX):
            if sent >= cases:
                break
            scratch, _ = create_project(node, f"Scratch {number}")
            config = folder / f"run-{number}.toml"
            known = project if number % 2 == 0 else None
            config.write_text(_config(scratch, known))
            done = _run(program, node, config, seed + number)
            sent += done.cases
            failures += done.failures
        log = (folder / "state.log").read_text()
    for failure in dict.fromkeys(failures):
        print(f"  {failure}", file=sys.stderr)
    return [
        at_least("8", "schemathesis cases", sent, cases),
        at_most("8", "5xx, undocumented or wrongly accepted", len(failures), 0),
        at_most("8", "tracebacks in the node's log", log.count("Traceback"), 0),
    ]


def _config(scratch: str, known: str | None) -> str:
    """What schemathesis is told of the world. Deleting is for a project of its own."""
    pinned = (
        f'[parameters]\n"path.project_id" = "{known}"\n"path.name" = "hello"\n' if known else ""
    )
    return (
        f'hooks = "hooks.py"\n{pinned}[[operations]]\n'
        'include-operation-id = "deleteProject"\n'
        f'parameters = {{ "path.project_id" = "{scratch}" }}\n'
    )


def _run(program: Path, node: NodeProcess, config: Path, seed: int) -> Run:
    report = config.with_suffix(".json")
    done = subprocess.run(
        [
            *(str(program), "--config-file", str(config)),
            *("run", f"{node.origin}/v1/openapi.json"),
            *("--header", f"Authorization: Bearer {node.pat}"),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(PER_OPERATION), "--seed", str(seed)),
            *("--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off"),
            *("--report", "json", "--report-json-path", str(report)),
        ],
        cwd=config.parent,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    if not report.is_file():
        raise DrillError(f"schemathesis did not run: {(done.stdout + done.stderr)[-2000:]}")
    told: dict[str, Any] = json.loads(report.read_text())
    failures = tuple(
        f"{failure['title']}: {operation} (seed {seed})"
        for failure in told["failures"]
        for operation in failure["operations"]
    )
    if failures:
        config.with_suffix(".txt").write_text(done.stdout)
        print(done.stdout[-6000:], file=sys.stderr)
    errors = tuple(f"schemathesis failed: {error}" for error in told["errors"])
    return Run(int(told["test_cases"]["generated"]), (*failures, *errors))


def _program() -> Path:
    """schemathesis of this environment, else of one made for it and kept between runs."""
    if importlib.util.find_spec("schemathesis") is not None:
        return Path(sys.executable).with_name("schemathesis")
    home = Path(tempfile.gettempdir()) / f"amba-drill-schemathesis-{os.getuid()}"
    program = home / "bin" / "schemathesis"
    if not program.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "schemathesis>=4.32,<5"], check=True)
    return program


def main() -> int:
    """`python -m tests.drills.openapi [CASES]`."""
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory(prefix="amba-drill-openapi-") as folder:
        figures = run(Path(folder), cases=cases, seed=1)
    for figure in figures:
        print(f"{figure.what}: {figure.seen} ({figure.need})")
    return 1 if any(figure.good is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
