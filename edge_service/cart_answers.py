"""The answer to POST offers: for one asker, several products or a cart as the anchor."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

from edge_service import questions
from edge_service.bundle_answers import BETWEEN, BUNDLES, BundlesBook, head
from edge_service.kept_bundles import text_of
from edge_service.offering import EMPTY, Promise, first, matched, merged, missing, priced, whole_in
from edge_service.releases import Standing
from edge_service.served import Moment
from tandem.bundle import Listed
from tandem.quote import nonce

UNQUOTED, COMPLETE = b',"quote":null', b',"complete":['


class _Shown(NamedTuple):
    """A bundle shown for a cart: `text` is what stands before its evidence, `missing` what stands last."""

    listed: Listed
    content: str
    text: tuple[bytes, bytes, bytes]
    evidence: bytes
    promise: Promise
    missing: bytes


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
        self._bundles = [*self._list(BUNDLES, shown), *self._list(COMPLETE, complete), b"}"]

    def _beside_the_cart(self, place: Standing) -> _Shown | None:
        moment = self._moment
        kept = self._book.bundle(moment, self._segment, place.listed)
        if kept is None or not kept.at(moment):  # a cart never makes sellable what is not
            return None
        beside = kept.beside(self._cart, self._exclude, moment.products)
        if beside is not None:
            sold, lacking = beside
            text = kept.front, sold, kept.back
            return _Shown(place.listed, kept.content, text, place.evidence, kept.promise, lacking)
        here = priced(moment, place.listed, moment.products.get, cart=self._cart, exclude=self._exclude)
        if here is None:
            return None
        meta = moment.release.meta
        promise, lacking = kept.promised(here.offer, meta), missing(here.offer, self._cart)
        return _Shown(place.listed, here.content, text_of(here, meta.currency), place.evidence, promise, lacking)

    def _as_it_is(self, place: Standing) -> _Shown | None:
        """Without anything standing in: what a cart holds whole is priced so."""
        kept = self._book.bundle(self._moment, self._segment, place.listed)
        if kept is None or not kept.at(self._moment):
            return None
        beside = kept.beside(EMPTY, self._exclude, self._moment.products)
        if beside is None:
            return None
        text = kept.front, kept.sold, kept.back
        return _Shown(place.listed, kept.content, text, place.evidence, kept.promise, b"")

    def _list(self, opening: bytes, shown: list[_Shown]) -> list[bytes]:
        """Pieces of JSON."""
        pieces: list[bytes] = []
        signed, sign, now = UNQUOTED, self._book.signing.sign, self._moment.now
        for _, _, text, evidence, promise, lacking in shown:
            if self._quotes:
                signed, _ = sign(promise, now, nonce())
            pieces += (BETWEEN, *text, evidence, signed, lacking)
        return [opening, *pieces[1:], b"}]" if shown else b"]"]

    def body(self) -> tuple[bytes, ...]:
        """Parts of JSON, of the shape answers.OffersAnswer."""
        return (self._head, self._moment.told.text, *self._bundles)
