"""Products that read alike: TF-IDF over words, letters, brand, category and price, and each one's nearest by cosine.

Salton & Buckley, Term-weighting approaches in automatic text retrieval, Information Processing & Management 24, 1988.
Letters (n-grams within a word) meet inflections, typing errors and scripts that do not part words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Ints, Offsets
from spark_jobs.kernels.threads import in_parts

Floats = NDArray[np.float32]
WORD = re.compile(r"\w+")
GRAMS = (2, 3, 4)
WEIGHTS = {"word": 1.0, "letters": 0.4, "brand": 0.3, "category": 1.0, "price": 0.5}
"""What a feature counts for, before its rarity: set by reading lists, not fitted to any shop."""
PRICE_STEPS = 2
"""Price bands per doubling; a product is in its own band and, half as much, in those beside it."""
FAME = np.float32(0.1)
"""Weight of a neighbour's own orders against its likeness."""
COST_PER_ITEM = 5_000
"""Comparisons an item may cost on average: the commonest features, which tell the least, are left out beyond it."""


class Facts(NamedTuple):
    """What is known of each product; empty text and NaN where nothing is."""

    titles: Sequence[str]
    brands: Sequence[str]
    categories: Sequence[str]
    """Levels split by ` > `."""
    prices: NDArray[np.float64]


class Vectors(NamedTuple):
    """Unit rows, sparse: item i has `features[starts[i]:starts[i + 1]]` with `values` there."""

    starts: Offsets
    features: Ints
    values: Floats
    width: int


def vectors(facts: Facts, wanted: NDArray[np.bool_]) -> Vectors:
    """TF-IDF of each `wanted` product; the others, and those of which nothing is known, have no feature."""
    known: dict[str, int] = {}
    read: dict[str, tuple[int, list[int]]] = {}

    def number(name: str) -> int:
        return known.setdefault(name, len(known))

    sizes, features, weights = [], [], []
    for (title, brand, category, price), asked in zip(zip(*facts, strict=True), wanted, strict=True):
        words = sorted(set(WORD.findall(_plain(title)))) if asked else []
        for word in words:
            if word not in read:
                read[word] = number(f"w{word}"), [number(f"l{gram}") for gram in _grams(word)]
        held = [(read[word][0], WEIGHTS["word"]) for word in words]
        held += [(letters, WEIGHTS["letters"]) for letters in {gram for word in words for gram in read[word][1]}]
        if asked and (words or category):
            held += [(number(name), weight) for name, weight in _of_kind(brand, category, price)]
        held.sort()
        features.extend(feature for feature, _ in held)
        weights.extend(weight for _, weight in held)
        sizes.append(len(held))
    starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    return _weighted(starts, np.asarray(features, np.int32), np.asarray(weights, np.float64), len(known))


def _of_kind(brand: str, category: str, price: float) -> Iterator[tuple[str, float]]:
    """Brand and price alone say nothing of what a product is for: they count beside a title or a category."""
    if brand:
        yield f"b{_plain(brand)}", WEIGHTS["brand"]
    levels = category.split(" > ") if category else []
    for depth in range(1, len(levels) + 1):
        yield f"c{' > '.join(levels[:depth])}", WEIGHTS["category"]
    if price > 0:
        band = int(np.floor(np.log2(price) * PRICE_STEPS))
        yield f"p{band}", WEIGHTS["price"]
        yield from ((f"p{band + step}", WEIGHTS["price"] / 2) for step in (-1, 1))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _grams(word: str) -> tuple[str, ...]:
    """Runs of 2 to 4 letters, its ends marked; none of a number, whose digits are like any other's."""
    if word.isdigit():
        return ()
    marked = f"^{word}$"
    return tuple(marked[at : at + size] for size in GRAMS for at in range(len(marked) - size + 1))


def _weighted(starts: Offsets, features: Ints, weights: NDArray[np.float64], width: int) -> Vectors:
    items = len(starts) - 1
    held = np.bincount(features, minlength=width)
    kept = held <= _commonest(held, items)
    rarity = np.log((1 + items) / (1 + held)) * kept
    values = weights * rarity[features]
    owner = np.repeat(np.arange(items), np.diff(starts))
    use = values > 0
    length = np.sqrt(np.bincount(owner[use], values[use] ** 2, minlength=items))
    values = values[use] / length[owner[use]]
    begins = np.concatenate(([0], np.cumsum(np.bincount(owner[use], minlength=items)))).astype(np.int64)
    return Vectors(begins, features[use], values.astype(np.float32), width)


def _commonest(held: NDArray[np.int64], items: int) -> int:
    """How many products a feature may have: comparisons grow with the square of it, and stay within the cost."""
    ordered = np.sort(held).astype(np.float64)
    within = np.cumsum(ordered**2) <= COST_PER_ITEM * items
    return int(ordered[within][-1]) if within.any() else 0


def cosine(found: Vectors, left: Ints, right: Ints) -> NDArray[np.float64]:
    """Cosine of each pair (left[p], right[p])."""
    return _cosine(*found[:3], left, right)  # type: ignore[no-any-return]


@njit(cache=True)
def _cosine(starts, features, values, left, right):  # type: ignore[no-untyped-def]
    products = np.zeros(len(left), np.float64)
    for pair in range(len(left)):
        at, end = starts[left[pair]], starts[left[pair] + 1]
        other, stop = starts[right[pair]], starts[right[pair] + 1]
        while at < end and other < stop:
            if features[at] == features[other]:
                products[pair] += values[at] * values[other]
            step = features[at] <= features[other]
            other += features[other] <= features[at]
            at += step
    return products


def similar(found: Vectors, orders: Ints, least: int, top: int, of: Ints | None = None) -> tuple[Ints, Floats]:
    """For each product (or each of `of`) the `top` most alike of those in at least `least` orders.

    Gives places (-1: none) and cosines, both of shape (products, top), best first by cosine · orders ^ FAME: of many
    that read the same, those that are bought. Ties go to the lower item. Never the product itself, nor what shares no
    feature with it.
    """
    among, fame = orders >= least, np.maximum(orders, 1).astype(np.float32) ** FAME
    items = len(found.starts) - 1
    of = np.arange(items, dtype=np.int32) if of is None else of
    owner = np.repeat(np.arange(items, dtype=np.int32), np.diff(found.starts))
    use = among[owner]
    order = np.argsort(found.features[use], kind="stable")
    begins = np.concatenate(([0], np.cumsum(np.bincount(found.features[use], minlength=found.width)))).astype(np.int64)
    told = (begins, owner[use][order], found.values[use][order], fame, top)
    places, best = in_parts(of, lambda part: _similar(of[part], *found[:3], *told))
    return places, best


@njit(cache=True, nogil=True)
def _similar(of, starts, features, values, begins, holders, weights, fame, top):  # type: ignore[no-untyped-def]
    items = len(starts) - 1
    total = np.zeros(items, np.float32)
    met = np.empty(items, np.int32)
    places, best = np.full((len(of), top), -1, np.int32), np.zeros((len(of), top), np.float32)
    for row in range(len(of)):
        item = of[row]
        touched = 0
        for spot in range(starts[item], starts[item + 1]):
            feature, value = features[spot], values[spot]
            for at in range(begins[feature], begins[feature + 1]):
                other = holders[at]
                if total[other] == 0.0:
                    met[touched] = other
                    touched += 1
                total[other] += value * weights[at]
        for index in range(touched):
            other = met[index]
            if other != item:
                _place(places[row], best[row], other, total[other] * fame[other])
            total[other] = 0.0
        for place in range(top):
            if places[row, place] >= 0:
                best[row, place] /= fame[places[row, place]]
    return places, best


@njit(cache=True)
def _place(places, best, other, value):  # type: ignore[no-untyped-def]
    """Put `other` in its place by value, then by number; drop the last."""
    at = len(places)
    while at > 0 and (places[at - 1] < 0 or best[at - 1] < value or (best[at - 1] == value and places[at - 1] > other)):
        at -= 1
    for place in range(len(places) - 1, at, -1):
        places[place], best[place] = places[place - 1], best[place - 1]
    if at < len(places):
        places[at], best[at] = other, value
