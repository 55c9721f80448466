"""Mutation testing of what decides on trust: does a test notice when the code is wrong? (row 12)

Mutants are made by cosmic-ray (`mutants_made`, which says what is left out) and judged in a copy
of the checkout, one at a time, by the unit tests of their own module (`mutants_judge`).
One that the tests do not notice survives; one that no longer ends is noticed.
"""

from __future__ import annotations

import difflib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.drills import mutants_made
from tests.drills.figures import Figure, at_least
from tests.drills.mutants_made import Place
from tests.drills.nodes import DrillError

ROOT = Path(__file__).parent.parent.parent
ROOTS = ("runtime", "bundler", "router")
FIRST_S = 120.0
"""Seconds that the tests of a module may take with the code as it is."""
NEED = 0.85


@dataclass(frozen=True, slots=True)
class Part:
    """A name of the issue, and the modules behind it, each with the tests that judge it."""

    name: str
    modules: tuple[tuple[str, tuple[str, ...]], ...]


_DISPATCH = (
    *("tests/router/test_dispatch.py", "tests/router/test_short_way.py"),
    "tests/router/test_call.py",
)
_HOSTS = ("tests/router/test_hosts.py", *_DISPATCH)
_ADMISSION = ("tests/runtime/test_admission.py", "tests/runtime/test_inspection.py")
_EGRESS = ("tests/runtime/test_egress.py", "tests/runtime/test_egress_rules.py")

PARTS = (
    Part(
        "dispatcher",
        (
            ("router/amba_router/dispatch.py", _DISPATCH),
            ("router/amba_router/call.py", _DISPATCH),
            ("router/amba_router/invoked.py", _DISPATCH),
            ("router/amba_router/long_way.py", _DISPATCH),
            (
                "router/amba_router/socket_way.py",
                ("tests/router/test_refused_sockets.py", *_DISPATCH),
            ),
            ("router/amba_router/verdicts.py", ("tests/router/test_verdicts.py", *_DISPATCH)),
            ("router/amba_router/hosts.py", _HOSTS),
            ("router/amba_router/routes.py", ("tests/router/test_routes.py",)),
            ("router/amba_router/forwarded.py", ("tests/router/test_forwarded.py",)),
        ),
    ),
    Part(
        "signer",
        (
            (
                "router/amba_router/signing.py",
                ("tests/router/test_signing.py", "tests/router/test_verify.py"),
            ),
            (
                "router/amba_router/headers.py",
                ("tests/router/test_headers.py", "tests/router/test_dispatch.py"),
            ),
            ("router/amba_router/identity.py", ("tests/router/test_identity.py",)),
            ("router/amba_router/verify.py", ("tests/router/test_verify.py",)),
        ),
    ),
    Part(
        "egress policy",
        (
            ("runtime/amba_runtime/egress.py", _EGRESS),
            ("runtime/amba_runtime/egress_rules.py", _EGRESS[::-1]),
            ("runtime/amba_runtime/addresses.py", ("tests/runtime/test_addresses.py", *_EGRESS)),
            ("runtime/amba_runtime/targets.py", ("tests/runtime/test_targets.py", *_EGRESS)),
            ("runtime/amba_runtime/placeholders.py", ("tests/runtime/test_placeholders.py",)),
        ),
    ),
    Part(
        "admission",
        (
            ("runtime/amba_runtime/admission.py", _ADMISSION),
            ("runtime/amba_runtime/inspection.py", _ADMISSION[::-1]),
            (
                "runtime/amba_runtime/violations.py",
                ("tests/runtime/test_violations.py", *_ADMISSION[::-1]),
            ),
        ),
    ),
)


def run(folder: Path, *, sample: int, seed: int, parts: tuple[Part, ...] = PARTS) -> list[Figure]:
    """Judge `sample` mutants of each part, drawn with `seed`; all of them with 0."""
    copy = copied(folder / "checkout")
    figures: list[Figure] = []
    for part in parts:
        with judging(copy) as judge:
            noticed, survived = _try_all(judge, copy, part, sample, seed)
        total = noticed + survived
        score = noticed / total if total else 0.0
        figures.append(at_least("12", f"mutation score, {part.name} ({total})", score, NEED))
    return figures


class Judge:
    """A warm process that runs tests."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(
        self, module: str, source: str | None, tests: tuple[str, ...], deadline_s: float
    ) -> tuple[str, float]:
        """The verdict (`passed`, `failed`, `late`), and the seconds it took.

        Args:
            module: a path below the checkout.
            source: of the mutant; None runs the code as it is.
        """
        name = ".".join(Path(module).with_suffix("").parts[1:])
        asked = {"module": name, "source": source, "tests": tests, "deadline_s": deadline_s}
        print(json.dumps(asked), file=self._to, flush=True)
        line = self._from.readline()
        if not line:
            raise DrillError("the judge of mutants ended")
        verdict, took_s = json.loads(line)
        return verdict, took_s

    @property
    def _to(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _from(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout


@contextmanager
def judging(copy: Path) -> Generator[Judge]:
    """One over a checkout; it ends with the block."""
    path = os.pathsep.join(str(copy / root) for root in ROOTS)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.drills.mutants_judge"],
        cwd=copy,
        # options meant for another run of pytest, such as CI's for coverage, are none of this one
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTEST_ADDOPTS": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Judge(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()  # it ends with its questions


def _try_all(judge: Judge, copy: Path, part: Part, sample: int, seed: int) -> tuple[int, int]:
    """How many were noticed and how many were not, which are shown."""
    places = mutants_made.places(copy, [module for module, _ in part.modules])
    random.Random(seed).shuffle(places)
    drawn = places[:sample] if sample else places
    made = list(zip(drawn, mutants_made.make(copy, drawn), strict=True))
    noticed = survived = 0
    for module, tests in part.modules:
        verdict, took_s = judge.ask(module, None, tests, FIRST_S)
        if verdict != "passed":
            raise DrillError(f"the tests of {module} fail as it is: {' '.join(tests)}")
        deadline_s = 5 + 4 * took_s
        for place, source in made:
            if source is None or place.module != module:
                continue
            if judge.ask(module, source, tests, deadline_s)[0] == "passed":
                survived += 1
                text = shown(place, (copy / module).read_text(), source)
                print(text, file=sys.stderr, flush=True)
            else:
                noticed += 1
    return noticed, survived


def shown(place: Place, before: str, after: str) -> str:
    """One survivor: where, and the line before and after."""
    changed = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    lines = [f"    {line}" for line in list(changed)[3:]]
    return "\n".join([f"  survived: {place.module}:{place.line} {place.operator}", *lines])


def copied(target: Path) -> Path:
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
