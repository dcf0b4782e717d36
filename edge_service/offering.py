"""From ranked lists to offers: price each bundle at this moment, keep those that can be sold, sign them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from edge_service.answers import Evidence, OfferedBundle, OfferedComponent, SignedQuote, rfc3339
from edge_service.served import Moment
from tandem.bundle import Bundle, Listed
from tandem.offer import Offer, price
from tandem.quote import Quote, QuotedComponent, Signer, nonce
from tandem.segments import ALL


class Signing:
    """Signs offers of one region. Times of expiry fall on a grid, so that an answer stays the same for a while."""

    def __init__(self, signer: Signer, ttl_seconds: int) -> None:
        self._signer, self._ttl_seconds = signer, ttl_seconds

    def expires_at(self, now: float) -> int:
        """Between half of the time to live and all of it from now, in seconds since 1970."""
        half = max(self._ttl_seconds // 2, 1)
        return min((int(now) // half + 2) * half, int(now) + self._ttl_seconds)

    def sign(self, offer: Offer, moment: Moment, segment: str) -> SignedQuote:
        meta = moment.release.meta
        expires_at = self.expires_at(moment.now)
        quote = Quote(
            key_id=self._signer.key_id,
            region=meta.region,
            segment=segment if segment in meta.segments else ALL,
            release=meta.release_id,
            bundle_id=offer.id,
            currency=meta.currency,
            components=tuple(QuotedComponent(c.sku, c.quantity, c.offer_price) for c in offer.components),
            offer_total=offer.offer_total,
            expires_at=expires_at,
            nonce=nonce(),
        )
        return SignedQuote(self._signer.sign(quote), rfc3339(expires_at * 1000) or "")


def merged(moment: Moment, segment: str, anchors: Iterable[str]) -> list[Listed]:
    """The lists of all anchors as one: each bundle once, with its best confidence, best first."""
    best: dict[str, tuple[float, int, Listed]] = {}
    for anchor in anchors:
        for rank, listed in enumerate(moment.release.ranked(segment, anchor)):
            place = (-listed.confidence, rank, listed)
            if listed.bundle_id not in best or place[:2] < best[listed.bundle_id][:2]:
                best[listed.bundle_id] = place
    return [listed for _, _, listed in sorted(best.values(), key=lambda place: (*place[:2], place[2].bundle_id))]


def offers(
    moment: Moment,
    ranked: Sequence[Listed],
    *,
    limit: int,
    cart: Mapping[str, int] | None = None,
    exclude: Collection[str] = (),
) -> tuple[list[tuple[Offer, OfferedBundle]], str]:
    """The first `limit` bundles that can be sold now, and where the first one's evidence comes from.

    What the cart already holds whole is left out, and so is what substitutes have made the same as one before it.
    """
    found: list[tuple[Offer, OfferedBundle]] = []
    matched = ranked[0].matched if ranked else "none"
    seen: set[frozenset[tuple[str, int]]] = set()
    for listed in ranked:
        bundle = moment.release.bundle(listed.bundle_id)
        if bundle is None or _held(bundle, cart or {}):
            continue
        bundle = listed.tell(bundle)
        offer = price(bundle, moment.products.get, cart=cart, exclude=exclude, with_discount=moment.freshness.discounts)
        if offer is None or (content := frozenset((c.sku, c.quantity) for c in offer.components)) in seen:
            continue
        matched = matched if found else listed.matched
        seen.add(content)
        found.append((offer, _offered(offer, bundle, listed, moment.release.meta.currency)))
        if len(found) == limit:
            break
    return found, matched


def _held(bundle: Bundle, cart: Mapping[str, int]) -> bool:
    return all(cart.get(component.sku, 0) >= component.quantity for component in bundle.components)


def _offered(offer: Offer, bundle: Bundle, listed: Listed, currency: str) -> OfferedBundle:
    return OfferedBundle(
        id=offer.id,
        currency=currency,
        list_total=offer.list_total,
        offer_total=offer.offer_total,
        discount=offer.discount,
        sellable=offer.sellable,
        components=components(offer),
        evidence=Evidence(bundle.orders_together, listed.confidence, bundle.lift),
    )


def components(offer: Offer) -> list[OfferedComponent]:
    return [
        OfferedComponent(part.sku, part.quantity, part.unit_price, part.offer_price, part.substituted_for)
        for part in offer.components
    ]
