"""What an operator sees: one log line a request, and Prometheus metrics. Never what a shopper asked for."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_service.served import ServedRegion

QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked all the time by machines: counted, not logged."""
BOUNDS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)


class _Stderr:
    """Writes to what stderr is at that moment, one whole line at once."""

    def info(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    warning = error = info


def logger() -> Any:
    """JSON lines on stderr; configured for this logger alone, not for the process."""
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer(),
    ]
    return structlog.wrap_logger(_Stderr(), processors=processors)


class Metrics:
    """The process's own registry: with several workers, each tells of itself."""

    def __init__(self, served: Mapping[str, ServedRegion]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tandem_requests", "Requests answered", ["route", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "tandem_request_seconds", "Time to answer", ["route"], buckets=BOUNDS_SECONDS, registry=self.registry
        )
        self.answers = Counter(
            "tandem_answers",
            "Answers with bundles, by where the evidence came from; empty: none could be offered",
            ["region", "matched", "empty", "stale"],
            registry=self.registry,
        )
        self.deltas = Counter("tandem_deltas", "Deltas posted here", ["region", "outcome"], registry=self.registry)
        Info("tandem_process", "Tells the processes behind one address apart", registry=self.registry).info(
            {"id": secrets.token_hex(8)}
        )
        self.registry.register(_Regions(served))

    def text(self) -> bytes:
        return generate_latest(self.registry)


def _release(each: ServedRegion) -> str:
    return "" if each.current.release is None else each.current.release.meta.release_id


GAUGES: tuple[tuple[str, str, Callable[[ServedRegion], float]], ...] = (
    ("tandem_feed_connected", "1: following the region's stream", lambda each: each.live.connected),
    ("tandem_stale", "1: answers say stale", lambda each: each.live.freshness().stale),
    ("tandem_live_products", "Products with live state", lambda each: len(each.live.products)),
    ("tandem_live_changes", "Stream entries taken in since the start", lambda each: each.live.changes),
    ("tandem_stock_as_of_seconds", "Time that stock is true for", lambda each: each.live.ages[0] / 1000),
    (
        "tandem_prices_as_of_seconds",
        "Time that prices are true for",
        lambda each: each.live.ages[1] / 1000,
    ),
)


class _Regions(Collector):
    """The state of each served region at the moment it is asked for."""

    def __init__(self, served: Mapping[str, ServedRegion]) -> None:
        self._served = served

    def collect(self) -> Iterable[Metric]:
        for name, text, value in GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["region"])
            for region, each in self._served.items():
                gauge.add_metric([region], float(value(each)))
            yield gauge
        release = GaugeMetricFamily("tandem_release", "The release being served", labels=["region", "release"])
        for region, each in self._served.items():
            release.add_metric([region, _release(each)], 1)
        yield release


class Observed:
    """ASGI middleware: counts, times and logs each request by its route, without path or query."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log: Any) -> None:
        self._app, self._metrics, self._log = app, metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        started = time.perf_counter()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception as error:
            self._log.error("failed", route=_route(scope), reason=repr(error), exc_type=type(error).__name__)
            raise
        finally:
            self._told(scope, status, time.perf_counter() - started)

    def _told(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = _route(scope), scope["method"]
        known = method if method in ("GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "PATCH") else "other"
        self._metrics.requests.labels(route, known, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if route not in QUIET:
            self._log.info("request", route=route, method=known, status=status, ms=round(seconds * 1000, 2))


def _route(scope: Scope) -> str:
    """The route's template; `other` for an address that is none of ours."""
    return str(getattr(scope.get("route"), "path", "other"))
