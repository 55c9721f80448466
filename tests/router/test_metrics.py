"""What a node counts, and who may read it (issue 3, item 5)."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from amba_router.asgi import Receive, Scope, Send
from amba_router.journal import Invocation, Journal
from amba_router.metrics import BUCKETS_S, Metrics, MetricsApp
from amba_runtime.outcome import Outcome

PAT = b"amb_dpat_" + b"x" * 32


def _invocation(n: int, outcome: Outcome, status: int, ms: float) -> Invocation:
    return Invocation(f"r{n}", "f", 1, "GET", "/", status, outcome, 0.0, ms, None)


def _counted() -> Metrics:
    metrics = Metrics()

    async def run() -> None:
        journal = Journal()
        journal.listen(metrics.batch, metrics.late)
        journal.add(_invocation(1, Outcome.OK, 200, 1.0))
        journal.add(_invocation(2, Outcome.OK, 200, 1.5))
        journal.add(_invocation(3, Outcome.EXCEPTION, 500, 60_000.0))
        journal.flush()

    asyncio.run(run())
    metrics.refusals.update(["EXTERNAL_IMPORT", "rate_limited", "rate_limited"])
    metrics.gauge("amba_isolates_live", "gauge", "Isolates alive.", lambda: 3)
    name, firings = "amba_schedule_firings_total", {Outcome.OK: 7, "skipped": 1}
    series = [({"outcome": outcome}, float(count)) for outcome, count in firings.items()]
    metrics.family(name, "counter", "Firings.", lambda: series)
    return metrics


def test_all_series_are_told() -> None:
    """Requests by outcome and status, a histogram, refusals by code, gauges as of now."""
    text = _counted().text()
    for line in (
        'amba_requests_total{outcome="ok",status="200"} 2',
        'amba_requests_total{outcome="exception",status="500"} 1',
        'amba_request_duration_seconds_bucket{le="0.001"} 1',
        'amba_request_duration_seconds_bucket{le="0.0025"} 2',
        'amba_request_duration_seconds_bucket{le="30.0"} 2',
        'amba_request_duration_seconds_bucket{le="+Inf"} 3',
        "amba_request_duration_seconds_sum 60.002500",
        "amba_request_duration_seconds_count 3",
        'amba_refusals_total{code="EXTERNAL_IMPORT"} 1',
        'amba_refusals_total{code="rate_limited"} 2',
        "amba_isolates_live 3",
        'amba_schedule_firings_total{outcome="ok"} 7',
        'amba_schedule_firings_total{outcome="skipped"} 1',
    ):
        assert f"\n{line}\n" in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) == 6
    assert text.endswith("\n")


def test_a_histogram_never_falls() -> None:
    """Buckets are cumulative, in rising order of their bounds."""
    counts = [
        int(line.split()[-1]) for line in _counted().text().splitlines() if "_bucket{" in line
    ]
    assert counts == sorted(counts)
    assert len(counts) == len(BUCKETS_S) + 1
    assert list(BUCKETS_S) == sorted(BUCKETS_S)


async def _receive() -> Any:
    raise AssertionError("nothing is read")


async def _behind(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _ask(
    app: MetricsApp, path: str = "/metrics", method: str = "GET", authorization: bytes | None = None
) -> tuple[int, bytes]:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    fields = [(b"host", b"x")]
    if authorization is not None:
        fields.append((b"authorization", authorization))
    scope = {"type": "http", "method": method, "path": path, "headers": fields}
    asyncio.run(app(scope, _receive, send))
    return said[0]["status"], said[1]["body"]


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (b"Bearer " + PAT, 200),
        (b"bearer  " + PAT + b" ", 200),
        (None, 401),
        (b"", 401),
        (b"Bearer ", 401),
        (b"Basic " + PAT, 401),
        (b"Bearer " + PAT + b"x", 401),
    ],
)
def test_they_need_a_developers_token(authorization: bytes | None, status: int) -> None:
    """interface.md 1 (`/metrics`)."""
    app = MetricsApp(
        _counted(), _behind, known=lambda hashed: hashed == hashlib.sha256(PAT).digest()
    )
    found, body = _ask(app, authorization=authorization)
    assert found == status
    assert (b"amba_requests_total" in body) is (status == 200)


def test_everything_else_is_the_other_apps() -> None:
    """And nobody's where there is none: the listener of `--metrics-listen`."""
    metrics = _counted()
    assert _ask(MetricsApp(metrics, _behind, known=None), "/metrics/") == (299, b"")
    assert _ask(MetricsApp(metrics, None, known=None), "/other")[0] == 404
    assert _ask(MetricsApp(metrics, None, known=None))[0] == 200
    assert _ask(MetricsApp(metrics, None, known=None), method="HEAD") == (200, b"")


def test_series_of_one_name_are_told_apart_by_labels() -> None:
    """Read as they are asked for; what a label may hold is escaped (Prometheus' text form)."""
    metrics = Metrics()
    metrics.family(
        "amba_queue_depth",
        "gauge",
        "Messages.",
        lambda: [({"queue": "a"}, 1), ({"queue": 'b"\\\n'}, 2_000_000)],
    )
    assert metrics.text().splitlines()[-4:] == [
        "# HELP amba_queue_depth Messages.",
        "# TYPE amba_queue_depth gauge",
        'amba_queue_depth{queue="a"} 1',
        'amba_queue_depth{queue="b\\"\\\\\\n"} 2000000',
    ]


def test_what_has_to_be_asked_for_is_asked_before(caplog: pytest.LogCaptureFixture) -> None:
    """One that fails is logged, and fails no other."""
    metrics = Metrics()
    asked: list[str] = []

    async def fails() -> None:
        raise OSError("the disk is gone")

    async def counts() -> None:
        asked.append("counted")

    metrics.before(fails)
    metrics.before(counts)
    asyncio.run(metrics.refresh())
    assert asked == ["counted"]
    assert "could not be refreshed" in caplog.text
