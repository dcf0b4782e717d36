"""Do segments help? Hits of a segment's own ranking, of everyone's, and of a placebo's, on later orders.

Everyone's ranking of an anchor i is the share of its orders that hold j, shrunk to j's popularity:

    P(j|i) = (c_ij + a p_j) / (n_i + a)

A segment's ranking tilts that by how much more the segment buys j at all, and mixes its own counts in (a Dirichlet
prior of weight m; Zhai & Lafferty, TOIS 22(2), 2004):

    r_sj = ((c_sj + b p_j) / (n_s + b)) / p_j        P_s(j|i) = (c_sij + m P(j|i) r_sj^g) / (n_si + m)

m and g are learned. Whoever is asked about is left out: their own orders are taken off all counts, or a small segment
would do no more than remember them. A placebo has the same sizes with customers shuffled among its segments: what it
loses or gains comes from splitting the data, not from who is in which segment.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Ints, offsets
from spark_jobs.kernels.protocol import FIRST, SEED, Orders, Queries, popular, trial_of

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

POPULAR_PRIOR = 10.0
"""a: orders that an anchor's prior weighs."""
TILT_PRIOR = 1000.0
"""b: orders that a segment's prior weighs."""
WEIGHTS = (100.0, 300.0, 1000.0)
"""m to choose from."""
QUARTERS = (0, 1, 2, 3, 4)
"""g to choose from, in quarters: powers of a quarter are two square roots."""
CANDIDATES = 60
"""Companions of everyone's ranking that a segment's chooses its first five from."""
MOST_ASKED = 25_000
"""Different (anchor, customer) asked at most where nothing else is said; beyond, customers are drawn."""
BORROWED = 2000
"""Queries of all segments together that count beside a segment's own where its blend is chosen."""


class Blend(NamedTuple):
    """How a segment's ranking is made from its counts and everyone's."""

    weight: float
    """m: orders that everyone's ranking weighs."""
    tilt: float
    """g: 0 leaves everyone's ranking as it is, 1 takes the segment's popularity in full."""


USUAL = Blend(300.0, 0.5)
"""The blend of a segment that none was learned for."""


class Asked(NamedTuple):
    """Hits by customer: arrays whose first axis is the customers asked."""

    customer: Ints
    queries: Counts
    everyone: Counts
    segments: Counts
    """Shape (customers, labellings, blends); 0 where a labelling has no segment for the customer."""


def grid() -> list[Blend]:
    """The blends to choose from."""
    return [Blend(weight, quarter / 4) for weight in WEIGHTS for quarter in QUARTERS]


def chosen(found: Asked, labels: Ints, labelling: int, segments: int) -> NDArray[np.intp]:
    """The best blend of `grid()` for each segment, shape (segments), by its own queries and BORROWED of all."""
    mine = labels[labelling][found.customer]
    asked_of = mine >= 0
    hits = np.zeros((segments, found.segments.shape[2]))
    for number in range(segments):
        hits[number] = found.segments[mine == number, labelling].sum(0)
    queries = np.bincount(mine[asked_of], found.queries[asked_of], minlength=segments)
    mean = hits.sum(0) / max(queries.sum(), 1)
    best: NDArray[np.intp] = ((hits + BORROWED * mean) / (queries + BORROWED)[:, None]).argmax(1)
    return best


def shuffled(labels: Ints, seed: int = SEED) -> Ints:
    """The same labels among the same customers in another order; who has none keeps none."""
    found = labels.copy()
    some = np.flatnonzero(labels >= 0)
    found[some] = np.random.default_rng(seed).permutation(labels[some])
    return found


def asked(before: Orders, after: Orders, labels: Ints, weights: Floats, tilts: Floats, most: int = MOST_ASKED) -> Asked:
    """Hits of everyone's ranking and of each labelling with each of its blends; learned from `before`.

    `labels` has shape (labellings, customers), -1 for customers without a segment; `weights` and `tilts` (labellings,
    segments, blends). Customers without any label are not asked. Memory: 12 bytes a labelling, segment and product, and
    the orders.
    """
    split = trial_of(before, after)
    learned, questions = _by_customer(split.learned), split.asked
    place, order = _usable(questions, labels, learned.products, most)
    anchor, customer = questions.anchor[place], questions.customer[place]
    rows = np.lexsort((order, customer, anchor))
    line_order = np.repeat(np.arange(learned.count, dtype=np.int32), learned.sizes)
    by_item = np.lexsort((line_order, learned.items))
    owner = learned.customer[line_order]
    everyone, mine, queries = _ask(
        learned.starts,
        learned.items,
        learned.customer,
        offsets(np.bincount(learned.items, minlength=learned.products)),
        line_order[by_item],
        labels,
        *_popularity(learned, owner, labels, weights.shape[1]),
        weights,
        np.rint(4 * tilts).astype(np.int64),
        np.bincount(learned.customer, minlength=labels.shape[1]),
        *_own(owner, learned.items, labels.shape[1], learned.products),
        anchor[rows],
        customer[rows],
        order[rows],
        questions.starts,
        questions.anchor,
        popular(learned.item_counts, 2 * FIRST),
    )
    who = np.flatnonzero(queries).astype(np.int32)
    return Asked(who, queries[who], everyone[who], mine[who])


def _by_customer(orders: Orders) -> Orders:
    """The same orders, those of a customer together."""
    turn = np.argsort(orders.customer, kind="stable")
    sizes = orders.sizes[turn]
    starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
    items = orders.items[np.repeat(orders.starts[turn], sizes) + within]
    return Orders(starts, items, orders.customer[turn], orders.day[turn], orders.products)


def _usable(questions: Queries, labels: Ints, products: int, most: int) -> tuple[Counts, Counts]:
    """The queries that are asked, and the later order of each; of drawn customers, where there are too many."""
    order = np.repeat(np.arange(len(questions.starts) - 1), np.diff(questions.starts))
    some = (labels >= 0).any(0)
    mine = some[questions.customer]
    pairs = np.unique(questions.customer[mine] * np.int64(products) + questions.anchor[mine])
    sizes = np.bincount(pairs // max(products, 1), minlength=labels.shape[1])
    turn = np.random.default_rng(SEED).permutation(labels.shape[1])
    some[turn] &= np.cumsum(sizes[turn]) - sizes[turn] < most
    place = np.flatnonzero(some[questions.customer])
    return place, order[place]


def _popularity(learned: Orders, owner: Ints, labels: Ints, segments: int) -> tuple[Counts, Counts]:
    """Orders of each labelling's segments that hold a product, (products, labellings, segments), and their orders."""
    holding = np.zeros((learned.products, len(labels), segments), np.int64)
    orders = np.zeros((len(labels), segments), np.int64)
    for number, label in enumerate(labels):
        mine = label[owner]
        key = learned.items[mine >= 0] * np.int64(segments) + mine[mine >= 0]
        holding[:, number] = np.bincount(key, minlength=segments * learned.products).reshape(-1, segments)
        of = label[learned.customer]
        orders[number] = np.bincount(of[of >= 0], minlength=segments)
    return holding, orders


def _own(owner: Ints, items: Ints, customers: int, products: int) -> tuple[Counts, Ints, Ints]:
    """What each customer bought: where it begins (customers + 1), the products ascending, and the orders of each."""
    pairs, counts = np.unique(owner * np.int64(products) + items, return_counts=True)
    return (
        offsets(np.bincount(pairs // products, minlength=customers)),
        (pairs % products).astype(np.int32),
        counts.astype(np.int32),
    )


@njit(cache=True)
def _ask(  # type: ignore[no-untyped-def]
    starts, items, owner, item_starts, item_orders, labels, in_segment, orders_in, weights, quarters, orders_of,
    own_starts, own_items, own_counts, anchors, customers, orders, later_starts, later_items, popular,
):  # fmt: skip
    products, labellings, blends = len(item_starts) - 1, labels.shape[0], weights.shape[2]
    total = len(owner)
    both = np.zeros(products, np.int32)
    own = np.zeros(products, np.int32)
    segments = in_segment.shape[2]
    within = np.zeros((products, labellings * segments), np.int32)
    cells = np.empty(labellings, np.int64)
    touched = np.empty(products, np.int32)
    held = np.zeros(products, np.bool_)
    queries = np.zeros(labels.shape[1], np.int64)
    everyone = np.zeros(labels.shape[1], np.int64)
    mine = np.zeros((labels.shape[1], labellings, blends), np.int64)
    rankings = 1 + labellings * blends
    best, first = np.empty((rankings, FIRST)), np.empty((rankings, FIRST), np.int32)
    scores, candidates = np.empty(CANDIDATES), np.empty(CANDIDATES, np.int32)
    power = np.empty(5)
    begin = 0
    while begin < len(anchors):
        anchor = anchors[begin]
        met = 0
        anchored = np.zeros(orders_in.shape, np.int64)
        for place in range(item_starts[anchor], item_starts[anchor + 1]):
            order = item_orders[place]
            some = 0
            for number in range(labellings):
                segment = labels[number, owner[order]]
                if segment >= 0:
                    anchored[number, segment] += 1
                    cells[some] = number * segments + segment
                    some += 1
            for item in items[starts[order] : starts[order + 1]]:
                if both[item] == 0:
                    touched[met] = item
                    met += 1
                both[item] += 1
                for cell in cells[:some]:
                    within[item, cell] += 1
        for item in popular:
            if both[item] == 0:
                touched[met] = item
                met += 1
        n = item_starts[anchor + 1] - item_starts[anchor]
        found = 0
        for index in range(met):
            item = touched[index]
            score = both[item] + POPULAR_PRIOR * (item_starts[item + 1] - item_starts[item]) / total
            if item == anchor or (found == CANDIDATES and score <= scores[-1]):
                continue
            found = min(found + 1, CANDIDATES)
            rank = found - 1
            while rank > 0 and scores[rank - 1] < score:
                scores[rank], candidates[rank] = scores[rank - 1], candidates[rank - 1]
                rank -= 1
            scores[rank], candidates[rank] = score, item
        spot = item_starts[anchor]
        while begin < len(anchors) and anchors[begin] == anchor:
            customer = customers[begin]
            while spot < item_starts[anchor + 1] and owner[item_orders[spot]] < customer:
                spot += 1
            end = spot
            while end < item_starts[anchor + 1] and owner[item_orders[end]] == customer:
                for line in range(starts[item_orders[end]], starts[item_orders[end] + 1]):
                    own[items[line]] += 1
                end += 1
            n_own, n_all = end - spot, orders_of[customer]
            best[:] = -1.0
            first[:] = -1
            for item in candidates[:found]:
                bought = 0
                low, high = own_starts[customer], own_starts[customer + 1]
                while low < high:
                    middle = (low + high) // 2
                    if own_items[middle] < item:
                        low = middle + 1
                    else:
                        high = middle
                if low < own_starts[customer + 1] and own_items[low] == item:
                    bought = own_counts[low]
                share = (item_starts[item + 1] - item_starts[item] - bought) / max(total - n_all, 1)
                plain = (both[item] - own[item] + POPULAR_PRIOR * share) / (n - n_own + POPULAR_PRIOR)
                _place(best, first, 0, item, plain)
                for number in range(labellings):
                    segment = labels[number, customer]
                    if segment < 0:
                        continue
                    tilt = 1.0
                    together = within[item, number * segments + segment] - own[item]
                    here = anchored[number, segment] - n_own
                    if share > 0:
                        holding = in_segment[item, number, segment] - bought + TILT_PRIOR * share
                        tilt = holding / (orders_in[number, segment] - n_all + TILT_PRIOR) / share
                    power[0], power[4], power[2] = 1.0, tilt, np.sqrt(tilt)
                    power[1] = np.sqrt(power[2])
                    power[3] = power[1] * power[2]
                    for blend in range(blends):
                        weight = weights[number, segment, blend]
                        prior = plain * power[quarters[number, segment, blend]]
                        score = (together + weight * prior) / (here + weight)
                        _place(best, first, 1 + number * blends + blend, item, score)
            while begin < len(anchors) and anchors[begin] == anchor and customers[begin] == customer:
                order = orders[begin]
                for line in range(later_starts[order], later_starts[order + 1]):
                    held[later_items[line]] = True
                queries[customer] += 1
                for ranking in range(rankings):
                    hit = 0
                    for rank in range(FIRST):
                        if first[ranking, rank] >= 0 and held[first[ranking, rank]]:
                            hit = 1
                    if ranking == 0:
                        everyone[customer] += hit
                    else:
                        mine[customer, (ranking - 1) // blends, (ranking - 1) % blends] += hit
                for line in range(later_starts[order], later_starts[order + 1]):
                    held[later_items[line]] = False
                begin += 1
            for place in range(spot, end):
                for line in range(starts[item_orders[place]], starts[item_orders[place] + 1]):
                    own[items[line]] = 0
            spot = end
        for index in range(met):
            both[touched[index]] = 0
            within[touched[index]] = 0
    return everyone, mine, queries


@njit(cache=True)
def _place(best, first, ranking, item, score):  # type: ignore[no-untyped-def]
    """`item` among the first of `ranking` if its score is above one of theirs; ties go to who came first."""
    if score <= best[ranking, FIRST - 1]:
        return
    rank = FIRST - 1
    while rank > 0 and best[ranking, rank - 1] < score:
        best[ranking, rank] = best[ranking, rank - 1]
        first[ranking, rank] = first[ranking, rank - 1]
        rank -= 1
    best[ranking, rank] = score
    first[ranking, rank] = item
