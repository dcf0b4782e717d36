"""Answers with bundles, encoded: those for one product are kept, and brought up to date where a product changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from edge_service import questions
from edge_service.kept import Kept
from edge_service.kept_bundles import EVIDENCE, NEVER, QUOTE, KeptBundle, front_of
from edge_service.live_table import LiveTable
from edge_service.offering import EMPTY, Promise, Signing, apart, first, matched, merged, missing, priced, promise_of
from edge_service.releases import Release, Standing
from edge_service.served import Moment
from tandem.bundle import Listed, Story
from tandem.quote import nonce

CACHE_SECONDS = 1
"""How long a browser or a CDN may hold an answer to GET bundles."""
JSON = (b"content-type", b"application/json")
CACHE_CONTROL = (b"cache-control", b"public, max-age=%d" % CACHE_SECONDS)
ANSWER_BYTES, PLACE_BYTES, TEXT_BYTES = 1_200, 150, 800
"""What a kept answer takes in memory, about, each place of its list, and the text of each bundle that it shows."""
BUNDLES, UNQUOTED = b',"bundles":[', b',"quote":null'

_encode = msgspec.json.Encoder().encode


class Question(NamedTuple):
    """What is asked for one product; `segment` is the one that consents allow."""

    sku: str
    segment: str
    limit: int


Key = str | tuple[str, bytes] | Question
"""A path, a path with a query, or the question itself: what spares reading it."""


class _Place(NamedTuple):
    """A place of a product's list."""

    listed: Listed
    kept: KeptBundle
    evidence: bytes

    @property
    def content(self) -> str:
        return self.kept.content


class BundlesAnswer:
    """The answer to one Question from one release, as it was told last."""

    __slots__ = (
        "_basis", "_body", "_etag", "_head", "_labels", "_look", "_looks", "_number", "_places", "_question", "_stale",
        "_texts", "_told", "_until", "_version", "counted", "headers", "size",
    )  # fmt: skip

    def __init__(self, question: Question, places: list[_Place]) -> None:
        self._question, self._places = question, places
        self.size = ANSWER_BYTES + PLACE_BYTES * len(places) + TEXT_BYTES * min(question.limit, len(places))
        self._number = self._version = NEVER
        self._until = 0
        self._basis: tuple[int, bool, bool] | None = None
        self._stale: bool | None = None
        self._told: bytes | None = None
        self._body = b""
        self._looks: list[tuple[int, ...]] = []
        self._look: tuple[int, ...] = ()
        self._head, self._texts = b"", [b""]
        self._labels = ("", "", "")

    def at(self, moment: Moment, signing: Signing) -> None:
        """Bring it up to date."""
        if self._number == moment.number:
            return
        products = moment.products
        if (
            moment.basis != self._basis
            or moment.now >= self._until
            or (products.version != self._version and self._changed(products))
        ):
            self._make(moment, signing)
            self._stale = self._told = None
        self._number, self._version = moment.number, products.version
        if moment.freshness.stale is not self._stale:
            self._stale = stale = moment.freshness.stale
            self.counted = (*self._labels, "true" if stale else "false")
            self.headers = [JSON, CACHE_CONTROL, (b"etag", self._etag + (b's"' if stale else b'"'))]

    def body(self, moment: Moment) -> bytes:
        """JSON, of the shape answers.BundlesAnswer."""
        told = moment.told.text
        if told is not self._told:
            self._told, self._body = told, b"".join([self._head, told, BUNDLES, *self._texts])
        return self._body

    def _changed(self, products: LiveTable) -> bool:
        changed, version = products.marks, self._version
        for mark in self._look:  # noqa: SIM110 - a generator costs more than the loop
            if changed(mark) > version:
                return True
        return False

    def _make(self, moment: Moment, signing: Signing) -> None:
        question = self._question
        self._basis, self._until = moment.basis, signing.same_until(moment.now)
        looks: list[tuple[int, ...]] = []

        def now(place: _Place) -> _Place | None:
            sold = place.kept.at(moment)
            looks.append(place.kept.marks)
            return place if sold else None

        shown = first(self._places, now, question.limit)
        level = matched(shown, self._places)
        if looks != self._looks:
            self._looks, self._look = looks, tuple(set(chain.from_iterable(looks)))
        if level != self._labels[1]:
            self._head = head(moment, {"sku": question.sku}, question.segment, level)
        self._labels = (moment.release.meta.region, level, "false" if shown else "true")
        self._texts = []
        for place in shown:
            self._texts += (place.kept.front, EVIDENCE, place.evidence, place.kept.quote, b",")
        self._texts[-1:] = [b"]}"]
        told = b"".join((self._head, b"%d" % self._until, *[place.kept.tag for place in shown]))
        self._etag = b'W/"' + hashlib.blake2b(told, digest_size=12).hexdigest().encode()


class BundlesBook:
    """Answers with bundles of one region. What is kept of them stays within a bound of bytes, and with its release."""

    def __init__(self, signing: Signing, limit_bytes: int) -> None:
        self._signing, self._limit_bytes = signing, limit_bytes
        self._release: Release | None = None
        self._forget()

    def _forget(self) -> None:
        self._kept: Kept[Key, BundlesAnswer] = Kept(self._limit_bytes // 2)
        self._bundles: Kept[tuple[str, Story | None, str], KeptBundle] = Kept(self._limit_bytes // 2)

    @property
    def size(self) -> int:
        """Bytes that the kept answers take, about."""
        return self._kept.size + self._bundles.size

    def known(self, moment: Moment, key: Key) -> BundlesAnswer | None:
        """The answer that is kept under `key`, up to date."""
        self._follow(moment)
        found = self._kept.get(key)
        if found is not None:
            found.at(moment, self._signing)
        return found

    def made(self, moment: Moment, key: Key, question: Question) -> BundlesAnswer:
        """The answer to `question`, kept under `key`. Raises a 404 problem where no product can be called so."""
        questions.check_sku(question.sku)
        ranked = moment.release.ranked(question.segment, question.sku)
        places = [self._place(moment, question.segment, each) for each in ranked]
        found = BundlesAnswer(question, list(filter(None, places)))
        found.at(moment, self._signing)
        self._kept.put(key, found)
        return found

    def offers(self, moment: Moment, question: questions.OffersQuestion, segment: str) -> OffersAnswer:
        self._follow(moment)
        return OffersAnswer(moment, question, segment, self)

    def _follow(self, moment: Moment) -> None:
        if moment.release is not self._release:
            self._release = moment.release
            self._forget()

    def bundle(self, moment: Moment, segment: str, listed: Listed) -> KeptBundle | None:
        """The bundle that is listed, up to date where it was up to date before; None where the release lacks it."""
        meta = moment.release.meta
        named = self._signing.segment(segment, meta)
        key = (listed.bundle_id, listed.own, named)
        found = self._bundles.get(key)
        if found is None:
            bundle = moment.release.bundle(listed.bundle_id)
            if bundle is None:
                return None
            found = KeptBundle(listed.tell(bundle), listed, meta.currency, named, self._signing)
            self._bundles.put(key, found)
        return found

    def _place(self, moment: Moment, segment: str, place: Standing) -> _Place | None:
        kept = self.bundle(moment, segment, place.listed)
        return None if kept is None else _Place(place.listed, kept, place.evidence)

    def quote(self, bundle_id: str, promise: Promise, moment: Moment, segment: str) -> bytes:
        """The end of an offer's text, with a quote of its asker's own."""
        return QUOTE + _encode(self._signing.sign(bundle_id, promise, moment, segment, nonce()))


def head(moment: Moment, anchors: Mapping[str, Any], segment: str, level: str) -> bytes:
    """What stands before the ages in an answer with bundles."""
    meta = moment.release.meta
    fields = {
        "region": meta.region,
        **anchors,
        "segment": segment,
        "matched": level,
        "release": meta.release_id,
        "computed_at": meta.computed_at,
    }
    return _encode(fields)[:-1] + b","


class _Shown(NamedTuple):
    """A bundle shown for a cart."""

    listed: Listed
    content: str
    front: bytes
    evidence: bytes
    promise: Promise


class OffersAnswer:
    """The answer to one asker of POST offers."""

    def __init__(self, moment: Moment, question: questions.OffersQuestion, segment: str, book: BundlesBook) -> None:
        self._moment, self._segment, self._book = moment, segment, book
        self._quotes, self._exclude = question.quotes, frozenset(question.exclude)
        self._cart: dict[str, int] = {}
        for line in question.cart:
            self._cart[line.sku] = self._cart.get(line.sku, 0) + line.quantity
        anchors = list(dict.fromkeys([*question.skus, *self._cart]))
        whole, others = apart(moment, merged(moment, segment, anchors), self._cart)
        shown = first(others, self._beside_the_cart, question.limit)
        complete = first(whole, self._as_it_is, question.limit)
        level = matched(shown, others)
        self.labels = (moment.release.meta.region, level, "false" if shown else "true")
        self._head = head(moment, {"skus": anchors}, segment, level)
        self._bundles = [b'%b,"missing":%b}' % (self._text(each), missing(each.promise, self._cart)) for each in shown]
        self._complete = [self._text(each) + b"}" for each in complete]

    def _beside_the_cart(self, place: Standing) -> _Shown | None:
        kept = self._book.bundle(self._moment, self._segment, place.listed)
        if kept is None or not kept.at(self._moment):  # a cart never makes sellable what is not
            return None
        front = kept.beside(self._cart, self._exclude, self._moment)
        if front is not None:
            return _Shown(place.listed, kept.content, front, place.evidence, kept.promise)
        get = self._moment.products.get
        here = priced(self._moment, place.listed, get, cart=self._cart, exclude=self._exclude)
        if here is None:
            return None
        front = front_of(here, self._moment.release.meta.currency)
        return _Shown(place.listed, here.content, front, place.evidence, promise_of(here.offer))

    def _as_it_is(self, place: Standing) -> _Shown | None:
        """Without anything standing in: what a cart holds whole is priced so."""
        kept = self._book.bundle(self._moment, self._segment, place.listed)
        if kept is None or not kept.at(self._moment):
            return None
        front = kept.beside(EMPTY, self._exclude, self._moment)
        if front is None:
            return None
        return _Shown(place.listed, kept.content, front, place.evidence, kept.promise)

    def _text(self, shown: _Shown) -> bytes:
        """Without its closing brace."""
        quote = UNQUOTED
        if self._quotes:
            quote = self._book.quote(shown.listed.bundle_id, shown.promise, self._moment, self._segment)
        return b"".join((shown.front, EVIDENCE, shown.evidence, quote))

    def body(self) -> bytes:
        """JSON, of the shape answers.OffersAnswer."""
        told = (self._head, self._moment.told.text, BUNDLES, b",".join(self._bundles), b'],"complete":[')
        return b"".join((*told, b",".join(self._complete), b"]}"))
