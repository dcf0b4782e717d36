"""Stock that comes and goes without an order, and goods that are held for a while."""

from __future__ import annotations

import asyncio

import pytest

from orders import goods
from tests.orders.conftest import DELTA_KEY, TEA_AND_CUPS, Shop, quote, rows, stocked

pytestmark = [pytest.mark.servers, pytest.mark.anyio]


async def _move(shop: Shop, *movements: dict[str, object], key: str = "") -> tuple[int, dict[str, object]]:
    answer = await shop.post("/stock", {"movements": movements}, key, DELTA_KEY)
    return answer.status_code, answer.json()


async def test_a_receipt_is_added_and_told_once_however_often_it_is_sent(shop: Shop) -> None:
    for _ in range(2):
        status, answer = await _move(shop, {"sku": "tea", "change": 5}, {"sku": "pot", "change": 2}, key="receipt-1")
        assert status == 200
    assert {each["sku"]: each["stock"] for each in answer["products"]} == {"tea": 25, "pot": 2}  # type: ignore[attr-defined]
    assert shop.stock() == {"tea": (25, 0), "cup": (30, 0), "pot": (2, 0)}
    assert [(each["sku"], each["stock"]) for each in shop.told("stock-changed")] == [("pot", 2), ("tea", 25)]


async def test_more_can_not_leave_than_is_there(shop: Shop) -> None:
    status, problem = await _move(shop, {"sku": "tea", "change": -21, "reason": "sale"}, {"sku": "cup", "change": -1})
    assert (status, problem["errors"]) == (409, [{"field": "tea", "detail": "20 left, 21 wanted"}])
    assert shop.stock() == {"tea": (20, 0), "cup": (30, 0)}


async def test_no_more_can_come_than_a_message_can_tell(shop: Shop) -> None:
    rows(shop.dsn, "UPDATE stock SET on_hand = 1000000000000 - 5 WHERE sku = 'tea' RETURNING 1")
    status, problem = await _move(shop, {"sku": "tea", "change": 6})
    detail = "would make it more than 1,000,000,000,000 units"
    assert (status, problem["errors"]) == (422, [{"field": "movements[0]", "detail": detail}])


async def test_a_count_says_what_can_be_sold_beside_what_is_held(shop: Shop) -> None:
    await shop.post("/reservations", {"quotes": [quote(*TEA_AND_CUPS)]})
    assert shop.stock() == {"tea": (20, 1), "cup": (30, 3)}
    status, _ = await _move(shop, {"sku": "cup", "counted": 0, "reason": "count"})
    assert (status, shop.stock()["cup"]) == (200, (3, 3))


@pytest.mark.parametrize("wrong", [{}, {"change": 1, "counted": 1}])
async def test_a_movement_says_one_thing(shop: Shop, wrong: dict[str, int]) -> None:
    status, problem = await _move(shop, {"sku": "tea", **wrong})
    assert (status, problem["errors"]) == (
        422,
        [{"field": "movements[0].change", "detail": "give exactly one of change and counted"}],
    )


async def test_what_is_on_hand_is_all_movements_less_what_was_sold(shop: Shop) -> None:
    await _move(shop, {"sku": "tea", "change": 5}, {"sku": "cup", "counted": 12, "reason": "count"})
    await shop.buy(quote(*TEA_AND_CUPS))
    moved = dict(rows(shop.dsn, "SELECT sku, sum(change)::int FROM stock_movements GROUP BY sku"))
    assert moved == {"tea": 25, "cup": 12}
    assert shop.stock() == {"tea": (24, 0), "cup": (9, 0)}


async def test_seeding_again_changes_nothing(shop: Shop) -> None:
    await shop.buy(quote(*TEA_AND_CUPS))
    stocked(shop.dsn, tea=20, cup=30, pot=4, **{"a" * 129: 1})
    assert shop.stock() == {"tea": (19, 0), "cup": (27, 0), "pot": (4, 0)}


async def test_all_stock_is_told_anew_with_the_sequences_that_it_has(shop: Shop) -> None:
    await shop.buy(quote(*TEA_AND_CUPS))
    before = shop.told("stock-changed")
    assert goods.tell(shop.dsn, ["east"]) == 2
    assert sorted(shop.told("stock-changed")[2:], key=str) == sorted(before, key=str)


async def test_held_goods_are_off_the_shelf_until_they_are_bought(shop: Shop) -> None:
    token = quote(("tea", 20, 900))
    held = (await shop.post("/reservations", {"quotes": [token]})).json()
    assert [each["stock"] for each in shop.told("stock-changed")] == [0]
    assert (await shop.buy(token)).status_code == 409
    bought = await shop.buy(token, reservation_id=held["reservation_id"])
    assert bought.status_code == 201, bought.text
    assert shop.stock()["tea"] == (0, 0)
    again = await shop.buy(token, reservation_id=held["reservation_id"])
    assert again.json()["type"] == "urn:tandem:problem:reservation-gone"


async def test_goods_that_are_let_go_can_be_sold_again(shop: Shop) -> None:
    held = (await shop.post("/reservations", {"quotes": [quote(("tea", 20, 900))]})).json()
    answers = [await shop.client.delete(f"/v1/east/reservations/{held['reservation_id']}") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [204, 409]
    assert shop.stock()["tea"] == (20, 0)


async def test_goods_whose_time_ran_out_come_back_by_themselves(shop: Shop) -> None:
    await shop.post("/reservations", {"quotes": [quote(("tea", 20, 900))]})
    back = "UPDATE reservations SET made_at = now() - interval '2 h', expires_at = now() - interval '1 h' RETURNING 1"
    rows(shop.dsn, back)
    async with asyncio.timeout(10):
        while shop.stock()["tea"] != (20, 0):
            await asyncio.sleep(0.05)
    assert [each["stock"] for each in shop.told("stock-changed")] == [0, 20]
