"""Start the contenders of each case, measure, and end them, whatever happens in between."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator, Sequence
from itertools import count
from pathlib import Path

from tests.bench import dev_cases, load_cases
from tests.bench.contenders import KINDS, Contender
from tests.bench.load_cases import Bench
from tests.bench.model import AMBA, BenchError
from tests.bench.processes import Guard

LOAD_CASES: dict[str, Callable[[Bench, Sequence[Contender]], None]] = {
    "hello": load_cases.hello,
    "echo": load_cases.echo,
    "download": load_cases.download,
    "upload": load_cases.upload,
    "sse": load_cases.sse,
}
CASES = (*LOAD_CASES, "start", "save", "stream", "storm")
DEFAULT_CASES = CASES[:-1]
"""The storm of reloads runs when it is asked for."""


class Runner:
    """Runs cases one after the other; only the contenders of the current case are alive."""

    def __init__(self, bench: Bench, guard: Guard, names: Sequence[str]) -> None:
        self._bench = bench
        self._guard = guard
        self._names = names
        self._numbers = count(1)

    def run(self, case: str) -> None:
        """Run one of CASES. What fails becomes a note in the results, never an exception."""
        self._bench.say(f"{case} ...")
        if case in LOAD_CASES:
            with self._serving(case, self._names) as contenders:
                LOAD_CASES[case](self._bench, contenders)
        elif case == "start":
            self._starts()
        elif case == "save":
            reloading = [name for name in self._names if KINDS[name].reloads]
            with self._serving("hello", reloading) as contenders:
                dev_cases.save(self._bench, contenders)
        elif case == "stream":
            self._alone("upload", dev_cases.stream_up)
            self._alone("stream", dev_cases.stream_down)
        else:
            self._alone("hello", dev_cases.storm)

    def _starts(self) -> None:
        names = list(self._names)
        for _ in range(self._bench.plan.starts):
            for name in list(names):
                with self._serving("hello", [name]) as contenders:
                    if not contenders:
                        names.remove(name)
                    for started in contenders:
                        self._bench.results.add(
                            "start", "start to first answer", "s", "lower", name, started.start_s
                        )

    def _alone(self, worker: str, measure: Callable[[Bench, Contender], None]) -> None:
        """What is measured on amba-run only."""
        if AMBA not in self._names:
            return
        with self._serving(worker, [AMBA]) as contenders:
            for contender in contenders:
                try:
                    measure(self._bench, contender)
                except BenchError as error:
                    self._bench.note(contender, str(error))

    @contextlib.contextmanager
    def _serving(self, worker: str, names: Sequence[str]) -> Generator[list[Contender]]:
        """Start, yield those that answer, end all; a start that failed is noted."""
        running: list[Contender] = []
        folders: list[Path] = []
        try:
            for name in names:
                folder = self._bench.scratch / f"{next(self._numbers)}-{worker}-{name}"
                folders.append(folder)
                contender = KINDS[name](self._guard, folder, worker)
                try:
                    contender.start()
                except BenchError as error:
                    self._bench.note(contender, str(error))
                else:
                    running.append(contender)
            yield running
        finally:
            for contender in running:
                contender.stop()
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
