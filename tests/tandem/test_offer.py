"""An offer can be sold, adds up to the cent, and never goes below a floor: held against a slow, obvious reference."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.bundle import Bundle, Component, Substitute
from tandem.money import EXPONENTS, minor_units
from tandem.offer import Live, Offer, price

SKUS = ["a", "b", "c", "d", "e", "f", "g"]
floors = st.none() | st.integers(0, 60)


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    names = draw(st.lists(st.sampled_from(SKUS), min_size=1, max_size=4, unique=True))
    components = tuple(
        Component(
            name,
            draw(st.integers(1, 3)),
            draw(floors),
            tuple(
                Substitute(other, draw(floors))
                for other in draw(st.lists(st.sampled_from(SKUS), max_size=3, unique=True))
                if other != name
            ),
        )
        for name in names
    )
    return Bundle("id", components, draw(st.sampled_from([0, 1, 333, 1_000, 2_500, 9_999])), 10, 2.0)


lives = st.dictionaries(
    st.sampled_from(SKUS),
    st.builds(
        Live,
        stock=st.none() | st.integers(0, 12),
        list_price=st.none() | st.integers(0, 99),
        sale_price=st.none() | st.integers(0, 80),
    ),
)
carts = st.dictionaries(st.sampled_from(SKUS), st.integers(1, 6), max_size=3)
excludes = st.frozensets(st.sampled_from(SKUS), max_size=2)


def today(live: Live) -> int | None:
    return live.list_price if live.sale_price is None else live.sale_price


def reference(
    bundle: Bundle, live: dict[str, Live], cart: dict[str, int], exclude: frozenset[str], discount_bps: int
) -> dict[str, object] | None:
    """The offer, worked out by the sentences of the design, one after the other, in exact fractions."""
    used: list[tuple[str, int, int, str | None]] = []  # sku, quantity, floor, stands in for
    for component in bundle.components:
        candidates = [(component.sku, component.floor)]
        for substitute in component.substitutes:
            in_bundle = substitute.sku in [each.sku for each in bundle.components]
            if not in_bundle and substitute.sku not in cart and substitute.sku not in [each[0] for each in used]:
                candidates.append((substitute.sku, substitute.floor))
        for sku, floor in candidates:
            known = live.get(sku)
            if known is None or sku in exclude or known.stock is None:
                continue
            unit = today(known)
            left = known.stock - cart.get(sku, 0)
            if unit is not None and unit >= 1 and unit >= (floor or 0) and left >= component.quantity:
                used.append((sku, component.quantity, floor or 0, component.sku if sku != component.sku else None))
                break
        else:
            return None
    alone = [today(live[sku]) * quantity for sku, quantity, _, _ in used]  # type: ignore[operator]
    whole = Decimal(sum(alone)) * (10_000 - discount_bps) / 10_000
    target = int(whole.quantize(Decimal(1), rounding=ROUND_HALF_UP))
    shares = [Fraction(target * each, sum(alone)) for each in alone]
    parts = [int(share) for share in shares]
    while sum(parts) < target:
        behind = [share - part for share, part in zip(shares, parts, strict=True)]
        parts[behind.index(max(behind))] += 1
    parts = [max(part, floor * quantity) for part, (_, quantity, floor, _) in zip(parts, used, strict=True)]
    return {
        "components": [(sku, q, part, instead) for (sku, q, _, instead), part in zip(used, parts, strict=True)],
        "list_total": sum(alone),
        "offer_total": sum(parts),
        "sellable": min((live[sku].stock - cart.get(sku, 0)) // q for sku, q, _, _ in used),  # type: ignore[operator]
    }


def told(offer: Offer | None) -> dict[str, object] | None:
    if offer is None:
        return None
    return {
        "components": [(c.sku, c.quantity, c.offer_price, c.substituted_for) for c in offer.components],
        "list_total": offer.list_total,
        "offer_total": offer.offer_total,
        "sellable": offer.sellable,
    }


@settings(max_examples=1_000, deadline=None)
@given(bundles(), lives, carts, excludes, st.booleans())
def test_an_offer_is_what_the_reference_says(
    bundle: Bundle, live: dict[str, Live], cart: dict[str, int], exclude: frozenset[str], discount: bool
) -> None:
    offer = price(bundle, live.get, cart=cart, exclude=exclude, with_discount=discount)
    assert told(offer) == reference(bundle, live, cart, exclude, bundle.discount_bps if discount else 0)


@settings(max_examples=1_000, deadline=None)
@given(bundles(), lives, carts, excludes)
def test_whatever_is_offered_holds_the_rules_that_never_break(
    bundle: Bundle, live: dict[str, Live], cart: dict[str, int], exclude: frozenset[str]
) -> None:
    offer = price(bundle, live.get, cart=cart, exclude=exclude)
    if offer is None:
        return
    floor_of = {(part.sku, None): part.floor for part in bundle.components}
    floor_of |= {(s.sku, part.sku): s.floor for part in bundle.components for s in part.substitutes}
    assert offer.list_total == offer.offer_total + offer.discount
    assert offer.discount >= 0
    assert sum(part.offer_price for part in offer.components) == offer.offer_total
    assert sum(part.unit_price * part.quantity for part in offer.components) == offer.list_total
    assert len({part.sku for part in offer.components}) == len(bundle.components)
    assert offer.sellable >= 1
    for part in offer.components:
        floor = floor_of[part.sku, part.substituted_for] or 0
        assert floor * part.quantity <= part.offer_price <= part.unit_price * part.quantity
        assert part.sku not in exclude
        assert part.substituted_for is None or part.sku not in cart
        stock = live[part.sku].stock
        assert stock is not None
        assert cart.get(part.sku, 0) + offer.sellable * part.quantity <= stock


@settings(max_examples=1_000, deadline=None)
@given(bundles(), lives, carts, excludes)
def test_no_cart_and_no_exclusion_makes_sellable_what_is_not(
    bundle: Bundle, live: dict[str, Live], cart: dict[str, int], exclude: frozenset[str]
) -> None:
    if price(bundle, live.get, cart=cart, exclude=exclude) is not None:
        assert price(bundle, live.get) is not None


prices = st.lists(st.integers(1, 99_999), min_size=2, max_size=4)


@given(st.sampled_from(["JPY", "USD", "KWD"]), prices, st.integers(1, 9_999))
def test_an_offer_adds_up_as_a_shop_writes_it_in_any_currency(currency: str, amounts: list[int], bps: int) -> None:
    places = EXPONENTS[currency]
    shelf = [Decimal(amount).scaleb(-places) for amount in amounts]
    names = SKUS[: len(shelf)]
    units = {sku: Live(9, minor_units(str(written), currency)) for sku, written in zip(names, shelf, strict=True)}
    offer = price(Bundle("id", tuple(Component(sku) for sku in names), bps, 10, 2.0), units.get)
    assert offer is not None
    parts = [Decimal(part.offer_price).scaleb(-places) for part in offer.components]
    total = Decimal(offer.offer_total).scaleb(-places)
    assert sum(parts) == total
    assert Decimal(offer.list_total).scaleb(-places) == sum(shelf)
    assert abs(total - sum(shelf) * (10_000 - bps) / 10_000) <= Decimal("0.5").scaleb(-places)


PAIR = Bundle("pair", (Component("a", 1), Component("b", 2)), 1_000, 10, 2.0)


def stocked(**stock: int) -> dict[str, Live]:
    return {sku: Live(stock=units, list_price=100) for sku, units in stock.items()}


def test_a_bundle_with_one_empty_component_is_not_offered() -> None:
    assert price(PAIR, stocked(a=5, b=1).get) is None
    assert price(PAIR, stocked(a=5).get) is None


def test_a_product_whose_stock_was_never_told_is_not_promised() -> None:
    live = stocked(a=5) | {"b": Live(stock=None, list_price=100)}
    assert price(PAIR, live.get) is None


def test_a_product_without_a_price_is_not_offered() -> None:
    live = stocked(a=5) | {"b": Live(stock=9, list_price=None)}
    assert price(PAIR, live.get) is None


def test_what_can_be_sold_is_net_of_the_cart() -> None:
    offer = price(PAIR, stocked(a=5, b=9).get, cart={"b": 4})
    assert offer is not None
    assert offer.sellable == 2


def test_a_cart_that_holds_more_than_there_is_leaves_nothing() -> None:
    assert price(PAIR, stocked(a=5, b=9).get, cart={"b": 12}) is None


def test_without_a_discount_the_offer_is_the_price_alone() -> None:
    offer = price(PAIR, stocked(a=5, b=9).get, with_discount=False)
    assert offer is not None
    assert (offer.list_total, offer.offer_total, offer.discount) == (300, 300, 0)


def test_what_a_floor_keeps_back_is_not_taken_from_the_others() -> None:
    bundle = Bundle("id", (Component("a", 1, 99), Component("b", 1)), 2_000, 10, 2.0)
    offer = price(bundle, stocked(a=1, b=1).get)
    assert offer is not None
    assert [part.offer_price for part in offer.components] == [99, 80]


def test_a_component_cheaper_today_than_its_floor_is_not_sold_in_a_bundle() -> None:
    bundle = Bundle("id", (Component("a", 1, 101, (Substitute("c", 90),)), Component("b", 1)), 0, 10, 2.0)
    assert price(bundle, stocked(a=1, b=1).get) is None
    offer = price(bundle, stocked(a=1, b=1, c=1).get)
    assert offer is not None
    assert [part.sku for part in offer.components] == ["c", "b"]


@pytest.mark.parametrize("cart", [{"c": 1}, {}])
def test_one_product_never_stands_in_twice_or_from_the_cart(cart: dict[str, int]) -> None:
    instead = (Substitute("c"),)
    bundle = Bundle("id", (Component("a", 1, None, instead), Component("b", 1, None, instead)), 0, 10, 2.0)
    assert price(bundle, stocked(c=9).get, cart=cart) is None
    assert (price(bundle, stocked(a=1, c=9).get, cart=cart) is None) == bool(cart)
