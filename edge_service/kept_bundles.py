"""One bundle as it is offered now without a cart: priced again only where a product that it looked at has changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from functools import cache
from itertools import chain
from struct import Struct
from sys import intern

import msgspec

from edge_service.live_table import UNKNOWN, LiveTable, Spot, Wanted
from edge_service.offering import Priced, Promise, Signing, listed_missing, missing_of, offered, priced
from edge_service.region_payloads import ReleaseMeta
from edge_service.served import Moment
from tandem.bundle import Bundle, Listed
from tandem.offer import Live, Offer, parts_of, plain_prices

NEVER = -1
BUNDLE_BYTES = 3_800
"""What a kept bundle takes in memory, about."""
ALONE = ""
"""The nonce of a quote that is the same for all who ask."""
SELLABLE, COMPONENTS, EVIDENCE = b',"sellable":', b',"components":', b',"evidence":'

_encode = msgspec.json.Encoder().encode


class KeptBundle:
    """`front`, `sold`, `back` and `quote` are its text in an answer; before `quote` stands the evidence, which is its
    listing's, and after it what closes it.
    """

    __slots__ = (
        "_back", "_basis", "_discount_bps", "_discounted", "_draft", "_front", "_listed", "_numbers",
        "_own_spots", "_parts", "_segment", "_sellable", "_sides", "_signing", "_unit_prices", "_until", "_version",
        "_wanted", "back", "content", "front", "promise", "quote", "sold", "spots", "tag",
    )  # fmt: skip
    size = BUNDLE_BYTES

    def __init__(self, bundle: Bundle, listed: Listed, meta: ReleaseMeta, segment: str, signing: Signing) -> None:
        self._listed, self._segment, self._signing = listed, segment, signing
        self._discount_bps = bundle.discount_bps
        self._parts = tuple([part._replace(sku=intern(part.sku)) for part in parts_of(bundle)])
        self._front, self._back = _templates(bundle, meta.currency)
        self._numbers = b""
        """Tells the prices in its text from others."""
        parts = [(part.sku, part.quantity) for part in self._parts]
        self._draft = signing.draft(listed.bundle_id, parts, meta, segment)
        self._own_spots = self.spots = (UNKNOWN,) * len(self._parts)
        self._wanted: tuple[Wanted, ...] = ()
        self._sides: tuple[tuple[str, int, Spot, bytes], ...] = ()
        """What `beside` asks of each component; the last is what a cart lacks that has none of it."""
        self._sellable = 0
        """0 where something stands in, too."""
        self._unit_prices: list[int] = []
        """Empty where something stands in, too."""
        self._discounted = False
        self.promise: Promise = self._draft, []
        """What its quote holds to."""
        self._basis: tuple[int, bool, bool] | None = None
        self._version = NEVER
        self._until = 0.0
        self.content = ""
        """What it is, with its substitutes in place; empty: it can't be sold now."""
        self.front = self.sold = self.back = self.quote = b""
        self.tag = b""
        """Tells two texts of it apart that are told before the same `same_until`."""

    def at(self, moment: Moment) -> bool:
        """Bring it up to date; gives whether it can be sold."""
        products, version = moment.products, self._version
        same = self._basis is moment.basis and moment.now < self._until
        if not same or (version != products.version and products.changed(self.spots, version)):
            self._basis = moment.basis
            self._price(moment)
        self._version = products.version
        return bool(self.content)

    def pieces(self, evidence: bytes) -> tuple[bytes, ...]:
        """Its text in an answer, but for what closes it."""
        return self.front, self.sold, self.back, evidence, self.quote

    def beside(
        self, cart: Mapping[str, int], exclude: Collection[str], products: LiveTable
    ) -> tuple[bytes, bytes] | None:
        """`sold` net of a cart, and what the cart lacks of it as `missing` tells it; None where that needs to be priced
        anew. Only after `at`, and before anything else comes in.
        """
        sellable, lacking = self._sellable, []
        if sellable < 1 or (exclude and any(part.sku in exclude for part in self._parts)):
            return None
        for sku, quantity, spot, whole in self._sides:
            held = cart.get(sku)
            if held is None:
                lacking.append(whole)
                continue
            left = (products.stock_at(spot) - held) // quantity
            if left < sellable:
                if left < 1:
                    return None
                sellable = left
            if held < quantity:
                lacking.append(missing_of(sku, quantity - held))
        return self.sold if sellable == self._sellable else b"%d" % sellable, listed_missing(lacking)

    def promised(self, offer: Offer, meta: ReleaseMeta) -> Promise:
        """What a quote for `offer` holds to, in which something may stand in."""
        parts = [(part.sku, part.quantity) for part in offer.components]
        draft = self._signing.draft(offer.id, parts, meta, self._segment)
        return draft, [part.offer_price for part in offer.components]

    def _price(self, moment: Moment) -> None:
        _, discounts, prices = moment.basis
        products = moment.products
        if UNKNOWN in self._own_spots:
            self._find(products)
        found = products.on_sale(self._wanted) if prices else None
        if found is None:
            self._sellable, self._unit_prices = 0, []
            self._price_with_substitutes(moment)
            return
        unit_prices, sellable = found
        if unit_prices != self._unit_prices or discounts is not self._discounted:
            self._unit_prices, self._discounted = unit_prices, discounts
            self._take(unit_prices, self._discount_bps if discounts else 0)
            self._sign(moment)
        elif moment.now >= self._until:
            self._sign(moment)
        self._sellable, self.content, self.spots = sellable, self._listed.bundle_id, self._own_spots
        self.sold = b"%d" % sellable
        self.tag = self._numbers + self.sold

    def _find(self, products: LiveTable) -> None:
        """Note where its products stand."""
        self._own_spots = tuple([products.spot(part.sku) for part in self._parts])
        found = list(zip(self._own_spots, self._parts, strict=True))
        self._wanted = tuple([(spot, part.quantity, max(part.floor, 1)) for spot, part in found])
        self._sides = tuple(
            [(part.sku, part.quantity, spot, missing_of(part.sku, part.quantity)) for spot, part in found]
        )

    def _take(self, unit_prices: list[int], discount_bps: int) -> None:
        """Take other prices into the text and the promise."""
        list_total, inside = plain_prices(self._parts, unit_prices, discount_bps)
        offer_total = sum(inside)
        numbers = tuple(chain.from_iterable(zip(unit_prices, inside, strict=True)))
        self.front = self._front % (list_total, offer_total, list_total - offer_total)
        self.back = self._back % numbers
        self._numbers = self._listed.bundle_id.encode() + _packed(len(numbers))(*numbers)
        self.promise = self._draft, inside

    def _price_with_substitutes(self, moment: Moment) -> None:
        get, looked_at = moment.products.get, []

        def live_of(sku: str) -> Live | None:
            looked_at.append(sku)
            return get(sku)

        here = priced(moment, self._listed, live_of)
        spots = tuple(map(moment.products.spot, looked_at)) or self._own_spots
        self.spots = self.spots if spots == self.spots else spots
        if here is None:
            self.content, self._until = "", math.inf
            return
        self.content = here.content
        self.front, self.sold, self.back = text_of(here, moment.release.meta.currency)
        self.tag = b"".join((self.front, self.sold, self.back))
        self.promise = self.promised(here.offer, moment.release.meta)
        self._sign(moment)

    def _sign(self, moment: Moment) -> None:
        self.quote, self._until = self._signing.sign(self.promise, moment.now, ALONE)


@cache
def _packed(count: int) -> Callable[..., bytes]:
    """So many amounts of money side by side."""
    return Struct(f"{count}q").pack


def text_of(here: Priced, currency: str) -> tuple[bytes, bytes, bytes]:
    """`front`, `sold` and `back` of an offer."""
    text = _encode(offered(here, currency)).rpartition(EVIDENCE)[0] + EVIDENCE
    front, sellable, rest = text.partition(SELLABLE)
    sold, components, back = rest.partition(COMPONENTS)
    return front + sellable, sold, components + back


def _templates(bundle: Bundle, currency: str) -> tuple[bytes, bytes]:
    """`front` and `back` where nothing stands in, with a place for each number that changes."""
    parts = [b'{"sku":%b,"quantity":%d,"unit_price":%%d,"offer_price":%%d,"substituted_for":null}'
             % (_encode(part.sku).replace(b"%", b"%%"), part.quantity) for part in bundle.components]  # fmt: skip
    front = b'{"id":%b,"currency":%b,"list_total":%%d,"offer_total":%%d,"discount":%%d%b'
    return (
        front % (_encode(bundle.id), _encode(currency), SELLABLE),
        b"%b[%b]%b" % (COMPONENTS, b",".join(parts), EVIDENCE),
    )
