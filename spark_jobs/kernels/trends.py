"""What shoppers turn to right now, from the signals of the last minutes: products that take off, and pairs.

A signal (a look, a cart, a purchase) of one shopper for one product weighs `weight · 2^(-age / half_life)`; a shopper
counts once for a product, with the strongest signal, however often it was touched. From these strengths u(s, p):

    r(p)    = Σ_s u(s, p)                        what is felt for a product
    A       = Σ_s max_p u(s, p)                  shoppers, each by the strongest signal
    surge   = (r(p) + 1) / (A · (o(p) + 1) / (O + 2) + 1)
                                                 over the share of orders that held it (o of O, Laplace's estimate);
                                                 one more of each, so that a few shoppers say little
    r(a, b) = Σ_s min(u(s, a), u(s, b))          felt by the same shoppers, never above r(a)
    confidence(b | a) = (r(a, b) + m · c) / (r(a) + m)

The last is the mean of a Beta posterior whose prior has the last build's confidence c as mean and m shoppers as weight.
A companion that takes off has c raised by its surge, at most tenfold and at most to one half.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

WEIGHTS = {"view": 1.0, "click": 1.0, "cart": 3.0, "purchase": 5.0}
"""Of one signal by its kind; any other kind counts as a look."""
MOST_PRODUCTS = 30
"""Of one shopper, those felt most: who touches more is a robot, or tells little of any one pair."""
MOST_RAISED, HIGHEST_PRIOR = 10.0, 0.5


class Signals(NamedTuple):
    """Signals of one region; each field has shape (signals,)."""

    actor: Ints
    """Shopper, from 0: a session, a customer, or an order of nobody."""
    kind: Ints
    """What kind of name the shopper has: one person may have a session's and a customer's, and counts by either."""
    product: Ints
    """From 0."""
    age: Floats
    """Seconds, not negative."""
    weight: Floats


class Felt(NamedTuple):
    """Each shopper and product once, by shopper and then product; each field has shape (felt,)."""

    actor: Ints
    kind: Ints
    product: Ints
    strength: Floats


class Pairs(NamedTuple):
    """Ordered pairs of products that the same shoppers feel for; each field has shape (pairs,)."""

    anchor: Ints
    companion: Ints
    strength: Floats
    actors: Ints


def felt(signals: Signals, half_life: float) -> Felt:
    """Each shopper's strongest signal for each product; `half_life` in seconds."""
    strength = signals.weight * np.exp2(-signals.age / half_life)
    order = np.lexsort((strength, signals.product, signals.actor))
    actor, product = signals.actor[order], signals.product[order]
    last = np.ones(len(order), bool)
    last[:-1] = (actor[1:] != actor[:-1]) | (product[1:] != product[:-1])
    found = Felt(actor[last], signals.kind[order][last], product[last], strength[order][last])
    return _take(found, _strongest(found) < MOST_PRODUCTS)


def _take(found: Felt, which: Mask) -> Felt:
    return Felt(*(column[which] for column in found))


def _strongest(found: Felt) -> Ints:
    """Each one's place among its shopper's, the strongest 0."""
    order = np.lexsort((found.product, -found.strength, found.actor))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - _begins(found.actor[order])
    return place


def _begins(group: Ints) -> Ints:
    """Where the group of each begins; equal values stand together."""
    first = np.ones(len(group), bool)
    first[1:] = group[1:] != group[:-1]
    return np.maximum.accumulate(np.where(first, np.arange(len(group)), 0))


def of_products(found: Felt, products: int) -> tuple[Floats, Ints]:
    """r(p) and distinct shoppers of each, both of shape (products,)."""
    strength = np.bincount(found.product, found.strength, products)
    return strength, _distinct(found.product, found.kind, products)


def _distinct(group: Ints, kind: Ints, groups: int) -> Ints:
    """The most that shoppers of one kind of name are in each group; each stands in a group once."""
    kinds = int(kind.max(initial=0)) + 1
    return np.bincount(group * kinds + kind, minlength=groups * kinds).reshape(groups, kinds).max(1, initial=0)


def shoppers(found: Felt) -> float:
    """A: how many shoppers there are, each by the strongest signal."""
    if not len(found.actor):
        return 0.0
    starts = np.unique(_begins(found.actor))
    return float(np.maximum.reduceat(found.strength, starts).sum())


def surge(strength: Floats, shoppers: float, orders: Ints, orders_total: int) -> Floats:
    """How many times as much each product is felt for as its share of orders says, shape (products,)."""
    share = (orders + 1) / (orders_total + 2)
    return (strength + 1) / (shoppers * share + 1)


def pairs(found: Felt, products: int) -> Pairs:
    """All pairs of products that a shopper feels for both of, each in both directions."""
    begins = _begins(found.actor)
    _, size = np.unique(found.actor, return_counts=True)
    many = np.repeat(size, size)
    left = np.repeat(np.arange(len(begins)), many)
    right = begins[left] + np.arange(len(left)) - np.repeat(np.cumsum(many) - many, many)
    left, right = left[left != right], right[left != right]
    names, code = np.unique(found.product[left] * products + found.product[right], return_inverse=True)
    strength = np.bincount(code, np.minimum(found.strength[left], found.strength[right]), len(names))
    return Pairs(names // products, names % products, strength, _distinct(code, found.kind[left], len(names)))


def confidence(together: Floats, anchor: Floats, known: Floats, prior: float) -> Floats:
    """Of pairs: r(a, b), r(a), the last build's confidence, and the weight of the prior."""
    return (together + prior * known) / (anchor + prior)


def raised(known: Floats, surges: Floats) -> Floats:
    """The last build's confidence where the companion takes off."""
    factor = np.clip(surges, 1.0, MOST_RAISED)
    return np.maximum(known, np.minimum(known * factor, HIGHEST_PRIOR))


def lift(together: Floats, anchor: Floats, companion: Floats, shoppers: float) -> Floats:
    """Of pairs: r(a, b) · A / (r(a) · r(b))."""
    return together * shoppers / (anchor * companion)


def best(anchor: Ints, score: Floats, tie: Ints, most: int) -> tuple[Ints, Ints]:
    """The `most` best of each anchor as places, by anchor and score, and their ranks from 1; ties by `tie`."""
    order = np.lexsort((tie, -score, anchor))
    rank = np.arange(len(order)) - _begins(anchor[order]) + 1
    return order[rank <= most], rank[rank <= most]
