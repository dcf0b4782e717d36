"""Answers with bundles, encoded: those for one product are kept, and brought up to date where a product changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import chain
from sys import intern
from typing import Any, NamedTuple

import msgspec

from edge_service import questions
from edge_service.answers import SignedQuote
from edge_service.kept import Kept
from edge_service.live_table import LiveTable, mark_of
from edge_service.offering import Priced, Signing, apart, as_it_is, first, matched, merged, missing, offered, priced
from edge_service.releases import Release
from edge_service.served import Moment
from tandem.bundle import Listed
from tandem.offer import Live, Offer, Part, restocked
from tandem.quote import nonce

CACHE_SECONDS = 1
"""How long a browser or a CDN may hold an answer to GET bundles."""
JSON = (b"content-type", b"application/json")
CACHE_CONTROL = (b"cache-control", b"public, max-age=%d" % CACHE_SECONDS)
ANSWER_BYTES, PLACE_BYTES = 1_800, 1_500
"""What a kept answer takes in memory, about, and each place of its list."""
NEVER = -1
SELLABLE = b'"sellable":'
BUNDLES, QUOTE, UNQUOTED = b',"bundles":[', b',"quote":', b',"quote":null}'
ALONE = ""
"""The nonce of a quote that is the same for all who ask."""

_encode = msgspec.json.Encoder().encode


class Question(NamedTuple):
    """What is asked for one product; `segment` is the one that consents allow."""

    sku: str
    segment: str
    limit: int


Key = str | tuple[str, bytes] | Question
"""A path, a path with a query, or the question itself: what spares reading it."""


class _Place:
    """One place of a product's list, as it was priced last."""

    __slots__ = ("_parts", "_prices", "_until", "_version", "content", "listed", "marks", "tag", "text")

    def __init__(self, listed: Listed) -> None:
        self.listed = listed
        self.content = ""
        """Empty: it can't be sold now."""
        self.text = self.tag = b""
        self.marks: tuple[int, ...] = ()
        self._parts: tuple[Part, ...] = ()
        """Empty where a substitute stands in."""
        self._version = NEVER
        self._prices: tuple[int | str | None, ...] = ()
        self._until = 0

    def forget(self) -> None:
        self._version, self._parts = NEVER, ()

    def now(self, moment: Moment, segment: str, signing: Signing) -> _Place | None:
        """Itself if it can be sold now; priced anew only where a product that it looked at has changed."""
        expired = bool(self.content) and moment.now >= self._until
        if expired or (self._changed(moment.products) and not self._restocked(moment)):
            self._price(moment, segment, signing)
        return self if self.content else None

    def _changed(self, products: LiveTable) -> bool:
        changed, version = products.marks, self._version
        for mark in self.marks:
            if changed(mark) > version:
                return True
        return version == NEVER

    def _restocked(self, moment: Moment) -> bool:
        """Whether stock alone had changed, and is told now."""
        sellable = restocked(self._parts, moment.products.get)
        if sellable is None:
            return False
        before, name, after = self.text.partition(SELLABLE)
        self._tell(b"%b%b%d%b" % (before, name, sellable, after[after.index(b",") :]), moment)
        return True

    def _price(self, moment: Moment, segment: str, signing: Signing) -> None:
        get, looked_at = moment.products.get, []

        def live_of(sku: str) -> Live | None:
            looked_at.append(sku)
            return get(sku)

        here = priced(moment, self.listed, live_of)
        marks = tuple(map(mark_of, looked_at))
        self.marks = self.marks if marks == self.marks else marks
        self._version = moment.products.version
        self.content, self._parts = "", ()
        if here is not None:
            self.content = here.content
            if here.content == here.bundle.id:
                self._parts = tuple([Part(intern(c.sku), c.quantity, c.unit_price) for c in here.offer.components])
            told = _encode(offered(here, moment.release.meta.currency, None))[: -len(UNQUOTED)]
            self._tell(told + self._quote(here.offer, moment, segment, signing), moment)

    def _tell(self, text: bytes, moment: Moment) -> None:
        self._version = moment.products.version
        self.text, self.tag = text, hashlib.blake2b(text, digest_size=12).digest()

    def _quote(self, offer: Offer, moment: Moment, segment: str, signing: Signing) -> bytes:
        """The end of the text. A quote stays as long as what it promises does; stock is no part of it."""
        prices = tuple([each for part in offer.components for each in (part.offer_price, part.substituted_for)])
        if prices == self._prices and moment.now < self._until:
            return self.text[self.text.rindex(QUOTE) :]
        self._prices, self._until = prices, signing.same_until(moment.now)
        return QUOTE + _encode(signing.sign(offer, moment, segment, ALONE)) + b"}"


class BundlesAnswer:
    """The answer to one Question from one release, as it was told last."""

    __slots__ = (
        "_allowed", "_etag", "_generation", "_head", "_labels", "_look", "_looks", "_number", "_places", "_question",
        "_texts", "_until", "_version", "counted", "headers", "size",
    )  # fmt: skip

    def __init__(self, moment: Moment, question: Question) -> None:
        self._question = question
        self._places = [_Place(each.listed) for each in moment.release.ranked(question.segment, question.sku)]
        self.size = ANSWER_BYTES + PLACE_BYTES * len(self._places)
        self._number = self._generation = self._version = NEVER
        self._until = 0
        self._looks: list[tuple[int, ...]] = []
        self._look: tuple[int, ...] = ()
        self._allowed: tuple[bool, ...] = ()
        """Discounts, prices."""
        self._head, self._texts = b"", [b""]
        self._labels = ("", "", "")

    def at(self, moment: Moment, signing: Signing) -> None:
        """Bring it up to date."""
        if self._number == moment.number:
            return
        fresh, products = moment.told.freshness, moment.products
        if (
            products.generation != self._generation
            or (fresh.discounts, fresh.prices) != self._allowed
            or moment.now >= self._until
            or (products.version != self._version and self._changed(products))
        ):
            self._make(moment, signing)
        self._number, self._version = moment.number, products.version
        self.counted = (*self._labels, "true" if fresh.stale else "false")
        self.headers = [JSON, CACHE_CONTROL, (b"etag", self._etag + (b's"' if fresh.stale else b'"'))]

    def body(self, moment: Moment) -> bytes:
        """JSON, of the shape answers.BundlesAnswer."""
        return b"".join((self._head, moment.told.text, BUNDLES, b",".join(self._texts), b"]}"))

    def _changed(self, products: LiveTable) -> bool:
        changed, version = products.marks, self._version
        for mark in self._look:  # noqa: SIM110 - a generator costs more than the loop
            if changed(mark) > version:
                return True
        return False

    def _make(self, moment: Moment, signing: Signing) -> None:
        question, fresh, products = self._question, moment.told.freshness, moment.products
        if products.generation != self._generation or (fresh.discounts, fresh.prices) != self._allowed:
            for place in self._places:
                place.forget()
        self._generation, self._allowed = products.generation, (fresh.discounts, fresh.prices)
        self._until = signing.same_until(moment.now)
        shown = first(self._places, lambda place: place.now(moment, question.segment, signing), question.limit)
        level = matched(shown, [place.listed for place in self._places])
        looks = [place.marks for place in self._places]
        if looks != self._looks:
            self._looks, self._look = looks, tuple(set(chain.from_iterable(looks)))
        self._labels = (moment.release.meta.region, level, "false" if shown else "true")
        self._head = head(moment, {"sku": question.sku}, question.segment, level)
        self._texts = [place.text for place in shown]
        told = b"".join((self._head, b"%d" % self._until, *[place.tag for place in shown]))
        self._etag = b'W/"' + hashlib.blake2b(told, digest_size=12).hexdigest().encode()


class BundlesBook:
    """Answers to GET bundles of one region, kept within a bound of bytes as long as its release is served."""

    def __init__(self, signing: Signing, limit_bytes: int) -> None:
        self._signing, self._limit_bytes = signing, limit_bytes
        self._release: Release | None = None
        self._kept: Kept[Key, BundlesAnswer] = Kept(limit_bytes)

    @property
    def size(self) -> int:
        """Bytes that the kept answers take, about."""
        return self._kept.size

    def known(self, moment: Moment, key: Key) -> BundlesAnswer | None:
        """The answer that is kept under `key`, up to date."""
        if moment.release is not self._release:
            self._release, self._kept = moment.release, Kept(self._limit_bytes)
        found = self._kept.get(key)
        if found is not None:
            found.at(moment, self._signing)
        return found

    def made(self, moment: Moment, key: Key, question: Question) -> BundlesAnswer:
        """The answer to `question`, kept under `key`. Raises a 404 problem where no product can be called so."""
        questions.check_sku(question.sku)
        found = BundlesAnswer(moment, question)
        found.at(moment, self._signing)
        self._kept.put(key, found)
        return found


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


class OffersAnswer:
    """The answer to one asker of POST offers."""

    def __init__(self, moment: Moment, question: questions.OffersQuestion, segment: str, signing: Signing) -> None:
        self._moment, self._segment, self._signing = moment, segment, signing
        self._quotes, self._currency = question.quotes, moment.release.meta.currency
        self._cart: dict[str, int] = {}
        for line in question.cart:
            self._cart[line.sku] = self._cart.get(line.sku, 0) + line.quantity
        anchors = list(dict.fromkeys([*question.skus, *self._cart]))
        exclude, get, cart = frozenset(question.exclude), moment.products.get, self._cart
        whole, others = apart(moment, merged(moment, segment, anchors), cart)
        shown = first(others, lambda listed: priced(moment, listed, get, cart=cart, exclude=exclude), question.limit)
        complete = first(whole, lambda listed: as_it_is(moment, listed, exclude), question.limit)
        level = matched(shown, others)
        self.labels = (moment.release.meta.region, level, "false" if shown else "true")
        self._head = head(moment, {"skus": anchors}, segment, level)
        self._bundles = [self._offered(here) for here in shown]
        self._complete = [_encode(offered(here, self._currency, self._quote(here))) for here in complete]

    def _quote(self, here: Priced) -> SignedQuote | None:
        return self._signing.sign(here.offer, self._moment, self._segment, nonce()) if self._quotes else None

    def _offered(self, here: Priced) -> bytes:
        told = _encode(offered(here, self._currency, self._quote(here)))
        return told[:-1] + b',"missing":' + _encode(missing(here.offer, self._cart)) + b"}"

    def body(self) -> bytes:
        """JSON, of the shape answers.OffersAnswer."""
        told = (self._head, self._moment.told.text, BUNDLES, b",".join(self._bundles), b'],"complete":[')
        return b"".join((*told, b",".join(self._complete), b"]}"))
