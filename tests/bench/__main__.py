"""Measure amba-run beside raw workerd, miniflare and `wrangler dev`: python -m tests.bench."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.bench import npm, processes
from tests.bench.contenders import versions
from tests.bench.load_cases import Bench
from tests.bench.model import CONTENDERS, MINIFLARE, QUICK, WRANGLER, BenchError, Plan, Results
from tests.bench.report import Goal, goals, render, to_json
from tests.bench.runner import CASES, DEFAULT_CASES, Runner
from tests.bench.wrk import find_wrk

QUIET_LOAD = 0.5
QUIET_SHARE = 0.15


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. 0: done; 1: a figure was missed (`--check`) or nothing could be run."""
    options = _parse(arguments)
    plan = QUICK if options.quick else Plan()
    if options.rounds is not None:
        plan = replace(plan, rounds=options.rounds)
    signal.signal(signal.SIGTERM, _end)
    try:
        if {MINIFLARE, WRANGLER} & set(options.peers):
            npm.install(npm.find_node())
        facts = _facts(options.peers, plan, own_client=options.own_client)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results, reached = _measure(options, plan)
    facts["load average"] += f" at the start, {processes.load_average_1m():.2f} at the end"
    if options.json:
        print(json.dumps(to_json(results, reached, facts)))
    else:
        print(render(results, reached, facts))
    missed = any(goal.verdict() in ("MISSED", "not measured") for goal in reached)
    return 1 if options.check and missed else 0


def _measure(options: argparse.Namespace, plan: Plan) -> tuple[Results, list[Goal]]:
    results = Results()
    with contextlib.ExitStack() as stack:
        guard = stack.enter_context(processes.Guard())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amba-bench-")))
        program = None if options.own_client else find_wrk()
        runner = Runner(Bench(plan, results, program, scratch, _say), guard, options.peers)
        for case in options.only:
            runner.run(case)
    return results, goals(results, plan.stream_mib)


def _facts(names: list[str], plan: Plan, *, own_client: bool) -> dict[str, str]:
    """What a reader must know to judge the figures; warns when the machine is not quiet."""
    load, share = processes.load_average_1m(), processes.busy_share()
    if load > QUIET_LOAD or share > QUIET_SHARE:
        _say(
            f"warning: the machine is not quiet (load average {load:.2f}, {share:.0%} busy): "
            "only ratios of this run count, and these less than usual"
        )
    wrk = None if own_client else find_wrk()
    return {
        "machine": f"{os.cpu_count()} processors, {platform.machine()}, "
        f"Python {platform.python_version()}",
        "load average": f"{load:.2f} ({share:.0%} busy)",
        "load from": "wrk -t1" if wrk else "our own asyncio client (no wrk on PATH)",
        "rounds": f"{plan.rounds} interleaved, {plan.seconds} s each",
        **versions(names),
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog="example: python -m tests.bench --quick --only hello,start --peers amba-run,workerd",
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run of about a minute")
    parser.add_argument(
        "--rounds", type=int, choices=range(1, 21), metavar="N", help="interleaved rounds, 1 to 20"
    )
    parser.add_argument("--json", action="store_true", help="one JSON value on stdout")
    parser.add_argument(
        "--only",
        type=_Names(CASES),
        default=list(DEFAULT_CASES),
        metavar="CASE,...",
        help=f"of {', '.join(CASES)} (default: all but storm)",
    )
    parser.add_argument(
        "--peers",
        type=_Names(CONTENDERS),
        default=list(CONTENDERS),
        metavar="NAME,...",
        help=f"of {', '.join(CONTENDERS)} (default: all)",
    )
    parser.add_argument(
        "--reload-storm", action="store_true", help="also 200 reloads under constant load"
    )
    parser.add_argument(
        "--own-client", action="store_true", help="make the load ourselves, even if there is a wrk"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit 1 unless every figure of issue 2 is reached"
    )
    options = parser.parse_args(arguments)
    if options.reload_storm and "storm" not in options.only:
        options.only.append("storm")
    return options


class _Names:
    """Parse a comma list of known names into their fixed order."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def __call__(self, text: str) -> list[str]:
        asked = {name.strip() for name in text.split(",")}
        if unknown := asked - set(self._known):
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(self._known)}"
            )
        return [name for name in self._known if name in asked]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)  # so that every `finally` runs


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
