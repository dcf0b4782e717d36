"""One bundle as it is offered now without a cart: priced again only where a product that it looked at has changed."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping
from itertools import chain
from sys import intern

import msgspec

from edge_service.live_table import Spot, mark_of, now_at
from edge_service.offering import Priced, Promise, Signing, missing_of, offered, priced, promise_of
from edge_service.served import Moment
from tandem.bundle import Bundle, Listed
from tandem.offer import Live, on_sale, parts_of, plain_prices

NEVER = -1
BUNDLE_BYTES = 3_800
"""What a kept bundle takes in memory, about."""
ALONE = ""
"""The nonce of a quote that is the same for all who ask."""
EVIDENCE, QUOTE = b',"evidence":', b',"quote":'

_encode = msgspec.json.Encoder().encode


class KeptBundle:
    """`front` and `quote` are its text in an answer; between them stands the evidence, which is its listing's."""

    __slots__ = (
        "_after", "_basis", "_before", "_discount_bps", "_discounted", "_generation", "_listed", "_numbers",
        "_own_marks", "_own_promise", "_parts", "_segment", "_sellable", "_signing", "_spots", "_templates",
        "_unit_prices", "_until", "_version", "_whole", "content", "front", "marks", "promise", "quote", "tag",
    )  # fmt: skip
    size = BUNDLE_BYTES

    def __init__(self, bundle: Bundle, listed: Listed, currency: str, segment: str, signing: Signing) -> None:
        self._listed, self._segment, self._signing = listed, segment, signing
        self._discount_bps = bundle.discount_bps
        self._parts = tuple([part._replace(sku=intern(part.sku)) for part in parts_of(bundle)])
        self._templates = _templates(bundle, currency)
        self._whole = [missing_of(part.sku, part.quantity) for part in self._parts]
        self._own_marks = self.marks = tuple([mark_of(part.sku) for part in self._parts])
        self._sellable = 0
        """0 where something stands in, too."""
        self._spots: list[Spot] = []
        self._generation = NEVER
        self._unit_prices: list[int] = []
        self._discounted = False
        self._before = self._after = self._numbers = b""
        """Its text before and after how many can be sold, and what tells the numbers in it, at these unit prices."""
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
        if self._basis != moment.basis or moment.now >= self._until or products.changed(self.marks, self._version):
            self._basis, self._version = moment.basis, products.version
            self._price(moment)
        return bool(self.content)

    def beside(self, cart: Mapping[str, int], exclude: Collection[str], moment: Moment) -> tuple[bytes, bytes] | None:
        """`front` net of a cart, and what the cart lacks of it (JSON, a list of the shape answers.Missing); None where
        that needs to be priced anew. Only after `at` the same moment.
        """
        sellable, lacking = self._sellable, []
        for (sku, quantity, _), whole in zip(self._parts, self._whole, strict=True):
            if sku in exclude:
                return None
            held = cart.get(sku)
            if held is None:
                lacking.append(whole)
                continue
            sellable = min(sellable, (moment.products.now(sku)[0] - held) // quantity)
            if held < quantity:
                lacking.append(missing_of(sku, quantity - held))
        if sellable < 1:
            return None
        front = self.front if sellable == self._sellable else b"%b%d%b" % (self._before, sellable, self._after)
        return front, b"[%b]" % b",".join(lacking)

    def _price(self, moment: Moment) -> None:
        generation, discounts, prices = moment.basis
        if generation != self._generation:
            found_at = [moment.products.spot(part.sku) for part in self._parts]
            self._spots = [spot for spot in found_at if spot is not None]
            self._generation = generation if len(self._spots) == len(self._parts) else NEVER
        found = None
        if prices and self._generation != NEVER:
            found = on_sale(self._parts, map(now_at, self._spots))
        if found is None:
            self._sellable = 0
            self._price_with_substitutes(moment)
            return
        unit_prices, self._sellable = found
        if unit_prices != self._unit_prices or discounts is not self._discounted:
            self._unit_prices, self._discounted = unit_prices, discounts
            self._take(*plain_prices(self._parts, unit_prices, self._discount_bps if discounts else 0))
        self.content, self.marks = self._listed.bundle_id, self._own_marks
        self.front = b"%b%d%b" % (self._before, self._sellable, self._after)
        self.tag = b"%b%b%d" % (self.content.encode(), self._numbers, self._sellable)
        self._sign(self._own_promise, moment)

    def _take(self, alone: list[int], inside: list[int]) -> None:
        """Take other prices into the text and the promise."""
        list_total, offer_total = sum(alone), sum(inside)
        before, after = self._templates
        self._before = before % (list_total, offer_total, list_total - offer_total)
        self._after = after % tuple(chain.from_iterable(zip(self._unit_prices, inside, strict=True)))
        self._numbers = array("q", self._unit_prices + inside).tobytes()
        sold = zip(self._parts, inside, strict=True)
        self._own_promise = tuple([(sku, quantity, price) for (sku, quantity, _), price in sold])

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


def _templates(bundle: Bundle, currency: str) -> tuple[bytes, bytes]:
    """As `front_of` an offer in which nothing stands in, before and after how many can be sold, with a place for each
    price.
    """
    parts = [b'{"sku":%b,"quantity":%d,"unit_price":%%d,"offer_price":%%d,"substituted_for":null}'
             % (_encode(part.sku).replace(b"%", b"%%"), part.quantity) for part in bundle.components]  # fmt: skip
    before = b'{"id":%b,"currency":%b,"list_total":%%d,"offer_total":%%d,"discount":%%d,"sellable":'
    return before % (_encode(bundle.id), _encode(currency)), b',"components":[' + b",".join(parts) + b"]"
