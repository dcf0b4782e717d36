"""Buying in the shop page, in a real browser: checkout, PostgreSQL, the relay and the edge behind it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page, Route, expect

from tandem.quote import Quote, QuotedComponent, Signer
from tests.cdn.shop_world import COFFEE_AND_GRANOLA, KEY, RELEASE, ShopWorld, shop_world
from tests.e2e.test_shop_page import FAULTS, SOON, Visit, browser, visit, visitor

__all__ = ["browser", "visit", "visitor"]
pytestmark = pytest.mark.browser

COFFEE, GRANOLA = "1029743", "951590"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopWorld]:
    with shop_world(tmp_path_factory.mktemp("shop"), selling=True) as found:
        yield found


def orders(world: ShopWorld) -> list[tuple[str, int]]:
    """Every order's id and total."""
    with psycopg.connect(world.settings.orders_dsn) as connection:
        return connection.execute("SELECT order_id::text, total FROM orders ORDER BY placed_at").fetchall()


@pytest.fixture
def in_cart(visit: Visit) -> Page:
    """The page with a bundle in its cart."""
    page = visit.open(sku=COFFEE).page
    expect(page.locator("#product-stock")).to_have_text("40 in stock", timeout=SOON)
    expect(page.get_by_role("button", name="Buy")).to_be_hidden()
    visit.card(COFFEE_AND_GRANOLA).get_by_role("button", name="Add bundle").click()
    expect(page.locator("#cart-total")).to_have_text("$13.76")
    return page


def buy(page: Page, answer: str) -> str:
    page.get_by_role("button", name="Buy").click()
    expect(page.locator("#buy-answer")).to_have_text(re.compile(answer), timeout=SOON)
    return page.locator("#buy-answer").inner_text()


def test_a_bundle_is_bought_at_its_price_and_the_next_answers_have_the_stock_that_is_left(
    in_cart: Page, world: ShopWorld
) -> None:
    before = len(orders(world))
    said = buy(in_cart, r"^Bought for \$13\.76\. Your order is ")
    expect(in_cart.locator("#buy-answer")).to_be_focused()
    expect(in_cart.locator("#cart-count")).to_have_text("0")
    expect(in_cart.get_by_role("button", name="Buy")).to_be_hidden()
    expect(in_cart.locator("#product-stock")).to_have_text("39 in stock", timeout=SOON)
    expect(in_cart.locator(f'[data-bundle="{COFFEE_AND_GRANOLA.id}"] .sellable')).to_have_text("39 can be sold now")
    (bought,) = orders(world)[before:]
    assert (bought[0] in said, bought[1]) == (True, 1376)


def test_the_purchase_is_told_to_the_edge(in_cart: Page) -> None:
    def told(request: Any) -> bool:
        return request.url.endswith("/events") and '"purchase"' in (request.post_data or "")

    with in_cart.expect_request(told) as sent:
        buy(in_cart, "^Bought")
    (event,) = json.loads(sent.value.post_data or "")
    assert (event["bundle_id"], event["anchor"], event["release"]) == (COFFEE_AND_GRANOLA.id, COFFEE, RELEASE)


def test_what_sold_out_meanwhile_is_named_and_stays_in_the_cart(in_cart: Page, visit: Visit, world: ShopWorld) -> None:
    before = orders(world)
    world.count({GRANOLA: 0})
    buy(in_cart, r"^Sold out meanwhile: Granola with almonds, 16 oz \(0 left, 1 wanted\)\.")
    expect(in_cart.locator("#cart-count")).to_have_text("1")
    assert orders(world) == before
    visit.complaints.clear()


def test_a_quote_that_ran_out_is_offered_anew_and_bought_only_when_asked_again(
    in_cart: Page, visit: Visit, world: ShopWorld
) -> None:
    before = len(orders(world))
    parts = (QuotedComponent(COFFEE, 1, 800), QuotedComponent(GRANOLA, 1, 500))
    signer = Signer.from_text(f"k1:{world.settings.secret('quote')}")
    ran_out = int(time.time()) - 1
    old = Quote("k1", "east", "*", RELEASE, COFFEE_AND_GRANOLA.id, "USD", parts, 1300, ran_out, "")
    in_cart.evaluate(
        """([token, price]) => {
          const cart = JSON.parse(localStorage["tandem-cart-east"]);
          cart[0].quote.token = token;
          cart[0].offer_total = price;
          localStorage["tandem-cart-east"] = JSON.stringify(cart);
        }""",
        [signer.sign(old), 1300],
    )
    in_cart.reload()
    expect(in_cart.locator("#cart-total")).to_have_text("$13.00")
    buy(in_cart, r"had run out\. It costs \$13\.76 now instead of \$13\.00\. Look, then press Buy again\.")
    expect(in_cart.locator("#cart-total")).to_have_text("$13.76")
    assert len(orders(world)) == before
    buy(in_cart, r"^Bought for \$13\.76")
    visit.complaints.clear()


def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_is_bought_twice(
    in_cart: Page, visit: Visit, world: ShopWorld
) -> None:
    before = len(orders(world))

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    in_cart.route("**/checkout", lose)
    buy(in_cart, "can't be reached right now. Press Buy again: you won't pay twice.")
    in_cart.unroute("**/checkout")
    buy(in_cart, "^Bought")
    assert len(orders(world)) == before + 1
    visit.complaints.clear()


def test_the_panel_counts_stock_where_orders_are_taken_and_the_edge_hears_of_it(visit: Visit) -> None:
    page = visit.open(sku=COFFEE, key=KEY).page
    visit.change("Whole bean coffee, 12 oz", Stock="7", Sale_price="8.00")
    expect(page.locator("#product-stock")).to_have_text("7 in stock", timeout=SOON)
    expect(page.locator("#product-price")).to_have_text("$8.00 instead of $8.99", timeout=SOON)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1360])
def test_names_sizes_and_contrast_are_right_before_a_refusal_after_it_and_after_buying(
    visitor: Callable[..., Visit], world: ShopWorld, scheme: str, width: int
) -> None:
    visit = visitor(width, 900, color_scheme=scheme, reduced_motion="reduce")
    page = visit.open(sku=COFFEE).page
    visit.card(COFFEE_AND_GRANOLA).get_by_role("button", name="Add bundle").click()
    expect(page.get_by_role("button", name="Buy")).to_be_visible(timeout=SOON)
    assert page.evaluate(FAULTS) == []
    world.count({GRANOLA: 0})
    buy(page, "^Sold out meanwhile")
    assert page.evaluate(FAULTS) == []
    world.count({GRANOLA: 5})
    buy(page, "^Bought")
    assert page.evaluate(FAULTS) == []
    visit.complaints.clear()


def test_it_is_bought_with_the_keyboard_alone_and_what_became_of_it_is_said(in_cart: Page) -> None:
    button = in_cart.get_by_role("button", name="Buy")
    button.focus()
    in_cart.keyboard.press("Enter")
    expect(in_cart.locator("#buy-answer")).to_be_focused(timeout=SOON)
    expect(in_cart.get_by_role("status").filter(has_text="Bought for").first).to_be_attached()
