"""Products whose buyers are alike: item factors by ALS (`implicit`), and each product's nearest neighbours by them.

Hu, Koren & Volinsky, Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008. Neighbours of the same category
repair a bundle; neighbours of other categories confirm a companion where counts are thin.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spark_jobs.kernels import cells
from spark_jobs.kernels.cells import Ints
from spark_jobs.kernels.nearest import nearest
from spark_jobs.kernels.threads import THREADS

FACTORS, ITERATIONS, SEED = 48, 8, 7
MIN_ORDERS = 5
"""Products in fewer orders have no factors worth comparing."""
OTHERS, ALIKE = 20, 10
"""Neighbours kept of other categories, and of the same."""
FOUND = {
    "sku": pa.string(),
    "neighbour": pa.string(),
    "similarity": pa.float64(),
    "same_category": pa.bool_(),
    "rank": pa.int32(),
}


def neighbours(skus: pa.Array, vectors: NDArray[np.float32], category: Ints) -> pa.Table:
    """Rows of the table neighbours but for as_of: of `skus` with their unit vectors and their finest category's number.

    All products are compared with all: time grows with the square of their number, memory by 4 kB a product.
    """
    parts = list(nearest(vectors, category, alike=ALIKE, others=OTHERS))
    if not parts:
        return pa.table({name: pa.array([], kind) for name, kind in FOUND.items()})
    left, right, similarity, same, rank = (np.concatenate(part) for part in zip(*parts, strict=True))
    columns = (skus.take(pa.array(left)), skus.take(pa.array(right)), similarity.astype(np.float64), same, rank)
    return pa.table([pa.array(each, kind) for each, kind in zip(columns, FOUND.values(), strict=True)], list(FOUND))


def of_cell(cell: cells.Cell, kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Unit vectors of a cell's `kept` items, shape (items, FACTORS); zeros for the others."""
    number = np.full(len(kept), -1, np.int32)
    number[kept] = np.arange(int(kept.sum()), dtype=np.int32)
    owner = np.repeat(cell.order_customer, np.diff(cell.order_starts))
    item = number[cell.order_items]
    vectors = np.zeros((len(kept), FACTORS), np.float32)
    if kept.any():
        owners = int(cell.order_customer.max(initial=0)) + 1
        vectors[kept] = factors(owner[item >= 0], item[item >= 0], owners, int(kept.sum()))
    return vectors


def factors(owner: Ints, item: Ints, owners: int, items: int) -> NDArray[np.float32]:
    """Unit vectors of shape (items, FACTORS) from one (customer, item) a line, in any order.

    A customer's interest in an item is 1 + ln(orders of it).
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    bought = csr_matrix((np.ones(len(item), np.float32), (owner, item)), shape=(owners, items))
    bought.sum_duplicates()
    bought.data = 1 + np.log(bought.data)
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=FACTORS, iterations=ITERATIONS, regularization=0.05, random_state=SEED, num_threads=THREADS
        )
        model.fit(bought, show_progress=False)
    vectors = np.asarray(model.item_factors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
