"""Spans go on from the caller's trace; what is seen from outside tells of requests, and of nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from edge_service.app import create_app
from edge_service.region_store import RegionStore
from tests.edge_service.conftest import client_of, ready, settings

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TEA = "/v1/north/bundles/tea?segment=families"


class Collector:
    """Takes what OTLP exporters send."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Taking)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    @property
    def spans(self) -> list[Any]:
        told = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [span for each in told for r in each.resource_spans for s in r.scope_spans for span in s.spans]


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        thread.join()
        collector.server.server_close()


async def spans_of(
    published: RegionStore, tmp_path: Path, requests: list[tuple[str, dict[str, str]]], **values: object
) -> list[Any]:
    """The spans of an edge that was asked for these paths with these headers."""
    with collecting() as collector:
        app = create_app(settings(tmp_path, trace_endpoint=collector.endpoint, **values), [published.region])
        async with client_of(app) as edge:
            await ready(edge)
            for path, headers in requests:
                await edge.get(path, headers=headers)
        return [span for span in collector.spans if "readyz" not in span.name]


def traced(flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}


async def test_a_span_goes_on_from_the_callers_trace(published: RegionStore, tmp_path: Path) -> None:
    asked = [(TEA, traced() | {"tracestate": "shop=1"}), ("/v1/north/live?skus=tea", traced()), ("/nothing", traced())]
    hot, framework, missing = await spans_of(published, tmp_path, asked, trace_share=0.0)
    for span in (hot, framework, missing):
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 10**10
    assert [span.name for span in (hot, framework, missing)] == [
        "GET /v1/{region}/bundles/{sku:path}", "GET /v1/{region}/live", "GET other"
    ]  # fmt: skip
    assert hot.trace_state == "shop=1"
    attributes = {each.key: each.value.string_value or each.value.int_value for each in missing.attributes}
    assert attributes == {"http.request.method": "GET", "http.route": "other", "http.response.status_code": 404}


async def test_a_caller_who_does_not_sample_gets_no_span_and_of_others_a_share_does(
    published: RegionStore, tmp_path: Path
) -> None:
    unsampled = [(TEA, traced("00"))] * 3
    assert await spans_of(published, tmp_path, unsampled, trace_share=1.0) == []
    broken = ["", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE.upper()}-{PARENT}-01", "é" * 9]
    asked = [(TEA, {}) for _ in range(20)] + [(TEA, {"traceparent": each.encode()}) for each in broken]  # type: ignore[dict-item]
    spans = await spans_of(published, tmp_path, asked, trace_share=1.0)
    assert len(spans) == 25
    assert TRACE not in {span.trace_id.hex() for span in spans}, "a broken parent is none"


async def test_a_collector_that_is_away_holds_nobody_up(published: RegionStore, tmp_path: Path) -> None:
    values = settings(tmp_path, trace_endpoint="http://127.0.0.1:1/v1/traces", trace_share=1.0)
    async with client_of(create_app(values, [published.region])) as edge:
        await ready(edge)
        assert {(await edge.get(TEA)).status_code for _ in range(50)} == {200}


async def test_requests_are_not_counted_where_they_are_not_to_be(published: RegionStore, tmp_path: Path) -> None:
    async with client_of(create_app(settings(tmp_path, count_requests=False), [published.region])) as edge:
        await ready(edge)
        await edge.get(TEA)
        metrics = (await edge.get("/metrics")).text
        assert "tandem_requests_total{" not in metrics
        assert 'tandem_feed_connected{region="north"} 1.0' in metrics


async def test_metrics_tell_of_cache_feed_and_load(edge: httpx.AsyncClient) -> None:
    for _ in range(3):
        await edge.get(TEA)
    metrics = (await edge.get("/metrics")).text
    assert "tandem_answers_made_total 1.0" in metrics
    for name in ("feed_lag_seconds", "answers_kept_bytes", "loop_late_seconds", "bodies_bytes"):
        assert f"\ntandem_{name}" in metrics, name
