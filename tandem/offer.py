"""An offer: a bundle priced now, for one region and cart. The arithmetic of stock, substitutes, floors and cents."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from tandem.bundle import Bundle, Component, Substitute
from tandem.money import allocate, discounted


class Live(msgspec.Struct, frozen=True):
    """What is known about one product in one region right now. Prices in minor units."""

    stock: int | None
    """Units on hand; None where no stock was ever told: then it cannot be promised, and is not sold in a bundle."""
    list_price: int | None
    sale_price: int | None = None

    @property
    def unit_price(self) -> int | None:
        """What one unit costs a shopper today without any bundle."""
        return self.list_price if self.sale_price is None else self.sale_price


class PricedComponent(msgspec.Struct, frozen=True):
    sku: str
    quantity: int
    unit_price: int
    """One unit alone, today."""
    offer_price: int
    """All `quantity` units inside the offer; the offer prices of all components sum to `offer_total`."""
    substituted_for: str | None = None


class Offer(msgspec.Struct, frozen=True):
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
    alone = [live.unit_price * component.quantity for component, _, live in chosen]  # type: ignore[operator]
    floors = [(part.floor or 0) * component.quantity for component, part, _ in chosen]
    parts = _parts(alone, floors, bundle.discount_bps if with_discount else 0)
    components = tuple(
        PricedComponent(
            sku=part.sku,
            quantity=component.quantity,
            unit_price=live.unit_price,  # type: ignore[arg-type]
            offer_price=offer_price,
            substituted_for=None if part.sku == component.sku else component.sku,
        )
        for (component, part, live), offer_price in zip(chosen, parts, strict=True)
    )
    return Offer(
        id=bundle.id,
        list_total=sum(alone),
        offer_total=sum(parts),
        discount=sum(alone) - sum(parts),
        sellable=min(_available(part.sku, live, held) // component.quantity for component, part, live in chosen),
        components=components,
    )


Part = Component | Substitute


def _choose(
    bundle: Bundle, live_of: LiveOf, cart: Mapping[str, int], exclude: Collection[str]
) -> list[tuple[Component, Part, Live]] | None:
    taken = {component.sku for component in bundle.components}
    chosen: list[tuple[Component, Part, Live]] = []
    for component in bundle.components:
        found = _sellable(component, component.quantity, live_of, cart, exclude)
        part: Part = component
        if found is None:
            for substitute in component.substitutes:
                if substitute.sku in taken or substitute.sku in cart:
                    continue
                found = _sellable(substitute, component.quantity, live_of, cart, exclude)
                if found is not None:
                    part = substitute
                    taken.add(substitute.sku)
                    break
        if found is None:
            return None
        chosen.append((component, part, found))
    return chosen


def _sellable(
    part: Part, quantity: int, live_of: LiveOf, cart: Mapping[str, int], exclude: Collection[str]
) -> Live | None:
    live = None if part.sku in exclude else live_of(part.sku)
    if live is None or live.unit_price is None or live.unit_price < max(part.floor or 0, 1):
        return None
    return live if _available(part.sku, live, cart) >= quantity else None


def _available(sku: str, live: Live, cart: Mapping[str, int]) -> int:
    return (live.stock or 0) - cart.get(sku, 0)


def _parts(alone: list[int], floors: list[int], discount_bps: int) -> list[int]:
    """Offer price of each component, none below its floor or above its price alone.

    What a floor keeps back is not taken from the other components: a discount only ever shrinks.
    """
    if discount_bps <= 0:
        return alone
    wanted = allocate(discounted(sum(alone), discount_bps), alone)
    return [max(part, floor) for part, floor in zip(wanted, floors, strict=True)]
