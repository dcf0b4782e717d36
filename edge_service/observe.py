"""What an operator sees: one log line a request, and Prometheus metrics. Never what a shopper asked for."""

from __future__ import annotations

import secrets
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Info, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_service.kept import Sized
from edge_service.served import ServedRegion
from tandem.errors import ConfigError
from tandem.settings import Settings

if TYPE_CHECKING:
    from edge_service.traces import Traces

QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked all the time by machines: counted, not logged."""
METHODS = frozenset({"GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "PATCH"})
FAILED = 500
BOUNDS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)


class Times:
    """How long the requests of one route and status took."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.seconds += seconds


class Metrics:
    """The process's own registry: with several workers, each tells of itself. Counts are plain numbers, for speed."""

    def __init__(
        self, served: Mapping[str, ServedRegion], books: Mapping[str, Sized], log: Any, settings: Settings
    ) -> None:
        self.registry = CollectorRegistry()
        self.answers: dict[tuple[str, ...], int] = defaultdict(int)
        """By region, level of evidence, empty, stale."""
        self.requests: dict[tuple[str, str, int], Times] = defaultdict(Times)
        """By route, method, status."""
        self.deltas = Counter("tandem_deltas", "Deltas posted here", ["region", "outcome"], registry=self.registry)
        Info("tandem_process", "Tells the processes behind one address apart", registry=self.registry).info(
            {"id": secrets.token_hex(8)}
        )
        self._log, self._every = log, round(1 / settings.log_share) if settings.log_share else 0
        self._counted, self._traces = settings.count_requests, _traces(settings)
        self.made = 0
        """Answers to GET bundles that were not kept yet."""
        self._unlogged = 0
        self.registry.register(_Requests(self))
        self.registry.register(_Regions(served, books))

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def told(self, scope: Scope, route: str, method: str, status: int, seconds: float) -> None:
        """Count and time a request; one of many is logged, and each that failed; some become spans."""
        if self._counted:
            self.requests[route, method, status].add(seconds)
        if self._traces is not None:
            self._traces.told(scope, route, method, status, seconds)
        self._unlogged += 1
        if status >= FAILED or (self._unlogged == self._every and route not in QUIET):
            self._log.info("request", route=route, method=method, status=status, ms=round(seconds * 1000, 2))
        if self._unlogged >= self._every:
            self._unlogged = 0

    def close(self) -> None:
        """Send the spans that are left. Blocks while they are sent."""
        if self._traces is not None:
            self._traces.close()

    def failed(self, route: str, error: Exception) -> None:
        self._log.error("failed", route=route, reason=repr(error), exc_type=type(error).__name__)


def _traces(settings: Settings) -> Traces | None:
    """Raises ConfigError where spans are wanted and the extra `traces` is not installed."""
    if not settings.trace_endpoint:
        return None
    try:
        from edge_service.traces import Traces
    except ModuleNotFoundError as error:
        raise ConfigError("TANDEM_TRACE_ENDPOINT needs the extra: install tandem-bundles[edge,traces]") from error
    return Traces(settings.trace_endpoint, settings.trace_share)


class _Requests(Collector):
    """What Metrics counted by hand, as Prometheus wants it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        yield self._counted()
        yield self._timed()
        answers = CounterMetricFamily(
            "tandem_answers",
            "Answers with bundles, by where the evidence came from; empty: none could be offered",
            labels=["region", "matched", "empty", "stale"],
        )
        for labels, number in self._metrics.answers.items():
            answers.add_metric(labels, number)
        yield answers
        made = CounterMetricFamily("tandem_answers_made", "Of them, those to GET bundles that were not kept yet")
        made.add_metric([], self._metrics.made)
        yield made

    def _counted(self) -> Metric:
        requests = CounterMetricFamily("tandem_requests", "Requests answered", labels=["route", "method", "status"])
        for (route, method, status), times in self._metrics.requests.items():
            requests.add_metric([route, method, str(status)], sum(times.counts))
        return requests

    def _timed(self) -> Metric:
        by_route: dict[str, Times] = defaultdict(Times)
        for (route, _, _), times in self._metrics.requests.items():
            held = by_route[route]
            held.counts = [a + b for a, b in zip(held.counts, times.counts, strict=True)]
            held.seconds += times.seconds
        seconds = HistogramMetricFamily("tandem_request_seconds", "Time to answer", labels=["route"])
        bounds = [*map(str, BOUNDS_SECONDS), "+Inf"]
        for route, held in by_route.items():
            seconds.add_metric([route], list(zip(bounds, accumulate(held.counts), strict=True)), held.seconds)
        return seconds


def _release(each: ServedRegion) -> str:
    return "" if each.current.release is None else each.current.release.meta.release_id


GAUGES: tuple[tuple[str, str, Callable[[ServedRegion], float]], ...] = (
    ("tandem_feed_connected", "1: following the region's stream", lambda each: each.live.connected),
    ("tandem_stale", "1: answers say stale", lambda each: each.freshness().stale),
    ("tandem_feed_lag_seconds", "From Redis to this process, of the newest change", lambda each: each.live.lag_seconds),
    ("tandem_live_products", "Products with live state", lambda each: len(each.live.products)),
    ("tandem_live_candidates", "Bundles that the last minutes add", lambda each: each.live_candidates),
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

    def __init__(self, served: Mapping[str, ServedRegion], books: Mapping[str, Sized]) -> None:
        self._served, self._books = served, books

    def collect(self) -> Iterable[Metric]:
        for name, text, value in GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["region"])
            for region, each in self._served.items():
                gauge.add_metric([region], float(value(each)))
            yield gauge
        kept = GaugeMetricFamily("tandem_answers_kept_bytes", "What kept answers take, about", labels=["region"])
        for region, book in self._books.items():
            kept.add_metric([region], book.size)
        yield kept
        release = GaugeMetricFamily("tandem_release", "The release being served", labels=["region", "release"])
        for region, each in self._served.items():
            release.add_metric([region, _release(each)], 1)
        yield release


class Observed:
    """ASGI middleware: counts, times and logs each request by its route, without path or query."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

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
            self._metrics.failed(_route(scope), error)
            raise
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.told(scope, _route(scope), method, status, time.perf_counter() - started)


def _route(scope: Scope) -> str:
    """The route's template; `other` for an address that is none of ours."""
    return str(getattr(scope.get("route"), "path", "other"))
