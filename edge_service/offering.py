"""From ranked lists to offers: price each bundle at this moment, keep those that can be sold, sign them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from edge_service.answers import Evidence, OfferedBundle, OfferedComponent, rfc3339
from edge_service.region_payloads import ReleaseMeta
from edge_service.releases import Ranking, Standing
from edge_service.served import Moment
from tandem.bundle import Bundle, Listed, bundle_id
from tandem.offer import LiveOf, Offer, price
from tandem.quote import Draft, Quote, QuotedComponent, Signer
from tandem.segments import ALL

_encode = msgspec.json.Encoder().encode

EMPTY: Mapping[str, int] = MappingProxyType({})
Promise = tuple[Draft, list[int]]
"""What a quote holds to: so many of these products, and the offer price of each."""


class Signing:
    """Signs offers of one region. Times of expiry fall on a grid, so that an answer stays the same for a while."""

    def __init__(self, signer: Signer, ttl_seconds: int) -> None:
        self._signer, self._ttl_seconds = signer, ttl_seconds
        self._now, self._expiry = -1, (0, b"", 0)

    def same_until(self, now: float) -> int:
        """Until when what is signed expires at the same time as what is signed `now`, in seconds since 1970."""
        return self._at(int(now))[2]

    def _at(self, now: int) -> tuple[int, bytes, int]:
        """When what is signed now expires, between half of the time to live and all of it from now; the same as answers
        tell it; and until when it stays so.
        """
        if now != self._now:
            half = max(self._ttl_seconds // 2, 1)
            expires_at = min((now // half + 2) * half, now + self._ttl_seconds)
            told = (rfc3339(expires_at * 1000) or "").encode()
            expiry = (expires_at, told, (now // half + 1) * half)
            self._now, self._expiry = now, self._expiry if self._expiry == expiry else expiry
        return self._expiry

    def draft(self, bundle_id: str, parts: Iterable[tuple[str, int]], meta: ReleaseMeta, segment: str) -> Draft:
        """What all quotes for so many of these SKUs have in common; `segment` as `segment` gives it."""
        components = tuple([QuotedComponent(sku, quantity, 0) for sku, quantity in parts])
        key_id = self._signer.key_id
        return self._signer.draft(
            Quote(key_id, meta.region, segment, meta.release_id, bundle_id, meta.currency, components, 0, 0, "")
        )

    def sign(self, promise: Promise, now: float, nonce: str) -> tuple[bytes, int]:
        """A quote as what stands last in the text of an offer, of the shape answers.SignedQuote, and `same_until`; one
        with a nonce is its asker's own and may be used up, one without is the same for all who ask.
        """
        draft, offer_prices = promise
        expires_at, told, until = self._at(int(now))
        return b',"quote":{"token":"%b","expires_at":"%b"}' % (draft.sign(offer_prices, expires_at, nonce), told), until

    @staticmethod
    def segment(asked: str, meta: ReleaseMeta) -> str:
        """The segment that a quote names: none that the release does not know."""
        return asked if asked in meta.segments else ALL


def merged(rankings: Iterable[Ranking]) -> Iterator[Standing]:
    """The lists of all anchors as one: each bundle once, with its best confidence, best first."""
    seen: set[str] = set()
    ahead = [(ranking.likely[0].order, 1, ranking.likely) for ranking in rankings if ranking.likely]
    heapify(ahead)
    while ahead:
        _, after, places = ahead[0]
        if after < len(places):
            heapreplace(ahead, (places[after].order, after + 1, places))
        else:
            heappop(ahead)
        place = places[after - 1]
        if place.bundle_id not in seen:
            seen.add(place.bundle_id)
            yield place


def whole_in(cart: Mapping[str, int], moment: Moment, rankings: Collection[Ranking]) -> list[Standing]:
    """Of `merged`, the places whose bundle the cart holds whole."""
    if all([ranking.others.isdisjoint(cart) for ranking in rankings]):  # noqa: C419 - a list is faster
        return []
    there = frozenset(cart).issuperset
    return [each for each in merged(rankings) if there(each.others) and _held(moment.bundle(each.bundle_id), cart)]


def _held(bundle: Bundle | None, cart: Mapping[str, int]) -> bool:
    return bundle is not None and all(cart.get(part.sku, 0) >= part.quantity for part in bundle.components)


class Priced(NamedTuple):
    """A bundle that can be sold now, and the place in a list where it stands."""

    listed: Listed
    bundle: Bundle
    offer: Offer
    content: str
    """What the bundle's id is, or would be with its substitutes in place."""


def priced(
    moment: Moment,
    listed: Listed,
    live_of: LiveOf,
    *,
    cart: Mapping[str, int] = EMPTY,
    exclude: Collection[str] = (),
) -> Priced | None:
    """The bundle at one place; None where it can't be sold now, or prices have expired."""
    bundle = moment.bundle(listed.bundle_id)
    if bundle is None or not moment.freshness.prices:
        return None
    bundle = listed.tell(bundle)
    offer = price(bundle, live_of, cart=cart, exclude=exclude, with_discount=moment.freshness.discounts)
    if offer is None:
        return None
    return Priced(listed, bundle, offer, _content(offer))


def _content(offer: Offer) -> str:
    if all([part.substituted_for is None for part in offer.components]):  # noqa: C419 - a list is faster
        return offer.id
    return bundle_id((part.sku, part.quantity) for part in offer.components)


class Listing(Protocol):
    """Something at a place in a list."""

    @property
    def listed(self) -> Listed: ...


class Shown(Listing, Protocol):
    """What `first` looks at."""

    @property
    def content(self) -> str: ...


Place = TypeVar("Place")
Found = TypeVar("Found", bound=Shown)


def first(places: Iterable[Place], priced_at: Callable[[Place], Found | None], limit: int) -> list[Found]:
    """The first `limit` bundles that can be sold now, without what substitutes made the same as one before."""
    found: list[Found] = []
    seen: set[str] = set()
    for place in places:
        here = priced_at(place)
        if here is None or (content := here.content) in seen:
            continue
        seen.add(content)
        found.append(here)
        if len(found) == limit:
            break
    return found


def matched(shown: Sequence[Shown], best: Listing | None) -> str:
    """Where the evidence of the first bundle shown comes from; where none can be shown, of the first in the list."""
    if shown:
        return shown[0].listed.matched
    return "none" if best is None else best.listed.matched


def missing(offer: Offer, cart: Mapping[str, int]) -> bytes:
    """What the cart lacks of an offer, as it stands last in its text."""
    short = [(part.sku, part.quantity - cart.get(part.sku, 0)) for part in offer.components]
    return listed_missing([missing_of(sku, lacking) for sku, lacking in short if lacking > 0])


def missing_of(sku: str, quantity: int) -> bytes:
    """JSON of the shape answers.Missing."""
    return b'{"sku":%b,"quantity":%d}' % (_encode(sku), quantity)


def listed_missing(lacking: Iterable[bytes]) -> bytes:
    return b',"missing":[%b]' % b",".join(lacking)


def offered(here: Priced, currency: str) -> OfferedBundle:
    """As an answer tells it, without a quote."""
    offer, bundle = here.offer, here.bundle
    return OfferedBundle(
        offer.id,
        currency,
        offer.list_total,
        offer.offer_total,
        offer.discount,
        offer.sellable,
        [
            OfferedComponent(part.sku, part.quantity, part.unit_price, part.offer_price, part.substituted_for)
            for part in offer.components
        ],
        Evidence(bundle.orders_together, here.listed.confidence, bundle.lift),
    )
