"""The answer to POST offers: for one asker, several products or a cart as the anchor."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

from edge_service import questions
from edge_service.bundle_answers import BUNDLES, BundlesBook, head
from edge_service.kept_bundles import EVIDENCE, KeptBundle, front_of
from edge_service.offering import EMPTY, Promise, first, matched, merged, missing, priced, promise_of, whole_in
from edge_service.releases import Standing
from edge_service.served import Moment
from tandem.bundle import Listed
from tandem.quote import nonce

UNQUOTED = b',"quote":null'


class _Shown(NamedTuple):
    """A bundle shown for a cart."""

    listed: Listed
    kept: KeptBundle
    content: str
    front: bytes
    missing: bytes
    evidence: bytes
    promise: Promise


class OffersAnswer:
    """The answer to one asker of POST offers."""

    def __init__(self, moment: Moment, question: questions.OffersQuestion, segment: str, book: BundlesBook) -> None:
        self._moment, self._book = moment, book
        self._segment = book.segment(moment, segment)
        self._quotes, self._exclude = question.quotes, frozenset(question.exclude)
        self._cart: dict[str, int] = {}
        for line in question.cart:
            self._cart[line.sku] = self._cart.get(line.sku, 0) + line.quantity
        anchors = list(dict.fromkeys([*question.skus, *self._cart]))
        rankings = [moment.ranked(segment, anchor) for anchor in anchors]
        whole = whole_in(self._cart, moment, rankings)
        others = merged(rankings) if not whole else (place for place in merged(rankings) if place not in whole)
        best = next(others, None)
        shown = [] if best is None else first(chain([best], others), self._beside_the_cart, question.limit)
        complete = first(whole, self._as_it_is, question.limit)
        level = matched(shown, best)
        self.labels = (moment.release.meta.region, level, "false" if shown else "true")
        self._head = head(moment, {"skus": anchors}, segment, level)
        self._bundles = [b'%b,"missing":%b}' % (self._text(each), each.missing) for each in shown]
        self._complete = [self._text(each) + b"}" for each in complete]

    def _beside_the_cart(self, place: Standing) -> _Shown | None:
        kept = self._book.bundle(self._moment, self._segment, place.listed)
        if kept is None or not kept.at(self._moment):  # a cart never makes sellable what is not
            return None
        beside = kept.beside(self._cart, self._exclude, self._moment.products)
        if beside is not None:
            return _Shown(place.listed, kept, kept.content, *beside, place.evidence, kept.promise)
        get = self._moment.products.get
        here = priced(self._moment, place.listed, get, cart=self._cart, exclude=self._exclude)
        if here is None:
            return None
        front = front_of(here, self._moment.release.meta.currency)
        promise = promise_of(here.offer)
        return _Shown(place.listed, kept, here.content, front, missing(promise, self._cart), place.evidence, promise)

    def _as_it_is(self, place: Standing) -> _Shown | None:
        """Without anything standing in: what a cart holds whole is priced so."""
        kept = self._book.bundle(self._moment, self._segment, place.listed)
        if kept is None or not kept.at(self._moment):
            return None
        beside = kept.beside(EMPTY, self._exclude, self._moment.products)
        if beside is None:
            return None
        return _Shown(place.listed, kept, kept.content, *beside, place.evidence, kept.promise)

    def _text(self, shown: _Shown) -> bytes:
        """Without its closing brace."""
        quote = UNQUOTED
        if self._quotes:
            quote = shown.kept.quoted(shown.promise, self._moment, nonce())
        return b"".join((shown.front, EVIDENCE, shown.evidence, quote))

    def body(self) -> tuple[bytes, ...]:
        """Parts of JSON, of the shape answers.OffersAnswer."""
        told = (self._head, self._moment.told.text, BUNDLES, b",".join(self._bundles), b'],"complete":[')
        return (*told, b",".join(self._complete), b"]}")
