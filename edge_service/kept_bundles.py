"""One bundle as it is offered now without a cart: priced again only where a product that it looked at has changed."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping
from sys import intern

import msgspec

from edge_service.live_table import UNKNOWN, LiveTable
from edge_service.offering import Priced, Promise, Signing, missing_of, offered, priced, promise_of
from edge_service.region_payloads import ReleaseMeta
from edge_service.served import Moment
from tandem.bundle import Bundle, Listed
from tandem.offer import Live, on_sale, parts_of, plain_prices

NEVER = -1
BUNDLE_BYTES = 3_800
"""What a kept bundle takes in memory, about."""
ALONE = ""
"""The nonce of a quote that is the same for all who ask."""
SELLABLE, EVIDENCE, QUOTE = b',"sellable":', b',"evidence":', b',"quote":'

_encode = msgspec.json.Encoder().encode


class KeptBundle:
    """`front` and `quote` are its text in an answer; between them stands the evidence, which is its listing's."""

    __slots__ = (
        "_basis", "_discount_bps", "_discounted", "_draft", "_listed", "_named", "_numbers", "_own_promise",
        "_own_spots", "_parts", "_segment", "_sellable", "_signing", "_template", "_unit_prices", "_until", "_version",
        "_whole", "content", "front", "promise", "quote", "spots", "tag",
    )  # fmt: skip
    size = BUNDLE_BYTES

    def __init__(self, bundle: Bundle, listed: Listed, meta: ReleaseMeta, segment: str, signing: Signing) -> None:
        self._listed, self._segment, self._signing = listed, segment, signing
        self._discount_bps = bundle.discount_bps
        self._parts = tuple([part._replace(sku=intern(part.sku)) for part in parts_of(bundle)])
        self._template, self._named = _template(bundle, meta.currency), listed.bundle_id.encode()
        self._draft = signing.draft(
            listed.bundle_id, [(part.sku, part.quantity) for part in self._parts], meta, segment
        )
        self._whole = [missing_of(part.sku, part.quantity) for part in self._parts]
        self._own_spots = self.spots = (UNKNOWN,) * len(self._parts)
        self._sellable = 0
        """0 where something stands in, too."""
        self._unit_prices: list[int] = []
        self._discounted = False
        self._numbers = b""
        """Tells the prices in its text from others."""
        self._own_promise: Promise = ()
        self.promise: Promise = ()
        """What its quote holds to."""
        self._basis: tuple[int, bool, bool] | None = None
        self._version = NEVER
        self._until = 0.0
        self.content = ""
        """What it is, with its substitutes in place; empty: it can't be sold now."""
        self.front = self.quote = b""
        self.tag = b""
        """Tells two texts of it apart that are told before the same `same_until`."""

    def at(self, moment: Moment) -> bool:
        """Bring it up to date; gives whether it can be sold."""
        products = moment.products
        if self._basis is not moment.basis or moment.now >= self._until or products.changed(self.spots, self._version):
            self._basis, self._version = moment.basis, products.version
            self._price(moment)
        return bool(self.content)

    def beside(
        self, cart: Mapping[str, int], exclude: Collection[str], products: LiveTable
    ) -> tuple[bytes, bytes] | None:
        """`front` net of a cart, and what the cart lacks of it (JSON, a list of the shape answers.Missing); None where
        that needs to be priced anew. Only after `at`, and before anything else comes in.
        """
        sellable, lacking = self._sellable, []
        if sellable < 1 or (exclude and any(part.sku in exclude for part in self._parts)):
            return None
        for (sku, quantity, _), whole, spot in zip(self._parts, self._whole, self._own_spots, strict=True):
            held = cart.get(sku)
            if held is None:
                lacking.append(whole)
                continue
            sellable = min(sellable, (products.stock_at(spot) - held) // quantity)
            if held < quantity:
                lacking.append(missing_of(sku, quantity - held))
        if sellable < 1:
            return None
        return self._front(sellable), b"[%b]" % b",".join(lacking)

    def _front(self, sellable: int) -> bytes:
        """`front`, where so many can be sold."""
        if sellable == self._sellable:
            return self.front
        before, _, after = self.front.partition(b"%b%d," % (SELLABLE, self._sellable))
        return b"%b%b%d,%b" % (before, SELLABLE, sellable, after)

    def quoted(self, promise: Promise, moment: Moment, nonce: str) -> bytes:
        """What stands last in the text of an offer: a quote for `promise`."""
        draft = self._draft
        if promise is not self._own_promise:
            parts = [(sku, quantity) for sku, quantity, _ in promise]
            draft = self._signing.draft(self._listed.bundle_id, parts, moment.release.meta, self._segment)
        return QUOTE + self._signing.sign(draft, promise, moment.now, nonce)

    def _price(self, moment: Moment) -> None:
        _, discounts, prices = moment.basis
        products = moment.products
        if UNKNOWN in self._own_spots:
            self._own_spots = tuple([products.spot(part.sku) for part in self._parts])
        found = on_sale(self._parts, products.now_at(self._own_spots)) if prices else None
        if found is None:
            self._sellable = 0
            self._price_with_substitutes(moment)
            return
        unit_prices, sellable = found
        if self._sellable and unit_prices == self._unit_prices and discounts is self._discounted:
            self.front = self._front(sellable)
        else:
            self._unit_prices, self._discounted = unit_prices, discounts
            self._take(*plain_prices(self._parts, unit_prices, self._discount_bps if discounts else 0), sellable)
        self._sellable, self.content, self.spots = sellable, self._listed.bundle_id, self._own_spots
        self.tag = b"%b%d" % (self._numbers, sellable)
        self._sign(self._own_promise, moment)

    def _take(self, alone: list[int], inside: list[int], sellable: int) -> None:
        """Take other prices into the text and the promise."""
        numbers: list[int] = []
        promise = []
        for (sku, quantity, _), unit_price, price in zip(self._parts, self._unit_prices, inside, strict=True):
            numbers += unit_price, price
            promise.append((sku, quantity, price))
        list_total, offer_total = sum(alone), sum(inside)
        self.front = self._template % (list_total, offer_total, list_total - offer_total, sellable, *numbers)
        self._numbers, self._own_promise = self._named + array("q", numbers).tobytes(), tuple(promise)

    def _price_with_substitutes(self, moment: Moment) -> None:
        get, looked_at = moment.products.get, []

        def live_of(sku: str) -> Live | None:
            looked_at.append(sku)
            return get(sku)

        here = priced(moment, self._listed, live_of)
        spots = tuple(map(moment.products.spot, looked_at)) or self._own_spots
        self.spots = self.spots if spots == self.spots else spots
        if here is None:
            self.content, self.promise, self._until = "", (), math.inf
            return
        self.content = here.content
        self.tag = self.front = front_of(here, moment.release.meta.currency)
        self._sign(promise_of(here.offer), moment)

    def _sign(self, promise: Promise, moment: Moment) -> None:
        """A quote stays as long as what it promises does; stock is no part of it."""
        holds = promise == self.promise and moment.now < self._until
        self.promise = promise
        if not holds:
            self._until = self._signing.same_until(moment.now)
            self.quote = self.quoted(promise, moment, ALONE) + b"}"


def front_of(here: Priced, currency: str) -> bytes:
    """What stands before the evidence in the text of an offer."""
    return _encode(offered(here, currency)).rpartition(EVIDENCE)[0]


def _template(bundle: Bundle, currency: str) -> bytes:
    """As `front_of` an offer in which nothing stands in, with a place for each number that changes."""
    parts = [b'{"sku":%b,"quantity":%d,"unit_price":%%d,"offer_price":%%d,"substituted_for":null}'
             % (_encode(part.sku).replace(b"%", b"%%"), part.quantity) for part in bundle.components]  # fmt: skip
    front = b'{"id":%b,"currency":%b,"list_total":%%d,"offer_total":%%d,"discount":%%d%b%%d,"components":[%b]'
    return front % (_encode(bundle.id), _encode(currency), SELLABLE, b",".join(parts))
