"""Answers with bundles, encoded: those for one product are kept, and brought up to date where a product changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from sys import intern
from typing import Any, NamedTuple

import msgspec

from edge_service import questions
from edge_service.kept import Kept
from edge_service.live_table import LiveTable, mark_of
from edge_service.offering import Signing, first, matched, merged, offered, priced
from edge_service.releases import Release
from edge_service.served import Moment
from tandem.bundle import Listed
from tandem.offer import Live, Offer, Part, restocked
from tandem.quote import nonce

CACHE_SECONDS = 1
"""How long a browser or a CDN may hold an answer to GET bundles."""
CACHE_CONTROL = (b"cache-control", b"public, max-age=%d" % CACHE_SECONDS)
ANSWER_BYTES, PLACE_BYTES = 1_800, 1_500
"""What a kept answer takes in memory, about, and each place of its list."""
NEVER = -1
SELLABLE = b'"sellable":'
UNQUOTED = b',"quote":null}'
ALONE = ""
"""The nonce of a quote that is the same for all who ask."""

_encode = msgspec.json.Encoder().encode


class Question(NamedTuple):
    """What is asked for one product; `segment` is the one that consents allow."""

    sku: str
    segment: str
    limit: int


class _Place:
    """One place of a product's list, as it was priced last."""

    __slots__ = ("_parts", "_prices", "_until", "_version", "content", "listed", "marks", "quote", "tag", "text")

    def __init__(self, listed: Listed) -> None:
        self.listed = listed
        self.content = ""
        """Empty: it can't be sold now."""
        self.text = self.quote = self.tag = b""
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
            self._tell(_encode(offered(here, moment.release.meta.currency, None))[: -len(UNQUOTED)], moment)
            self._sign(here.offer, moment, segment, signing)

    def _tell(self, text: bytes, moment: Moment) -> None:
        self._version = moment.products.version
        self.text, self.tag = text, hashlib.blake2b(text, digest_size=12).digest()

    def _sign(self, offer: Offer, moment: Moment, segment: str, signing: Signing) -> None:
        """A quote stays as long as what it promises does; stock is no part of it."""
        prices = tuple([each for part in offer.components for each in (part.offer_price, part.substituted_for)])
        if prices != self._prices or moment.now >= self._until:
            self._prices, self._until = prices, signing.same_until(moment.now)
            self.quote = b',"quote":' + _encode(signing.sign(offer, moment, segment, ALONE)) + b"}"


class BundlesAnswer:
    """The answer to one Question from one release, as it was told last."""

    __slots__ = (
        "_bundles", "_discounts", "_head", "_look", "_looks", "_places", "_products", "_question", "_signing", "_until",
        "_version", "etag", "labels", "size",
    )  # fmt: skip

    def __init__(self, moment: Moment, question: Question, signing: Signing) -> None:
        self._question, self._signing = question, signing
        self._places = [_Place(each.listed) for each in moment.release.ranked(question.segment, question.sku)]
        self.size = ANSWER_BYTES + PLACE_BYTES * len(self._places)
        self._products: LiveTable | None = None
        self._looks: list[tuple[int, ...]] = []
        self._look: tuple[int, ...] = ()
        self._discounts = True
        self._version = NEVER
        self._until = 0
        self._head, self._bundles = b"", [b""]

    def at(self, moment: Moment) -> BundlesAnswer:
        """This answer, brought up to date."""
        if not (
            moment.products is self._products
            and moment.told.freshness.discounts == self._discounts
            and moment.now < self._until
            and (moment.products.version == self._version or self._unchanged(moment.products))
        ):
            self._make(moment)
        return self

    def body(self, moment: Moment) -> bytes:
        """JSON, of the shape answers.BundlesAnswer."""
        return b"".join((self._head, moment.told.text, *self._bundles))

    def headers(self, stale: bool) -> list[tuple[bytes, bytes]]:
        """Those that a 304 has, too."""
        return [CACHE_CONTROL, (b"etag", self.etag + (b's"' if stale else b'"'))]

    def _unchanged(self, products: LiveTable) -> bool:
        changed, version = products.marks, self._version
        for mark in self._look:
            if changed(mark) > version:
                return False
        self._version = products.version
        return True

    def _make(self, moment: Moment) -> None:
        question, signing = self._question, self._signing
        if moment.products is not self._products or moment.told.freshness.discounts != self._discounts:
            for place in self._places:
                place.forget()
        self._products, self._discounts = moment.products, moment.told.freshness.discounts
        self._version, self._until = moment.products.version, signing.same_until(moment.now)
        shown = first(self._places, lambda place: place.now(moment, question.segment, signing), question.limit)
        level = matched(shown, [place.listed for place in self._places])
        looks = [place.marks for place in self._places]
        if looks != self._looks:
            self._looks, self._look = looks, tuple(set(chain.from_iterable(looks)))
        self.labels = (moment.release.meta.region, level, "false" if shown else "true")
        self._head = head(moment, {"sku": question.sku}, question.segment, level)
        self._bundles = bundles([each for place in shown for each in (place.text, place.quote)], 2)
        told = b"".join((self._head, b"%d" % self._until, *[place.tag for place in shown]))
        self.etag = b'W/"' + hashlib.blake2b(told, digest_size=12).hexdigest().encode()


class BundlesBook:
    """Answers to GET bundles of one region, kept within a bound of bytes as long as its release is served."""

    def __init__(self, signing: Signing, limit_bytes: int) -> None:
        self._signing, self._limit_bytes = signing, limit_bytes
        self._release: Release | None = None
        self._kept: Kept[Question, BundlesAnswer] = Kept(limit_bytes)

    @property
    def size(self) -> int:
        """Bytes that the kept answers take, about."""
        return self._kept.size

    def answer(self, moment: Moment, question: Question) -> BundlesAnswer:
        """Raises a 404 problem where no product can be called so."""
        if moment.release is not self._release:
            self._release, self._kept = moment.release, Kept(self._limit_bytes)
        found = self._kept.get(question)
        if found is None:
            questions.check_sku(question.sku)
            found = BundlesAnswer(moment, question, self._signing)
            self._kept.put(question, found)
        return found.at(moment)


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


def bundles(texts: Sequence[bytes], each: int = 1) -> list[bytes]:
    """What stands after the ages, in parts; each bundle comes in `each` of them."""
    parts = [b',"bundles":[']
    for at in range(0, len(texts), each):
        parts += [b",", *texts[at : at + each]] if at else texts[:each]
    return [*parts, b"]}"]


def offers_answer(
    moment: Moment, question: questions.OffersQuestion, segment: str, signing: Signing
) -> tuple[bytes, tuple[str, str, str]]:
    """JSON of the shape answers.OffersAnswer for this one asker, and what is counted: region, level, empty."""
    cart: dict[str, int] = {}
    for line in question.cart:
        cart[line.sku] = cart.get(line.sku, 0) + line.quantity
    anchors = list(dict.fromkeys([*question.skus, *cart]))
    ranked = merged(moment, segment, anchors)
    exclude, get = frozenset(question.exclude), moment.products.get
    shown = first(ranked, lambda listed: priced(moment, listed, get, cart=cart, exclude=exclude), question.limit)
    level = matched(shown, ranked)
    currency = moment.release.meta.currency
    quotes = [signing.sign(here.offer, moment, segment, nonce()) if question.quotes else None for here in shown]
    texts = [_encode(offered(here, currency, quote)) for here, quote in zip(shown, quotes, strict=True)]
    body = b"".join((head(moment, {"skus": anchors}, segment, level), moment.told.text, *bundles(texts)))
    return body, (moment.release.meta.region, level, str(not shown).lower())
