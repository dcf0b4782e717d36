"""What rules allow to stand together in a set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Ints
from spark_jobs.kernels.shop import Floats, Held, Mask
from tandem.segments import ALL


def covers_all(rule: Held, region: str, segment: str) -> bool:
    """Whether `rule` holds in every list that this cell's sets may get to."""
    if region == ALL:
        return not rule.rule.regions and not rule.rule.segments
    return rule.covers(region, segment) and (segment != ALL or not rule.rule.segments)


def sane(price: Floats, other: Floats, most: float) -> Mask:
    """Whether neither price is more than `most` times the other; true where one is not known."""
    with np.errstate(invalid="ignore"):
        return ~(np.maximum(price, other) > most * np.minimum(price, other))


def may_meet(left: Ints, right: Ints, held: list[Held]) -> Mask:
    """Whether no rule keeps the products `left` and `right` apart."""
    good = np.ones(np.broadcast(left, right).shape, bool)
    for rule in held:
        if rule.forbids_pairs:
            good &= ~(rule.products[left] & rule.companions[right])
            good &= ~(rule.companions[left] & rule.products[right])
    return good


def complete(items: Ints, held: list[Held]) -> Mask:
    """Which sets (shape (sets, most), numbers of the shop) hold for each product what it is always with."""
    good = np.ones(len(items), bool)
    for rule in held:
        if rule.rule.action == "always_with":
            asked, given = ((items >= 0) & mask[items] for mask in (rule.products, rule.companions))
            good &= ~(asked & (given.sum(1)[:, None] - given == 0)).any(1)
    return good


def lawful(items: Ints, held: list[Held]) -> Mask:
    """Which sets (shape (sets, most), numbers of the shop, -1 fills) no rule of `held` forbids."""
    good = complete(items, held)
    for rule in held:
        if rule.excludes:
            good &= ~((items >= 0) & rule.products[items]).any(1)
    for both, one, other in members(items):
        good[both] &= may_meet(one, other, held)
    return good


def members(items: Ints) -> Iterator[tuple[NDArray[np.int64], Ints, Ints]]:
    """For each two places of a set: the sets that have both, and what they have there."""
    for left, right in combinations(range(items.shape[1]), 2):
        both = np.flatnonzero(items[:, right] >= 0)
        yield both, items[both, left], items[both, right]
