"""The service as a machine sees it: readiness, metrics, problems, what a browser may ask, and the gateway before it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import jsonschema
import pytest

from benchmarks import _gateway
from deploy.services import free_ports
from tests.orders.conftest import DELTA_KEY, TEA_AND_CUPS, Shop, quote, serving, stocked
from tests.orders.test_faults import ONE_SERVER, Service, service

__all__ = ["service"]
pytestmark = [pytest.mark.servers, pytest.mark.anyio]


async def test_without_its_database_it_is_not_ready_and_says_to_send_again(tmp_path: Path) -> None:
    async with serving(f"host=127.0.0.1 port={free_ports(1)[0]} dbname=none", tmp_path) as shop:
        assert (await shop.client.get("/healthz")).status_code == 200
        assert (await shop.client.get("/readyz")).status_code == 503
        answer = await shop.buy(quote(*TEA_AND_CUPS))
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:tandem:problem:unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "same Idempotency-Key" in answer.json()["detail"]


async def test_metrics_tell_of_requests_by_route_and_of_what_waits_in_the_outbox(shop: Shop) -> None:
    await shop.buy(quote(*TEA_AND_CUPS))
    text = (await shop.client.get("/metrics")).text
    assert 'tandem_orders_requests_total{route="/v1/{region}/checkout",status="201"} 1.0' in text
    assert "tandem_outbox_waiting 3.0" in text


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/v1/atlantis/checkout", b"{}", 404, "region"),
        ("/v1/east/checkout", b"{", 400, "body"),
        ("/v1/east/checkout", b"{}", 422, "quotes"),
        ("/v1/east/checkout", b'{"quotes": []}', 422, "quotes"),
        ("/v1/east/checkout", b'{"quotes": ["a"], "reservation_id": "x"}', 422, "reservation_id"),
        ("/v1/east/stock", b'{"movements": [{"sku": "\\u0000", "change": 1}]}', 422, "body"),
        ("/v1/east/checkout", b" " * (2**20 + 1), 413, "body"),
    ],
)
async def test_a_question_that_is_wrong_gets_its_field_named(
    shop: Shop, path: str, body: bytes, status: int, field: str
) -> None:
    headers = {"Idempotency-Key": "k", "X-Tandem-Key": DELTA_KEY}
    answer = await shop.client.post(path, content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["errors"][0]["field"] == field


async def test_a_browser_of_another_origin_may_buy(shop: Shop) -> None:
    asked = {
        "Origin": "http://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,idempotency-key",
    }
    answer = await shop.client.options("/v1/east/checkout", headers=asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")


PROBLEMS = {"401", "403", "404", "422", "429", "503"}
ONCE = {"400", "408", "409", "413", *PROBLEMS}


async def test_the_openapi_document_names_every_route_with_its_answers_and_problems(shop: Shop) -> None:
    document = (await shop.client.get("/openapi.json")).json()
    found = {
        f"{method} {path.removeprefix('/v1/{region}')}": set(told["responses"])
        for path, routes in document["paths"].items()
        for method, told in routes.items()
    }
    assert found == {
        "post /checkout": {"201", *ONCE},
        "post /reservations": {"201", *ONCE},
        "delete /reservations/{reservation_id}": {"204", "409", *PROBLEMS},
        "get /orders/{order_id}": {"200", *PROBLEMS},
        "post /orders/{order_id}/returns": {"201", *ONCE},
        "post /stock": {"200", *ONCE},
        "get /stock": {"200", *PROBLEMS},
    }
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named <= document["components"]["schemas"].keys()
    for path in ("checkout", "stock"):
        parameters = document["paths"][f"/v1/{{region}}/{path}"]["post"]["parameters"]
        (key,) = [each for each in parameters if each["in"] == "header"]
        assert (key["name"], key["required"]) == ("Idempotency-Key", True)


async def test_an_order_is_as_the_document_says(shop: Shop) -> None:
    document = (await shop.client.get("/openapi.json")).json()
    answer = (await shop.buy(quote(*TEA_AND_CUPS))).json()
    schema = {"$ref": "#/components/schemas/OrderAnswer", "components": document["components"]}
    jsonschema.validate(answer, schema)


async def test_where_checkout_is_not_open_it_needs_a_key(dsn: str, tmp_path: Path) -> None:
    stocked(dsn, tea=1, cup=3)
    async with serving(dsn, tmp_path, open_scopes="read") as shop:
        assert (await shop.buy(quote(*TEA_AND_CUPS))).status_code == 401


async def test_an_address_may_ask_no_more_than_its_share(dsn: str, tmp_path: Path) -> None:
    async with serving(dsn, tmp_path, address_rate=1, address_burst=2) as shop:
        answers = [await shop.client.get("/v1/east/stock?skus=a") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert answers[2].headers["retry-after"] == "1"


@ONE_SERVER
def test_the_gateway_brings_checkout_here_and_all_else_to_the_edge(
    dsn: str, service: Service, tmp_path: Path, require: Callable[[str], str]
) -> None:
    require("nginx")
    stocked(dsn, tea=5)
    away = free_ports(1)[0]
    with _gateway.up(tmp_path / "gateway", away, orders_port=service.port) as port:
        url = f"http://127.0.0.1:{port}/v1/east"
        body, headers = {"quotes": [quote(("tea", 1, 450))]}, {"Idempotency-Key": "k"}
        bought = [httpx.post(f"{url}/checkout", json=body, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in bought] == [201, 201]
        assert bought[0].content == bought[1].content
        assert httpx.get(f"{url}/stock?skus=tea").status_code == 401
        assert httpx.get(f"{url}/bundles/tea").status_code == 503
