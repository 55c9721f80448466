"""Drive `wrk` and read what it prints. The Debian package is called `wrk`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.bench.model import BenchError, LoadResult, Target

_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_SOCKET_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_BAD_STATUS = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_TOTAL = re.compile(r"(\d+) requests in ([\d.]+)(us|ms|s|m),")


def find_wrk() -> str | None:
    """The program on PATH, or None."""
    return shutil.which("wrk")


def parse_wrk(text: str) -> LoadResult:
    """Read the output of `wrk --latency`.

    Answers with a bad status are in wrk's own total: here they count as errors only.

    Raises:
        BenchError: the text is not such output.
    """
    total = _TOTAL.search(text)
    if total is None:
        raise BenchError(f"this is not what wrk prints:\n{text[:500]}")
    sockets = _SOCKET_ERRORS.search(text)
    bad = _BAD_STATUS.search(text)
    bad_status = int(bad[1]) if bad else 0
    return LoadResult(
        requests=int(total[1]) - bad_status,
        seconds=float(total[2]) * _UNITS_MS[total[3]] / 1000,
        errors=bad_status + (sum(int(n) for n in sockets.groups()) if sockets else 0),
        p50_ms=_latency_ms(text, 50),
        p99_ms=_latency_ms(text, 99),
    )


def _latency_ms(text: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    if found is None:
        raise BenchError(f"wrk printed no {percent}% latency:\n{text[:500]}")
    return float(found[1]) * _UNITS_MS[found[2]]


def lua_post(body: str, content_type: str) -> str:
    """A wrk script that posts `body`, which may hold anything but a level-4 long bracket."""
    if "]====]" in body:
        raise ValueError("the body holds Lua's closing bracket ]====]")
    return (
        'wrk.method = "POST"\n'
        f"wrk.body = [====[{body}]====]\n"
        f'wrk.headers["Content-Type"] = "{content_type}"\n'
    )


def run_wrk(
    program: str, target: Target, *, connections: int, seconds: int, script: Path | None = None
) -> LoadResult:
    """One measurement: one thread, keep-alive connections, each with one request at a time.

    Raises:
        BenchError: wrk failed, or did not end within 15 s of its time.
    """
    command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    if script is not None:
        command += ["-s", str(script)]
    command += ["-H", f"Host: {target.host}", f"http://127.0.0.1:{target.port}{target.path}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds + 15
        )
    except subprocess.TimeoutExpired as late:
        raise BenchError(f"wrk did not end within {seconds + 15} s") from late
    if done.returncode != 0:
        raise BenchError(f"wrk failed ({done.returncode}): {done.stderr or done.stdout}")
    return parse_wrk(done.stdout)
