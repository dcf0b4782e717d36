"""The OpenAPI document names every route, with its answers and its problems."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

KEYED = {"401", "403", "429", "503"}
BODY = {"400", "408", "413", "422"}
ROUTES = {
    ("get", "/v1/{region}/bundles/{sku}"): {"200", "304", "404", "422", *KEYED},
    ("get", "/v1/{region}/bundles/{id}/explain"): {"200", "404", "422", *KEYED},
    ("post", "/v1/{region}/offers"): {"200", "404", *BODY, *KEYED},
    ("get", "/v1/{region}/live"): {"200", "404", "422", *KEYED},
    ("post", "/v1/{region}/quotes/verify"): {"200", "404", *BODY, *KEYED},
    ("post", "/v1/{region}/events"): {"202", "404", *BODY, *KEYED},
    ("post", "/v1/{region}/deltas"): {"200", "404", *BODY, *KEYED},
    ("get", "/healthz"): {"200"},
    ("get", "/readyz"): {"200", "503"},
    ("get", "/metrics"): {"200", *KEYED},
}


async def document(edge: httpx.AsyncClient) -> dict:  # type: ignore[type-arg]
    return (await edge.get("/openapi.json")).json()


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


async def test_every_route_is_there_with_its_answers_and_problems(shared_edge: httpx.AsyncClient) -> None:
    paths = (await document(shared_edge))["paths"]
    found = {(method, path): set(each["responses"]) for path, all_ in paths.items() for method, each in all_.items()}
    assert found == ROUTES


async def test_problems_are_written_as_problems(shared_edge: httpx.AsyncClient) -> None:
    paths = (await document(shared_edge))["paths"]
    for (method, path), statuses in ROUTES.items():
        for status in statuses - {"200", "202", "304"}:
            if path == "/readyz":
                continue
            content = paths[path][method]["responses"][status]["content"]
            assert content["application/problem+json"]["schema"]["$ref"].endswith("/ProblemDetail")


async def test_every_reference_leads_somewhere(shared_edge: httpx.AsyncClient) -> None:
    told = await document(shared_edge)
    names = {name.rpartition("/")[2] for name in references(told)}
    assert names <= told["components"]["schemas"].keys()
    assert {"BundlesAnswer", "OffersQuestion", "Delta", "Heartbeat", "Exposure", "ProblemDetail"} <= names


async def test_bodies_are_described_with_an_example(shared_edge: httpx.AsyncClient) -> None:
    paths = (await document(shared_edge))["paths"]
    for method, path in ROUTES:
        if method == "post":
            for content in paths[path][method]["requestBody"]["content"].values():
                assert content["example"]


async def test_the_documentation_page_is_there(shared_edge: httpx.AsyncClient) -> None:
    answer = await shared_edge.get("/docs")
    assert answer.status_code == 200
    assert "/openapi.json" in answer.text


async def test_metrics_tell_rate_errors_duration_staleness_and_release(shared_edge: httpx.AsyncClient) -> None:
    await shared_edge.get("/v1/north/bundles/tea")
    await shared_edge.get("/v1/north/bundles/nothing")
    await shared_edge.get("/v1/north/bundles/tea?limit=0")
    text = (await shared_edge.get("/metrics")).text
    for line in (
        'tandem_requests_total{method="GET",route="/v1/{region}/bundles/{sku:path}",status="422"} ',
        'tandem_request_seconds_count{route="/v1/{region}/bundles/{sku:path}"} ',
        'tandem_answers_total{empty="false",matched="region",region="north",stale="false"} ',
        'tandem_answers_total{empty="true",matched="none",region="north",stale="false"} ',
        'tandem_feed_connected{region="north"} 1.0',
        'tandem_stale{region="north"} 0.0',
        'tandem_live_products{region="north"} 8.0',
        'tandem_release{region="north",release="r1"} 1.0',
    ):
        assert line in text, line


async def test_a_browser_of_another_origin_may_ask(shared_edge: httpx.AsyncClient) -> None:
    headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    asked = await shared_edge.options("/v1/north/offers", headers=headers)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "*")
    answer = await shared_edge.get("/v1/north/bundles/tea", headers=headers)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "ETag" in answer.headers["access-control-expose-headers"]


async def test_a_log_line_names_the_route_and_nothing_that_was_asked(
    capfd: pytest.CaptureFixture[str], edge: httpx.AsyncClient
) -> None:
    capfd.readouterr()
    await edge.get("/v1/north/bundles/very-private?segment=families&session=abc")
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert '"status": 200' in lines[0]
    assert "private" not in lines[0]
    assert "families" not in lines[0]
