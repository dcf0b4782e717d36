"""Spans that go on from the caller's `traceparent` (W3C Trace Context), sent by OTLP over HTTP in the background."""

from __future__ import annotations

import re
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from starlette.types import Scope

PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
FAILED = 500
NAME = "tandem-edge"
SEND_SECONDS = 2.0
"""What sending may take, repeated tries included; then these spans are given up."""
SECONDS = 1_000_000_000


class Traces:
    """Makes a span of a request when it is over. A caller who traces decides; of the other requests, `share` of all."""

    def __init__(self, endpoint: str, share: float) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "tandem-edge"}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=SEND_SECONDS)))
        self._tracer = self._provider.get_tracer("edge_service")
        self._every, self._untold = (round(1 / share) if share else 0), 0

    def told(self, scope: Scope, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered just now."""
        parent = state = None
        for name, value in scope["headers"]:
            if name == b"traceparent":
                parent = PARENT.fullmatch(value)
            elif name == b"tracestate":
                state = value
        if parent is None:
            self._untold += 1
            if self._untold != self._every:
                return
            self._untold = 0
        elif not int(parent[3], 16) & TraceFlags.SAMPLED:
            return
        self._tell(_context(parent, state), route, method, status, seconds)

    def _tell(self, parent: SpanContext | None, route: str, method: str, status: int, seconds: float) -> None:
        end = time.time_ns()
        span = self._tracer.start_span(
            f"{method} {route}",
            None if parent is None else set_span_in_context(NonRecordingSpan(parent)),
            SpanKind.SERVER,
            {"http.request.method": method, "http.route": route, "http.response.status_code": status},
            start_time=end - int(seconds * SECONDS),
        )
        if status >= FAILED:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def close(self) -> None:
        """Send what is left. Blocks while it is sent."""
        self._provider.shutdown()


def _context(parent: re.Match[bytes] | None, state: bytes | None) -> SpanContext | None:
    if parent is None:
        return None
    made = SpanContext(
        int(parent[1], 16),
        int(parent[2], 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([state.decode("latin-1")]) if state else None,
    )
    return made if made.is_valid else None
