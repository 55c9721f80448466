"""What a node counts, and its telling in Prometheus' text form, version 0.0.4.

Fed by a `Journal`; nothing is counted per function, so that the number of series is fixed.
"""

from __future__ import annotations

import bisect
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from amba_router.api import faults
from amba_router.asgi import App, Receive, Scope, Send
from amba_router.journal import Invocation, LimitEvent
from amba_runtime.outcome import Tell
from amba_runtime.slot import Slot

logger = logging.getLogger("amba.metrics")

PATH = "/metrics"
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the latency histogram, in seconds."""

Family = Callable[[], Iterable[tuple[Mapping[str, str], float]]]
"""Series of one name: (labels, value) of each."""

_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one node. Changed on the event loop alone.

    Attributes:
        refusals: by code: bundles that were not admitted, and requests over a rate limit.
    """

    def __init__(self) -> None:
        self.refusals: Counter[str] = Counter()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._breaches: Counter[str] = Counter()
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._sum_s = 0.0
        self._gauges: list[tuple[str, str, str, Callable[[], float]]] = []
        self._families: list[tuple[str, str, str, Family]] = []
        self._before: list[Callable[[], Awaitable[None]]] = []

    def gauge(self, name: str, kind: str, help_: str, value: Callable[[], float]) -> None:
        """Something that is read when asked for. Args: kind: `gauge` or `counter`."""
        self._gauges.append((name, kind, help_, value))

    def family(self, name: str, kind: str, help_: str, series: Family) -> None:
        """Several of one name, told apart by labels; `series` bounds how many."""
        self._families.append((name, kind, help_, series))

    def before(self, work: Callable[[], Awaitable[None]]) -> None:
        """Done before each telling: what has to be asked for."""
        self._before.append(work)

    async def refresh(self) -> None:
        """Ask for what has to be asked for; what fails is logged, and stays as it was."""
        for work in self._before:
            try:
                await work()
            except Exception:  # the other series are told all the same
                logger.exception("metrics could not be refreshed")

    def batch(self, told: Sequence[Invocation]) -> None:
        """A listener of the journal."""
        for i in told:
            self._requests[(i.outcome.value, i.status)] += 1
            seconds = i.ms / 1000
            self._buckets[bisect.bisect_left(BUCKETS_S, seconds)] += 1
            self._sum_s += seconds

    def late(self, slot: Slot, request_id: str, tell: Tell) -> None:
        """A listener of late lines, which count for nothing."""

    def limit(self, event: LimitEvent) -> None:
        """A listener of breaches; warnings are none."""
        if event.action != "warned":
            self._breaches[event.breach.limit] += 1

    def text(self) -> str:
        """All series."""
        lines = _head("amba_requests_total", "counter", "Invocations by outcome and status.")
        for (outcome, status), count in sorted(self._requests.items()):
            lines.append(f'amba_requests_total{{outcome="{outcome}",status="{status}"}} {count}')
        name = "amba_request_duration_seconds"
        lines += _head(name, "histogram", "From arrival to the end of the answer.")
        below = 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self._buckets, strict=True):
            below += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {below}')
        lines += [f"{name}_sum {self._sum_s:.6f}", f"{name}_count {below}"]
        lines += _head("amba_refusals_total", "counter", "Bundles and requests refused, by code.")
        for code, count in sorted(self.refusals.items()):
            lines.append(f'amba_refusals_total{{code="{code}"}} {count}')
        name = "amba_limit_breaches_total"
        lines += _head(name, "counter", "Limits of functions that were passed.")
        for limit, count in sorted(self._breaches.items()):
            lines.append(f'{name}{{limit="{limit}"}} {count}')
        for series, kind, help_, value in self._gauges:
            lines += [*_head(series, kind, help_), f"{series} {value():g}"]
        for name, kind, help_, family in self._families:
            lines += _head(name, kind, help_)
            for labels, number in family():
                told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
                lines.append(f"{name}{{{told}}} {number:.16g}")
        return "\n".join(lines) + "\n"


class MetricsApp:
    """Answers `/metrics` in front of another app.

    Args:
        known: whether a token's SHA-256 is a developer's; None asks for no token.
    """

    def __init__(
        self, metrics: Metrics, app: App | None, *, known: Callable[[bytes], bool] | None
    ) -> None:
        self._metrics = metrics
        self._app = app
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        head = scope.get("method") == "HEAD"
        request_id = scope.get("amba.request_id")
        if scope["path"] != PATH or scope["type"] != "http":
            if self._app is not None:
                await self._app(scope, receive, send)
                return
            problem = faults.NOT_FOUND.refuse("only /metrics is here").problem
        elif self._known is not None and not self._known(_token_hash(scope["headers"])):
            problem = faults.UNAUTHORIZED.refuse("metrics need a developer's token").problem
        else:
            await self._metrics.refresh()
            body = self._metrics.text().encode()
            fields = [(b"content-type", _TYPE), (b"content-length", b"%d" % len(body))]
            fields.append((b"cache-control", b"no-store"))
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": b"" if head else body})
            return
        await problem.answer(send, request_id, head=head)


def _head(name: str, kind: str, help_: str) -> list[str]:
    return [f"# HELP {name} {help_}", f"# TYPE {name} {kind}"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _token_hash(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """SHA-256 of the bearer token; of nothing where there is none."""
    for name, value in fields:
        scheme, _, token = value.partition(b" ")
        if name == b"authorization" and scheme.lower() == b"bearer":
            return hashlib.sha256(token.strip()).digest()
    return b""
