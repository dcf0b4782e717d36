"""Choosing the five together: what adds most to the chance that at least one of them is wanted.

Five close substitutes with the five highest probabilities answer one need five times. The chance that a set S answers
an order with anchor i is submodular in S, so taking greedily what adds most comes within 1 - 1/e of the best set
(Nemhauser, Wolsey & Fisher, Mathematical Programming 14, 1978; for rankings: Agrawal et al., WSDM 2009, El-Arini et
al., KDD 2009). A candidate j adds P(j | i) · P(none of S | i, j), the second factor counted in the anchor's own orders,
leaning on the orders of its neighbours where there are few. A bonus for the tail is the same gain, of unpopular
products alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Ints
from spark_jobs.kernels.features import Evidence
from spark_jobs.kernels.protocol import FIRST, Mask

Floats = NDArray[np.float64]

OWN_ORDERS = 600
"""At most so many of the anchor's orders are looked at, evenly spread over all of them."""
BORROWED_ORDERS = 400
"""At most so many of its neighbours' orders."""
BORROWED_WEIGHT = 100.0
"""Orders that the neighbours' count for, all together."""
LEAN = 15.0
"""Orders by which a candidate leans on the average candidate."""


def choose(
    known: Evidence,
    anchors: Ints,
    chosen: Ints,
    probability: Floats,
    tail: Mask,
    *,
    tail_weights: Sequence[float],
    kept: int,
    value: Floats | None = None,
) -> Ints:
    """Shape (tail_weights, anchors, kept): places in `chosen` of the best companions, -1 where there are no more.

    The first five are chosen together and then ordered by probability; the rest follow by probability and tail bonus.
    `chosen` and `probability`: shape (anchors, candidates), see `features`. `tail_weights`: what a hit in the tail is
    worth beside a hit, one choice for each. `value`: shape of `chosen`, what a hit of each candidate is worth (money);
    all 1 if not given.
    """
    orders = known.held.orders
    worth = np.ones(chosen.shape) if value is None else value
    return _choose(
        anchors,
        chosen,
        probability,
        worth,
        tail,
        orders.starts,
        orders.items,
        known.held.item_starts,
        known.held.item_orders,
        known.neighbours,
        known.closeness,
        np.array(tail_weights, np.float64),
        kept,
        FIRST,
        OWN_ORDERS,
        BORROWED_ORDERS,
        BORROWED_WEIGHT,
        LEAN,
    )


@njit(cache=True, nogil=True)
def _choose(
    anchors,
    chosen,
    probability,
    worth,
    tail,
    starts,
    items,
    item_starts,
    item_orders,
    near,
    closeness,
    tail_weights,
    kept,
    first,
    own_orders,
    borrowed_orders,
    borrowed_weight,
    lean,
):  # type: ignore[no-untyped-def]
    width = chosen.shape[1]
    best = np.full((len(tail_weights), len(anchors), kept), -1, np.int32)
    slot = np.full(len(tail), -1, np.int32)
    room = own_orders + borrowed_orders + near.shape[1]
    order_at, weight = np.empty(room, np.int32), np.empty(room)
    begin, inside = np.empty(room + 1, np.int64), np.empty(room * width, np.int32)
    missed, missed_tail = np.empty(room, np.bool_), np.empty(room, np.bool_)
    total, open_, open_tail = np.empty(width), np.empty(width), np.empty(width)
    gains, used = np.empty(width), np.empty(width, np.bool_)
    for row in range(len(anchors)):
        anchor = anchors[row]
        size = 0
        while size < width and chosen[row, size] >= 0:
            slot[chosen[row, size]] = size
            size += 1
        # The orders to look at, with their weights.
        pool = _spread(item_starts[anchor], item_starts[anchor + 1], own_orders, item_orders, order_at, 0)
        weight[:pool] = (item_starts[anchor + 1] - item_starts[anchor]) / max(pool, 1)
        lent = 0.0
        for place in range(1, near.shape[1]):
            lent += closeness[anchor, place]
        for place in range(1, near.shape[1]):
            other = near[anchor, place]
            if other >= 0 and closeness[anchor, place] > 0.0:
                share = closeness[anchor, place] / lent
                after = _spread(
                    item_starts[other],
                    item_starts[other + 1],
                    int(borrowed_orders * share) + 1,
                    item_orders,
                    order_at,
                    pool,
                )
                weight[pool:after] = borrowed_weight * share / max(after - pool, 1)
                pool = after
        # Which candidates each of them holds.
        total[:size] = 0.0
        begin[0] = 0
        for index in range(pool):
            filled = begin[index]
            for line in range(starts[order_at[index]], starts[order_at[index] + 1]):
                candidate = slot[items[line]]
                if candidate >= 0:
                    inside[filled] = candidate
                    filled += 1
                    total[candidate] += weight[index]
            begin[index + 1] = filled
        for choice in range(len(tail_weights)):
            tail_weight = tail_weights[choice]
            missed[:pool] = True
            missed_tail[:pool] = True
            open_[:size] = total[:size]
            open_tail[:size] = total[:size]
            used[:size] = False
            for turn in range(min(first, size, kept)):
                everything, left, left_tail = total[:size].sum() + 1e-9, open_[:size].sum(), open_tail[:size].sum()
                pick, most = -1, -1.0
                for candidate in range(size):
                    if used[candidate]:
                        continue
                    p = probability[row, candidate] * worth[row, candidate]
                    gain = p * (open_[candidate] + lean * left / everything) / (total[candidate] + lean)
                    if tail[chosen[row, candidate]]:
                        gain += (
                            tail_weight
                            * p
                            * (open_tail[candidate] + lean * left_tail / everything)
                            / (total[candidate] + lean)
                        )
                    if gain > most:
                        pick, most = candidate, gain
                used[pick] = True
                best[choice, row, turn] = pick
                in_tail = tail[chosen[row, pick]]
                for index in range(pool):
                    if not (missed[index] or (in_tail and missed_tail[index])):
                        continue
                    holds = False
                    for place in range(begin[index], begin[index + 1]):
                        if inside[place] == pick:
                            holds = True
                            break
                    if not holds:
                        continue
                    for place in range(begin[index], begin[index + 1]):
                        if missed[index]:
                            open_[inside[place]] -= weight[index]
                        if in_tail and missed_tail[index]:
                            open_tail[inside[place]] -= weight[index]
                    missed[index] = False
                    if in_tail:
                        missed_tail[index] = False
            # The five by probability, then the rest by probability and bonus.
            count = min(first, size, kept)
            for candidate in range(size):
                bonus = 1.0 + tail_weight if tail[chosen[row, candidate]] else 1.0
                gains[candidate] = probability[row, candidate] * worth[row, candidate] * bonus
            five = best[choice, row, :count].copy()
            best[choice, row, :count] = five[np.argsort(-probability[row][five], kind="mergesort")]
            for candidate in np.argsort(-gains[:size], kind="mergesort"):
                if count >= kept:
                    break
                if not used[candidate]:
                    best[choice, row, count] = candidate
                    count += 1
        for index in range(size):
            slot[chosen[row, index]] = -1
    return best


@njit(cache=True)
def _spread(begin, end, most, item_orders, into, at):  # type: ignore[no-untyped-def]
    """Puts at most `most` of the orders from `begin` to `end`, evenly spread, into `into` from `at` on; the new end."""
    have = end - begin
    taken = min(have, most)
    for index in range(taken):
        into[at + index] = item_orders[begin + index * have // taken]
    return at + taken
