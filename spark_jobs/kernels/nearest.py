"""The nearest neighbours of each item, those of its own category and those of others apart."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Ints

BLOCK = 1024
"""Items compared with all others at once: 4 kB of similarities for each item of the catalogue."""

Neighbours = tuple[Ints, Ints, NDArray[np.float32], NDArray[np.bool_], Ints]
"""item, neighbour, similarity, same category, rank from 1."""


def nearest(vectors: NDArray[np.float32], category: Ints, *, alike: int, others: int) -> Iterator[Neighbours]:
    """Blocks of neighbours by the product of unit `vectors`, shape (items, factors): at most `alike` of an item's own
    category and `others` of other ones, none itself; ties go to the lower item.
    """
    for first in range(0, len(vectors), BLOCK):
        similarity = vectors[first : first + BLOCK] @ vectors.T
        found = _best(similarity, first, category, alike, others)
        for places, values, same in ((found[0], found[1], True), (found[2], found[3], False)):
            row, rank = np.nonzero(places >= 0)
            yield (
                (row + first).astype(np.int32),
                places[row, rank],
                values[row, rank],
                np.full(len(row), same),
                (rank + 1).astype(np.int32),
            )


@njit(cache=True)
def _best(similarity, first, category, alike, others):  # type: ignore[no-untyped-def]
    rows, items = similarity.shape
    own, own_values = np.full((rows, alike), -1, np.int32), np.full((rows, alike), -np.inf, np.float32)
    other, other_values = np.full((rows, others), -1, np.int32), np.full((rows, others), -np.inf, np.float32)
    for row in range(rows):
        anchor = first + row
        wanted = category[anchor]
        least, least_other = own_values[row, -1], other_values[row, -1]
        for item in range(items):
            value = similarity[row, item]
            if category[item] == wanted:
                if value > least and item != anchor:
                    least = _insert(own[row], own_values[row], item, value)
            elif value > least_other:
                least_other = _insert(other[row], other_values[row], item, value)
    return own, own_values, other, other_values


@njit(cache=True)
def _insert(places, values, item, value):  # type: ignore[no-untyped-def]
    """Put `item` in its place, behind equals, and give the least value that is now kept."""
    place = len(values) - 1
    while place > 0 and values[place - 1] < value:
        values[place] = values[place - 1]
        places[place] = places[place - 1]
        place -= 1
    values[place] = value
    places[place] = item
    return values[-1]
