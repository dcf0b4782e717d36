"""What is bought is paid as quoted, taken off the shelf, written and told of: all of it, once, or none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.orders.conftest import DELTA_KEY, TEA_AND_CUPS, Shop, quote, rows, serving, stocked

pytestmark = [pytest.mark.servers, pytest.mark.anyio]


async def test_an_order_charges_what_the_quote_allocates_and_takes_the_goods(shop: Shop) -> None:
    answer = await shop.buy(quote(*TEA_AND_CUPS), customer_id="c1")
    assert answer.status_code == 201, answer.text
    order = answer.json()
    assert (order["region"], order["currency"], order["total"]) == ("east", "USD", 550)
    assert [(line["sku"], line["quantity"], line["offer_total"]) for line in order["lines"]] == [*TEA_AND_CUPS]
    assert shop.stock() == {"tea": (19, 0), "cup": (27, 0)}
    assert rows(shop.dsn, "SELECT total, customer_id FROM orders") == [(550, "c1")]


async def test_the_outbox_tells_of_the_order_and_of_the_stock_that_is_left(shop: Shop) -> None:
    order = (await shop.buy(quote(*TEA_AND_CUPS))).json()
    (placed,) = shop.told("order-placed")
    assert placed["order_id"] == order["order_id"]
    assert {(line["sku"], line["offer_total"]) for line in placed["lines"]} == {("tea", 450), ("cup", 100)}
    assert {each["sku"]: each["stock"] for each in shop.told("stock-changed")} == {"tea": 19, "cup": 27}


async def test_sequences_of_a_product_grow_with_every_change(shop: Shop) -> None:
    for _ in range(3):
        await shop.buy(quote(("tea", 1, 450)))
    told = [each["sequence"] for each in shop.told("stock-changed")]
    assert told == sorted(set(told))
    assert told[0] > 1_600_000_000_000_000


async def test_the_same_key_and_body_give_the_same_order_and_another_body_is_refused(shop: Shop) -> None:
    token = quote(*TEA_AND_CUPS)
    first, again = [await shop.buy(token, key="k") for _ in range(2)]
    assert (again.status_code, again.content) == (201, first.content)
    other = await shop.buy(token, token, key="k")
    assert (other.status_code, other.json()["type"]) == (422, "urn:tandem:problem:idempotency-key")
    assert shop.stock()["tea"] == (19, 0)


async def test_many_at_once_with_one_key_are_one_order(shop: Shop) -> None:
    token = quote(*TEA_AND_CUPS)
    answers = await asyncio.gather(*(shop.buy(token, key="k") for _ in range(20)))
    assert {(answer.status_code, answer.json()["order_id"]) for answer in answers} == {
        (201, answers[0].json()["order_id"])
    }
    assert rows(shop.dsn, "SELECT count(*) FROM orders") == [(1,)]


async def test_without_a_key_nothing_is_bought(shop: Shop) -> None:
    answer = await shop.client.post("/v1/east/checkout", json={"quotes": [quote(*TEA_AND_CUPS)]})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "Idempotency-Key")


async def test_a_quote_of_its_askers_own_is_used_once_and_one_for_all_again_and_again(shop: Shop) -> None:
    own, shared = quote(*TEA_AND_CUPS, nonce="n1"), quote(*TEA_AND_CUPS)
    assert [(await shop.buy(own)).status_code, (await shop.buy(shared, shared)).status_code] == [201, 201]
    used = await shop.buy(shared, own)
    assert (used.status_code, used.json()["type"]) == (409, "urn:tandem:problem:quote-used")
    assert used.json()["errors"] == [{"field": "quotes[1]", "detail": "used"}]
    assert shop.stock() == {"tea": (17, 0), "cup": (21, 0)}


async def test_of_many_that_use_one_quote_at_once_one_gets_it(shop: Shop) -> None:
    own = quote(("tea", 1, 450), nonce="n1")
    answers = await asyncio.gather(*(shop.buy(own) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert shop.stock()["tea"] == (19, 0)


@pytest.mark.parametrize(
    ("token", "fault"),
    [
        (quote(*TEA_AND_CUPS)[:-4] + "AAAA", "quote-altered"),
        (quote(*TEA_AND_CUPS, ttl_seconds=-1), "quote-expired"),
        (quote(*TEA_AND_CUPS, region="west"), "quote-wrong-region"),
        ("e30", "quote-malformed"),
    ],
)
async def test_a_quote_that_does_not_hold_is_refused_with_its_fault(shop: Shop, token: str, fault: str) -> None:
    answer = await shop.buy(token)
    assert (answer.status_code, answer.json()["type"]) == (409, f"urn:tandem:problem:{fault}")
    assert shop.stock()["tea"] == (20, 0)


async def test_a_price_of_the_shoppers_own_is_no_field(shop: Shop) -> None:
    answer = await shop.buy(quote(*TEA_AND_CUPS), lines=[{"sku": "tea", "price": 1}])
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "lines")


async def test_what_is_sold_out_is_named_and_nothing_is_taken(shop: Shop) -> None:
    answer = await shop.buy(quote(("tea", 1, 450), ("cup", 31, 900)), quote(("pot", 1, 900)))
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:tandem:problem:sold-out")
    assert {each["field"]: each["detail"] for each in answer.json()["errors"]} == {
        "cup": "30 left, 31 wanted",
        "pot": "0 left, 1 wanted",
    }
    assert shop.stock() == {"tea": (20, 0), "cup": (30, 0)}
    assert rows(shop.dsn, "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM outbox)") == [(0,)]


async def test_a_refused_checkout_may_be_tried_again_with_its_key(shop: Shop) -> None:
    many = quote(("tea", 25, 450))
    assert (await shop.buy(many, key="k")).status_code == 409
    await shop.post("/stock", {"movements": [{"sku": "tea", "change": 5}]}, secret=DELTA_KEY)
    assert (await shop.buy(many, key="k")).status_code == 201


async def test_a_session_is_kept_only_with_the_consents_that_its_region_asks_for(shop: Shop) -> None:
    stocked(shop.dsn, "west", tea=9)
    for consents in ([], ["personalisation"]):
        await shop.buy(quote(("tea", 1, 450), region="west"), region="west", session_id="s1", consents=consents)
    assert [each["session_id"] for each in shop.told("order-placed")] == [None, "s1"]


async def test_carts_that_share_products_in_another_order_do_not_lock_each_other_up(dsn: str, tmp_path: Path) -> None:
    stocked(dsn, tea=500, cup=500, pot=500)
    one = quote(("tea", 1, 10), ("cup", 1, 10), ("pot", 1, 10))
    other = quote(("pot", 1, 10), ("cup", 1, 10), ("tea", 1, 10))
    async with serving(dsn, tmp_path, orders_connections=16) as shop:
        answers = await asyncio.gather(*(shop.buy(token) for token in [one, other] * 60))
        assert {answer.status_code for answer in answers} == {201}
        assert shop.stock() == dict.fromkeys(("tea", "cup", "pot"), (380, 0))
