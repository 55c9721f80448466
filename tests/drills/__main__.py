"""`python -m tests.drills`: a node under load, killed, filled up. See README.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.drills import (
    crash,
    deploy,
    disk,
    idle,
    many,
    mutants,
    openapi,
    overload,
    queue_kills,
    queue_load,
    rows,
    slow,
    soak,
    switch,
    syscalls,
    walls,
    writes,
)
from tests.drills.figures import Figure, table

NAMES = (
    "deploy",
    "switch",
    "crash",
    "many",
    "disk",
    "openapi",
    "slow",
    "overload",
    "walls",
    "soak",
    "syscalls",
    "mutants",
    "writes",
    "rows",
    "queue-kills",
    "queue-load",
    "idle",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the drills named, print one table."""
    options = _parse(arguments)
    drills: dict[str, Callable[[Path], list[Figure]]] = {
        "deploy": deploy.run,
        "switch": lambda folder: switch.run(folder, seed=options.seed),
        "crash": lambda folder: crash.run(folder, rounds=options.rounds, seed=options.seed),
        "many": lambda folder: many.run(folder, functions=options.functions, seed=options.seed),
        "disk": disk.run,
        "openapi": lambda folder: openapi.run(folder, cases=options.cases, seed=options.seed),
        "slow": slow.run,
        "overload": overload.run,
        "walls": lambda folder: walls.run(folder, seed=options.seed),
        "soak": lambda folder: soak.run(folder, minutes=options.minutes, seed=options.seed),
        "syscalls": syscalls.run,
        "writes": lambda folder: writes.run(folder, rounds=options.rounds, seed=options.seed),
        "rows": rows.run,
        "queue-kills": lambda folder: queue_kills.run(
            folder, rounds=options.rounds, messages=options.messages, seed=options.seed
        ),
        "queue-load": queue_load.run,
        "idle": idle.run,
        "mutants": lambda folder: mutants.run(folder, sample=options.sample, seed=options.seed),
    }
    figures: list[Figure] = []
    for name in options.drills or NAMES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=f"amba-drill-{name}-") as folder:
            figures += drills[name](Path(folder))
    print(table(figures))
    judged = options.check or options.drills == ["mutants"]
    return 1 if judged and any(f.good is False for f in figures) else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("drills", nargs="*", choices=[*NAMES, []], metavar="DRILL")
    parser.add_argument("--rounds", type=int, default=200, help="of crash, writes, queue-kills")
    parser.add_argument("--messages", type=int, default=50_000, help="of queue-kills")
    parser.add_argument("--functions", type=int, default=1000, help="of many")
    parser.add_argument("--cases", type=int, default=20_000, help="of openapi")
    parser.add_argument("--minutes", type=float, default=8.0, help="of soak")
    parser.add_argument("--sample", type=int, default=120, help="of mutants, per part; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit 1 unless all is reached; mutants alone always does",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
