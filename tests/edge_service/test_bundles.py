"""What a storefront gets: ranked bundles, priced now, with their age."""

from __future__ import annotations

import httpx
import msgspec
import pytest

from edge_service.app import create_app
from edge_service.region_store import LiveRow, RegionStore
from tandem import why
from tandem.bundle import AnchorList, Listed, Story
from tandem.why import Shaped, Why
from tests.edge_service.conftest import (
    BUNDLES,
    DELTA_KEY,
    FLOORED,
    LISTS,
    PLAIN,
    PRODUCTS,
    TEA_CUP,
    TEA_JAM,
    TEA_POT,
    Clock,
    client_of,
    now,
    publish,
    ready,
    region_at,
    settings,
    tell,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

AGES = ("computed_at", "stock_as_of", "prices_as_of", "stale", "region", "release")


async def ids(client: httpx.AsyncClient, path: str) -> list[str]:
    return [each["id"] for each in (await client.get(path)).json()["bundles"]]


async def test_a_bundle_reads_as_the_design_writes_it(edge: httpx.AsyncClient) -> None:
    answer = (await edge.get("/v1/north/bundles/tea")).json()
    assert list(answer) == [
        "region", "sku", "segment", "matched", "release", "computed_at", "stock_as_of", "prices_as_of", "stale",
        "bundles",
    ]  # fmt: skip
    first = answer["bundles"][0]
    assert list(first) == [
        "id", "currency", "list_total", "offer_total", "discount", "sellable", "components", "evidence", "quote",
    ]  # fmt: skip
    assert first["id"] == TEA_CUP.id
    assert (first["list_total"], first["offer_total"], first["discount"], first["sellable"]) == (1000, 900, 100, 4)
    assert first["components"][1] == {
        "sku": "cup", "quantity": 2, "unit_price": 250, "offer_price": 450, "substituted_for": None,
    }  # fmt: skip
    assert first["evidence"] == {"orders_together": 30, "confidence": 0.3, "lift": 4.5}
    assert list(first["quote"]) == ["token", "expires_at"]


async def test_every_reported_price_adds_up(edge: httpx.AsyncClient) -> None:
    for sku in ("tea", "cup", "pan"):
        for each in (await edge.get(f"/v1/north/bundles/{sku}?segment=families")).json()["bundles"]:
            assert each["list_total"] == each["offer_total"] + each["discount"]
            assert sum(part["offer_price"] for part in each["components"]) == each["offer_total"]
            assert sum(part["unit_price"] * part["quantity"] for part in each["components"]) == each["list_total"]


async def test_a_segment_has_its_own_list_and_the_answer_says_where_the_evidence_is_from(
    edge: httpx.AsyncClient,
) -> None:
    answer = (await edge.get("/v1/north/bundles/tea?segment=families")).json()
    assert (answer["segment"], answer["matched"]) == ("families", "segment")
    assert [each["id"] for each in answer["bundles"]] == [TEA_JAM.id, TEA_CUP.id]


async def test_a_segments_own_figures_and_discount_are_told_where_they_differ(
    edge: httpx.AsyncClient, published: RegionStore
) -> None:
    own = AnchorList("families", "tea", (Listed(TEA_CUP.id, 0.4, "segment", Story(12, 9.5, 2_000)),))
    publish(published, "r2", BUNDLES, [LISTS[0], own])

    async def followed() -> bool:
        return (await edge.get("/v1/north/bundles/tea")).json()["release"] == "r2"

    await until(followed)
    for segment, figures, discount in (("families", (12, 0.4, 9.5), 200), ("*", (30, 0.3, 4.5), 100)):
        first = (await edge.get(f"/v1/north/bundles/tea?segment={segment}")).json()["bundles"][0]
        assert (tuple(first["evidence"].values()), first["discount"]) == (figures, discount)
        told = (await edge.get(f"/v1/north/bundles/{TEA_CUP.id}/explain?segment={segment}")).json()
        assert (told["orders_together"], told["lift"], told["discount"]) == (figures[0], figures[2], discount)


@pytest.mark.parametrize("segment", ["everyone", "no-such-segment"])
async def test_a_segment_without_a_list_falls_back_to_the_region(edge: httpx.AsyncClient, segment: str) -> None:
    answer = (await edge.get(f"/v1/north/bundles/tea?segment={segment}")).json()
    assert (answer["segment"], answer["matched"]) == (segment, "region")
    assert [each["id"] for each in answer["bundles"]] == [TEA_CUP.id, TEA_POT.id]


async def test_matched_is_that_of_the_first_bundle_shown(edge: httpx.AsyncClient, clock: Clock) -> None:
    await tell(edge, clock, "cup", stock=0)
    await tell(edge, clock, "mug", stock=0)
    answer = (await edge.get("/v1/north/bundles/tea")).json()
    assert [each["id"] for each in answer["bundles"]] == [TEA_POT.id]
    assert answer["matched"] == "global"


@pytest.mark.parametrize("sku", ["nothing-of-ours", "ø/≠ %25", "a/b/c", "*"])
async def test_a_product_without_bundles_is_answered_honestly(edge: httpx.AsyncClient, sku: str) -> None:
    answer = await edge.get(f"/v1/north/bundles/{sku}")
    assert answer.status_code == 200
    assert (answer.json()["matched"], answer.json()["bundles"]) == ("none", [])


async def test_every_answer_says_where_it_is_from_and_how_old_it_is(edge: httpx.AsyncClient) -> None:
    asked = [
        await edge.get("/v1/north/bundles/tea"),
        await edge.get("/v1/north/bundles/unknown"),
        await edge.post("/v1/north/offers", json={"skus": ["tea"]}),
        await edge.get("/v1/north/live?skus=tea"),
        await edge.post("/v1/north/quotes/verify", json={"token": "x.y"}),
        await edge.get(f"/v1/north/bundles/{TEA_CUP.id}/explain"),
    ]
    for answer in asked:
        assert answer.status_code == 200, answer.text
        assert set(AGES) <= answer.json().keys()
        assert answer.json()["computed_at"] == "2026-01-05T12:00:00Z"
        assert answer.json()["stock_as_of"].endswith("Z")


async def test_a_limit_is_kept(edge: httpx.AsyncClient) -> None:
    assert await ids(edge, "/v1/north/bundles/tea?limit=1") == [TEA_CUP.id]


async def test_a_component_that_ran_out_is_replaced_or_the_bundle_is_left_out(
    edge: httpx.AsyncClient, clock: Clock
) -> None:
    await tell(edge, clock, "cup", stock=1)
    parts = (await edge.get("/v1/north/bundles/tea?limit=1")).json()["bundles"][0]["components"]
    assert (parts[1]["sku"], parts[1]["substituted_for"]) == ("mug", "cup")
    await tell(edge, clock, "mug", stock=1)
    assert await ids(edge, "/v1/north/bundles/tea") == [TEA_POT.id]


async def test_no_component_is_offered_below_its_floor(edge: httpx.AsyncClient) -> None:
    floored = next(each for each in (await edge.get("/v1/north/bundles/pan")).json()["bundles"])
    assert floored["id"] == FLOORED.id
    assert [part["offer_price"] for part in floored["components"]] == [1990, 560]


async def test_several_products_are_answered_as_one_list_best_first_each_bundle_once(edge: httpx.AsyncClient) -> None:
    answer = (await edge.post("/v1/north/offers", json={"skus": ["pan", "tea", "cup"]})).json()
    assert answer["skus"] == ["pan", "tea", "cup"]
    confidences = [each["evidence"]["confidence"] for each in answer["bundles"]]
    assert confidences == sorted(confidences, reverse=True)
    assert [each["id"] for each in answer["bundles"]] == [TEA_CUP.id, FLOORED.id, TEA_POT.id, PLAIN.id]


async def test_what_can_be_sold_is_net_of_the_cart(edge: httpx.AsyncClient) -> None:
    cart = [{"sku": "tea", "quantity": 2}, {"sku": "cup", "quantity": 1}]
    first = (await edge.post("/v1/north/offers", json={"cart": cart})).json()["bundles"][0]
    assert (first["id"], first["sellable"]) == (TEA_CUP.id, 4)


async def test_two_cart_lines_of_one_product_add_up(edge: httpx.AsyncClient) -> None:
    cart = [{"sku": "cup", "quantity": 3}, {"sku": "cup", "quantity": 4}]
    asked = {"skus": ["tea"], "cart": cart, "limit": 1}
    first = (await edge.post("/v1/north/offers", json=asked)).json()["bundles"][0]
    assert (first["id"], first["sellable"]) == (TEA_CUP.id, 1), "2 of 9 cups are left"


async def test_a_bundle_that_the_cart_holds_whole_is_not_offered_again(edge: httpx.AsyncClient) -> None:
    cart = [{"sku": "tea", "quantity": 1}, {"sku": "cup", "quantity": 2}]
    answer = (await edge.post("/v1/north/offers", json={"cart": cart})).json()
    assert [each["id"] for each in answer["bundles"]] == [TEA_POT.id]
    whole = answer["complete"][0]
    assert (whole["id"], whole["discount"], whole["quote"] is None) == (TEA_CUP.id, 100, False)
    less = (await edge.post("/v1/north/offers", json={"cart": [*cart[:1], {"sku": "cup", "quantity": 1}]})).json()
    assert less["complete"] == []


async def test_what_a_cart_holds_whole_is_priced_as_it_is_or_not_at_all(edge: httpx.AsyncClient, clock: Clock) -> None:
    cart = [{"sku": "tea", "quantity": 1}, {"sku": "cup", "quantity": 2}]
    await tell(edge, clock, "cup", stock=1)
    assert (await edge.post("/v1/north/offers", json={"cart": cart})).json()["complete"] == []


async def test_an_offer_for_a_cart_says_what_is_missing_to_complete_it(edge: httpx.AsyncClient) -> None:
    asked = {"cart": [{"sku": "tea", "quantity": 1}, {"sku": "cup", "quantity": 1}]}
    bundles = (await edge.post("/v1/north/offers", json=asked)).json()["bundles"]
    assert {each["id"]: each["missing"] for each in bundles} == {
        TEA_CUP.id: [{"sku": "cup", "quantity": 1}],
        TEA_POT.id: [{"sku": "pot", "quantity": 1}],
    }


async def test_offers_without_quotes_are_the_same_offers(edge: httpx.AsyncClient) -> None:
    with_, without = [
        (await edge.post("/v1/north/offers", json={"skus": ["tea"], "quotes": quotes})).json()["bundles"]
        for quotes in (True, False)
    ]
    assert [each["quote"] for each in without] == [None, None]
    assert [{**each, "quote": None} for each in with_] == without


async def test_an_excluded_product_never_appears(edge: httpx.AsyncClient) -> None:
    asked = {"skus": ["tea"], "exclude": ["cup", "pot"]}
    offered = (await edge.post("/v1/north/offers", json=asked)).json()["bundles"]
    assert [[part["sku"] for part in each["components"]] for each in offered] == [["tea", "mug"]]


async def test_a_segment_is_used_only_with_the_consents_the_region_asks_for(
    published: RegionStore, tmp_path, clock: Clock
) -> None:
    region = region_at(published.region.redis_url, consent_purposes=["ads", "profile"])
    async with client_of(create_app(settings(tmp_path), [region], clock=clock)) as edge:
        await ready(edge)
        for consents, used in (([], "*"), (["ads"], "*"), (["profile", "ads", "more"], "families")):
            asked = {"skus": ["tea"], "segment": "families", "consents": consents}
            assert (await edge.post("/v1/north/offers", json=asked)).json()["segment"] == used
            query = {"segment": "families", "consents": ",".join(consents)}
            assert (await edge.get("/v1/north/bundles/tea", params=query)).json()["segment"] == used


async def test_an_unchanged_answer_need_not_be_sent_again(edge: httpx.AsyncClient, clock: Clock) -> None:
    first = await edge.get("/v1/north/bundles/tea")
    assert first.headers["cache-control"] == "public, max-age=1"
    again = await edge.get("/v1/north/bundles/tea", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    await tell(edge, clock, "jam", stock=1)
    other = await edge.get("/v1/north/bundles/tea", headers={"If-None-Match": first.headers["etag"]})
    assert other.status_code == 304, "a product of another list changed"
    await tell(edge, clock, "tea", list_price=501)
    changed = await edge.get("/v1/north/bundles/tea", headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]


async def test_past_a_limit_an_answer_is_stale_and_discounts_nothing_until_the_feed_is_heard(
    edge: httpx.AsyncClient, clock: Clock
) -> None:
    clock.ahead_seconds = 901
    answer = (await edge.get("/v1/north/bundles/tea")).json()
    assert answer["stale"] is True
    assert [each["discount"] for each in answer["bundles"]] == [0, 0]
    assert answer["bundles"][0]["offer_total"] == answer["bundles"][0]["list_total"] == 1000
    posted = await edge.post("/v1/north/deltas", content=b"{}", headers={"Authorization": f"Bearer {DELTA_KEY}"})
    assert posted.json() == {"applied": 0, "stale": 0, "heartbeats": 1}

    async def fresh() -> bool:
        return not (await edge.get("/v1/north/bundles/tea")).json()["stale"]

    await until(fresh)
    assert (await edge.get("/v1/north/bundles/tea")).json()["bundles"][0]["discount"] == 100


async def test_a_price_that_expired_is_not_shown(edge: httpx.AsyncClient, clock: Clock) -> None:
    assert len((await edge.get("/v1/north/bundles/tea")).json()["bundles"]) == 2
    clock.ahead_seconds = 86_401
    answer = (await edge.get("/v1/north/bundles/tea")).json()
    assert (answer["stale"], answer["bundles"]) == (True, [])
    offers = (await edge.post("/v1/north/offers", json={"skus": ["tea"]})).json()
    assert (offers["stale"], offers["bundles"]) == (True, [])
    product = (await edge.get("/v1/north/live?skus=tea")).json()["products"][0]
    assert product == {"sku": "tea", "stock": 20, "list_price": None, "sale_price": None, "unit_price": None}
    told = (await edge.get(f"/v1/north/bundles/{TEA_CUP.id}/explain")).json()
    assert ([each["code"] for each in told["reasons"]], told["list_total"]) == (["prices_expired"], None)
    await tell(edge, clock, "tea", list_price=500)
    assert len((await edge.get("/v1/north/bundles/tea")).json()["bundles"]) == 2


async def test_a_release_past_its_limit_is_stale_and_discounts_nothing(published, tmp_path, clock: Clock) -> None:
    made = int(now(clock).timestamp()) - 1_767_614_400  # seconds since the release's computed_at
    app = create_app(settings(tmp_path, release_limit_seconds=made + 600), [published.region], clock=clock)
    async with client_of(app) as edge:
        await ready(edge)
        assert (await edge.get("/v1/north/bundles/tea")).json()["stale"] is False
        clock.ahead_seconds = 620
        answer = (await edge.get("/v1/north/bundles/tea")).json()
        assert answer["stale"] is True
        assert {each["discount"] for each in answer["bundles"]} == {0}


async def test_a_stock_change_says_nothing_about_the_age_of_prices(edge: httpx.AsyncClient, clock: Clock) -> None:
    clock.ahead_seconds = 3_601
    await tell(edge, clock, "tea", stock=19)
    answer = (await edge.get("/v1/north/bundles/tea")).json()
    assert answer["stale"] is True
    assert answer["stock_as_of"] > answer["prices_as_of"]
    await tell(edge, clock, "tea", list_price=500)
    assert (await edge.get("/v1/north/bundles/tea")).json()["stale"] is False


@pytest.mark.parametrize(("currency", "shown"), [("JPY", "1000 JPY"), ("USD", "10.00 USD"), ("KWD", "1.000 KWD")])
async def test_an_explanation_writes_money_as_the_currency_does(
    clean_redis, tmp_path, clock: Clock, currency: str, shown: str
) -> None:
    region = msgspec.structs.replace(region_at(clean_redis.url), currency=currency)
    with RegionStore(region) as store:
        publish(store, "r1")
        store.seed_live(
            [LiveRow(sku="tea", stock=5, list_price=500), LiveRow(sku="cup", stock=9, list_price=250)], now(clock)
        )
    async with client_of(create_app(settings(tmp_path), [region], clock=clock)) as edge:
        await ready(edge)
        text = (await edge.get(f"/v1/north/bundles/{TEA_CUP.id}/explain")).json()["text"]
    assert f"Alone {shown}" in text


async def test_an_explanation_tells_evidence_level_and_price(edge: httpx.AsyncClient) -> None:
    told = (await edge.get(f"/v1/north/bundles/{TEA_CUP.id}/explain?anchor=tea&segment=families")).json()
    assert told["listings"] == [{"anchor": "tea", "rank": 2, "confidence": 0.3, "matched": "region"}]
    assert (told["release"], told["matched"], told["planned_discount_bps"]) == ("r1", "region", 1000)
    assert [reason["code"] for reason in told["reasons"]] == ["as_planned"]
    assert "tea + 2 × cup: in 30 orders together" in told["text"]
    assert "Alone 10.00 USD, together 9.00 USD, saving 1.00 USD." in told["text"]


async def test_an_explanation_tells_what_the_batch_decided_and_which_rules_shaped_the_bundle(
    clean_redis, tmp_path, clock: Clock
) -> None:
    reasons = why.encode(Why("over_budget", (Shaped(12, "boost"), Shaped(40, "pin"))))
    own = Story(12, 9.5, 0, why.encode(Why("no_gain")))
    bundle = msgspec.structs.replace(TEA_CUP, why=reasons)
    lists = [
        AnchorList("*", "tea", (Listed(bundle.id, 0.3, "region"),)),
        AnchorList("families", "tea", (Listed(bundle.id, 0.4, "segment", own),)),
    ]
    region = region_at(clean_redis.url)
    with RegionStore(region) as store:
        publish(store, "r1", [bundle], lists)
        store.seed_live(PRODUCTS, now(clock))
    async with client_of(create_app(settings(tmp_path), [region], clock=clock)) as edge:
        await ready(edge)
        told = (await edge.get(f"/v1/north/bundles/{bundle.id}/explain?anchor=tea")).json()
        families = (await edge.get(f"/v1/north/bundles/{bundle.id}/explain?anchor=tea&segment=families")).json()
    assert told["decided"]["code"] == "over_budget"
    assert told["rules"] == [{"line": 12, "action": "boost"}, {"line": 40, "action": "pin"}]
    assert "A rule (rules.toml, line 12) moves it up. A rule (rules.toml, line 40) puts it first." in told["text"]
    assert (families["decided"]["code"], families["rules"]) == ("no_gain", [])


async def test_an_explanation_says_what_became_of_the_discount(edge: httpx.AsyncClient, clock: Clock) -> None:
    async def codes(bundle_id: str) -> list[str]:
        told = (await edge.get(f"/v1/north/bundles/{bundle_id}/explain")).json()
        return [reason["code"] for reason in told["reasons"]]

    assert await codes(FLOORED.id) == ["lowest_price_reached"]
    assert await codes(PLAIN.id) == ["no_discount_planned"]
    assert await codes(TEA_POT.id) == ["as_planned", "on_sale"]
    await tell(edge, clock, "cup", stock=0)
    assert await codes(TEA_CUP.id) == ["as_planned", "substitute_used"]
    await tell(edge, clock, "mug", stock=0)
    assert await codes(TEA_CUP.id) == ["cannot_be_sold"]
    clock.ahead_seconds = 4_000
    assert await codes(TEA_POT.id) == ["stale_data", "on_sale"]


async def test_an_unknown_bundle_can_not_be_explained(edge: httpx.AsyncClient) -> None:
    answer = await edge.get("/v1/north/bundles/0000000000000000/explain")
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["field"] == "id"


async def test_what_things_cost_us_appears_nowhere(published: RegionStore, tmp_path, clock: Clock, capfd) -> None:
    """Floors of a kind that no price, total or saving can be equal to are searched for in all that leaves."""
    secret = [717_717_177, 727_727_277, 737_737_377]  # so long that no clock, nonce or signature holds one by chance
    named = dict(zip(("tea", "cup", "mug"), secret, strict=True))

    def with_secret(part):  # type: ignore[no-untyped-def]
        stand_ins = tuple(msgspec.structs.replace(each, floor=named.get(each.sku)) for each in part.substitutes)
        return msgspec.structs.replace(part, floor=named.get(part.sku), substitutes=stand_ins)

    bundles = [msgspec.structs.replace(each, components=tuple(map(with_secret, each.components))) for each in BUNDLES]
    publish(published, "r2", bundles, LISTS)
    later = [LiveRow(sku=sku, stock=9, list_price=900_000_000) for sku in named]
    clock.ahead_seconds = 1
    published.seed_live(later, now(clock))
    async with client_of(create_app(settings(tmp_path), [published.region], clock=clock)) as edge:
        await ready(edge)
        asked = ["/v1/north/bundles/tea", f"/v1/north/bundles/{TEA_CUP.id}/explain", "/v1/north/live?skus=tea,cup",
                 "/metrics", "/openapi.json"]  # fmt: skip
        said = b"".join([(await edge.get(path)).content for path in asked])
        said += (await edge.post("/v1/north/offers", json={"cart": [{"sku": "tea"}]})).content
        quote = (await edge.get("/v1/north/bundles/tea")).json()["bundles"][0]["quote"]["token"]
        said += (await edge.post("/v1/north/quotes/verify", json={"token": quote})).content
    said += capfd.readouterr().err.encode()
    assert b'"r2"' in said
    for word in [b"floor", b"margin", b"unit_cost", *(str(number).encode() for number in secret)]:
        assert word not in said
