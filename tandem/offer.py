"""An offer: a bundle priced now, for one region and cart. The arithmetic of stock, substitutes, floors and cents."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from tandem.bundle import Bundle, Component, Substitute
from tandem.money import allocate, discounted


class Live(msgspec.Struct, frozen=True, gc=False):
    """What is known about one product in one region right now. Prices in minor units."""

    stock: int | None
    """Units on hand; None where no stock was ever told: then it cannot be promised, and is not sold in a bundle."""
    list_price: int | None
    sale_price: int | None = None

    @property
    def unit_price(self) -> int | None:
        """What one unit costs a shopper today without any bundle."""
        return self.list_price if self.sale_price is None else self.sale_price


class PricedComponent(msgspec.Struct, frozen=True, gc=False):
    sku: str
    quantity: int
    unit_price: int
    """One unit alone, today."""
    offer_price: int
    """All `quantity` units inside the offer; the offer prices of all components sum to `offer_total`."""
    substituted_for: str | None = None


class Offer(msgspec.Struct, frozen=True, gc=False):
    """A bundle that can be sold now: `list_total` = `offer_total` + `discount`, in minor units."""

    id: str
    list_total: int
    offer_total: int
    discount: int
    sellable: int
    components: tuple[PricedComponent, ...]


LiveOf = Callable[[str], Live | None]


def price(
    bundle: Bundle,
    live_of: LiveOf,
    *,
    cart: Mapping[str, int] | None = None,
    exclude: Collection[str] = (),
    with_discount: bool = True,
) -> Offer | None:
    """`bundle` as an offer, or None where it cannot be sold now.

    A component that ran out, is excluded, or costs less today than its floor is replaced by its first substitute
    that can be sold and is neither in the bundle already nor in the cart. The discount is the bundle's own, cut so
    that no component is sold below its floor; without `with_discount` it is zero.
    """
    held = cart or {}
    chosen = _choose(bundle, live_of, held, exclude)
    if chosen is None:
        return None
    alone = [unit_price * part.quantity for part, _, _, unit_price, _ in chosen]
    parts = alone
    if with_discount and bundle.discount_bps > 0:
        parts = _parts(alone, [floor * part.quantity for part, _, floor, _, _ in chosen], bundle.discount_bps)
    list_total, offer_total = sum(alone), sum(parts)
    return Offer(
        bundle.id,
        list_total,
        offer_total,
        list_total - offer_total,
        min([available // part.quantity for part, _, _, _, available in chosen]),
        tuple(
            [
                PricedComponent(sku, part.quantity, unit_price, offer_price, None if sku == part.sku else part.sku)
                for (part, sku, _, unit_price, _), offer_price in zip(chosen, parts, strict=True)
            ]
        ),
    )


class Part(NamedTuple):
    """What the price of one component follows from, where nothing stands in for it."""

    sku: str
    quantity: int
    floor: int


def parts_of(bundle: Bundle) -> tuple[Part, ...]:
    return tuple([Part(part.sku, part.quantity, part.floor or 0) for part in bundle.components])


def plain_prices(parts: Iterable[Part], unit_prices: Iterable[int], discount_bps: int) -> tuple[int, list[int]]:
    """What `price` says without a cart and with nothing that stands in: the list total, and of each component what all
    of its units cost inside the offer.
    """
    alone = []
    for (_, quantity, _), unit_price in zip(parts, unit_prices, strict=True):
        alone.append(unit_price * quantity)
    list_total = sum(alone)
    if not discount_bps:
        return list_total, alone
    inside = allocate(discounted(list_total, discount_bps), alone)
    for place, (_, quantity, floor) in enumerate(parts):
        if inside[place] < floor * quantity:
            inside[place] = floor * quantity
    return list_total, inside


Chosen = tuple[Component, str, int, int, int]
"""A component, and what is sold as it: sku, floor, unit price, how many are there beside the cart."""


def _choose(bundle: Bundle, live_of: LiveOf, cart: Mapping[str, int], exclude: Collection[str]) -> list[Chosen] | None:
    chosen: list[Chosen] = []
    for component in bundle.components:
        found = _sellable(component, component, live_of, cart, exclude)
        if found is None:
            taken = {part.sku for part in bundle.components}.union(cart, [sku for _, sku, _, _, _ in chosen])
            found = _stand_in(component, taken, live_of, exclude)
            if found is None:
                return None
        chosen.append(found)
    return chosen


def _stand_in(component: Component, taken: set[str], live_of: LiveOf, exclude: Collection[str]) -> Chosen | None:
    for substitute in component.substitutes:
        if substitute.sku not in taken:
            found = _sellable(component, substitute, live_of, {}, exclude)
            if found is not None:
                return found
    return None


def _sellable(
    component: Component,
    part: Component | Substitute,
    live_of: LiveOf,
    cart: Mapping[str, int],
    exclude: Collection[str],
) -> Chosen | None:
    """`part` in the place of `component`; None where it can't be sold."""
    sku, floor = part.sku, part.floor or 0
    live = None if sku in exclude else live_of(sku)
    if live is None:
        return None
    unit_price = live.list_price if live.sale_price is None else live.sale_price
    if unit_price is None or unit_price < 1 or unit_price < floor:
        return None
    available = live.stock or 0
    if sku in cart:
        available -= cart[sku]
    return (component, sku, floor, unit_price, available) if available >= component.quantity else None


def _parts(alone: Sequence[int], lowest: Sequence[int], discount_bps: int) -> list[int]:
    """Offer price of each component, none below its lowest or above its price alone.

    What a floor keeps back is not taken from the other components: a discount only ever shrinks.
    """
    found = allocate(discounted(sum(alone), discount_bps), alone)
    for place, least in enumerate(lowest):
        if found[place] < least:
            found[place] = least
    return found
