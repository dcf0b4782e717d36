"""The OpenAPI document names every route, with its answers and its problems."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import httpx
import jsonschema
import pytest

from edge_service.hot_routes import GET_BUNDLES, POST_OFFERS, HotRoutes

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


async def test_the_documentation_page_shows_every_route_and_shape_without_a_script(
    shared_edge: httpx.AsyncClient,
) -> None:
    answer = await shared_edge.get("/docs")
    assert answer.status_code == 200
    told = await document(shared_edge)
    for method, path in ROUTES:
        assert f"{method.upper()} {path}" in answer.text
    assert all(f"id={name}" in answer.text for name in told["components"]["schemas"])
    assert "<script" not in answer.text
    assert not re.search(r"(src|href)=\W?(https?:)?//", answer.text), "nothing comes from elsewhere"
    policy = answer.headers["content-security-policy"]
    (style,) = re.findall("<style>(.*?)</style>", answer.text, re.DOTALL)
    assert b64encode(sha256(style.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_problems_come_with_examples_and_headers(shared_edge: httpx.AsyncClient) -> None:
    paths = (await document(shared_edge))["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if int(status) < 400 or path == "/readyz":
                    continue
                content = response["content"]["application/problem+json"]
                assert content["example"]["status"] == int(status), (method, path)
                assert status not in {"429", "503"} or "Retry-After" in response["headers"]
            for content in operation.get("requestBody", {}).get("content", {}).values():
                assert content["example"]


async def test_the_hot_routes_are_those_of_the_document(shared_edge: httpx.AsyncClient) -> None:
    """What is answered before the framework is also there in it, and answers the same."""
    transport = shared_edge._transport
    assert isinstance(transport, httpx.ASGITransport)
    app = transport.app
    assert isinstance(app, HotRoutes)
    templates = {(method, path.replace(":path", "")) for method, path in (("get", GET_BUNDLES), ("post", POST_OFFERS))}
    assert templates <= ROUTES.keys()
    cart = {"cart": [{"sku": "tea", "quantity": 1}], "quotes": False}
    asked = [
        ("GET", "/v1/north/bundles/tea?limit=2", None),
        ("GET", "/v1/north/bundles/none", None),
        ("GET", "/v1/north/bundles/tea?segment=families&consents=a,b", None),
        ("POST", "/v1/north/offers", cart),
        ("POST", "/v1/north/offers", {}),
        ("POST", "/v1/north/offers", {"skus": ["tea"], "limit": 0}),
    ]
    framework = httpx.AsyncClient(transport=httpx.ASGITransport(app._asgi), base_url="http://edge")
    for method, path, body in asked:
        hot = await shared_edge.request(method, path, json=body)
        cold = await framework.request(method, path, json=body)
        assert (hot.status_code, hot.json()) == (cold.status_code, cold.json()), path
        names = {"content-type", "cache-control", "etag"}
        assert {n: hot.headers.get(n) for n in names} == {n: cold.headers.get(n) for n in names}, path


async def test_answers_are_what_the_document_says(shared_edge: httpx.AsyncClient) -> None:
    """Every route's good answer has all the fields that its shape names, and no other."""
    told = await document(shared_edge)
    quote = (await shared_edge.get("/v1/north/bundles/tea")).json()["bundles"][0]
    asked = {
        ("get", "/v1/{region}/bundles/{sku}"): shared_edge.get("/v1/north/bundles/tea"),
        ("get", "/v1/{region}/bundles/{id}/explain"): shared_edge.get(f"/v1/north/bundles/{quote['id']}/explain"),
        ("post", "/v1/{region}/offers"): shared_edge.post("/v1/north/offers", json={"cart": [{"sku": "tea"}]}),
        ("get", "/v1/{region}/live"): shared_edge.get("/v1/north/live?skus=tea"),
        ("post", "/v1/{region}/quotes/verify"): shared_edge.post(
            "/v1/north/quotes/verify", json={"token": quote["quote"]["token"]}
        ),
        ("get", "/healthz"): shared_edge.get("/healthz"),
        ("get", "/readyz"): shared_edge.get("/readyz"),
    }
    for (method, path), asking in asked.items():
        answer = await asking
        schema = told["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]
        validator = jsonschema.Draft202012Validator(closed({**schema, "components": told["components"]}))
        assert [error.message for error in validator.iter_errors(answer.json())] == [], path


def closed(node: Any) -> Any:
    """The same schema, with no fields but those that it names."""
    if isinstance(node, list):
        return [closed(each) for each in node]
    if not isinstance(node, dict):
        return node
    held = {name: closed(value) for name, value in node.items()}
    return held | {"additionalProperties": False} if isinstance(held.get("properties"), dict) else held


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
