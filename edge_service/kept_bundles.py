"""One bundle as it is offered now without a cart: priced again only where a product that it looked at has changed."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping
from sys import intern

import msgspec

from edge_service.live_table import mark_of
from edge_service.offering import Priced, Promise, Signing, offered, priced, promise_of
from edge_service.served import Moment
from tandem.bundle import Bundle, Listed
from tandem.offer import Live, parts_of, plain_price

NEVER = -1
BUNDLE_BYTES = 2_600
"""What a kept bundle takes in memory, about."""
ALONE = ""
"""The nonce of a quote that is the same for all who ask."""
SELLABLE, EVIDENCE, QUOTE = b'"sellable":', b',"evidence":', b',"quote":'

_encode = msgspec.json.Encoder().encode


class KeptBundle:
    """`front` and `quote` are its text in an answer; between them stands the evidence, which is its listing's."""

    __slots__ = (
        "_basis", "_discount_bps", "_listed", "_own_marks", "_parts", "_segment", "_sellable", "_signing", "_template",
        "_until", "_version", "content", "front", "marks", "promise", "quote", "tag",
    )  # fmt: skip
    size = BUNDLE_BYTES

    def __init__(self, bundle: Bundle, listed: Listed, currency: str, segment: str, signing: Signing) -> None:
        self._listed, self._segment, self._signing = listed, segment, signing
        self._discount_bps = bundle.discount_bps
        self._parts = tuple([part._replace(sku=intern(part.sku)) for part in parts_of(bundle)])
        self._template = _template(bundle, currency)
        self._own_marks = self.marks = tuple([mark_of(part.sku) for part in self._parts])
        self._sellable = 0
        """0 where something stands in, too."""
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
        if self._basis != moment.basis or moment.now >= self._until or products.changed(self.marks, self._version):
            self._basis, self._version = moment.basis, products.version
            self._price(moment)
        return bool(self.content)

    def beside(self, cart: Mapping[str, int], exclude: Collection[str], moment: Moment) -> bytes | None:
        """`front` net of a cart; None where that needs to be priced anew. Only after `at` the same moment."""
        sellable = self._sellable
        for sku, quantity, _ in self._parts:
            if sku in exclude:
                return None
            held = cart.get(sku)
            if held is not None:
                sellable = min(sellable, (moment.products.now(sku)[0] - held) // quantity)
        if sellable == self._sellable > 0:
            return self.front
        if sellable < 1:
            return None
        before, name, after = self.front.partition(SELLABLE)
        return b"%b%b%d%b" % (before, name, sellable, after[after.index(b",") :])

    def _price(self, moment: Moment) -> None:
        _, discounts, prices = moment.basis
        plain = None
        if prices:
            plain = plain_price(self._parts, moment.products.now, self._discount_bps if discounts else 0)
        if plain is None:
            self._sellable = 0
            self._price_with_substitutes(moment)
            return
        self._sellable, self.content, self.marks = plain.sellable, self._listed.bundle_id, self._own_marks
        numbers = [plain.list_total, plain.offer_total, plain.list_total - plain.offer_total, plain.sellable]
        for pair in zip(plain.unit_prices, plain.offer_prices, strict=True):
            numbers += pair
        self.front = self._template % tuple(numbers)
        self.tag = b"%b%b" % (self.content.encode(), array("q", numbers).tobytes())
        sold = zip(self._parts, plain.offer_prices, strict=True)
        self._sign(tuple([(part.sku, part.quantity, price) for part, price in sold]), moment)

    def _price_with_substitutes(self, moment: Moment) -> None:
        get, looked_at = moment.products.get, []

        def live_of(sku: str) -> Live | None:
            looked_at.append(sku)
            return get(sku)

        here = priced(moment, self._listed, live_of)
        marks = tuple(map(mark_of, looked_at)) or self._own_marks
        self.marks = self.marks if marks == self.marks else marks
        if here is None:
            self.content, self.promise, self._until = "", (), math.inf
            return
        self.content = here.content
        self.tag = self.front = front_of(here, moment.release.meta.currency)
        self._sign(promise_of(here.offer), moment)

    def _sign(self, promise: Promise, moment: Moment) -> None:
        """A quote stays as long as what it promises does; stock is no part of it."""
        if promise != self.promise or moment.now >= self._until:
            self.promise, self._until = promise, self._signing.same_until(moment.now)
            signed = self._signing.sign(self._listed.bundle_id, promise, moment, self._segment, ALONE)
            self.quote = b"%b%b}" % (QUOTE, _encode(signed))


def front_of(here: Priced, currency: str) -> bytes:
    """What stands before the evidence in the text of an offer."""
    return _encode(offered(here, currency, None)).rpartition(EVIDENCE)[0]


def _template(bundle: Bundle, currency: str) -> bytes:
    """As `front_of` an offer in which nothing stands in, with a place for each number that changes."""
    parts = [b'{"sku":%b,"quantity":%d,"unit_price":%%d,"offer_price":%%d,"substituted_for":null}'
             % (_encode(part.sku).replace(b"%", b"%%"), part.quantity) for part in bundle.components]  # fmt: skip
    head = b'{"id":%b,"currency":%b,"list_total":%%d,"offer_total":%%d,"discount":%%d,"sellable":%%d,"components":['
    return head % (_encode(bundle.id), _encode(currency)) + b",".join(parts) + b"]"
