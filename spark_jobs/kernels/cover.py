"""Which offers to list where: a choice that serves every anchor, each with different needs, and covers the catalogue.

What a selection S is worth is f(S) = Σ_anchor Σ_need (Σ value of its offers that serve the need)^(1 - diversity)
+ reach · (products that S brings to a shopper). A power below one rewards the first offer for a need more than the
second (Lin & Bilmes, ACL 2011, "A class of submodular functions for document summarization"), and coverage counts a
product once: f is monotone and submodular. Greedy selection then reaches at least 1 - 1/e of the best value where only
the number of offers is bounded (Nemhauser, Wolsey & Fisher, Mathematical Programming 14, 1978), and one half of it
where each anchor has a bound of its own (Fisher, Nemhauser & Wolsey, Mathematical Programming Study 8, 1978). Gains
only fall, so they are computed anew only for the offer that seems best (Minoux 1978). Refusing near duplicates stands
outside of both bounds.
"""

from __future__ import annotations

import heapq

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Ints, Offsets

Floats = NDArray[np.float64]


def choose(
    anchor: Ints,
    value: Floats,
    companion_starts: Offsets,
    companions: Ints,
    need: Ints,
    *,
    per_anchor: int,
    limit: int | None = None,
    diversity: float = 0.25,
    reach: float = 0.1,
    max_overlap: float = 0.5,
) -> NDArray[np.int64]:
    """Numbers of the chosen offers, in the order of their gain: at most `per_anchor` an anchor, `limit` in all.

    Shapes: `anchor` and `value` (offers,), values in (0, 1]; `companions` (CSR by offer, items sorted within one);
    `need` (items,), what each item is for, from 0. Two offers of one anchor whose companions overlap (Jaccard) by more
    than `max_overlap` are near duplicates: the later is refused. Ties go to the offer with the lower number.
    """
    if not len(anchor):
        return np.empty(0, np.int64)
    served, needs = _numbered(anchor, companion_starts, companions, need)
    return _choose(
        np.unique(anchor, return_inverse=True)[1].astype(np.int64),
        value,
        companion_starts,
        companions,
        served,
        needs,
        int(companions.max(initial=-1)) + 1,
        per_anchor,
        len(anchor) if limit is None else limit,
        1.0 - diversity,
        reach,
        max_overlap,
    )


def _numbered(anchor: Ints, starts: Offsets, companions: Ints, need: Ints) -> tuple[NDArray[np.int64], int]:
    """For each companion of each offer, the number of (anchor, need), and how many of these there are."""
    key = np.repeat(anchor.astype(np.int64), np.diff(starts)) * (int(need.max(initial=0)) + 1) + need[companions]
    known, number = np.unique(key, return_inverse=True)
    return number.astype(np.int64), len(known)


@njit(cache=True)
def _choose(  # type: ignore[no-untyped-def]
    anchor, value, starts, companions, served, needs, items, per_anchor, limit, power, reach, max_overlap
):
    level = np.zeros(needs)
    reached = np.zeros(items, np.bool_)
    anchors = anchor.max() + 1
    taken = np.full((anchors, per_anchor), -1, np.int64)
    held = np.zeros(anchors, np.int64)
    waiting = [
        (-_gain(offer, value, starts, companions, served, level, reached, power, reach), offer)
        for offer in range(len(anchor))
    ]
    heapq.heapify(waiting)
    chosen = np.empty(min(limit, anchors * per_anchor), np.int64)
    count = 0
    while len(waiting) and count < len(chosen):
        expected, offer = heapq.heappop(waiting)
        owner = anchor[offer]
        if held[owner] == per_anchor:
            continue
        near = False
        for place in range(held[owner]):
            if _overlap(offer, taken[owner, place], starts, companions) > max_overlap:
                near = True
        if near:
            continue
        gain = _gain(offer, value, starts, companions, served, level, reached, power, reach)
        if gain < -expected:
            heapq.heappush(waiting, (-gain, offer))
            continue
        taken[owner, held[owner]] = offer
        held[owner] += 1
        chosen[count] = offer
        count += 1
        size = starts[offer + 1] - starts[offer]
        for spot in range(starts[offer], starts[offer + 1]):
            level[served[spot]] += value[offer] / size
            reached[companions[spot]] = True
    return chosen[:count]


@njit(cache=True)
def _gain(offer, value, starts, companions, served, level, reached, power, reach):  # type: ignore[no-untyped-def]
    size = starts[offer + 1] - starts[offer]
    gain = 0.0
    for spot in range(starts[offer], starts[offer + 1]):
        before = level[served[spot]]
        gain += (before + value[offer] / size) ** power - before**power
        if not reached[companions[spot]]:
            gain += reach
    return gain


@njit(cache=True)
def _overlap(left, right, starts, companions):  # type: ignore[no-untyped-def]
    """Jaccard similarity of the companions of two offers."""
    x, y, both = starts[left], starts[right], 0
    while x < starts[left + 1] and y < starts[right + 1]:
        if companions[x] == companions[y]:
            both += 1
            x += 1
            y += 1
        elif companions[x] < companions[y]:
            x += 1
        else:
            y += 1
    return both / (starts[left + 1] - starts[left] + starts[right + 1] - starts[right] - both)
