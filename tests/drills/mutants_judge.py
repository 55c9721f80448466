"""`python -m tests.drills.mutants_judge`: runs tests against mutants, each in a fork of itself.

What tests import besides our own modules is imported once, by the first run, which is of the
code as it is. A mutant is put in place of its module as that is imported; no file changes.
One JSON object a line on stdin: `module` (dotted), `source`, `tests`, `deadline_s`; one line back:
`passed`, `failed` or `late`, then the seconds it took.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any

OURS = ("amba_", "tests", "test_", "conftest")
_QUIET = (
    *("-x", "-q", "--no-header", "--tb=line", "-p", "no:randomly"),
    *("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # what is warm is not rewritten
)


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds one module: the mutant."""

    def __init__(self, name: str, source: str) -> None:
        self._name = name
        self._source = source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The mutant's own, and no other's."""
        if fullname != self._name:
            return None
        real = importlib.machinery.PathFinder.find_spec(fullname, path)
        origin = None if real is None else real.origin
        spec = importlib.util.spec_from_loader(fullname, self, origin=origin)
        if spec is not None:
            spec.has_location = origin is not None
        return spec

    def get_source(self, fullname: str) -> str:
        """The mutant's."""
        del fullname
        return self._source

    def get_code(self, fullname: str) -> CodeType:
        """Compiled in silence: `is` with a literal is what some mutants are."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(self._source, fullname, "exec")


def main() -> None:
    """Judge until stdin ends."""
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        began_s = time.monotonic()
        verdict = _judge(asked)
        took_s = time.monotonic() - began_s
        sys.stdout.write(json.dumps([verdict, took_s]) + "\n")
        sys.stdout.flush()


def _judge(asked: dict[str, Any]) -> str:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _child(asked, write)
    os.close(write)
    told = b""
    end_s = time.monotonic() + asked["deadline_s"]
    late = False
    while True:  # the pipe ends with the child
        ready, _, _ = select.select([read], [], [], max(0.0, end_s - time.monotonic()))
        late = not ready
        data = b"" if late else os.read(read, 65536)
        if not data:
            break
        told += data
    os.close(read)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if late:
        return "late"
    if not told:
        return "failed"  # it did not live to say so
    answer = json.loads(told)
    for name in answer["modules"]:
        _warm(name)
    return "passed" if answer["code"] == 0 else "failed"


def _warm(name: str) -> None:
    """Have it at hand for all that follow."""
    if name not in sys.modules and not name.startswith(OURS) and name != "__main__":
        try:
            importlib.import_module(name)
        except Exception:  # of a platform, or of a package that is loaded otherwise
            sys.modules.pop(name, None)


def _child(asked: dict[str, Any], write: int) -> None:
    """Run the tests and say how they ended; does not return."""
    code = 3
    names: list[str] = []
    try:
        os.setpgid(0, 0)
        # the first run, of the code as it is, leaves compiled files; mutants leave nothing
        sys.dont_write_bytecode = asked["source"] is not None
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null if asked["source"] is not None else 2, 1)  # why it fails as it is
        if asked["source"] is not None:
            os.dup2(null, 2)
        if asked["source"] is not None:
            sys.meta_path.insert(0, Mutated(asked["module"], asked["source"]))
        from hypothesis import Phase, settings

        # a failure is enough: none is made smaller; the same examples for each mutant
        settings.register_profile(
            "mutants", derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
        )
        settings.load_profile("mutants")
        import pytest

        code = int(pytest.main([*_QUIET, *asked["tests"]]))
        if asked["source"] is None:
            names = [name for name in sys.modules if not name.startswith(OURS)]
    finally:
        os.write(write, json.dumps({"code": code, "modules": names}).encode())
        os._exit(0)


if __name__ == "__main__":
    main()
