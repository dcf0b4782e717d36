"""Why this bundle, and why at this price: for a person and in JSON. What it costs us stays inside."""

from __future__ import annotations

from collections.abc import Iterable

from edge_service.ages import as_fields
from edge_service.answers import ExplainAnswer, ExplainedComponent, ExplainedRule, Listing, Reason
from edge_service.problems import wrong
from edge_service.served import Moment
from tandem import why
from tandem.bundle import Bundle, Component, Listed
from tandem.money import BPS, EXPONENTS, discounted
from tandem.offer import Offer, price
from tandem.why import Decided

CODES = {
    "as_planned": "The planned discount is given in full.",
    "no_discount_planned": "The batch planned no discount for it.",
    "lowest_price_reached": "A component is at the lowest price it may have in a bundle, so less is taken off.",
    "stale_data": "Live stock or prices are older than their limit, so nothing is taken off.",
    "prices_expired": "Prices here are so old that none is shown.",
    "substitute_used": "A component can't be sold now; its substitute stands in.",
    "on_sale": "A component is on sale; its sale price is what the bundle starts from.",
    "seen_live": "Shoppers turn to it just now; the release does not list it.",
    "cannot_be_sold": "A component can't be sold now and has no substitute that can.",
}
DECIDED: dict[Decided, str] = {
    "unknown": "The batch left no word on its discount.",
    "discounted": "The batch gave the discount that pays best within the rules.",
    "strategy_none": "The rules give no discounts.",
    "no_price": "The batch knew no price of a component.",
    "no_counts": "No order held the whole bundle, so nothing says what a discount would do.",
    "above_lowest_price": "A component cost more at the build than in the days before that the region's law looks at.",
    "at_floor": "A component was at the lowest price it may have in a bundle.",
    "no_gain": "A discount would cost more than it brings in.",
    "not_sure": "A discount may pay, but not surely enough.",
    "over_budget": "The region's budget for discounts went to bundles that gain more.",
}
ACTIONS = {
    "pin": "puts it first",
    "boost": "moves it up",
    "bury": "moves it down",
    "always_with": "asks for a product in it",
}


def explain(moment: Moment, bundle_id: str, *, segment: str, anchor: str | None) -> ExplainAnswer:
    """Raises a 404 problem where the release holds no such bundle."""
    bundle = moment.bundle(bundle_id)
    meta = moment.release.meta
    if bundle is None:
        raise wrong("id", f"release {meta.release_id} of region {meta.region} holds no bundle {bundle_id!r}", 404)
    anchors = [anchor] if anchor is not None else [component.sku for component in bundle.components]
    places = list(_places(moment, bundle, segment, anchors))
    listings = [Listing(at, rank, listed.confidence, listed.matched) for at, rank, listed in places]
    bundle = places[0][2].tell(bundle) if places else bundle
    decided, rules = why.decode(bundle.why)
    offer = None
    if moment.freshness.prices:
        offer = price(bundle, moment.products.get, with_discount=moment.freshness.discounts)
    reasons = _unsold(moment, bundle) if offer is None else list(_reasons(moment, bundle, offer))
    if moment.release.bundle(bundle.id) is None:
        reasons.append(Reason("seen_live", CODES["seen_live"]))
    return ExplainAnswer(
        region=meta.region,
        release=meta.release_id,
        computed_at=meta.computed_at,
        **as_fields(moment.freshness),
        id=bundle.id,
        segment=segment,
        matched=listings[0].matched if listings else "none",
        listings=listings,
        orders_together=bundle.orders_together,
        lift=bundle.lift,
        planned_discount_bps=bundle.discount_bps,
        components=_components(bundle, offer),
        currency=meta.currency,
        list_total=None if offer is None else offer.list_total,
        offer_total=None if offer is None else offer.offer_total,
        discount=None if offer is None else offer.discount,
        sellable=offer.sellable if offer else 0,
        reasons=reasons,
        decided=Reason(decided, DECIDED[decided]),
        rules=[ExplainedRule(rule.line, rule.action) for rule in rules],
        text=_text(meta.currency, bundle, listings, offer, reasons),
    )


def _places(moment: Moment, bundle: Bundle, segment: str, anchors: Iterable[str]) -> Iterable[tuple[str, int, Listed]]:
    """Where the bundle is listed: anchor, rank, and the place itself."""
    for anchor in anchors:
        for place in moment.ranked(segment, anchor).places:
            if place.bundle_id == bundle.id:
                yield anchor, place.rank + 1, place.listed


def _components(bundle: Bundle, offer: Offer | None) -> list[ExplainedComponent]:
    if offer is None:
        return [ExplainedComponent(part.sku, part.quantity) for part in bundle.components]
    return [
        ExplainedComponent(part.sku, part.quantity, part.unit_price, part.offer_price, part.substituted_for)
        for part in offer.components
    ]


def _reasons(moment: Moment, bundle: Bundle, offer: Offer) -> Iterable[Reason]:
    yield _discount_reason(moment, bundle, offer)
    for part in offer.components:
        if part.substituted_for is not None:
            yield Reason("substitute_used", f"{part.sku} stands in for {part.substituted_for}")
        live = moment.products.get(part.sku)
        if live is not None and live.sale_price is not None:
            yield Reason("on_sale", f"{part.sku} is on sale")


def _discount_reason(moment: Moment, bundle: Bundle, offer: Offer) -> Reason:
    if bundle.discount_bps == 0:
        code = "no_discount_planned"
    elif not moment.freshness.discounts:
        code = "stale_data"
    elif offer.offer_total > discounted(offer.list_total, bundle.discount_bps):
        code = "lowest_price_reached"
    else:
        code = "as_planned"
    return Reason(code, CODES[code])


def _unsold(moment: Moment, bundle: Bundle) -> list[Reason]:
    if not moment.freshness.prices:
        return [Reason("prices_expired", CODES["prices_expired"])]
    found = [Reason("cannot_be_sold", text) for part in bundle.components if (text := _obstacle(moment, part))]
    return found or [Reason("cannot_be_sold", CODES["cannot_be_sold"])]


def _obstacle(moment: Moment, part: Component) -> str:
    live = moment.products.get(part.sku)
    if live is None or live.unit_price is None:
        return f"{part.sku} has no price here"
    if (live.stock or 0) < part.quantity:
        return f"{part.sku} is out of stock"
    if live.unit_price < max(part.floor or 0, 1):
        return f"{part.sku} can't be part of a bundle at today's price"
    return ""


def _text(currency: str, bundle: Bundle, listings: list[Listing], offer: Offer | None, reasons: list[Reason]) -> str:
    together = " + ".join(_named(part.sku, part.quantity) for part in (offer or bundle).components)
    said = [f"{together}: {_evidence(bundle, listings)}."]
    if listings and bundle.orders_together:
        first = listings[0]
        share = f"{first.confidence:.0%} of the orders with {first.anchor} hold all of it"
        said.append(f"{share} (evidence: {first.matched}, place {first.rank}).")
    decided, rules = why.decode(bundle.why)
    said.append(f"The planned discount is {bundle.discount_bps / BPS:.1%}. {DECIDED[decided]}")
    said += [f"A rule (rules.toml, line {rule.line}) {ACTIONS[rule.action]}." for rule in rules]
    if offer is not None:
        alone, now, saving = (_money(x, currency) for x in (offer.list_total, offer.offer_total, offer.discount))
        said.append(f"Alone {alone}, together {now}, saving {saving}.")
    said += [reason.detail if reason.detail.endswith(".") else f"{reason.detail}." for reason in reasons]
    return " ".join(said)


WITHOUT_COUNTS = {
    "category": "products of the same kind are bought with it",
    "content": "similar products are bought with it",
    "popular": "it is popular here",
}
"""What a level says of a companion where no orders speak for the bundle itself."""


def _evidence(bundle: Bundle, listings: list[Listing]) -> str:
    if bundle.orders_together:
        return f"in {bundle.orders_together} orders together, {bundle.lift:.1f} times what chance would give"
    if listings and listings[0].matched == "none":
        return "put together by the shop"
    why = WITHOUT_COUNTS.get(listings[0].matched) if listings else None
    return f"a suggestion, {why}" if why else "a suggestion; too few orders speak for the bundle itself"


def _named(sku: str, quantity: int) -> str:
    return sku if quantity == 1 else f"{quantity} × {sku}"


def _money(amount: int, currency: str) -> str:
    places = EXPONENTS[currency]
    whole, part = divmod(amount, 10**places)
    return f"{whole}.{part:0{places}d} {currency}" if places else f"{whole} {currency}"
