"""Neighbours are the most similar ones, own category and others apart."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs.kernels.nearest import nearest


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 30), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_neighbours_equal_a_full_sort(items: int, categories: int, seed: int):
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(items, 3)).astype(np.float32)
    category = chance.integers(0, categories, items).astype(np.int32)
    found = {}
    for item, neighbour, similarity, same, rank in nearest(vectors, category, alike=2, others=3):
        for row in zip(item, neighbour, similarity, same, rank, strict=True):
            found[int(row[0]), bool(row[3]), int(row[4])] = int(row[1])
    similarity = vectors @ vectors.T
    wanted = {}
    for item in range(items):
        order = [other for other in np.lexsort((np.arange(items), -similarity[item])) if other != item]
        for same, keep in ((True, 2), (False, 3)):
            kept = [other for other in order if (category[other] == category[item]) == same][:keep]
            wanted |= {(item, same, rank): int(other) for rank, other in enumerate(kept, 1)}
    assert found == wanted
