"""What comes back gives back what was paid for it, once, and never more."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.questions import ReturnedUnits, SoldLine
from orders.returns import Back
from tests.orders.conftest import DELTA_KEY, ORDER_KEY, TEA_AND_CUPS, Shop, quote

pytestmark = [pytest.mark.servers, pytest.mark.anyio]


async def _bought(shop: Shop) -> str:
    return f"/orders/{(await shop.buy(quote(*TEA_AND_CUPS))).json()['order_id']}/returns"


async def test_units_that_come_back_one_by_one_give_back_the_allocated_price_to_the_cent(shop: Shop) -> None:
    path = await _bought(shop)
    back = [(await shop.post(path, {"lines": [{"line": 2, "quantity": 1}]})).json() for _ in range(3)]
    assert [each["refunded"] for each in back] == [34, 33, 33]
    assert shop.stock() == {"tea": (19, 0), "cup": (30, 0)}
    assert [each["lines"][0]["refunded"] for each in shop.told("order-returned")] == [34, 33, 33]


async def test_more_than_was_bought_never_comes_back(shop: Shop) -> None:
    path = await _bought(shop)
    await shop.post(path, {"lines": [{"line": 2, "quantity": 2}]})
    answer = await shop.post(path, {"lines": [{"line": 1, "quantity": 1}, {"line": 2, "quantity": 2}]})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:tandem:problem:returned-already")
    assert "3 were bought and 2 came back already, not 2 more" in answer.json()["detail"]
    assert shop.stock() == {"tea": (19, 0), "cup": (29, 0)}


async def test_of_many_returns_of_one_unit_at_once_one_is_paid(shop: Shop) -> None:
    path = await _bought(shop)
    answers = await asyncio.gather(*(shop.post(path, {"lines": [{"line": 1, "quantity": 1}]}) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9


async def test_a_return_sent_twice_is_paid_once(shop: Shop) -> None:
    path = await _bought(shop)
    first, again = [await shop.post(path, {"lines": [{"line": 2, "quantity": 1}]}, key="k") for _ in range(2)]
    assert (again.status_code, again.content) == (201, first.content)
    order = await shop.client.get(f"/v1/east{path.removesuffix('/returns')}", headers={"X-Tandem-Key": ORDER_KEY})
    assert [(line["returned"], line["refunded"]) for line in order.json()["lines"]] == [(0, 0), (1, 34)]


async def test_broken_goods_are_paid_back_and_not_put_on_the_shelf(shop: Shop) -> None:
    path = await _bought(shop)
    answer = await shop.post(path, {"lines": [{"line": 1, "quantity": 1, "restock": False}]})
    assert answer.json()["refunded"] == 450
    assert shop.stock()["tea"] == (19, 0)


async def test_orders_and_returns_need_a_key_of_their_own(shop: Shop) -> None:
    path = await _bought(shop)
    body = {"lines": [{"line": 1, "quantity": 1}]}
    assert (await shop.post(path, body, secret="a-wrong-key-of-16")).status_code == 401
    assert (await shop.post(path, body, secret=DELTA_KEY)).status_code == 403
    assert (await shop.client.get(f"/v1/east{path.removesuffix('/returns')}")).status_code == 401


async def test_an_order_of_another_region_is_not_found(shop: Shop) -> None:
    path = await _bought(shop)
    answer = await shop.client.post(
        f"/v1/west{path}",
        json={"lines": [{"line": 1, "quantity": 1}]},
        headers={"Idempotency-Key": "k", "X-Tandem-Key": ORDER_KEY},
    )
    assert answer.status_code == 404


@given(paid=st.integers(0, 10_000), parts=st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_whatever_parts_come_back_in_they_add_up_to_what_was_paid(paid: int, parts: list[int]) -> None:
    refunded, returned, quantity = 0, 0, sum(parts)
    for number in parts:
        sold = SoldLine(line=1, sku="a", quantity=quantity, offer_total=paid, bundle_id="b", returned=returned)
        refunded += Back(sold, ReturnedUnits(line=1, quantity=number)).refunded
        returned += number
    assert refunded == paid
