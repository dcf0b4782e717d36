"""Answers to GET bundles, encoded: kept, and brought up to date where a product changed; and the bundles in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from edge_service import questions
from edge_service.kept import Kept
from edge_service.kept_bundles import NEVER, KeptBundle
from edge_service.offering import Signing, first, matched
from edge_service.releases import Release
from edge_service.replies import lines
from edge_service.served import Moment
from tandem.bundle import Listed, Story

CACHE_SECONDS = 1
"""How long a browser or a CDN may hold an answer to GET bundles."""
JSON = (b"content-type", b"application/json")
JSON_LINE = lines([JSON])
CACHE_LINE = lines([(b"cache-control", b"public, max-age=%d" % CACHE_SECONDS)])
ANSWER_BYTES, PLACE_BYTES, TEXT_BYTES = 1_500, 150, 800
"""What a kept answer takes in memory, about, each place of its list, and the text of each bundle that it shows."""
BUNDLES, BETWEEN, PIECES = b',"bundles":[', b"},", 6

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
    """The answer to one Question from one release, as it was told last.

    `_pieces` is its text from the bundles on: what opens the list, then of each bundle five pieces and what stands
    after it. Where products change and the same bundles can be sold, only their pieces are put in again.
    """

    __slots__ = (
        "_basis", "_beside", "_fixed", "_head", "_labels", "_look", "_looks", "_number", "_pieces", "_places",
        "_question", "_shown", "_stale", "_tag", "_tags", "_tail", "_until", "_version",
        "counted", "etag", "headers", "headers_alone", "size",
    )  # fmt: skip

    def __init__(self, question: Question, places: list[_Place], moment: Moment) -> None:
        self._question, self._places = question, places
        self._beside = moment.candidates.places.get(question.sku)
        self.size = ANSWER_BYTES + PLACE_BYTES * len(places) + TEXT_BYTES * min(question.limit, len(places))
        self._number = self._version = NEVER
        self._until = 0
        self._basis: tuple[int, bool, bool] | None = None
        self._stale: bool | None = None
        self._shown: list[_Place] = []
        self._looks: list[tuple[int, ...]] = []
        """What each bundle looked at, those that were passed over too."""
        self._look: tuple[int, ...] = ()
        self._pieces: list[bytes] = []
        self._tags: list[bytes] = []
        self._head = self._tail = self._tag = self._fixed = b""
        """`_fixed`: what its ETag speaks for beside the bundles' tags."""
        self._labels = ("", "", "")

    def at(self, moment: Moment, book: BundlesBook) -> None:
        """Bring it up to date."""
        if self._number == moment.number:
            return
        products = moment.products
        beside = moment.candidates.places.get(self._question.sku)
        if beside is not self._beside:
            self._beside, self._places = beside, book.places(moment, self._question)
            self._basis = None
        same = moment.basis is self._basis and moment.now < self._until
        if same and products.version != self._version and products.changed(self._look, self._version):
            same = self._patched(moment)
        if not same:
            self._make(moment, book.signing)
        self._number, self._version = moment.number, products.version
        if moment.freshness.stale is not self._stale:
            self._stale = stale = moment.freshness.stale
            self.counted = (*self._labels, "true" if stale else "false")
            self.etag = self._tag + (b's"' if stale else b'"')
            self.headers_alone = b"%betag: %b\r\n" % (CACHE_LINE, self.etag)
            self.headers = JSON_LINE + self.headers_alone

    def body(self, moment: Moment) -> tuple[bytes, ...]:
        """Parts of JSON, of the shape answers.BundlesAnswer."""
        return self._head, moment.told.text, self._tail

    def _make(self, moment: Moment, signing: Signing) -> None:
        question = self._question
        self._basis, self._until = moment.basis, signing.same_until(moment.now)
        looks: list[tuple[int, ...]] = []

        def now(place: _Place) -> _Place | None:
            sold = place.kept.at(moment)
            looks.append(place.kept.spots)
            return place if sold else None

        self._shown = shown = first(self._places, now, question.limit)
        level = matched(shown, self._places[0] if self._places else None)
        if looks != self._looks:
            self._look = tuple(set(chain.from_iterable(looks)))
        self._looks = looks
        if level != self._labels[1]:
            self._head = head(moment, {"sku": question.sku}, question.segment, level)
        self._labels = (moment.release.meta.region, level, "false" if shown else "true")
        self._fixed = _digest(self._head, b"%d" % self._until, *[place.evidence for place in shown])
        self._tags = [place.kept.tag for place in shown]
        self._pieces = pieces = [BUNDLES]
        for place in shown:
            pieces += place.kept.pieces(place.evidence)
            pieces.append(BETWEEN)
        pieces[len(shown) * PIECES :] = [b"}]}"] if shown else [BUNDLES, b"]}"]
        self._tell()

    def _patched(self, moment: Moment) -> bool:
        """Put in again what changed; False where another choice of bundles, or of what stands in, may be due."""
        shown, looks, version = self._shown, self._looks, self._version
        if len(looks) != len(shown):
            return False
        changed = moment.products.changed
        for number, spots in enumerate(looks):
            if changed(spots, version):
                listed, kept, evidence = shown[number]
                if not kept.at(moment) or kept.spots is not spots or kept.content != listed.bundle_id:
                    return False
                first_piece = 1 + number * PIECES
                self._pieces[first_piece : first_piece + PIECES - 1] = kept.pieces(evidence)
                self._tags[number] = kept.tag
        self._tell()
        return True

    def _tell(self) -> None:
        """Take the pieces and the tags into text and ETag."""
        self._tail, self._stale = b"".join(self._pieces), None
        self._tag = b'W/"' + _digest(self._fixed, *self._tags).hex().encode()


def _digest(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=12).digest()


class BundlesBook:
    """Answers with bundles of one region. What is kept of them stays within a bound of bytes, and with its release."""

    def __init__(self, signing: Signing, limit_bytes: int) -> None:
        self.signing = signing
        self._release: Release | None = None
        self._kept: Kept[Key, BundlesAnswer] = Kept(limit_bytes // 2)
        self._bundles: Kept[tuple[str, Story | None, str], KeptBundle] = Kept(limit_bytes // 2)

    @property
    def size(self) -> int:
        """Bytes that the kept answers take, about."""
        return self._kept.size + self._bundles.size

    def known(self, moment: Moment, key: Key) -> BundlesAnswer | None:
        """The answer that is kept under `key`, up to date."""
        self._follow(moment)
        found = self._kept.get(key)
        if found is not None:
            found.at(moment, self)
        return found

    def made(self, moment: Moment, key: Key, question: Question) -> BundlesAnswer:
        """The answer to `question`, kept under `key`. Raises a 404 problem where no product can be called so."""
        questions.check_sku(question.sku)
        found = BundlesAnswer(question, self.places(moment, question), moment)
        found.at(moment, self)
        self._kept.put(key, found)
        return found

    def places(self, moment: Moment, question: Question) -> list[_Place]:
        """The list of the product, as far as its bundles are there."""
        ranked, named = moment.ranked(question.segment, question.sku).places, self.segment(moment, question.segment)
        found = [(place, self.bundle(moment, named, place.listed)) for place in ranked]
        return [_Place(place.listed, kept, place.evidence) for place, kept in found if kept is not None]

    def segment(self, moment: Moment, asked: str) -> str:
        """The segment by which bundles are kept, and which their quotes name."""
        self._follow(moment)
        return self.signing.segment(asked, moment.release.meta)

    def _follow(self, moment: Moment) -> None:
        if moment.release is not self._release:
            self._release = moment.release
            self._kept.clear()
            self._bundles.clear()

    def bundle(self, moment: Moment, named: str, listed: Listed) -> KeptBundle | None:
        """The bundle that is listed, up to date where it was before; None where the release lacks it. `named` is what
        `segment` gave at the same moment.
        """
        key = (listed.bundle_id, listed.own, named)
        found = self._bundles.get(key)
        if found is None:
            bundle = moment.release.bundle(listed.bundle_id)
            if bundle is None:
                return self._live(moment, named, listed)
            found = KeptBundle(listed.tell(bundle), listed, moment.release.meta, named, self.signing)
            self._bundles.put(key, found)
        return found

    def _live(self, moment: Moment, named: str, listed: Listed) -> KeptBundle | None:
        """A bundle that the last minutes add."""
        key, kept = (listed.bundle_id, named), moment.candidates.kept
        bundle = moment.candidates.bundles.get(listed.bundle_id)
        if bundle is None or key in kept:
            return kept.get(key)
        kept[key] = found = KeptBundle(bundle, listed, moment.release.meta, named, self.signing)
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
