"""Byte for byte: what stays inside is in no answer, and who asked for what is in no log, metric or span."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from edge_service.app import create_app
from edge_service.region_store import LiveRow, RegionStore
from tandem.bundle import AnchorList, Bundle, Component, Listed, Substitute, bundle_id
from tandem.clients import Client, hash_of, written
from tests.edge_service.conftest import DELTA_KEY, QUOTE_KEYS, Clock, client_of, now, publish, ready, settings
from tests.edge_service.test_traces import collecting

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

FLOORS = (733_914_266_871, 417_196_833_529, 388_675_914_263)
"""No price or total is any of these or holds its digits, and no time of day does by chance."""
KEY, PURPOSE, SESSION, EVENT = "key-q7x-key-q7x-key", "purpose-q7x", "session-q7x", "event-q7x"
SEGMENT, SKU, ABSENT = "segment-q7x", "sku-q7x", "absent-q7x"
ADDRESS, AGENT, COOKIE, REFERER = "203.0.113.77", "agent-q7x", "cookie-q7x", "https://shop.example/referer-q7x"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
INSIDE = [*map(str, FLOORS), "floor", "cost", "margin", PURPOSE, SESSION, EVENT, KEY, DELTA_KEY, hash_of(KEY),
          QUOTE_KEYS.partition(":")[2], ADDRESS, AGENT, COOKIE]  # fmt: skip
"""In no answer."""
ASKED = [SKU, ABSENT, SEGMENT, REFERER, "q7x"]
"""Beside those in no log, metric or span."""


def the_bundle() -> Bundle:
    parts = (
        Component(SKU, 1, FLOORS[0], (Substitute("other", FLOORS[2]),)),
        Component("with-it", 1, FLOORS[1]),
    )
    return Bundle(bundle_id((part.sku, part.quantity) for part in parts), parts, 1_000, 30, 4.5)


@pytest.fixture
def stocked(store: RegionStore, clock: Clock) -> RegionStore:
    made = the_bundle()
    places = (Listed(made.id, 0.3, "region"),)
    publish(store, "r1", [made], [AnchorList("*", SKU, places), AnchorList(SEGMENT, SKU, places)])
    prices = {SKU: 990_000_000_000, "with-it": 660_000_000_000}
    store.seed_live([LiveRow(sku=sku, stock=9, list_price=price) for sku, price in prices.items()], now(clock))
    return store


async def everything(edge: httpx.AsyncClient, clock: Clock) -> AsyncIterator[httpx.Response]:
    """The answers of every route, good and bad."""
    made, headers = the_bundle(), {"Authorization": f"Bearer {KEY}"}
    query = f"?segment={SEGMENT}&consents={PURPOSE}"
    event = {"kind": "click", "event_id": EVENT, "at": "2026-01-05T12:00:00Z", "release": "r1", "bundle_id": made.id,
             "session_id": SESSION, "consents": [PURPOSE]}  # fmt: skip
    paths = [
        f"bundles/{SKU}",
        f"bundles/{SKU}{query}",
        f"bundles/{ABSENT}{query}",
        f"bundles/{SKU}?limit=0&{query[1:]}",
        f"bundles/{made.id}/explain{query}&anchor={SKU}",
        f"bundles/{ABSENT}/explain",
        f"live?skus={SKU}",
        "bundles/" + "q7x" * 99,
        "live",
    ]
    for path in paths:
        yield await edge.get(f"/v1/north/{path}", headers=headers)
    cart = {"cart": [{"sku": SKU, "quantity": 1}], "segment": SEGMENT, "consents": [PURPOSE], "exclude": [ABSENT]}
    offers = await edge.post("/v1/north/offers", json=cart, headers=headers)
    yield offers
    yield await edge.post("/v1/north/offers", json=cart | {"limit": 0}, headers=headers)
    token = offers.json()["bundles"][0]["quote"]["token"]
    for body in ({"token": token, "once": True}, {"token": token, "once": True}, {"token": "q7x"}):
        yield await edge.post("/v1/north/quotes/verify", json=body, headers=headers)
    for events in ([event], [event | {"kind": "q7x"}]):
        yield await edge.post("/v1/north/events", json=events, headers=headers)
    delta = {"sku": SKU, "stock": 8, "sequence": 1, "at": now(clock).isoformat()}
    for line in (delta, delta | {"stock": "q7x"}):
        yield await edge.post("/v1/north/deltas", json=line, headers={"X-Tandem-Key": DELTA_KEY})
    yield await edge.post("/v1/north/deltas", json=delta, headers=headers)
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs", f"/{ABSENT}"):
        yield await edge.get(path, headers=headers)


async def test_what_is_inside_stays_inside_and_nobody_is_told_of(
    stocked: RegionStore, tmp_path: Path, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").mkdir()
    known = Client(name="shop", sha256=[hash_of(KEY)], scopes=["read", "verify"], rate=1_000)
    (tmp_path / "config" / "clients.toml").write_text(written(known))
    region = msgspec.structs.replace(stocked.region, consent_purposes=[PURPOSE])
    with collecting() as collector:
        values = settings(tmp_path, trace_endpoint=collector.endpoint, trace_share=1.0, open_scopes="admin")
        app = create_app(values, [region], clock=clock)
        async with client_of(app) as plain:
            await ready(plain)
            transport = httpx.ASGITransport(app, client=(ADDRESS, 4711))
            about = {
                "User-Agent": AGENT,
                "Cookie": COOKIE,
                "Referer": REFERER,
                "traceparent": f"00-{TRACE}-{'1' * 16}-01",
            }
            edge = httpx.AsyncClient(transport=transport, base_url="http://edge", headers=about)
            told = [answer async for answer in everything(edge, clock)]
            metrics = (await edge.get("/metrics")).text
    log = capfd.readouterr().err
    assert {answer.status_code for answer in told} == {200, 202, 403, 404, 422}
    assert json.loads(told[1].content)["segment"] == SEGMENT, "with its consent the segment was used"
    documents = {"/openapi.json", "/docs"}
    for answer in told:
        text = str(answer.headers) + answer.text
        words = [word for word in INSIDE if word not in ("floor", "cost", "margin") or answer.url.path not in documents]
        assert [word for word in words if word in text] == [], answer.url.path
    assert len(collector.spans) >= len(told)
    assert log.count('"event": "request"') >= len(told) - 3
    spans = b"".join(collector.bodies).decode("latin-1")
    for name, text in {"log": log, "metrics": metrics, "spans": spans}.items():
        assert [word for word in INSIDE + ASKED if word in text] == [], name


async def test_a_failure_is_logged_without_what_was_asked(
    stocked: RegionStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A connection to Redis that breaks while an event is on its way: 503, and a line that names no one."""
    app = create_app(settings(tmp_path), [stocked.region])
    async with client_of(app) as edge:
        await ready(edge)
        app.edge.served["north"].reader.close()
        app.edge.served["north"].reader._primary._addresses[0]["port"] = 1
        event = {"kind": "click", "event_id": EVENT, "at": "2026-01-05T12:00:00Z", "release": "r1", "bundle_id": "b",
                 "session_id": SESSION}  # fmt: skip
        told = await edge.post("/v1/north/events", json=[event])
    assert told.status_code == 503
    log = capfd.readouterr().err
    assert '"status": 503' in log
    assert EVENT not in log + told.text
    assert SESSION not in log + told.text
