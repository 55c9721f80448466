"""Mutation testing of what decides on trust: does a test notice when the code is wrong? (row 12)

cosmic-ray makes the mutants, in copies of the checkout; the modules' own unit tests judge each.
Left out are mutants that cannot be told from the original: `|` between types in annotations
(never evaluated here), and what a `@dataclass` line promises only to type checkers.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.drills.figures import Figure, at_least
from tests.drills.nodes import DrillError

ROOT = Path(__file__).parent.parent.parent
ROOTS = ("runtime", "bundler", "router")
COPIES = 2
TEST_S = 40.0
RUN_S = 7200.0
NEED = 0.85


@dataclass(frozen=True, slots=True)
class Part:
    """A name of the issue, the modules behind it, and the tests that judge them."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]


PARTS = (
    Part(
        "dispatcher",
        ("router/amba_router/dispatch.py", "router/amba_router/call.py"),
        (
            "tests/router/test_dispatch.py",
            "tests/router/test_short_way.py",
            "tests/router/test_call.py",
        ),
    ),
    Part(
        "signer",
        ("router/amba_router/signing.py", "router/amba_router/headers.py"),
        (
            "tests/router/test_signing.py",
            "tests/router/test_headers.py",
            "tests/router/test_dispatch.py",
        ),
    ),
    Part(
        "egress policy",
        ("runtime/amba_runtime/egress.py",),
        ("tests/runtime/test_egress.py",),
    ),
    Part(
        "admission",
        ("runtime/amba_runtime/admission.py", "runtime/amba_runtime/inspection.py"),
        ("tests/runtime/test_admission.py", "tests/runtime/test_inspection.py"),
    ),
)

_ALIKE = ("@dataclass(", "logger.", "from __future__")
"""Lines on which a mutant changes nothing that a caller could see."""


@dataclass(frozen=True, slots=True)
class Survivor:
    """A mutant that no test noticed."""

    module: str
    diff: str


def run(folder: Path, *, sample: int, seed: int, parts: tuple[Part, ...] = PARTS) -> list[Figure]:
    """Judge `sample` mutants of each part, drawn with `seed`; all of them with 0."""
    program = _program()
    figures: list[Figure] = []
    for part in parts:
        killed, survivors = _judge(program, folder, part, sample, seed)
        total = killed + len(survivors)
        for survivor in survivors:
            print(f"  survived in {survivor.module}:\n{survivor.diff}", file=sys.stderr)
        score = killed / total if total else 0.0
        figures.append(at_least("12", f"mutation score, {part.name} ({total})", score, NEED))
    return figures


def _judge(
    program: Path, folder: Path, part: Part, sample: int, seed: int
) -> tuple[int, list[Survivor]]:
    """How many were killed, and the others."""
    copies = [_copy(folder / f"{part.name.replace(' ', '-')}-{n}") for n in range(COPIES)]
    tests = " ".join(test for test in part.tests if (ROOT / test).is_file())
    for copy in copies:
        (copy / "mutants.toml").write_text(_config(part, tests))
        _cosmic(program, copy, "init", "mutants.toml", "session.sqlite")
    jobs = _drawn(copies[0], sample, seed)
    shares = [jobs[n::COPIES] for n in range(COPIES)]
    for copy, share in zip(copies, shares, strict=True):
        # sessions of the same code differ in nothing but the names of their jobs
        _keep(copy, set(share))
    with ThreadPoolExecutor(COPIES) as pool:
        told = list(pool.map(partial(_run, program), copies))
    return sum(t[0] for t in told), [survivor for t in told for survivor in t[1]]


def _copy(target: Path) -> Path:
    """The checkout without what git ignores; the native programs are shared."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, names.split("\0")):
        source, place = ROOT / name, target / name
        if source.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)
    for native in ("runtime/amba_runtime/native", "bundler/amba_bundler/native"):
        if (ROOT / native).is_dir() and not (target / native).exists():
            (target / native).symlink_to(ROOT / native)
    return target


def _config(part: Part, tests: str) -> str:
    roots = ":".join(ROOTS)
    command = (
        f"env PYTHONPATH={roots} PYTHONDONTWRITEBYTECODE=1 {sys.executable} -m pytest -x -q "
        f"-p no:randomly -p no:cacheprovider -W ignore --timeout 20 {tests}"
    )
    return json_toml(
        {
            "module-path": list(part.modules),
            "timeout": TEST_S,
            "excluded-modules": [],
            "test-command": command,
        }
    )


def json_toml(values: dict[str, object]) -> str:
    """A TOML file of one table: JSON's strings, numbers and arrays are TOML's, too."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(["[cosmic-ray]", *lines, "[cosmic-ray.distributor]", 'name = "local"', ""])


Job = tuple[str, str, int]
"""Module, operator, occurrence: the same in every session of the same code."""


def _drawn(copy: Path, sample: int, seed: int) -> list[Job]:
    with sqlite3.connect(copy / "session.sqlite") as session:
        rows = session.execute(
            "SELECT module_path, operator_name, occurrence, start_pos_row FROM mutation_specs"
        ).fetchall()
    jobs: list[Job] = []
    for module, operator, occurrence, line in sorted(rows):
        text = (copy / module).read_text().splitlines()[line - 1]
        if "_BitOr_" in operator or text.strip().startswith(_ALIKE):
            continue
        jobs.append((module, operator, occurrence))
    random.Random(seed).shuffle(jobs)
    return jobs[:sample] if sample else jobs


def _keep(copy: Path, share: set[Job]) -> None:
    with sqlite3.connect(copy / "session.sqlite") as session:
        rows = session.execute(
            "SELECT job_id, module_path, operator_name, occurrence FROM mutation_specs"
        ).fetchall()
        gone = [(row[0],) for row in rows if (row[1], row[2], row[3]) not in share]
        session.executemany("DELETE FROM mutation_specs WHERE job_id = ?", gone)
        session.executemany("DELETE FROM work_items WHERE job_id = ?", gone)


def _run(program: Path, copy: Path) -> tuple[int, list[Survivor]]:
    _cosmic(program, copy, "exec", "mutants.toml", "session.sqlite")
    dump = _cosmic(program, copy, "dump", "session.sqlite")
    killed = 0
    survivors: list[Survivor] = []
    for line in dump.splitlines():
        item, result = json.loads(line)
        if result is None or result["worker_outcome"] != "normal":
            continue
        if result["test_outcome"] == "survived":
            module = item["mutations"][0]["module_path"]
            survivors.append(Survivor(module, _shown(result["diff"])))
        else:  # killed, or so wrong that nothing runs
            killed += 1
    return killed, survivors


def _shown(diff: str) -> str:
    lines = [
        line for line in diff.splitlines() if line[:1] in "+-@" and line[:3] not in ("---", "+++")
    ]
    return "\n".join(f"    {line}" for line in lines)


def _cosmic(program: Path, copy: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(program), *arguments],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    if done.returncode != 0:
        raise DrillError(f"cosmic-ray {arguments[0]}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def _program() -> Path:
    """cosmic-ray, in an environment made for it and kept between runs."""
    home = Path(tempfile.gettempdir()) / f"amba-drill-mutants-{os.getuid()}"
    program = home / "bin" / "cosmic-ray"
    if not program.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "cosmic-ray>=8.7,<9"], check=True)
    return program
