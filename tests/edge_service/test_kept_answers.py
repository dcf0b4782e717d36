"""Whatever changes, and in whatever order it is asked for: what is kept is told as if it had been worked out anew."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from edge_service.app import create_app
from edge_service.region_store import LiveRow, RegionStore
from tandem.bundle import AnchorList, Component, Listed, Story, Substitute, bundle_id
from tandem.offer import Live, Offer, price
from tests.edge_service.conftest import (
    BUNDLES,
    LISTS,
    PRODUCTS,
    TEA_CUP,
    TEA_JAM,
    TEA_POT,
    Clock,
    RedisProcess,
    bundle,
    client_of,
    now,
    publish,
    ready,
    region_at,
    settings,
    tell,
)

pytestmark = pytest.mark.servers

MUG_TEA = bundle(Component("tea", 1, 300), Component("mug", 2, 200), discount_bps=700)
"""What TEA_CUP is once mugs stand in for cups."""
SHARED = bundle(
    Component("jam", 2, 100, (Substitute("oil"),)), Component("pot", 1, None, (Substitute("oil"), Substitute("pan")))
)
HELD = {each.id: each for each in [*BUNDLES, MUG_TEA, SHARED]}
OWN = Listed(TEA_CUP.id, 0.5, "segment", Story(9, 2.5, 2_000))
RANKED = [
    *LISTS[1:],
    AnchorList(
        "*", "tea",
        (
            Listed(TEA_CUP.id, 0.3, "region"), Listed(MUG_TEA.id, 0.25, "region"), Listed(TEA_POT.id, 0.2, "global"),
            Listed(SHARED.id, 0.1, "popular"),
        ),
    ),
    AnchorList("everyone", "tea", (OWN, Listed(TEA_JAM.id, 0.1, "region"))),
]  # fmt: skip
PLACES = {(each.segment, each.anchor): each.bundles for each in RANKED}
SKUS = [row.sku for row in PRODUCTS]


class Shop:
    """An edge that is asked over HTTP, and what it should know."""

    def __init__(self, runner: asyncio.Runner, client: httpx.AsyncClient, clock: Clock) -> None:
        self._runner, self._client, self._clock = runner, client, clock
        self.live = {row.sku: Live(row.stock, row.list_price, row.sale_price) for row in PRODUCTS}

    def tell(self, sku: str, values: Mapping[str, int | None]) -> None:
        self._runner.run(tell(self._client, self._clock, sku, **values))
        fields = {name: getattr(self.live[sku], name) for name in ("stock", "list_price", "sale_price")}
        self.live[sku] = Live(**(fields | dict(values)))

    def get(self, path: str) -> httpx.Response:
        return self._runner.run(self._client.get(path))

    def post(self, path: str, body: Any) -> Any:
        return self._runner.run(self._client.post(path, json=body)).json()


@pytest.fixture(scope="module")
def shop(shared_redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    region, clock = region_at(shared_redis.url.removesuffix("0") + "14"), Clock()
    with RegionStore(region) as store:
        store.seed_live(PRODUCTS, now(clock))
        publish(store, "r1", list(HELD.values()), RANKED)
    with asyncio.Runner() as runner:
        made = client_of(create_app(settings(tmp_path_factory.mktemp("home")), [region], clock=clock))
        client = runner.run(made.__aenter__())
        runner.run(ready(client))
        yield Shop(runner, client, clock)
        runner.run(made.__aexit__(None, None, None))


def expected(shop: Shop, segment: str, anchor: str, limit: int, **more: Any) -> list[tuple[Listed, Offer]]:
    """Each bundle of the list worked out from nothing."""
    found: dict[str, tuple[Listed, Offer]] = {}
    for listed in PLACES.get((segment, anchor)) or PLACES.get(("*", anchor), ()):
        offer = price(listed.tell(HELD[listed.bundle_id]), shop.live.get, **more)
        if offer is not None:
            found.setdefault(bundle_id((part.sku, part.quantity) for part in offer.components), (listed, offer))
    return list(found.values())[:limit]


def same(told: Mapping[str, Any], listed: Listed, offer: Offer) -> None:
    of = listed.tell(HELD[listed.bundle_id])
    assert {name: told[name] for name in ("id", "list_total", "offer_total", "discount", "sellable")} == {
        "id": offer.id, "list_total": offer.list_total, "offer_total": offer.offer_total, "discount": offer.discount,
        "sellable": offer.sellable,
    }  # fmt: skip
    parts = [(c.sku, c.quantity, c.unit_price, c.offer_price, c.substituted_for) for c in offer.components]
    assert [tuple(part.values()) for part in told["components"]] == parts
    evidence = {"orders_together": of.orders_together, "confidence": listed.confidence, "lift": of.lift}
    assert told["evidence"] == evidence


amounts = st.integers(0, 12) | st.integers(200, 2_500)
changes = st.tuples(
    st.sampled_from(SKUS),
    st.dictionaries(st.sampled_from(["stock", "list_price"]), amounts, min_size=1)
    | st.fixed_dictionaries({"sale_price": st.none() | amounts}),
)
asked = st.tuples(
    st.sampled_from(["*", "families", "everyone"]), st.sampled_from(["tea", "cup", "pan"]), st.integers(1, 4)
)
steps = st.lists(
    st.tuples(st.lists(changes, max_size=4), st.lists(asked, min_size=1, max_size=4)), min_size=1, max_size=5
)
few = examples(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(steps)
def test_bundles_are_told_as_if_nothing_had_been_kept(shop: Shop, steps: Any) -> None:
    for told, questions in steps:
        for change in told:
            shop.tell(*change)
        for segment, anchor, limit in questions:
            answer = shop.get(f"/v1/north/bundles/{anchor}?segment={segment}&limit={limit}")
            wanted, bundles = expected(shop, segment, anchor, limit), answer.json()["bundles"]
            assert len(bundles) == len(wanted)
            for one, (listed, offer) in zip(bundles, wanted, strict=True):
                same(one, listed, offer)


carts = st.dictionaries(st.sampled_from(SKUS), st.integers(1, 5), max_size=4)


@few
@given(st.lists(changes, max_size=4), carts, st.frozensets(st.sampled_from(SKUS), max_size=2), st.integers(1, 4))
def test_offers_for_a_cart_are_told_as_if_nothing_had_been_kept(
    shop: Shop, told: Any, cart: dict[str, int], exclude: frozenset[str], limit: int
) -> None:
    for change in told:
        shop.tell(*change)
    lines = [{"sku": sku, "quantity": units} for sku, units in cart.items()]
    question = {"skus": ["tea"], "cart": lines, "exclude": list(exclude), "limit": limit}
    answer = shop.post("/v1/north/offers", question)
    for one in answer["bundles"]:
        listed = next(place for places in PLACES.values() for place in places if place.bundle_id == one["id"])
        offer = price(HELD[one["id"]], shop.live.get, cart=cart, exclude=exclude)
        assert offer is not None
        confidence = max(
            place.confidence for anchor in {"tea", *cart} for place in PLACES.get(("*", anchor), ())
            if place.bundle_id == one["id"]
        )  # fmt: skip
        same(one, Listed(listed.bundle_id, confidence, listed.matched), offer)
        assert {part["sku"]: part["quantity"] for part in one["missing"]} == {
            part.sku: part.quantity - cart.get(part.sku, 0)
            for part in offer.components
            if part.quantity > cart.get(part.sku, 0)
        }
        assert one["missing"], "what the cart holds whole is not offered"
    held = {name for name, of in HELD.items() if all(cart.get(part.sku, 0) >= part.quantity for part in of.components)}
    assert {one["id"] for one in answer["complete"]} <= held
    assert not held & {one["id"] for one in answer["bundles"]}
    shown = {one["id"] for one in answer["bundles"]} | held
    ranked = {place.bundle_id for anchor in {"tea", *cart} for place in PLACES.get(("*", anchor), ())}
    for left_out in ranked - shown if len(answer["bundles"]) < limit else ():
        offer = price(HELD[left_out], shop.live.get, cart=cart, exclude=exclude)
        assert offer is None or bundle_id((part.sku, part.quantity) for part in offer.components) in {
            bundle_id((part["sku"], part["quantity"]) for part in one["components"]) for one in answer["bundles"]
        }


@few
@given(changes)
def test_an_etag_stays_exactly_as_long_as_its_answer(shop: Shop, change: Any) -> None:
    def seen() -> tuple[str, Any]:
        answer = shop.get("/v1/north/bundles/tea")
        return answer.headers["etag"], answer.json()["bundles"]

    before = seen()
    shop.tell(*change)
    after = seen()
    assert (before[0] == after[0]) == (before[1] == after[1])


@few
@given(changes)
def test_a_quote_holds_what_the_answer_says(shop: Shop, change: Any) -> None:
    shop.tell(*change)
    bundles = shop.get("/v1/north/bundles/tea").json()["bundles"]
    bundles += shop.post("/v1/north/offers", {"skus": ["tea"], "cart": [{"sku": "tea"}]})["bundles"]
    for one in bundles:
        told = shop.post("/v1/north/quotes/verify", {"token": one["quote"]["token"]})
        quoted = [(part["sku"], part["quantity"], part["offer_price"]) for part in told["quote"]["components"]]
        offered = [(part["sku"], part["quantity"], part["offer_price"]) for part in one["components"]]
        assert (told["valid"], quoted, told["quote"]["offer_total"]) == (True, offered, one["offer_total"])


def test_a_product_with_a_percent_sign_or_a_quote_in_its_name_is_told_as_it_is(
    clean_redis: RedisProcess, tmp_path: Path
) -> None:
    odd = ['50%d "off"', "100 %", "é\\/"]
    part = bundle(*[Component(sku, 1) for sku in odd])
    with RegionStore(region_at(clean_redis.url)) as store:
        publish(store, "r1", [part], [AnchorList("*", odd[0], (Listed(part.id, 0.5, "region"),))])
        store.seed_live([LiveRow(sku=sku, stock=5, list_price=500) for sku in odd], now(Clock()))

    async def told() -> Any:
        async with client_of(create_app(settings(tmp_path), [region_at(clean_redis.url)])) as client:
            await ready(client)
            answer = await client.post("/v1/north/offers", json={"skus": [odd[0]]})
            return answer.json()["bundles"][0]["components"]

    assert [each["sku"] for each in asyncio.run(told())] == odd
