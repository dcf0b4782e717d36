"""One abuse for each of the OWASP API Security Top 10 (2023 edition), tried on an edge as an attacker would."""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import anyio
import httpx
import pytest
import redis

from edge_service.app import create_app
from edge_service.region_store import DELTAS, LIVE, RegionStore
from tandem.clients import Client, hash_of, written
from tests.edge_service.conftest import (
    DELTA_KEY,
    PRODUCTS,
    Clock,
    client_of,
    now,
    publish,
    ready,
    region_at,
    settings,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

TEA = "/v1/north/bundles/tea"
SHOP, CHECKOUT = "the-key-of-the-storefront", "the-key-of-the-checkout"
ORIGIN = "https://shop.example"
WAYS_TO_DELTAS = (
    "/v1/north/deltas",
    "/v1/north/deltas/",
    "/v1/north/deltas%0A",
    "//v1/north/deltas",
    "/v1/north//deltas",
    "/V1/north/deltas",
    "/v1/north/%64eltas",
    "/v1/north/deltas?x=/bundles/tea",
    "/v1/north/deltas;x",
)
NOT_THERE = (
    "/v0/north/live",
    "/v2/north/live",
    "/v1",
    "/admin",
    "/debug",
    "/redoc",
    "/docs/oauth2-redirect",
    "/.env",
    "/.git/config",
    "/metrics/",
    "/server-status",
    "/actuator/health",
    "/graphql",
)


@pytest.fixture
async def shut(published: RegionStore, tmp_path: Path, clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    """An edge of two regions that nobody may ask without a key, for one origin, with limits."""
    south = region_at(published.region.redis_url.removesuffix("0") + "4", "south")
    with RegionStore(south) as store:
        publish(store, "r1")
        store.seed_live(PRODUCTS, now(clock))
    known = [
        Client(name="shop", sha256=[hash_of(SHOP)], scopes=["read"], rate=5, burst=100),
        Client(name="checkout", sha256=[hash_of(CHECKOUT)], scopes=["verify"]),
    ]
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "clients.toml").write_text("\n".join(map(written, known)))
    values = {"open_scopes": "", "cors_origins": ORIGIN, "address_rate": 100, "address_burst": 400}
    app = create_app(settings(tmp_path, **values), [published.region, south], clock=clock)
    async with client_of(app) as client:
        await ready(client)
        yield client


def key(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def verified(edge: httpx.AsyncClient, token: str, region: str = "north", **more: object) -> dict:  # type: ignore[type-arg]
    asked = await edge.post(f"/v1/{region}/quotes/verify", json={"token": token, **more}, headers=key(CHECKOUT))
    assert asked.status_code == 200, asked.text
    return asked.json()


async def offered(edge: httpx.AsyncClient, **question: object) -> dict:  # type: ignore[type-arg]
    asked = await edge.post("/v1/north/offers", json=question, headers=key(SHOP))
    assert asked.status_code == 200, asked.text
    return asked.json()


async def test_api1_broken_object_level_authorization(shut: httpx.AsyncClient) -> None:
    """An object is reached only where it belongs: a quote in its region, once, and unaltered."""
    token = (await offered(shut, skus=["tea"]))["bundles"][0]["quote"]["token"]
    assert (await verified(shut, token, "south"))["fault"] == "wrong_region"
    assert (await verified(shut, token, once=True))["valid"]
    assert (await verified(shut, token, once=True))["fault"] == "used", "somebody else's use does not count again"
    for sku in ("../south/bundles/tea", "tea/../../south", "..%2f..%2fsouth%2flive"):
        told = await shut.get(f"/v1/north/bundles/{sku}", headers=key(SHOP))
        assert told.status_code in (200, 404)
        assert told.status_code == 404 or (told.json()["region"], told.json()["bundles"]) == ("north", [])


async def test_api2_broken_authentication(shut: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no half key, no key of other forms; no time tells a nearly right one; who tries many is held off."""
    for headers in ({}, key(""), key(SHOP[:-1]), key(SHOP + " x"), {"Authorization": SHOP}, {"X-Api-Key": SHOP},
                    {"Cookie": f"key={SHOP}"}):  # fmt: skip
        assert (await shut.get(TEA, headers=headers)).status_code == 401
    assert (await shut.get(f"{TEA}?key={SHOP}")).status_code == 401, "no key in an address, which logs would keep"
    with monkeypatch.context() as patched:
        compared: list[bytes] = []
        patched.setattr(hmac, "compare_digest", lambda given, held: compared.append(held) or given == held)
        for text in (SHOP, CHECKOUT, "guess"):
            compared.clear()
            await shut.get(TEA, headers=key(text))
            assert len(set(compared)) == 3, "whatever comes is compared with every key that is held"
    statuses = [(await shut.get(TEA, headers=key(f"guess-{number}"))).status_code for number in range(40)]
    assert set(statuses) == {401, 429}
    assert (await shut.get(TEA, headers=key(SHOP))).status_code == 200, "and the right key is not shut out by it"


async def test_api3_broken_object_property_level_authorization(shut: httpx.AsyncClient) -> None:
    """Nobody sets a field that is not theirs to set, nor sees one that is not theirs to see."""
    for field in ("offer_total", "discount_bps", "floor", "price", "release", "currency"):
        asked = await shut.post("/v1/north/offers", json={"skus": ["tea"], field: 1}, headers=key(SHOP))
        assert (asked.status_code, asked.json()["errors"][0]["field"]) == (422, field)
    line = {"sku": "tea", "sequence": 1, "at": "2026-01-05T12:00:00Z", "stock": 1}
    for field in ("floor", "unit_cost", "cost"):
        asked = await shut.post("/v1/north/deltas", json=line | {field: 1}, headers=key(DELTA_KEY))
        assert (asked.status_code, asked.json()["errors"][0]["field"]) == (422, f"line 1.{field}")
    told = await offered(shut, skus=["tea", "pan"], cart=[{"sku": "cup"}])
    shown = set(_names(told))
    assert not shown & {"floor", "floor_price", "cost", "unit_cost", "margin", "discount_bps", "score", "customer_id"}


def _names(node: object) -> list[str]:
    if isinstance(node, dict):
        return [*node, *[name for value in node.values() for name in _names(value)]]
    return [name for value in node for name in _names(value)] if isinstance(node, list) else []


async def test_api4_unrestricted_resource_consumption(shut: httpx.AsyncClient) -> None:
    """Every dimension of a question has a bound, and so has their number."""
    cart = [{"sku": f"s{number}", "quantity": 1} for number in range(1_001)]
    for body in ({"cart": cart}, {"skus": ["a"] * 101}, {"skus": ["tea"], "limit": 51}, {"skus": ["a" * 129]},
                 {"skus": ["tea"], "exclude": ["a"] * 1_001}, {"skus": ["tea"], "consents": ["a"] * 51}):  # fmt: skip
        assert (await shut.post("/v1/north/offers", json=body, headers=key(SHOP))).status_code == 422
    huge = b'{"skus":["' + b"a" * 2**20 + b'"]}'
    assert (await shut.post("/v1/north/offers", content=huge, headers=key(SHOP))).status_code == 413
    bomb = {**key(SHOP), "Content-Encoding": "gzip"}
    assert (await shut.post("/v1/north/offers", content=b"\x1f\x8b" + b"\x00" * 64, headers=bomb)).status_code == 400
    told = [await shut.get(TEA, headers=key(SHOP)) for _ in range(150)]
    refused = [each for each in told if each.status_code != 200]
    assert refused
    assert {(each.status_code, each.headers["retry-after"]) for each in refused} == {(429, "1")}


async def test_api5_broken_function_level_authorization(shut: httpx.AsyncClient) -> None:
    """A key for one thing opens no other, whatever the method or the way that the address is written."""
    beat = '{"at":"2026-01-05T12:00:00Z"}'
    for path in WAYS_TO_DELTAS:
        for method in ("POST", "PUT", "PATCH", "GET"):
            asked = await shut.request(method, path, content=beat, headers=key(SHOP))
            assert asked.status_code in (403, 404, 405), (method, path)
    override = {**key(SHOP), "X-HTTP-Method-Override": "POST", "X-Original-URL": "/v1/north/deltas"}
    assert (await shut.get("/v1/north/live?skus=tea", headers=override)).json()["products"][0]["stock"] == 20
    assert (await shut.get("/metrics", headers=key(SHOP))).status_code == 403
    assert (await shut.post("/v1/north/quotes/verify", json={"token": "x"}, headers=key(SHOP))).status_code == 403


async def test_api6_unrestricted_access_to_sensitive_business_flows(shut: httpx.AsyncClient, clock: Clock) -> None:
    """One discount is not taken many times: of a hundred who hand in one quote at once, one gets it, in its time."""
    bundles = (await offered(shut, skus=["tea"]))["bundles"]
    token = bundles[0]["quote"]["token"]
    told = await asyncio.gather(*[verified(shut, token, once=True) for _ in range(100)])
    assert sum(each["valid"] for each in told) == 1
    clock.ahead_seconds = timedelta(hours=1).total_seconds()
    assert (await verified(shut, bundles[1]["quote"]["token"]))["fault"] == "expired"


async def test_api7_server_side_request_forgery(shut: httpx.AsyncClient) -> None:
    """An address in a question is a name like any other: nobody is called."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.5)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/"
        headers = {**key(SHOP), "X-Forwarded-Host": url[7:-1], "Forwarded": f"host={url[7:-1]}", "Referer": url,
                   "X-Forwarded-For": url, "Host": url[7:-1]}  # fmt: skip
        await shut.get(f"/v1/north/bundles/{url}", headers=headers)
        await shut.get("/v1/north/live", params={"skus": url}, headers=headers)
        await shut.post("/v1/north/offers", json={"skus": [url], "segment": "s", "exclude": [url]}, headers=headers)
        await shut.post("/v1/north/quotes/verify", json={"token": url}, headers=key(CHECKOUT))
        with pytest.raises(TimeoutError):
            await anyio.to_thread.run_sync(trap.accept)


async def test_api8_security_misconfiguration(shut: httpx.AsyncClient) -> None:
    """Only the named origin, no credentials, no insides in errors, no cached secrets, pages that load nothing."""
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    foreign = await shut.options("/v1/north/offers", headers={"Origin": "https://evil.example", **preflight})
    own = await shut.options("/v1/north/offers", headers={"Origin": ORIGIN, **preflight})
    assert "access-control-allow-origin" not in foreign.headers
    assert own.headers["access-control-allow-origin"] == ORIGIN
    hot = await shut.get(TEA, headers={"Origin": "https://evil.example", **key(SHOP)})
    assert "access-control-allow-origin" not in hot.headers
    for told in (own, hot):
        assert "access-control-allow-credentials" not in told.headers
    for path in ("/v1/north/live?skus=" + "x" * 300, "/v1/%00/live", "/nothing", "/v1/north/bundles/%FF"):
        told = await shut.get(path, headers=key(SHOP))
        assert told.status_code < 500
        assert not [word for word in ("Traceback", "File ", "127.0.0.1", "redis", "site-packages") if word in told.text]
        assert told.headers["cache-control"] != "public"
    problem = await shut.get("/nothing", headers=key(SHOP))
    assert problem.headers["x-content-type-options"] == "nosniff"
    page = await shut.get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert (await shut.request("TRACE", TEA, headers=key(SHOP))).status_code == 405


async def test_api9_improper_inventory_management(shut: httpx.AsyncClient) -> None:
    """What answers is in the document; nothing old, hidden or for debugging is."""
    told = (await shut.get("/openapi.json")).json()["paths"]
    app = shut._transport.app.edge  # type: ignore[attr-defined]
    assert app.served.keys() == {"north", "south"}
    for path in NOT_THERE:
        assert path not in told
        assert (await shut.get(path, headers=key(SHOP))).status_code == 404, path
    unkeyed = {path for path, methods in told.items() for each in methods.values() if "x-scope" not in each}
    assert unkeyed == {"/healthz", "/readyz"}, "everything else has a scope"


async def test_api10_unsafe_consumption_of_apis(
    shut: httpx.AsyncClient, published: RegionStore, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    """What Redis says is checked like what anyone says: broken entries are reported, and never priced."""
    before = (await shut.get(TEA, headers=key(SHOP))).json()["bundles"]
    with redis.Redis.from_url(published.region.redis_url) as client:
        client.hset(LIVE, "tea", "-5 1 1 0 1 1 x 1 1")
        client.xadd(DELTAS, {"": "9 9", "tea": "1 2 3"})
        client.xadd(DELTAS, {"": json.dumps({"stock": 1}), "cup": "-1 1 1 -1 1 1 -1 1 1"})

        async def reported() -> bool:
            return "following_failed" in capfd.readouterr().err

        await until(reported)
        during = (await shut.get(TEA, headers=key(SHOP))).json()
        assert during["stale"]
        for each in during["bundles"]:
            assert each["list_total"] == each["offer_total"] + each["discount"] > 0
        assert {each["id"] for each in during["bundles"]} <= {each["id"] for each in before}
