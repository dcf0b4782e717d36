"""What an operator sees: one log line a request, and Prometheus metrics. Never what a shopper asked for."""

from __future__ import annotations

import secrets
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_service.exposition import Collected, Family
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
        self.counts[0 if seconds <= BOUNDS_SECONDS[0] else bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.seconds += seconds


class Metrics:
    """The process's own: with several workers, each tells of itself. Counts are plain numbers, for speed."""

    def __init__(
        self, served: Mapping[str, ServedRegion], books: Mapping[str, Sized], log: Any, settings: Settings
    ) -> None:
        self.answers: dict[tuple[str, ...], int] = defaultdict(int)
        """By region, level of evidence, empty, stale."""
        self.requests: dict[tuple[str, str, int], Times] = defaultdict(Times)
        """By route, method, status."""
        self.deltas: dict[tuple[str, str], int] = defaultdict(int)
        """Posted here, by region and outcome."""
        self._process = secrets.token_hex(8)
        self._log, self._every = log, round(1 / settings.log_share) if settings.log_share else 0
        self._counted, self._traces = settings.count_requests, _traces(settings)
        self.made = 0
        """Answers to GET bundles that were not kept yet."""
        self._unlogged = 0
        self.collected: list[Collected] = [self._requests, _Regions(served, books).collected]
        """Whoever is asked when somebody wants to know."""

    def text(self) -> str:
        return "".join(family.text() for collected in self.collected for family in collected())

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

    def _requests(self) -> Iterable[Family]:
        process = Family("tandem_process_info", "Tells the processes behind one address apart")
        process.add(1, id=self._process)
        requests = Family("tandem_requests_total", "Requests answered", "counter")
        for (route, method, status), times in self.requests.items():
            requests.add(sum(times.counts), route=route, method=method, status=str(status))
        deltas = Family("tandem_deltas_total", "Deltas posted here", "counter")
        for (region, outcome), number in self.deltas.items():
            deltas.add(number, region=region, outcome=outcome)
        yield from (process, requests, self._seconds(), deltas, self._answers())
        made = Family("tandem_answers_made_total", "Of them, those to GET bundles that were not kept yet", "counter")
        made.add(self.made)
        yield made

    def _seconds(self) -> Family:
        by_route: dict[str, Times] = defaultdict(Times)
        for (route, _, _), times in self.requests.items():
            held = by_route[route]
            held.counts = [a + b for a, b in zip(held.counts, times.counts, strict=True)]
            held.seconds += times.seconds
        seconds = Family("tandem_request_seconds", "Time to answer", "histogram")
        for route, held in by_route.items():
            seconds.add_histogram(BOUNDS_SECONDS, held.counts, held.seconds, route=route)
        return seconds

    def _answers(self) -> Family:
        answers = Family(
            "tandem_answers_total",
            "Answers with bundles, by where the evidence came from; empty: none could be offered",
            "counter",
        )
        for (region, matched, empty, stale), number in self.answers.items():
            answers.add(number, region=region, matched=matched, empty=empty, stale=stale)
        return answers


def _traces(settings: Settings) -> Traces | None:
    """Raises ConfigError where spans are wanted and the extra `traces` is not installed."""
    if not settings.trace_endpoint:
        return None
    try:
        from edge_service.traces import Traces
    except ModuleNotFoundError as error:
        raise ConfigError("TANDEM_TRACE_ENDPOINT needs the extra: install tandem-bundles[edge,traces]") from error
    return Traces(settings.trace_endpoint, settings.trace_share)


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


class _Regions:
    """The state of each served region at the moment it is asked for."""

    def __init__(self, served: Mapping[str, ServedRegion], books: Mapping[str, Sized]) -> None:
        self._served, self._books = served, books

    def collected(self) -> Iterable[Family]:
        for name, text, value in GAUGES:
            gauge = Family(name, text)
            for region, each in self._served.items():
                gauge.add(value(each), region=region)
            yield gauge
        kept = Family("tandem_answers_kept_bytes", "What kept answers take, about")
        for region, book in self._books.items():
            kept.add(book.size, region=region)
        release = Family("tandem_release", "The release being served")
        for region, each in self._served.items():
            release.add(1, region=region, release=_release(each))
        yield from (kept, release)


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
