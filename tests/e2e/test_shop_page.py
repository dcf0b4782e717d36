"""The shop page in a real browser, with the real CDN files, Redis and edge.

`SHOOT=1` saves docs/images/shop.png; `SHOP_URL=…` (the link that the demo prints) takes it from a running demo.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route, expect, sync_playwright

from edge_service.candidates import LivePair, LivePairs, pack
from edge_service.region_payloads import Delta
from tandem.bundle import bundle_id
from tests.cdn.shop_world import BAGELS, BREAKFAST, CAKE, COFFEE_AND_GRANOLA, KEY, RELEASE, ShopWorld, shop_world

pytestmark = pytest.mark.browser

FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "shop.png"
SOON = 10_000
"""Milliseconds: far more than the page takes, so that a busy machine fails nothing."""


@pytest.fixture(scope="module")
def browser(require: Callable[[str], str]) -> Iterator[Browser]:
    path = require("chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=[*FLAGS, "--disable-sync"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopWorld]:
    with shop_world(tmp_path_factory.mktemp("shop")) as found:
        yield found


@dataclass
class Visit:
    """One visitor of the shop; what the browser complained about is in `complaints`."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def open(self, **place: str) -> Visit:
        self.page.goto(f"{self.url}#{urllib.parse.urlencode({'region': 'east', **place})}")
        return self

    def card(self, bundle: Any) -> Locator:
        return self.page.locator(f'[data-bundle="{bundle.id}"]')

    def total(self, bundle: Any) -> Locator:
        return self.card(bundle).locator(".offer-total")

    def change(self, product: str, **values: str) -> None:
        """Tell a change in the panel, as a person would."""
        self.page.get_by_label("Product", exact=True).select_option(label=product)
        for label, value in values.items():
            self.page.get_by_label(label.replace("_", " ")).fill(value)
        self.page.get_by_role("button", name="Send the change").click()
        expect(self.page.locator("#floor-answer")).to_have_text(f"Told: {product}", timeout=SOON)


@pytest.fixture
def visitor(browser: Browser, world: ShopWorld) -> Iterator[Callable[..., Visit]]:
    """Makes visitors; the browser must have nothing to complain about unless the test clears it."""
    world.restock()
    visits: list[Visit] = []

    def enter(width: int = 1360, height: int = 900, **options: Any) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, locale="en-US", **options)
        visit = Visit(context.new_page(), world.url)
        visit.page.on("console", lambda message: _heard(visit, message))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visits.append(visit)
        return visit

    yield enter
    for visit in visits:
        visit.page.context.close()
    assert [visit.complaints for visit in visits] == [[] for _ in visits]


def _heard(visit: Visit, message: ConsoleMessage) -> None:
    if message.type in ("error", "warning"):
        visit.complaints.append(message.text)


@pytest.fixture
def visit(visitor: Callable[..., Visit]) -> Visit:
    return visitor()


def test_the_page_says_which_release_it_shows_and_offers_places_to_start(visit: Visit) -> None:
    visit.open()
    expect(visit.page.locator("#release")).to_contain_text(f"Release {RELEASE}, from orders before 2017-06-01")
    expect(visit.page.locator("#release")).to_contain_text("checked against its SHA-256")
    visit.page.get_by_role("link", name="Whole bean coffee").click()
    expect(visit.page.get_by_role("heading", level=2, name="Whole bean coffee, 12 oz")).to_be_visible()


def test_a_product_is_found_and_chosen_with_the_keyboard_alone(visit: Visit) -> None:
    page = visit.open().page
    expect(page.locator("#starters")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the products")).to_be_focused()
    search = page.get_by_role("combobox", name="Search a product by name")
    for _ in range(6):
        page.keyboard.press("Tab")
        if search.evaluate("node => node === document.activeElement"):
            break
    expect(search).to_be_focused()
    page.keyboard.type("bag pla")
    options = page.get_by_role("listbox").get_by_role("option")
    expect(options).to_have_count(1)
    expect(search).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    expect(search).to_have_attribute("aria-activedescendant", options.first.get_attribute("id") or "missing")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2, name="Plain bagels, 6 pack")).to_be_visible()
    expect(search).to_have_attribute("aria-expanded", "false")
    expect(visit.total(BAGELS)).to_have_text("$13.70", timeout=SOON)
    expect(page.locator("#changes")).to_have_text(re.compile("Plain bagels, 6 pack: 1 bundle"))


def test_a_search_without_result_says_so_and_escape_closes_it(visit: Visit) -> None:
    page = visit.open().page
    page.locator("#search").fill("zzz")
    expect(page.locator("#results")).to_contain_text("No product with bundles is called so")
    page.keyboard.press("Escape")
    expect(page.locator("#results")).to_be_hidden()


@pytest.mark.parametrize("escaped", [False, True])
def test_a_search_list_that_comes_late_fills_the_open_list_but_opens_none_that_was_closed(
    visit: Visit, escaped: bool
) -> None:
    waiting: list[Route] = []
    visit.page.route("**/search.json", lambda route: waiting.append(route))
    page, results = visit.open().page, visit.page.locator("#results")
    expect(page.locator("#starters")).to_be_visible()
    page.locator("#search").fill("bag pla")
    expect(results).to_contain_text("No product with bundles is called so")
    if escaped:
        page.keyboard.press("Escape")
        expect(results).to_be_hidden()
    with page.expect_response("**/search.json") as answered:
        waiting[0].continue_()
    answered.value.finished()
    if escaped:
        page.wait_for_timeout(300)
        expect(results).to_be_hidden()
    else:
        expect(results.get_by_role("option")).to_have_count(1)


def test_a_bundle_shows_parts_price_saving_stock_and_evidence(visit: Visit) -> None:
    visit.open(sku="1029743")
    card = visit.card(BREAKFAST)
    expect(visit.total(BREAKFAST)).to_have_text("$14.57", timeout=SOON)
    expect(card.locator(".list-total")).to_have_text("$15.67")
    expect(card.locator(".you-save")).to_have_text("You save $1.10")
    expect(card.locator(".sellable")).to_have_text("40 can be sold now")
    expect(card.locator(".part-title")).to_have_text(
        ["Whole bean coffee, 12 oz", "Fluid milk, white, 1 gal", "Butter croissants, 4 pack"]
    )
    expect(card.locator(".part-facts")).to_have_text(["1 × $8.99", "1 × $2.69", "1 × $3.99"])
    expect(card.locator(".evidence")).to_contain_text("Bought together in 312 orders, 8.4 times more than by chance")
    expect(card.locator(".level")).to_have_text("In this region · 27% of those who take it take all of this")
    expect(visit.page.locator("#live-text")).to_have_text(re.compile(r"^Live: prices \d+ s old, stock \d+ s old$"))
    expect(visit.page.locator("#product-price")).to_have_text("$8.99")
    expect(visit.page.locator("#product-stock")).to_have_text("40 in stock")


def test_a_segment_has_its_own_list_and_the_address_keeps_it(visit: Visit) -> None:
    page = visit.open(sku="1029743").page
    cards = page.locator("[data-bundle]")
    expect(cards).to_have_count(3)
    page.get_by_label("Shopping as").select_option("families")
    expect(cards).to_have_count(2)
    expect(cards.first).to_have_attribute("data-bundle", COFFEE_AND_GRANOLA.id)
    expect(cards.first.locator(".level")).to_contain_text("Among people in this segment")
    assert "segment=families" in page.url
    page.reload()
    expect(cards).to_have_count(2)
    expect(page.get_by_label("Shopping as")).to_have_value("families")


def test_a_product_number_and_title_of_any_characters_is_shown_as_text(visit: Visit) -> None:
    page = visit.open(sku="søt/kake?#").page
    expect(page.locator("#product-title")).to_have_text("Café cake <b>with</b> a difficult number")
    expect(visit.total(CAKE)).to_have_text("$14.25", timeout=SOON)


def test_a_changed_price_changes_the_offer_while_it_is_looked_at(visit: Visit) -> None:
    page = visit.open(sku="1029743", key=KEY).page
    expect(visit.total(BREAKFAST)).to_have_text("$14.57", timeout=SOON)
    visit.change("Fluid milk, white, 1 gal", List_price="3.69")
    expect(visit.total(BREAKFAST)).to_have_text("$15.50", timeout=SOON)
    expect(page.locator("#changes")).to_contain_text("now $15.50")
    visit.change("Fluid milk, white, 1 gal", Sale_price="1.99")
    expect(visit.card(BREAKFAST).locator(".part-facts").nth(1)).to_have_text("1 × $1.99", timeout=SOON)
    visit.change("Fluid milk, white, 1 gal", Sale_price="")
    expect(visit.total(BREAKFAST)).to_have_text("$15.50", timeout=SOON)


def test_a_sold_out_component_is_replaced_and_marked_or_the_bundle_goes(visit: Visit) -> None:
    page = visit.open(sku="862349", key=KEY).page
    expect(visit.total(BAGELS)).to_have_text("$13.70", timeout=SOON)
    page.get_by_label("Product", exact=True).select_option(label="Plain bagels, 6 pack")
    page.get_by_role("button", name="Sell it out").click()
    expect(visit.card(BAGELS).locator(".instead")).to_have_text("instead of Plain bagels, 6 pack", timeout=SOON)
    expect(visit.card(BAGELS).locator(".part-title").first).to_have_text("Sesame bagels, 6 pack")
    expect(page.locator("#product-stock")).to_have_text("Sold out", timeout=SOON)
    visit.change("Smoked salmon, 4 oz", Stock="3")
    expect(visit.card(BAGELS).locator(".sellable")).to_have_text("Only 3 left", timeout=SOON)
    visit.change("Smoked salmon, 4 oz", Stock="0")
    expect(visit.card(BAGELS).locator(".sellable")).to_have_text("Can't be sold right now", timeout=SOON)
    expect(visit.total(BAGELS)).to_have_text("")
    expect(visit.card(BAGELS).get_by_role("button", name="Add bundle")).to_be_disabled()


def test_the_key_leaves_the_address_and_a_wrong_one_is_refused_in_words(visit: Visit) -> None:
    page = visit.open(sku="1029743", key="not-the-key").page
    expect(visit.total(BREAKFAST)).to_have_text("$14.57", timeout=SOON)
    assert "key" not in page.url
    page.get_by_role("button", name="Sell it out").click()
    expect(page.locator("#floor-answer")).to_have_text(re.compile("^Not taken: .*key"), timeout=SOON)
    assert all("401" in complaint for complaint in visit.complaints)
    visit.complaints.clear()


def test_a_number_that_is_none_is_refused_before_it_is_sent(visit: Visit) -> None:
    page = visit.open(sku="1029743", key=KEY).page
    expect(page.get_by_label("List price")).to_have_value("8.99", timeout=SOON)
    page.get_by_label("List price").fill("8.999")
    page.get_by_role("button", name="Send the change").click()
    expect(page.locator("#floor-answer")).to_have_text("List price: 8.999 is not a number that fits")
    expect(page.get_by_label("List price")).to_have_attribute("aria-invalid", "true")


def counted(world: ShopWorld, stock: int) -> None:
    """The feed tells another stock of the first product."""
    with world.live as redis:
        redis.push([Delta(sku="1029743", stock=stock, sequence=time.time_ns() // 1000, at=datetime.now(UTC))])


def test_what_is_typed_stays_while_the_feed_goes_on_and_only_that_is_sent(visit: Visit, world: ShopWorld) -> None:
    page = visit.open(sku="1029743", key=KEY).page
    expect(page.get_by_label("Stock")).to_have_value("40", timeout=SOON)
    page.get_by_label("List price").fill("9.99")
    page.get_by_role("button", name="Send the change").focus()
    counted(world, 17)
    expect(page.get_by_label("Stock")).to_have_value("17", timeout=SOON)
    expect(page.get_by_label("List price")).to_have_value("9.99")
    page.keyboard.press("Enter")
    expect(page.locator("#product-price")).to_have_text("$9.99", timeout=SOON)
    expect(page.locator("#product-stock")).to_have_text("17 in stock")


def test_nothing_moves_under_the_hand_of_who_is_about_to_type(visit: Visit, world: ShopWorld) -> None:
    page = visit.open(sku="1029743", key=KEY).page
    stock, now = page.get_by_label("Stock"), page.locator("#floor-now")
    expect(stock).to_have_value("40", timeout=SOON)

    def go_there_while_it_changes_to(units: int) -> None:
        stock.focus()
        page.keyboard.press("Control+a")
        counted(world, units)
        expect(now).to_contain_text(f"{units} in stock", timeout=SOON)

    go_there_while_it_changes_to(17)
    page.keyboard.press("Tab")
    expect(stock).to_have_value("17")
    go_there_while_it_changes_to(18)
    page.keyboard.type("7")
    expect(stock).to_have_value("7")


def test_the_cart_counts_against_the_stock_and_its_quotes_verify(visit: Visit) -> None:
    page = visit.open(sku="1029743").page
    expect(visit.total(BREAKFAST)).to_have_text("$14.57", timeout=SOON)
    visit.card(COFFEE_AND_GRANOLA).get_by_role("button", name="Add bundle").click()
    expect(visit.card(BREAKFAST).locator(".sellable")).to_have_text("39 can be sold now", timeout=SOON)
    expect(visit.card(COFFEE_AND_GRANOLA).locator(".sellable")).to_have_text("In your cart", timeout=SOON)
    expect(page.get_by_role("link", name="Cart, 1 bundle")).to_be_visible()
    expect(page.locator(".verdict")).to_have_text("Quote verified, checkout will charge this", timeout=SOON)
    expect(page.locator("#cart-total")).to_have_text("$13.76")
    expect(page.locator("#cart-saving")).to_have_text("$0.72")
    page.reload()
    expect(page.locator("#cart-count")).to_have_text("1")
    page.get_by_role("button", name="Remove Whole bean coffee").click()
    expect(page.locator("#cart-empty")).to_be_visible()
    expect(visit.card(BREAKFAST).locator(".sellable")).to_have_text("40 can be sold now", timeout=SOON)


def test_what_was_shown_and_put_in_the_cart_is_told_to_the_edge(visit: Visit, world: ShopWorld) -> None:
    visit.open(sku="1029743")
    visit.card(COFFEE_AND_GRANOLA).get_by_role("button", name="Add bundle").click()
    expect(visit.page.locator(".verdict")).to_have_text("Quote verified, checkout will charge this", timeout=SOON)
    with world.live as store:
        told = [json.loads(text) for _, text in store.events(1_000)]
    shown = [event["bundle_ids"] for event in told if event["kind"] == "exposure" and event["anchor"] == "1029743"]
    assert [BREAKFAST.id, COFFEE_AND_GRANOLA.id, CAKE.id] in shown
    assert COFFEE_AND_GRANOLA.id in [event["bundle_id"] for event in told if event["kind"] == "cart"]


def test_why_tells_the_reasons_with_the_bundle_and_its_release(visit: Visit) -> None:
    visit.open(sku="1029743")
    expect(visit.total(BREAKFAST)).to_have_text("$14.57", timeout=SOON)
    why = visit.card(BREAKFAST).get_by_role("button", name="Why")
    why.click()
    expect(visit.card(BREAKFAST).locator(".reasons")).to_contain_text("The planned discount is 7 %", timeout=SOON)
    expect(visit.card(BREAKFAST).locator(".reasons")).to_contain_text(f"Bundle {BREAKFAST.id}, release {RELEASE}")
    expect(why).to_have_attribute("aria-expanded", "true")


def test_without_the_edge_bundles_stay_and_no_price_is_offered(visit: Visit, world: ShopWorld) -> None:
    page = visit.open(sku="1029743").page
    expect(visit.total(BREAKFAST)).to_have_text("$14.57", timeout=SOON)
    world.stop_edge()
    try:
        expect(page.locator("#live-text")).to_have_text("Live prices are not available", timeout=SOON)
        expect(visit.total(BREAKFAST)).to_have_text("")
        expect(page.locator("#changes")).to_have_text("Live prices are not available")
        page.locator("#search").fill("red table")
        page.keyboard.press("Enter")
        expect(page.locator("[data-bundle]")).to_have_count(2)
        expect(page.locator("[data-bundle] .offer-total")).to_have_text(["", ""])
        expect(page.locator("[data-bundle] .sellable")).to_have_text(["Live price not available"] * 2, timeout=SOON)
        for button in page.get_by_role("button", name="Add bundle").all():
            expect(button).to_be_disabled()
    finally:
        world.start_edge()
    expect(page.locator("#live-text")).to_have_text(re.compile("^Live: "), timeout=SOON)
    expect(page.locator("[data-bundle] .offer-total").first).to_have_text("$15.77", timeout=SOON)
    assert all("ERR_CONNECTION" in complaint or "ERR_EMPTY" in complaint for complaint in visit.complaints)
    visit.complaints.clear()


def test_a_shard_that_was_changed_on_its_way_is_not_shown(visit: Visit) -> None:
    def tamper(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("Whole bean", "Half bean"))

    visit.page.route(re.compile(rf"/{RELEASE}/\d+\.json"), tamper)
    page = visit.open(sku="1029743").page
    expect(page.get_by_role("alert")).to_contain_text("does not match its checksum", timeout=SOON)
    expect(page.locator("[data-bundle]")).to_have_count(0)


def test_the_cdn_gone_at_first_is_said_and_made_good_later(visit: Visit) -> None:
    visit.page.route("**/current.json", lambda route: route.fulfill(status=503))
    page = visit.open(sku="1029743").page
    expect(page.get_by_role("alert")).to_contain_text("The bundles can't be read: the CDN says 503", timeout=SOON)
    visit.page.unroute("**/current.json")
    expect(visit.total(BREAKFAST)).to_have_text("$14.57", timeout=SOON)
    expect(page.get_by_role("alert")).to_be_hidden()
    assert all("503" in complaint for complaint in visit.complaints)
    visit.complaints.clear()


FAULTS = (Path(__file__).parents[1] / "cdn" / "page_faults.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 820, 1360])
def test_names_headings_sizes_and_contrast_are_right(visitor: Callable[..., Visit], scheme: str, width: int) -> None:
    visit = visitor(width, 900, color_scheme=scheme, reduced_motion="reduce")
    page = visit.open().page
    expect(page.locator("#starters")).to_be_visible()
    assert page.evaluate(FAULTS) == []
    visit.open(sku="862349", key=KEY)
    expect(visit.total(BAGELS)).to_have_text("$13.70", timeout=SOON)
    visit.change("Plain bagels, 6 pack", Stock="0")
    visit.change("Smoked salmon, 4 oz", Stock="4")
    expect(visit.card(BAGELS).locator(".instead")).to_be_visible(timeout=SOON)
    expect(visit.card(BAGELS).locator(".sellable")).to_have_text("Only 4 left", timeout=SOON)
    visit.card(BAGELS).get_by_role("button", name="Add bundle").click()
    expect(page.locator(".verdict")).to_have_attribute("data-verdict", "valid", timeout=SOON)
    page.locator("#search").fill("b")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(FAULTS) == []


def test_the_check_of_names_and_contrast_finds_what_is_wrong(visit: Visit) -> None:
    page = visit.open().page
    expect(page.locator("#starters")).to_be_visible()
    page.evaluate(
        """() => {
          document.querySelector(".lead").setAttribute("class", "sellable");
          document.styleSheets[0].insertRule(".sellable { color: #aaa !important }");
          document.querySelector(".brand img").removeAttribute("alt");
          document.body.append(document.createElement("button"), document.createElement("h1"));
        }"""
    )
    found = " ".join(page.evaluate(FAULTS))
    for fault in ("contrast 2.", "no alt: ", "no name: <button>", "not one h1"):
        assert fault in found


def test_nothing_comes_from_another_origin_than_the_cdn_and_the_edge(visit: Visit, world: ShopWorld) -> None:
    asked: set[str] = set()
    visit.page.on("request", lambda request: asked.add("/".join(request.url.split("/")[:3])))
    visit.open(sku="1029743")
    expect(visit.total(BREAKFAST)).to_have_text("$14.57", timeout=SOON)
    assert asked == {world.edge_url, "/".join(world.url.split("/")[:3])}


def test_a_page_that_is_not_looked_at_asks_nothing(visit: Visit) -> None:
    page = visit.open(sku="1029743").page
    expect(visit.total(BREAKFAST)).to_have_text("$14.57", timeout=SOON)
    page.evaluate(
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.wait_for_timeout(1000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1500)
    assert asked == []
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(1500)
    assert asked


def shoot(browser: Browser, url: str, picture: Path = PICTURE) -> None:
    """Save what a shopper sees at `url` (with or without `#region=…&sku=…`) with one bundle in the cart."""
    context = browser.new_context(viewport={"width": 1360, "height": 940}, locale="en-US", device_scale_factor=2)
    page = context.new_page()
    page.goto(url)
    if "sku=" not in url:
        page.locator(".starter").first.click(timeout=SOON)
    add = page.get_by_role("button", name="Add bundle").locator("visible=true")
    expect(add.nth(1)).to_be_enabled(timeout=SOON)
    add.nth(1).click()
    expect(page.locator(".verdict").first).to_have_attribute("data-verdict", "valid", timeout=SOON)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(2500)
    picture.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=picture)
    context.close()


@pytest.mark.skipif(not os.environ.get("SHOOT"), reason="SHOOT=1 takes the picture for the README")
def test_the_picture_for_the_readme(browser: Browser, request: pytest.FixtureRequest) -> None:
    url = os.environ.get("SHOP_URL") or f"{request.getfixturevalue('world').url}#region=east&sku=1029743&key={KEY}"
    shoot(browser, url)
    assert PICTURE.stat().st_size > 10_000


def test_what_shoppers_turn_to_just_now_stands_behind_the_others_and_goes_when_it_ends(
    visit: Visit, world: ShopWorld
) -> None:
    pair = LivePair("862349", "1082185", 0.4, 3.0, 0)
    name = bundle_id([("862349", 1), ("1082185", 1)])
    visit.open(sku="862349")
    expect(visit.total(BAGELS)).to_have_text("$13.70", timeout=SOON)
    with world.live as store:
        assert store.put_candidates("query", 0, pack(LivePairs(1, int((time.time() + 60) * 1000), (pair,))), 60_000)
        live = visit.page.locator(f'[data-bundle="{name}"]')
        expect(live.locator(".offer-total")).to_have_text("$3.58", timeout=SOON)
        expect(live.locator(".level")).to_have_text(re.compile("Wanted right now"))
        expect(live).to_contain_text("Bananas, per pound")
        assert store.put_candidates("query", 1, pack(LivePairs(1, int((time.time() + 60) * 1000), ())), 60_000)
        expect(live).to_have_count(0, timeout=SOON)
    expect(visit.card(BAGELS)).to_have_attribute("data-state", "live")
