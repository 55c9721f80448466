"""What a change costs: hello-world of this checkout beside another one, in interleaved rounds.

    python -m tests.bench.cost --against FOLDER [--rounds 7] [--seconds 4]

FOLDER is another checkout that can run: with `runtime/amba_runtime/native` and
`bundler/amba_bundler/native` in place (links to this one's will do). Row 10 of the walls issue.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tests.bench.client import run_load
from tests.bench.model import LoadResult, Target
from tests.bench.wrk import find_wrk, run_wrk
from tests.run.serving import Dev

HERE = Path(__file__).parents[2]
CONNECTIONS = (1, 32)
MOST_COST = 0.10


@dataclass(slots=True)
class Side:
    """One checkout's server, and what was measured of it.

    Attributes:
        rates: connections to good answers a second, a round each.
        cpu_us: connections to CPU of our own process per answer, microseconds.
    """

    dev: Dev
    target: Target
    rates: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    cpu_us: dict[int, list[float]] = field(default_factory=dict[int, list[float]])

    def load(self, connections: int, seconds: int, *, keep: bool) -> None:
        """One measurement."""
        process = psutil.Process(self.dev.process.pid)
        before = sum(process.cpu_times()[:2])
        result = _load(self.target, connections, seconds)
        cpu_s = sum(process.cpu_times()[:2]) - before
        if result.errors or not result.requests:
            raise SystemExit(f"{result.errors} errors in {result.requests} requests")
        if keep:
            self.rates.setdefault(connections, []).append(result.per_s)
            self.cpu_us.setdefault(connections, []).append(cpu_s / result.requests * 1e6)


def _load(target: Target, connections: int, seconds: int) -> LoadResult:
    program = find_wrk()
    if program is not None:
        return run_wrk(program, target, connections=connections, seconds=seconds)
    request = target.head("GET")
    return run_load(target, connections=connections, seconds=seconds, request=request)


def _start(checkout: Path, folder: Path) -> Side:
    functions = folder / "functions"
    functions.mkdir(parents=True)
    source = (HERE / "tests/bench/workers/hello.js").read_text()
    (functions / "hello.js").write_text(source)
    roots = ":".join(str(checkout / root) for root in ("runtime", "bundler", "router"))
    dev = Dev(
        functions,
        *("--ephemeral", "--no-watch"),
        data_home=folder / "data",
        environment={"PYTHONPATH": roots},
    )
    return Side(dev, Target(dev.port, f"local.fn.localhost:{dev.port}", "/hello"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one table; 1 when this checkout is slower by more than a tenth."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cost", description=__doc__)
    parser.add_argument("--against", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args(arguments)
    slow = False
    with tempfile.TemporaryDirectory(prefix="amba-cost-") as scratch, contextlib.ExitStack() as up:
        sides: list[Side] = []
        for name, checkout in (("before", options.against.resolve()), ("now", HERE)):
            side = _start(checkout, Path(scratch) / name)
            up.enter_context(side.dev)
            sides.append(side)
        for n in range(-1, options.rounds):  # the first one warms up
            for connections in CONNECTIONS:
                for side in sides if n % 2 else reversed(sides):
                    side.load(connections, options.seconds, keep=n >= 0)
    before, now = sides
    print(
        f"{'connections':>11}  {'before/s':>9}  {'now/s':>9}  {'ratio':>6}  {'CPU us/request':>18}"
    )
    for connections in CONNECTIONS:
        pairs = zip(now.rates[connections], before.rates[connections], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        old, new = (statistics.median(side.rates[connections]) for side in sides)
        spent = [statistics.median(side.cpu_us[connections]) for side in sides]
        print(
            f"{connections:>11}  {old:>9.0f}  {new:>9.0f}  {ratio:>6.3f}  "
            f"{spent[0]:>7.1f} -> {spent[1]:>6.1f}"
        )
        slow = slow or ratio < 1 - MOST_COST
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
