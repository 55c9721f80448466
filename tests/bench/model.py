"""What the benchmark measures, as values: plans, targets, samples, results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

MIB = 1024 * 1024

AMBA = "amba-run"
WORKERD = "workerd"
MINIFLARE = "miniflare"
WRANGLER = "wrangler"
CONTENDERS = (AMBA, WORKERD, MINIFLARE, WRANGLER)
"""In the order in which they are measured within a round."""

Better = Literal["higher", "lower"]


class BenchError(Exception):
    """A contender did not start or did not answer as it must; the message says what was seen."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        seconds: length of one load measurement, whole seconds (wrk takes no fractions).
        warm_up_s: load before the first measurement of each contender in each case.
        stream_mib: size of the streams whose memory growth is measured.
    """

    rounds: int = 3
    seconds: int = 4
    warm_up_s: int = 2
    upload_mib: int = 100
    sse_clients: int = 500
    sse_events: int = 20
    sse_every_ms: int = 50
    starts: int = 5
    saves: int = 20
    stream_mib: int = 1024
    reloads: int = 200
    storm_connections: int = 16
    settle_s: float = 5.0


QUICK = Plan(
    rounds=1, seconds=1, warm_up_s=1, sse_events=10, starts=2, saves=5, stream_mib=128, reloads=20
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where one worker of one contender answers: always 127.0.0.1."""

    port: int
    host: str
    path: str

    def head(self, method: str, *, query: str = "", fields: str = "") -> bytes:
        """A request head; `fields` are further header lines, each with its CRLF."""
        url = self.path + query
        return f"{method} {url} HTTP/1.1\r\nHost: {self.host}\r\n{fields}\r\n".encode()


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a closed-loop load of some seconds gave. Errors: anything but a whole 2xx answer."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float

    @property
    def per_s(self) -> float:
        """Good answers a second."""
        return self.requests / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table: a metric of a case, with the values of each contender by round."""

    case: str
    metric: str
    unit: str
    better: Better
    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])


@dataclass(slots=True)
class Results:
    """Everything one run found; `figures` keeps the order in which rows were first added."""

    figures: dict[tuple[str, str], Figure] = field(default_factory=dict[tuple[str, str], Figure])
    notes: list[str] = field(default_factory=list[str])

    def add(
        self, case: str, metric: str, unit: str, better: Better, contender: str, value: float
    ) -> None:
        """Append the value of one round."""
        figure = self.figures.setdefault((case, metric), Figure(case, metric, unit, better))
        figure.values.setdefault(contender, []).append(value)

    def values(self, case: str, metric: str, contender: str) -> list[float]:
        """The rounds of one contender; empty when it was not measured."""
        figure = self.figures.get((case, metric))
        return figure.values.get(contender, []) if figure else []
